"""A machine as a thing that lives: the handle below it, one caller at a time, and its state from outside."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from . import engine as _engine
from . import paging, tables
from .console import Console
from .engine import Handle
from .errors import BadArgument, Busy, NotVisible
from .exits import Exit, Where
from .guest import Image
from .memory import Memory
from .state import SEGMENTS, DebugRegs, Events, Regs, SRegs, number, unknown
from .trace import Position
from .vmcs import Vmcb, Vmcs

__all__ = ["Live", "Msrs"]

PortRead = Callable[[int, int], int]
PortWrite = Callable[[int, int, int], None]

FIRST_SLICE = 100_000


class _Closed:
    """Stands where the handle was: whatever is asked, the machine is gone."""

    open = False

    def __getattr__(self, name: str) -> Any:
        raise BadArgument("This machine is closed.", "Make another one: kvmlab.VM(…) or kvmlab.Machine(…).")

    def kick(self) -> None:
        """Nothing runs any more."""

    def close(self) -> None:
        """Closed already."""


class Live:
    """A handle, its lock, and the state behind it."""

    _kind = "vm"

    def __init__(self, handle: Handle, cpu: str, engine: str, reason: str) -> None:
        self._handle: Handle = handle
        self._lock = threading.RLock()
        self._running = False
        self._fresh = False  # the handle still has the registers of the latest step
        self._stop_asked = False
        self._serving = False
        self._last: Exit | None = None
        self._waits = False
        self._answered = False
        self._me = weakref.ref(self)
        self._slice = FIRST_SLICE
        self._observers: list[Callable[[], Any]] = []
        self._ports: dict[int, tuple[PortRead | None, PortWrite | None]] = {}
        self._devices: list[tuple[range, PortRead | None, PortWrite | None]] = []
        self._breakpoints: tuple[int, ...] = ()
        self._single_step = False
        self._slots: dict[int, tuple[int, int]] = {}
        self._counted = (0, 0)
        self._remembers = False
        self._origin = Position(0)
        self._served_ends = False
        self._cpu = cpu
        self._engine = engine
        self._reason = reason
        self._where = Where(self._kind, engine, tables.vendor(cpu))
        self.image: Image | None = None
        """The image loaded last."""
        self.console = Console()
        """What the guest writes to port 0x3f8 or 0xe9, once :meth:`attach_console` was called."""
        self.memory = Memory(self)
        """Guest-physical memory."""

    # ---- life

    @property
    def cpu(self) -> str:
        """The processor, by name."""
        return self._cpu

    @property
    def engine(self) -> str:
        """``soft`` or ``kvm``."""
        return self._engine

    @property
    def engine_reason(self) -> str:
        """Why this engine: one line."""
        return self._reason

    @property
    def vendor(self) -> str:
        """``intel`` or ``amd``: whose virtualization extensions the processor has."""
        return self._where.vendor

    def close(self) -> None:
        """Gives memory and processor back. A view of the memory stays usable."""
        if self._running:
            raise self._busy()
        self._fresh = False
        handle, self._handle = self._handle, _Closed()  # type: ignore[assignment]
        handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise BadArgument(
            f"A {type(self).__name__} is alive and does not pickle or copy.",
            "What it shows does: vm.regs, vm.sregs, a stop, a walk, an event, vm.memory[a:b].",
        )

    def reset(self) -> None:
        """Power-on state of the processor; memory stays as it is, and time goes on."""
        self._acquire()
        try:
            self._power_on()
            self._forget_stop()
        finally:
            self._release()
        self._notify()

    def _power_on(self) -> None:
        self._handle.reset()

    # ---- one caller at a time

    def _acquire(self) -> Handle:
        """The handle, for this thread alone until :meth:`_release`."""
        if not self._lock.acquire(False):
            self._wait_for_lock()
        self._fresh = False
        return self._handle

    def _release(self) -> None:
        self._lock.release()

    def _wait_for_lock(self) -> None:
        while True:
            if self._running:
                raise self._busy()
            if self._lock.acquire(timeout=0.02):
                return

    def _busy(self) -> Busy:
        return Busy(
            f"This {type(self).__name__} is running in another thread.",
            "Wait for it, or stop it with vm.stop() (the bench has a button).",
        )

    def observe(self, callback: Callable[[], Any]) -> Callable[[], None]:
        """Calls ``callback()`` after every stop, edit, reset and load; the result ends that."""
        self._observers.append(callback)

        def forget() -> None:
            if callback in self._observers:
                self._observers.remove(callback)

        return forget

    def _notify(self) -> None:
        for callback in tuple(self._observers):
            callback()

    def _extents(self) -> tuple[tuple[int, int, int], ...]:
        """(slot, guest-physical address, bytes) of all memory."""
        return tuple((slot, gpa, size) for slot, (gpa, size) in self._slots.items())

    def _forget_stop(self) -> None:
        self._last = None
        self._waits = False

    def _edited(self, what: str) -> None:
        """State was changed from outside."""
        if what == "registers" and self._waits and not self._serving:
            self._waits = False
            warnings.warn(
                f"The guest waits for the answer of {self._last!r}; editing registers drops that access, and the "
                "instruction runs again. To answer it: stop.reply(value).",
                stacklevel=4,
            )
        if not self._serving and self._observers:
            self._notify()

    # ---- state

    @property
    def regs(self) -> Regs:
        """General registers, RIP and RFLAGS now. Assign ``vm.regs.replace(rax=1)`` to change them."""
        lock = self._lock
        if not lock.acquire(False):
            self._wait_for_lock()
        try:
            handle = self._handle
            return Regs._from(handle.regs_after_step() if self._fresh else handle.get_regs())
        finally:
            lock.release()

    @regs.setter
    def regs(self, regs: Regs) -> None:
        if not isinstance(regs, Regs):
            raise BadArgument(
                f"vm.regs takes Regs; {type(regs).__name__} was given.",
                "vm.regs = vm.regs.replace(rax=1), or in short vm.set(rax=1).",
            )
        self._acquire()
        try:
            self._handle.set_regs(regs.raw)
        finally:
            self._release()
        self._edited("registers")

    @property
    def sregs(self) -> SRegs:
        """Segments, descriptor tables and control registers now."""
        self._acquire()
        try:
            return SRegs._from(self._handle.get_sregs())
        finally:
            self._release()

    @sregs.setter
    def sregs(self, sregs: SRegs) -> None:
        if not isinstance(sregs, SRegs):
            raise BadArgument(
                f"vm.sregs takes SRegs; {type(sregs).__name__} was given.",
                "vm.sregs = vm.sregs.replace(cr3=0x1000), or in short vm.set(cr3=0x1000).",
            )
        self._acquire()
        try:
            self._handle.set_sregs(sregs.raw)
        finally:
            self._release()
        self._edited("registers")

    def _events_words(self) -> dict[str, int]:
        return _engine.EVENTS.unpack(self._handle.get_events())

    def _change_events(self, changes: dict[str, int]) -> None:
        self._acquire()
        try:
            words = self._events_words()
            words.update(changes)
            self._handle.set_events(_engine.EVENTS.pack(words.values()))
        finally:
            self._release()
        self._edited("events")

    @property
    def debug_regs(self) -> DebugRegs:
        """DR0 to DR3, DR6, DR7 of the guest."""
        self._acquire()
        try:
            words = self._events_words()
        finally:
            self._release()
        return DebugRegs(*(words[f"dr.{n}"] for n in (0, 1, 2, 3, 6, 7)))

    @debug_regs.setter
    def debug_regs(self, regs: DebugRegs) -> None:
        if not isinstance(regs, DebugRegs):
            raise BadArgument(
                f"vm.debug_regs takes DebugRegs; {type(regs).__name__} was given.",
                "vm.debug_regs = vm.debug_regs.replace(dr0=0x1000, dr7=1).",
            )
        self._change_events({f"dr.{n}": number(getattr(regs, f"dr{n}"), f"dr{n}") for n in (0, 1, 2, 3, 6, 7)})

    @property
    def events(self) -> Events:
        """Pending interrupts, what holds them off, and the rest of the architectural state."""
        self._acquire()
        try:
            words = self._events_words()
        finally:
            self._release()
        waiting = {n * 64 + bit for n in range(4) for bit in range(64) if words[f"interrupt_bitmap.{n}"] >> bit & 1}
        if words["interrupt_pending"] and not waiting:
            waiting = {words["interrupt_vector"]}
        return Events(
            words["activity"],
            words["interruptibility"],
            bool(words["nmi_pending"]),
            tuple(sorted(waiting)),
            words["pending_db"],
            words["tsc"],
            words["xcr0"],
            tuple(words[f"pdpte.{n}"] for n in range(4)),
        )

    @events.setter
    def events(self, events: Events) -> None:
        if not isinstance(events, Events):
            raise BadArgument(
                f"vm.events takes Events; {type(events).__name__} was given.",
                "vm.events = vm.events.replace(activity=0).",
            )
        bitmap = sum(1 << number(vector, "vector", 8) for vector in events.interrupts)
        changes = {"activity": number(events.activity, "activity", 2),
                   "interruptibility": number(events.interruptibility, "interruptibility", 4),
                   "nmi_pending": int(events.nmi_pending), "interrupt_pending": int(bool(bitmap)),
                   "interrupt_vector": min(events.interrupts, default=0),
                   "pending_db": number(events.pending_db, "pending_db", 32),
                   "tsc": number(events.tsc, "tsc"), "xcr0": number(events.xcr0, "xcr0")}  # fmt: skip
        changes |= {f"interrupt_bitmap.{n}": bitmap >> 64 * n & (1 << 64) - 1 for n in range(4)}
        changes |= {f"pdpte.{n}": number(value, "pdpte") for n, value in enumerate(events.pdpte)}
        self._change_events(changes)

    @property
    def msrs(self) -> Msrs:
        """Model-specific registers, by number or name: ``vm.msrs[0xc0000080]``, ``vm.msrs["efer"]``."""
        return Msrs(self)

    @property
    def fpu(self) -> Any:
        """x87 and SSE state."""
        raise NotVisible(
            "This processor has no x87 and no SSE unit yet, and its CPUID says so.",
            "Floating-point instructions raise what a processor without the unit raises.",
        )

    def set(self, **registers: Any) -> None:
        """Changes registers by name: ``vm.set(rax=1, cr3=0x1000, zf=…)``.

        Parameters
        ----------
        **registers
            Names of :class:`Regs` (and their parts: ``eax``, ``al``), of :class:`SRegs`, ``dr0`` to ``dr7``.

        Raises
        ------
        BadArgument
            An unknown name, or a value wider than the register. Nothing is changed then.
        """
        plain, special, debug = {}, {}, {}
        for name, value in registers.items():
            if name in SEGMENTS or name in (
                "ldt",
                "gdt",
                "idt",
                "cr0",
                "cr2",
                "cr3",
                "cr4",
                "cr8",
                "efer",
                "apic_base",
            ):
                special[name] = value
            elif name in ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7"):
                debug[name] = number(value, name)
            elif name in Regs.NAMES or hasattr(Regs(), name):
                plain[name] = value
            else:
                raise unknown(
                    "The processor", name, [*Regs.NAMES, *SEGMENTS, "cr0", "cr2", "cr3", "cr4", "cr8", "efer", "dr7"]
                )
        self._acquire()
        try:
            regs = self.regs.replace(**plain) if plain else None
            sregs = self.sregs.replace(**special) if special else None
            if sregs is not None:
                self._handle.set_sregs(sregs.raw)
            if regs is not None:
                self._handle.set_regs(regs.raw)
            if debug:
                words = self._events_words()
                words.update({f"dr.{name[2]}": value for name, value in debug.items()})
                self._handle.set_events(_engine.EVENTS.pack(words.values()))
        finally:
            self._release()
        if registers:
            self._edited("registers")

    def cpuid(self, leaf: int, subleaf: int = 0) -> dict[str, int]:
        """What the guest sees in CPUID: ``rax``, ``rbx``, ``rcx``, ``rdx``, 32 bits each."""
        self._acquire()
        try:
            values = self._handle.cpuid(number(leaf, "leaf", 32), number(subleaf, "subleaf", 32))
        finally:
            self._release()
        return dict(zip(("rax", "rbx", "rcx", "rdx"), values, strict=True))

    def translate(self, gva: int) -> paging.Translation:
        """What the guest's page tables make of an address. Sets no accessed or dirty bit."""
        self._acquire()
        try:
            gpa, valid, writeable, usermode = self._handle.translate(number(gva, "gva"))
        finally:
            self._release()
        return paging.Translation(gpa if valid else None, valid, writeable, usermode)

    def walk(self, gva: int, access: str = "r", user: bool = False) -> paging.Walk:
        """Walks the guest's page tables as the processor would, and shows every entry. Changes nothing.

        Parameters
        ----------
        gva : int
            Guest-virtual (linear) address.
        access : str
            ``r`` read, ``w`` write, ``x`` fetch.
        user : bool
            As at CPL 3.

        Raises
        ------
        NotVisible
            On the kvm engine.
        """
        self._acquire()
        try:
            raw = self._handle.walk(0, number(gva, "gva"), _access(access), bool(user))
            return paging.make_walk(raw, access, bool(user), self.sregs.paging)
        finally:
            self._release()

    @property
    def vmcs(self) -> Vmcs:
        """The VMCS that is current in the processor (Intel): ``vm.vmcs["guest_rip"]``, ``vm.vmcs.check()``.

        Raises
        ------
        NotVisible
            On the kvm engine, on a processor of AMD, and on a bare machine before a VMCS is current.
        """
        return Vmcs(self._control_block("intel"))

    @property
    def vmcb(self) -> Vmcb:
        """The VMCB of the guest, as it is now (AMD): ``vm.vmcb["rip"]``, ``vm.vmcb.check()``.

        Raises
        ------
        NotVisible
            On the kvm engine, on a processor of Intel, and on a bare machine before the first VMRUN.
        """
        return Vmcb(self._control_block("amd"))

    def _control_block(self, vendor: str) -> _engine.ControlBlock:
        if vendor != self.vendor:
            has, not_has = ("VMCB", "VMCS") if vendor == "intel" else ("VMCS", "VMCB")
            raise NotVisible(f"{self.cpu} has no {not_has}.", f"It has a {has}: .{has.lower()} shows it.")
        self._acquire()
        try:
            return self._handle.control_block()
        finally:
            self._release()

    def interrupt(self, vector: int) -> None:
        """Queues an external interrupt; the processor takes it when it can.

        Parameters
        ----------
        vector : int
            0 to 255.
        """
        self._acquire()
        try:
            self._handle.interrupt(number(vector, "vector", 8))
        finally:
            self._release()
        self._edited("events")

    def nmi(self) -> None:
        """Queues a non-maskable interrupt."""
        self._acquire()
        try:
            self._handle.nmi()
        finally:
            self._release()
        self._edited("events")

    def debug(self, breakpoints: Iterable[int] = (), single_step: bool = False) -> None:
        """Stops before the instructions at these linear addresses, or after every instruction.

        Parameters
        ----------
        breakpoints : iterable of int
            Four at the most; they replace those that stood. None: no more stops.
        single_step : bool
        """
        wanted = tuple(number(address, "breakpoint") for address in breakpoints)
        if len(wanted) > 4:
            raise BadArgument(
                f"{len(wanted)} breakpoints were given; the processor has four (DR0 to DR3).", "Give four at the most."
            )
        self._acquire()
        try:
            self._handle.debug(wanted, bool(single_step))
            self._breakpoints, self._single_step = wanted, bool(single_step)
        finally:
            self._release()
        self._edited("breakpoints")

    @property
    def breakpoints(self) -> tuple[int, ...]:
        """Linear addresses of the breakpoints that stand."""
        return self._breakpoints


def _access(access: str) -> int:
    try:
        return {"r": 0, "w": 1, "x": 2}[access]
    except (KeyError, TypeError):
        raise BadArgument(f"access={access!r} is no access.", 'Give "r" (read), "w" (write) or "x" (fetch).') from None


class Msrs:
    """Model-specific registers by number or name. ``vm.msrs["efer"]``; iterating gives those that have a name."""

    def __init__(self, machine: Live) -> None:
        self._machine = machine

    def __getitem__(self, index: int | str) -> int:
        number_ = tables.msr_index(index) if isinstance(index, str) else number(index, "MSR", 32)
        handle = self._machine._acquire()
        try:
            return int(handle.get_msr(number_))
        except BadArgument as error:
            raise BadArgument(f"MSR {number_:#x}: {error.message}") from None
        finally:
            self._machine._release()

    def __setitem__(self, index: int | str, value: int) -> None:
        number_ = tables.msr_index(index) if isinstance(index, str) else number(index, "MSR", 32)
        word = number(value, f"MSR {number_:#x}")
        handle = self._machine._acquire()
        try:
            handle.set_msr(number_, word)
        except BadArgument as error:
            raise BadArgument(f"MSR {number_:#x} = {word:#x}: {error.message}") from None
        finally:
            self._machine._release()
        self._machine._edited("registers")

    def to_dict(self) -> dict[str, int]:
        """Name to value, those that this processor has."""
        out = {}
        for row in tables.msrs():
            try:
                out[row.name.lower()] = self[row.number]
            except BadArgument:
                continue
        return out

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __repr__(self) -> str:
        return "\n".join(f"{name:<16} {value:016x}" for name, value in self.to_dict().items())
