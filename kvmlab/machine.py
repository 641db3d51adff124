"""A computer that runs guests: what a virtual machine and a bare machine have in common, and the bare machine.

:class:`Computer` is made of three parts: state (:mod:`kvmlab.live`), running (:mod:`kvmlab.running`) and time
(:mod:`kvmlab.travel`). :class:`Machine` is bare metal: no hypervisor of ours is under it. ``VM`` (:mod:`kvmlab.vm`)
adds memory slots and what a hypervisor offers.
"""

from __future__ import annotations

from typing import Any

from . import engine as _engine
from . import html, tables
from .engine import Handle
from .entry import entry_state
from .errors import BadArgument, NotVisible
from .guest import Image
from .memory import parse_size
from .state import POWER_ON, Regs, SRegs
from .travel import Travelling

__all__ = ["Computer", "Machine"]


class Computer(Travelling):
    """What virtual and bare machines have in common."""

    # ---- what goes in

    def load(self, image: Image, setup: bool = True) -> None:
        """Copies an image into memory and sets the entry state (``setup=False`` only copies).

        16 bits: segments 0, RIP at the entry, SP 0x7c00 (0xfff0 where the image covers that stack). 32: flat, paging
        off. 64: the first 4 GiB mapped to themselves. 32 and 64: a GDT with code, data, the ring-3 pair and a TSS; the
        tables are directly below the last three pages of slot 0, and the stack is below the tables.

        Raises
        ------
        BadArgument
            The image does not fit into memory, or covers what the entry state needs.
        """
        if not isinstance(image, Image):
            raise BadArgument(
                f"load takes an image; {type(image).__name__} was given.",
                "kvmlab.assemble(text) or kvmlab.Image(data, org=0x1000) make one.",
            )
        self._acquire()
        try:
            if self._running:
                raise self._inside()
            self._check_image(image)
            if setup:
                gpa, size = self._slots[0]
                self._power_on()
                entry = entry_state(image, SRegs._from(self._handle.get_sregs()), gpa, size)
                for at, data in entry.pages:
                    self._handle.write(_engine.GUEST_PHYSICAL, at, data)
            for at, length in image.segments:
                self._handle.write(_engine.GUEST_PHYSICAL, at, image.data[at - image.org : at - image.org + length])
            if setup:
                self._handle.set_sregs(entry.sregs.raw)
                self._handle.set_regs(entry.regs.raw)
            self.image = image
            self._forget_stop()
        finally:
            self._release()
        self._notify()

    def _power_on(self) -> None:
        """Power-on state, also on an engine that has none of its own."""
        try:
            self._handle.reset()
        except NotVisible:
            self._handle.set_sregs(POWER_ON.raw)
            self._handle.set_regs(Regs(rip=0xFFF0, rdx=0x600, rflags=2).raw)
            words = dict.fromkeys(_engine.EVENTS.names, 0) | {"dr.6": 0xFFFF0FF0, "dr.7": 0x400, "xcr0": 1}
            self._handle.set_events(_engine.EVENTS.pack(words.values()))

    def _check_image(self, image: Image) -> None:
        if 0 not in self._slots:
            raise BadArgument(
                "There is no memory in slot 0 to load into.", 'vm.set_memory_region(0, 0, size), or VM(memory="4M").'
            )
        for at, length in image.segments:
            end = self.memory._covered(at, length) if length else at
            if end < at + length:
                raise BadArgument(
                    f"The image {image.name!r} covers {at:#x} to {at + length:#x}, and no memory is at {end:#x}: "
                    f"there is {self.memory._there()}.",
                    "Give more memory (VM(memory=…)), or a lower org.",
                )

    # ---- showing

    @property
    def plot(self) -> Any:
        """Figures for reports: ``vm.plot.exits()``."""
        from .plot import Plot

        return Plot(self)

    @property
    def view(self) -> Any:
        """Single panels of the bench: ``vm.view.registers()``."""
        from .widgets import Views

        return Views(self)

    def bench(self) -> Any:
        """The bench: everything about this machine, live, in a notebook."""
        from .widgets import bench

        return bench(self)

    def explain(self) -> str:
        """Where it stands, in one sentence."""
        if not self._handle.open:
            return "This machine is closed."
        if self._last is not None:
            return self._last.explain()
        return f"Nothing has run yet; the first instruction is at {self.regs.rip:#x}."

    def __repr__(self) -> str:
        if not self._handle.open:
            return f"<{type(self).__name__}: closed>"
        size = sum(size for _, size in self._slots.values())
        if self._running:
            return f"<{type(self).__name__}: {self._cpu}, {self._engine} engine, {size >> 10} KB, running>"
        return f"<{type(self).__name__}: {self._cpu}, {self._engine} engine, {size >> 10} KB; {self.explain()}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        if not self._handle.open or self._running:
            return html.bundle(html.paragraph(repr(self)), repr(self))
        parts = [html.paragraph(repr(self)[1:-1]), html.Html(self.regs._repr_mimebundle_()["text/html"])]
        return html.bundle(html.join(parts), repr(self))


class Machine(Computer):
    """A bare computer: memory, one processor, nothing under it. The code you load may itself be a hypervisor.

    Parameters
    ----------
    memory : str or int
        ``"16M"``, ``"64K"`` or bytes, from address 0.
    cpu : str
        A processor of :func:`kvmlab.tables.profiles`.

    Ports and addresses that no function answers (:meth:`on_io`, :meth:`on_mmio`) are stops.
    """

    _kind = "machine"

    def __init__(self, memory: str | int = "16M", cpu: str = "intel") -> None:
        size = parse_size(memory)
        handle = Handle("soft", "machine", check_cpu(cpu))
        handle.set_memory_region(0, 0, size, 0)
        super().__init__(handle, cpu, "soft", "a bare machine is always on the soft engine")
        self._slots[0] = (0, size)


def check_cpu(cpu: object) -> str:
    """The processor's name, if there is one of that name."""
    if cpu not in tables.profiles():
        raise BadArgument(f"There is no processor {cpu!r}.", f"There are {', '.join(tables.profiles())}.")
    return str(cpu)
