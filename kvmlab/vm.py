"""A virtual machine: a guest under a hypervisor, ours on the soft engine or the host's on /dev/kvm."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from . import engine as _engine
from . import paging
from .engine import Handle
from .errors import BadArgument, NoSuchSlot, NotVisible
from .exits import Exit
from .inside import Shadow
from .live import Msrs
from .machine import Computer, check_cpu
from .memory import Memory, parse_size
from .state import DebugRegs, Events, Regs, SRegs, number

__all__ = ["VCPU", "VM", "DirtyLog", "HostMachine"]

PAGE = 4096
NEEDS = ("inspect", "back", "exact")
_NEEDS_WORDS = {"inspect": "looking inside", "back": "going back in time", "exact": "exact instruction counts"}
MMUS = ("shadow", "vtlb", "tdp")
REAL_MODES = ("auto", "user", "vm86", "emulate")
ENGINES = ("auto", "soft", "kvm")
DEFAULT_CPU, DEFAULT_MMU, DEFAULT_REAL_MODE = "intel-2006", "shadow", "auto"


class DirtyLog(frozenset[int]):
    """Numbers of the pages of a slot that were written since the log was read before.

    Attributes
    ----------
    bitmap : bytes
        A bit per page, lowest first, as the interface of 2006 gives it.
    """

    bitmap: bytes

    @classmethod
    def of(cls, bitmap: bytes, pages: int) -> DirtyLog:
        log = cls(n for n in range(pages) if bitmap[n >> 3] >> (n & 7) & 1)
        log.bitmap = bitmap
        return log

    def explain(self) -> str:
        """One sentence."""
        if not self:
            return "No page was written since the log was read before."
        shown = " ".join(f"{page:#x}" for page in sorted(self)[:16])
        more = f" and {len(self) - 16} more" if len(self) > 16 else ""
        return f"Written since the log was read before: {len(self)} pages, {shown}{more}."

    def __repr__(self) -> str:
        return f"<dirty log: {self.explain()}>"


class VM(Computer):
    """A virtual machine with one processor.

    Parameters
    ----------
    memory : str, int or None
        Size of slot 0 at guest-physical 0: ``"4M"``, ``"64K"`` or bytes. None: no slot yet
        (:meth:`set_memory_region`).
    engine : str
        ``auto`` (the variable KVMLAB_ENGINE overrides it), ``soft`` or ``kvm``. What was taken and why is in
        :attr:`engine` and :attr:`engine_reason`.
    cpu : str, optional
        ``intel-2006`` where not given, ``amd-2006``, ``intel``, ``amd``. The kvm engine has the host's.
    mmu : str, optional
        ``shadow`` where not given, ``vtlb``, ``tdp``: how the hypervisor maps the guest's memory.
    real_mode : str, optional
        ``auto`` where not given, ``user``, ``vm86``, ``emulate``: how the hypervisor runs real mode on a processor that
        cannot.
    need : sequence of str
        ``inspect``, ``back``, ``exact``: what the guest will be asked for; makes ``auto`` choose soft.

    Raises
    ------
    BadArgument
        An unknown name, or a size that is none.
    EngineUnavailable
        The engine cannot run here, with the reason.
    """

    _kind = "vm"

    def __init__(
        self,
        memory: str | int | None = "4M",
        engine: str = "auto",
        cpu: str | None = None,
        mmu: str | None = None,
        real_mode: str | None = None,
        need: str | Sequence[str] = (),
    ) -> None:
        needs = _check_needs(need)
        _one_of("mmu", mmu, MMUS)
        _one_of("real_mode", real_mode, REAL_MODES)
        if cpu is not None:
            check_cpu(cpu)
        size = None if memory is None else parse_size(memory)
        chosen, reason = choose_engine(engine, needs, cpu, mmu, real_mode)
        self._mmu = mmu or DEFAULT_MMU
        self._real_mode = real_mode or DEFAULT_REAL_MODE
        self._auto = engine == "auto"
        self._has_vcpu = False
        name = cpu or DEFAULT_CPU
        handle = Handle(chosen, "vm", name, mmu=self._mmu, real_mode=self._real_mode)
        super().__init__(handle, name if chosen == "soft" else "host", chosen, reason)
        if size is not None:
            try:
                self.set_memory_region(0, 0, size)
            except Exception:
                self.close()
                raise

    # ---- auto: from /dev/kvm to where one can look, while nothing has run

    def bench(self) -> Any:
        """The bench: everything about this machine, live, in a notebook.

        An ``auto`` VM that has not run yet changes to the soft engine, which can be looked into, and says so.
        """
        self._change_to_soft("the bench looks inside")
        return super().bench()

    def _soft(self, what: str) -> None:
        self._change_to_soft(f"{what} cannot be seen on /dev/kvm")
        super()._soft(what)

    def _change_to_soft(self, why: str) -> None:
        if self._engine == "soft" or not self._auto or self._remembers or self._running:
            return
        other = self.on("soft")
        self._handle, other._handle = other._handle, self._handle
        self._engine, self._cpu, self._where, self._mask = other._engine, other._cpu, other._where, other._mask
        self._reason = f"auto took /dev/kvm first and changed to soft before anything ran: {why}"
        other.close()

    # ---- what it is

    @property
    def mmu(self) -> str:
        """``shadow``, ``vtlb`` or ``tdp``; on the kvm engine what the kernel took, which it does not tell."""
        return self._mmu if self._engine == "soft" else "host"

    @property
    def real_mode(self) -> str:
        """How real mode runs: ``auto``, ``user``, ``vm86`` or ``emulate``."""
        return self._real_mode

    @property
    def vcpu(self) -> VCPU:
        """The one virtual processor: the same registers, runs and steps by its own name."""
        return VCPU(self)

    @property
    def machine(self) -> HostMachine:
        """The computer this virtual machine runs on."""
        self._soft("the computer below it")
        return HostMachine(self)

    # ---- inside the hypervisor

    @property
    def shadow(self) -> Shadow:
        """The shadow page tables (soft engine, ``mmu="shadow"``)."""
        self._soft("the shadow page tables")
        return Shadow(self)

    # ---- memory slots

    def set_memory_region(self, slot: int, guest_phys_addr: int, size: int | str, log_dirty: bool = False) -> None:
        """Makes guest-physical memory (KVM_SET_MEMORY_REGION); size 0 removes the slot.

        Parameters
        ----------
        slot : int
            0 to 3.
        guest_phys_addr : int
            A multiple of 4096.
        size : int or str
            Bytes, a multiple of 4096; or ``"4M"``.
        log_dirty : bool
            Keep a log of the pages that are written (:meth:`dirty_log`).

        Raises
        ------
        BadArgument
            A wrong size or address, or a slot that does not exist.
        SlotOverlap
            The addresses belong to another slot.
        """
        slot = number(slot, "slot", 32)
        gpa = number(guest_phys_addr, "guest_phys_addr")
        length = 0 if size == 0 else parse_size(size, "size")
        self._acquire()
        try:
            if self._running:
                raise self._inside()
            self._check_slot(slot, gpa, length)
            self._handle.set_memory_region(slot, gpa, length, _engine.LOG_DIRTY_PAGES if log_dirty else 0)
            if length:
                self._slots[slot] = (gpa, length)
            else:
                self._slots.pop(slot, None)
            if slot == 0 and length and not self._has_vcpu:
                self._handle.create_vcpu(0)
                self._has_vcpu = True
        finally:
            self._release()
        self._edited("memory")

    def _check_slot(self, slot: int, gpa: int, length: int) -> None:
        if gpa % PAGE:
            raise BadArgument(
                f"guest_phys_addr={gpa:#x} is not the beginning of a page.", "Give a multiple of 4096 (0x1000)."
            )
        if slot == 0 and 0 < length < 3 * PAGE and self.vendor == "intel" and self._engine == "soft":
            raise BadArgument(
                f"Slot 0 has {length} bytes: the hypervisor keeps its last three pages for virtual-8086 mode.",
                'Give more than 12K, such as "64K".',
            )

    def dirty_log(self, slot: int = 0) -> DirtyLog:
        """The pages of a slot that were written since the log was read before; reading clears it.

        Raises
        ------
        NoSuchSlot
            There is no such slot.
        Error
            The slot was made without ``log_dirty=True``.
        """
        slot = number(slot, "slot", 32)
        if slot not in self._slots:
            raise NoSuchSlot(f"There is no slot {slot}.", f"There is {self.memory._there()}.")
        pages = self._slots[slot][1] // PAGE
        handle = self._acquire()
        try:
            bitmap = handle.dirty_log(slot, (pages + 63) // 64 * 8)
        finally:
            self._release()
        return DirtyLog.of(bitmap, pages)

    # ---- the other engine

    def on(self, engine: str) -> VM:
        """A new VM on the other engine with the same memory, state, image and functions.

        Parameters
        ----------
        engine : str
            ``soft`` or ``kvm``.
        """
        _one_of("engine", engine, ENGINES[1:])
        self._acquire()
        try:
            cpu = None if self._cpu == "host" else self._cpu
            other = VM(memory=None, engine=engine, cpu=cpu if engine == "soft" else None, mmu=self._mmu,
                       real_mode=self._real_mode)  # fmt: skip
            other._reason = f"continued from the {self._engine} engine with vm.on({engine!r})"
            for slot, gpa, size in sorted(self._extents()):
                other.set_memory_region(slot, gpa, size)
                other._handle.write(_engine.GUEST_PHYSICAL, gpa, self._handle.read(_engine.GUEST_PHYSICAL, gpa, size))
            other._handle.set_sregs(self._handle.get_sregs())
            other._handle.set_events(self._handle.get_events())
            other._handle.set_regs(self._handle.get_regs())
            for name, value in self.msrs.to_dict().items():
                if name not in ("tsc", "efer", "apic_base", "fs_base", "gs_base", "feature_control"):
                    other._copy_msr(name, value)
        finally:
            self._release()
        other.image = self.image
        other.console = self.console
        other._ports, other._devices = dict(self._ports), list(self._devices)
        if self._breakpoints or self._single_step:
            other.debug(self._breakpoints, self._single_step)
        return other

    def _copy_msr(self, name: str, value: int) -> None:
        try:
            if self.msrs[name] != value:
                self.msrs[name] = value
        except BadArgument:
            pass  # the other processor has no such register


class VCPU:
    """``vm.vcpu``: the virtual processor by its own name. It has what the VM has of a processor."""

    def __init__(self, vm: VM) -> None:
        self._vm = vm

    number = 0

    @property
    def regs(self) -> Regs:
        return self._vm.regs

    @regs.setter
    def regs(self, regs: Regs) -> None:
        self._vm.regs = regs

    @property
    def sregs(self) -> SRegs:
        return self._vm.sregs

    @sregs.setter
    def sregs(self, sregs: SRegs) -> None:
        self._vm.sregs = sregs

    @property
    def msrs(self) -> Msrs:
        return self._vm.msrs

    @property
    def debug_regs(self) -> DebugRegs:
        return self._vm.debug_regs

    @debug_regs.setter
    def debug_regs(self, regs: DebugRegs) -> None:
        self._vm.debug_regs = regs

    @property
    def events(self) -> Events:
        return self._vm.events

    @events.setter
    def events(self, events: Events) -> None:
        self._vm.events = events

    def set(self, **registers: Any) -> None:
        self._vm.set(**registers)

    def run(self, max_instructions: int | None = None, progress: bool | None = None) -> Exit:
        return self._vm.run(max_instructions, progress)

    def step(self, n: int = 1) -> Exit:
        return self._vm.step(n)

    def translate(self, gva: int) -> paging.Translation:
        return self._vm.translate(gva)

    def interrupt(self, vector: int) -> None:
        self._vm.interrupt(vector)

    def debug(self, breakpoints: Iterable[int] = (), single_step: bool = False) -> None:
        self._vm.debug(breakpoints, single_step)

    def __repr__(self) -> str:
        return f"<VCPU 0 of {self._vm!r}>"


class HostMachine:
    """``vm.machine``: the computer that a virtual machine on the soft engine runs on."""

    def __init__(self, vm: VM) -> None:
        self._vm = vm
        self.memory = Memory(vm, _engine.HOST_PHYSICAL)
        """Host-physical memory: the guest's pages and the hypervisor's own."""

    @property
    def cpu(self) -> str:
        return self._vm.cpu

    def __repr__(self) -> str:
        return f"<the computer under {self._vm!r}>"


# ---- which engine ---------------------------------------------------------------------------------------------------


def _one_of(name: str, value: object, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        raise BadArgument(f"{name}={value!r} is not known.", f"There are {', '.join(repr(word) for word in known)}.")


def _check_needs(need: str | Sequence[str]) -> tuple[str, ...]:
    needs = (need,) if isinstance(need, str) else tuple(need)
    for word in needs:
        if word not in NEEDS:
            raise BadArgument(f"need={word!r} is not known.", f"There are {', '.join(repr(w) for w in NEEDS)}.")
    return needs


def choose_engine(
    engine: str, needs: Sequence[str], cpu: str | None, mmu: str | None, real_mode: str | None
) -> tuple[str, str]:
    """Which engine a VM takes, and why: one line."""
    _one_of("engine", engine, ENGINES)
    if engine == "kvm" and needs:
        words = " and ".join(_NEEDS_WORDS[word] for word in needs)
        raise NotVisible(f"/dev/kvm does not offer {words}.", 'Use engine="soft", or "auto".')
    if engine != "auto":
        return engine, f'asked for: engine="{engine}"'
    wanted = os.environ.get("KVMLAB_ENGINE", "auto")
    if wanted not in ENGINES:
        raise BadArgument(f"The variable KVMLAB_ENGINE is {wanted!r}.", "Set it to auto, soft or kvm.")
    if needs:
        return "soft", f"{' and '.join(_NEEDS_WORDS[word] for word in needs)} is needed, which only the soft engine has"
    if wanted != "auto":
        return wanted, f"the variable KVMLAB_ENGINE says {wanted}"
    for name, value in (("cpu", cpu), ("mmu", mmu), ("real_mode", real_mode)):
        if value is not None:
            return "soft", f"{name}={value!r} was asked for, and this host's KVM has its own"
    return host_choice()


_host: list[tuple[str, str]] = []


def host_choice() -> tuple[str, str]:
    """The engine for a guest that asks for nothing; found once per process."""
    if not _host:
        from .doctor import host_engine

        _host.append(host_engine())
    return _host[0]
