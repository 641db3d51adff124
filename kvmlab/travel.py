"""Time: positions, the timeline, stepping by events and exits, and going back. The soft engine only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import tables, trace
from .errors import BadArgument, Error, NotVisible
from .exits import Exit, ExitReason
from .running import Running
from .state import Regs, number
from .trace import Event, Position, Timeline

__all__ = ["Travelling"]

# Not recorded unless somebody steps by them: they come by the million, and the exits would fall out of the ring.
_FLOODS = ("retired", "page_walk", "tlb_flush", "field_write", "entry_phase")
_RING = 1 << 16
_USER = 0  # the phase of the hypervisor's run loop in which KVM_RUN has returned


class Travelling(Running):
    """A machine whose past is kept."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._mask = 0
        if self._engine == "soft":
            self._record(*(name for name in trace.kinds() if name not in _FLOODS))

    # ---- time (soft engine)

    def _soft(self, what: str) -> None:
        if self._engine != "soft":
            raise NotVisible(
                f"Not visible here: /dev/kvm does not show {what}.",
                'Use VM(engine="soft"), or continue this guest there: vm = vm.on("soft").',
            )

    def _record(self, *names: str) -> None:
        mask = self._mask | trace.kind_mask(names)
        if mask != self._mask:
            self._handle.trace_enable(mask, _RING)
            self._mask = mask

    @property
    def position(self) -> Position:
        """Where in time the machine is: retired instructions, and the number of the next event."""
        self._soft("how many instructions have run")
        self._acquire()
        try:
            return Position(*self._handle.position())
        finally:
            self._release()

    @property
    def timeline(self) -> Timeline:
        """The events that were recorded, oldest first."""
        self._soft("its events")

        def read(start: int, count: int) -> tuple[int, bytes]:
            self._acquire()
            try:
                return self._handle.trace_read(start, count)
            finally:
                self._release()

        def bounds() -> tuple[int, int]:
            self._acquire()
            try:
                return self._handle.trace_range()
            finally:
                self._release()

        return Timeline(read, bounds, self._where.vendor)

    def step_event(self, kind: str | Sequence[str] | None = None) -> Event | None:
        """Runs to the next event: a phase of an entry or exit, a decision, a fill, an injection, a delivery …

        Parameters
        ----------
        kind : str, optional
            One of :func:`kvmlab.trace.kinds`, or several. None: the next of any kind but retired instructions.

        Returns
        -------
        Event or None
            None where the run came back to user space before; ``vm.last_stop`` says why.
        """
        self._soft("its events")
        names = trace.kinds() if kind is None else (kind,) if isinstance(kind, str) else tuple(kind)
        if kind is None:
            names = tuple(name for name in names if name != "retired")
        mask = trace.kind_mask(names)
        self._acquire()
        try:
            self._record(*names)
            start = Position(*self._handle.position())
            stop = self._go(None, events=mask, phase=kind is None)
            if stop.reason == ExitReason.EVENT:
                return stop.event  # type: ignore[no-any-return]
            # An access that user space has to answer is an event and a stop at once.
            first, following = self._handle.trace_range()
            last = (
                Event(self._handle.trace_read(following - 1, 1)[1], self._where.vendor) if following > first else None
            )
            return last if last is not None and last.position >= start and last.kind in names else None
        finally:
            self._release()

    def step_exit(self, kind: str | None = None, handled: bool = True) -> Exit:
        """Runs to the next VM exit of the hardware, also one that the hypervisor handles itself.

        Parameters
        ----------
        kind : str, optional
            Common name (``io``, ``cr_access``, ``page_fault`` …) or the vendor's (``IO_INSTRUCTION``, ``IOIO``).
        handled : bool
            True lets the hypervisor (or a function of on_io or on_mmio) deal with it first, and stops before the guest
            is entered again, or as KVM_RUN returns. False stops as the processor leaves the guest.

        Returns
        -------
        Exit
            Reason EVENT with ``stop.event``; or why the run came back to user space before.
        """
        self._soft("the exits that the hypervisor handles")
        if kind is not None:
            _check_exit_kind(kind)
        mask = trace.kind_mask(["exit"])
        while True:
            stop = self._go(None, events=mask)
            event = stop.event if stop.reason == ExitReason.EVENT else None
            if event is not None and handled and self._kind == "vm":
                stop = self._until_handled(event)
            if kind is None or _is_exit_kind(event, kind):
                return stop
            asks = stop.reason not in (ExitReason.IO, ExitReason.MMIO) or not stop.is_write
            if stop.reason != ExitReason.EVENT and asks:
                return stop  # user space has to do something about this one

    def _until_handled(self, event: Event) -> Exit:
        """From an exit on to where the hypervisor has dealt with it: the next entry comes now, or user space."""
        self._served_ends = True
        try:
            while True:
                stop = self._go(None, phase=True)
                if stop.reason != ExitReason.EVENT:
                    return stop
                if stop.phase == trace.PHASE_HANDLED:
                    stop = self._last = Exit._from(stop._raw, self._where, self._me, {"event": event})
                    return stop
        finally:
            self._served_ends = False

    def goto(self, where: Position | Event | Exit | int) -> Exit:
        """Goes to a moment of the past (or of the future that was already seen).

        Parameters
        ----------
        where : Position, Event, Exit or int
            A number counts instructions.

        Raises
        ------
        Error
            The moment is not in the history that is kept.
        """
        self._soft("the past")
        if isinstance(where, Event):
            at = where.position
            return self._travel(Position(at.instructions, at.sequence + 1), "Went", where)
        elif isinstance(where, (Position, Exit)):
            target = where if isinstance(where, Position) else where.position
        else:
            target = Position(number(where, "position"))
        return self._travel(target, "Went")

    def _travel(self, target: Position, verb: str, event: Event | None = None) -> Exit:
        self._acquire()
        try:
            if self._running:
                raise self._inside()
            if not self._remembers:
                raise Error("There is no past yet: nothing has run.", "Run or step first.")
            origin = self._origin
            if target < origin:
                if target.instructions < origin.instructions:
                    raise Error(f"Position {target.instructions:,} lies before the history, which begins at "
                                f"{origin.instructions:,}.", "It begins with the first run or step.")  # fmt: skip
                target = origin
            self._handle.goto(target.instructions, target.sequence)
            at = Position(*self._handle.position())
            self._waits = False
            self._counted = (at.instructions, self._counted[1])
            rip = Regs._from(self._handle.get_regs()).rip
            note = f"{verb} to position {at.instructions:,}; the next instruction is at {rip:#x}."
            if event is not None:
                self._last = stop = Exit(ExitReason.EVENT, self._where, rip=rip, position=at, event=event)
            else:
                self._last = stop = Exit(ExitReason.DEBUG, self._where, rip=rip, position=at, note=note)
        finally:
            self._release()
        self._notify()
        return stop

    def step_back(self, n: int = 1) -> Exit:
        """Goes ``n`` instructions back."""
        self._soft("the past")
        n = number(n, "n", 63)
        here = int(self.position)
        if not self._remembers or here == 0:
            raise Error("This is the beginning: nothing has run before.", "Step or run first.")
        return self._travel(Position(max(0, here - n)), "Stepped back")

    def step_event_back(self) -> Exit:
        """Goes to the event before."""
        self._soft("the past")
        here = self.position
        for event in reversed(self.timeline[:]):
            if event.position.sequence + 1 < here.sequence:
                at = event.position
                return self._travel(Position(at.instructions, at.sequence + 1), "Stepped back", event)
        raise Error("No event before this one is kept.", "vm.step_back() goes by instructions.")

    def step_exit_back(self, kind: str | None = None) -> Exit:
        """Goes to the VM exit before, of a kind if one is given, where the hypervisor has dealt with it."""
        self._soft("the past")
        if kind is not None:
            _check_exit_kind(kind)
        here = self.position.sequence
        events = [event for event in self.timeline if event.position.sequence < here]
        gone_on = self._kind != "vm"
        for n in range(len(events) - 1, -1, -1):
            event = events[n]
            gone_on = gone_on or event.kind in ("entry", "user_enter")
            if event.kind == "exit" and gone_on and (kind is None or _is_exit_kind(event, kind)):
                return self._travel(_dealt_with(events, n), "Went back", event)
        raise Error(f"No exit {'of kind ' + kind + ' ' if kind else ''}before this moment is kept.",
                    "vm.timeline.filter(kind=\"exit\") shows what is.")  # fmt: skip


def _dealt_with(events: list[Event], n: int) -> Position:
    """The moment at which the exit ``events[n]`` was dealt with: the last phase before the next entry."""
    best = events[n].position
    for event in events[n + 1 :]:
        if event.kind in ("entry", "user_enter", "exit"):
            break
        if event.kind == "phase" and event.phase in (trace.PHASE_HANDLED, _USER):
            best = event.position
    return Position(best.instructions, best.sequence + 1)


def _is_exit_kind(event: Event | None, kind: str) -> bool:
    if event is None:
        return False
    row = tables.exit_row(event.vendor, event.reason)
    if row is None:
        return False
    if kind == "page_fault":
        return row.name == "EXCP_PF" or (row.name == "EXCEPTION_OR_NMI" and event.interruption & 0xFF == 14)
    return kind.lower() in (row.common, row.name.lower())


def _check_exit_kind(kind: str) -> None:
    known = {"page_fault"}
    for row in (*tables.vmx_exits(), *tables.svm_exits()):
        known |= {row.common, row.name.lower()}
    if not isinstance(kind, str) or kind.lower() not in known:
        common = sorted({row.common for row in tables.vmx_exits()} | {"page_fault"})
        raise BadArgument(
            f"There is no exit of kind {kind!r}.", f"Common names: {', '.join(common)}; or the vendor's own."
        )
