"""Running: the loop in slices, devices in Python, stops and their answers, single steps."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from . import engine as _engine
from .console import COM1, DEBUG_PORT, Console
from .errors import BadArgument, Busy, NotVisible
from .exits import Exit, ExitReason
from .live import Live, PortRead, PortWrite
from .progress import Progress
from .state import Regs, SRegs, number, unknown
from .trace import Event, Position

__all__ = ["Running"]

_IO, _MMIO = int(ExitReason.IO), int(ExitReason.MMIO)
_LIMIT, _STOPPED = int(ExitReason.LIMIT), int(ExitReason.STOPPED)
_DEBUG = ExitReason.DEBUG
_new, _fill = object.__new__, Exit.fill

# Slices: short enough for the notebook's interrupt button, long enough to cost nothing.
_LONGEST_SLICE = 1 << 32
_SLICE_S = 0.015
_KVM_SLICE_MS = 25

_HISTORY_INTERVAL = 1 << 20


class Running(Live):
    """A machine that runs."""

    # ---- devices in Python

    def on_io(self, ports: int | Iterable[int], read: PortRead | None = None, write: PortWrite | None = None) -> None:
        """Answers port I/O by functions instead of stops.

        Parameters
        ----------
        ports : int or range
            What they answer for.
        read : function (port, size) -> int
            For an IN; None leaves it a stop.
        write : function (port, size, value)
            For an OUT; None leaves it a stop. Both None: what was there is removed.

        A string instruction calls once per element. An exception in a function stops the run at that instruction and
        is raised by ``run``.
        """
        numbers = [ports] if isinstance(ports, int) else ports
        try:
            numbers = [number(port, "port", 16) for port in numbers]
        except TypeError:
            raise BadArgument(f"ports={ports!r} is no port.", "Give a number, or range(0x3f8, 0x400).") from None
        _check_functions(read, write)
        for port in numbers:
            if read is None and write is None:
                self._ports.pop(port, None)
            else:
                self._ports[port] = (read, write)

    def on_mmio(self, addresses: range | int, read: PortRead | None = None, write: PortWrite | None = None) -> None:
        """Answers accesses to guest-physical addresses where no memory is.

        Parameters
        ----------
        addresses : range
            Guest-physical.
        read : function (gpa, size) -> int
        write : function (gpa, size, value)
            As in :meth:`on_io`.
        """
        if isinstance(addresses, int):
            addresses = range(addresses, addresses + 1)
        if not isinstance(addresses, range) or addresses.step != 1 or not addresses:
            raise BadArgument(
                f"addresses={addresses!r} is no range of addresses.", "Give range(0xfe000000, 0xfe001000)."
            )
        _check_functions(read, write)
        self._devices = [item for item in self._devices if item[0] != addresses]
        if read is not None or write is not None:
            self._devices.insert(0, (addresses, read, write))

    def attach_console(self) -> Console:
        """Connects ports 0x3f8 (a serial port) and 0xe9 to :attr:`console`: they are no stops any more."""
        console = self.console
        self.on_io([*range(COM1, COM1 + 8), DEBUG_PORT], console.port_read, console.port_write)
        console.attached = True
        return console

    def console_input(self, text: str | bytes) -> None:
        """Types to the guest: reads of port 0x3f8 get it."""
        if not self.console.attached:
            self.attach_console()
        self.console.type(text)
        self._edited("console")

    def _serve(self, raw: bytes) -> bool:
        """Answers an access by its function; False where there is none."""
        words = _engine.EXIT.unpack(raw)
        write, size, count = bool(words["is_write"]), words["size"], max(words["count"], 1)
        if words["reason"] == _IO:
            where = words["port"]
            read_function, write_function = self._ports.get(where, (None, None))
        else:
            where = words["address"]
            read_function, write_function = next(
                ((r, w) for addresses, r, w in self._devices if where in addresses), (None, None)
            )
        function = write_function if write else read_function
        if function is None:
            return False
        self._serving = True
        try:
            if write:
                for value in self._elements(words):
                    write_function(where, size, value)  # type: ignore[misc]
            else:
                values = [
                    _answer_of(read_function(where, size), where, size, words["reason"])  # type: ignore[misc]
                    for _ in range(count)
                ]
                if words["string"] and count > 1:
                    self._handle.string_answer(b"".join(value.to_bytes(size, "little") for value in values))
                else:
                    self._handle.complete(values[0])
        except BaseException:
            self._serving = False
            self._stop_at(raw)
            raise
        finally:
            self._serving = False
        return True

    def _elements(self, words: dict[str, int]) -> list[int]:
        """The values of a write: one, or those of a string, which lie in the guest's memory."""
        size = words["size"]
        mask = (1 << 8 * size) - 1
        if not words["string"] or words["reason"] != _IO or not words["count"]:
            return [words["value"] & mask]
        data = self._string_data(words)
        return [int.from_bytes(data[n : n + size], "little") for n in range(0, len(data), size)]

    def _string_data(self, words: dict[str, int]) -> bytes:
        """What a string OUT writes, in the order of its elements."""
        return self._handle.string_read(words["size"] * words["count"])

    # ---- running

    def run(
        self, max_instructions: int | None = None, progress: bool | None = None, *, time_limit: float | None = None
    ) -> Exit:
        """Runs the guest until user space is needed (KVM_RUN): a port, a device, HLT, …

        Parameters
        ----------
        max_instructions : int, optional
            Stops with LIMIT after as many; not on the kvm engine, which cannot count.
        progress : bool, optional
            None shows a line after one second in a notebook or a terminal; False never, True always.
        time_limit : float, optional
            Seconds; stops with LIMIT after them.

        Returns
        -------
        Exit
            Why it came back. ``stop.explain()`` says it in words.

        The notebook's interrupt button raises KeyboardInterrupt, with the guest between two instructions.
        """
        if max_instructions is not None:
            max_instructions = number(max_instructions, "max_instructions", 63)
            if self._engine == "kvm":
                raise NotVisible(
                    "/dev/kvm does not count instructions.",
                    'Give run(time_limit=1.0), seconds; or use VM(engine="soft").',
                )
        return self._go(max_instructions, progress=progress, seconds=time_limit)

    def _go(
        self,
        budget: int | None,
        *,
        progress: bool | None = False,
        seconds: float | None = None,
        events: int = 0,
        phase: bool = False,
    ) -> Exit:
        """One run with everything around it: the lock, progress, what is noted at its end."""
        self._acquire()
        try:
            if self._running:
                raise self._inside()
            self._remember()
            self._running = True
            self._stop_asked = False
            self._waits = False
            shown = Progress(progress)
            try:
                stop = self._loop(budget, shown, seconds, events, phase)
            finally:
                self._running = False
                shown.end()
        finally:
            self._release()
        if self._observers:
            self._notify()
        return stop

    def _remember(self) -> None:
        """From the first run on, the way back is kept."""
        if not self._remembers:
            if self._engine == "soft":
                self._handle.history_start(_HISTORY_INTERVAL)
                self._origin = Position(*self._handle.position())
            self._remembers = True

    def _inside(self) -> Busy:
        return Busy(
            "A function of on_io or on_mmio cannot run, step or load its own machine: the guest is in the middle of "
            "an instruction.",
            "Note what is needed, return, and do it after run() came back.",
        )

    def _loop(self, budget: int | None, progress: Progress, seconds: float | None, events: int, phase: bool) -> Exit:
        handle = self._handle
        counts = self._engine == "soft"
        start = handle.position()[0] if counts else 0
        now, end = start, None if budget is None else start + budget
        deadline = None if seconds is None else time.monotonic() + seconds
        exits = first_exits = self._counted[1]
        while True:
            size = self._slice if end is None else min(self._slice, end - now)
            before = time.perf_counter()
            if counts:
                reason = handle.run(size, events, step_phase=phase)
                now = handle.exit_instructions()
            else:
                left = _KVM_SLICE_MS if deadline is None else min(_KVM_SLICE_MS, (deadline - time.monotonic()) * 1e3)
                reason = handle.run(time_limit_ms=max(1, int(left)))
            took = time.perf_counter() - before
            if reason != _LIMIT:
                exits += 1
            self._counted = (now, exits)
            raw = handle.exit()
            if self._stop_asked and reason in (_LIMIT, _STOPPED):
                return self._stop_at(raw, reason=ExitReason.STOPPED)
            if reason == _LIMIT:
                if (end is not None and now >= end) or (counts and handle.no_progress()):
                    return self._stop_at(raw, {"limit": budget})
                if deadline is not None and time.monotonic() >= deadline:
                    return self._stop_at(raw, {"seconds": seconds})
                self._slice = _next_slice(self._slice, size, took)
            elif reason in (_IO, _MMIO):
                if not (self._ports if reason == _IO else self._devices) or not self._serve(raw):
                    return self._stop_at(raw)
                if self._served_ends:
                    stop = self._stop_at(raw)
                    self._waits, self._answered = False, True
                    return stop
            elif reason != _STOPPED:
                return self._stop_at(raw)
            part = None if budget is None else min(1.0, (now - start) / max(budget, 1))
            progress.tell(now - start if counts else None, exits - first_exits, part)

    def _stop_at(self, raw: bytes, extra: dict[str, Any] | None = None, reason: ExitReason | None = None) -> Exit:
        """Makes the stop of the engine's record, with what has to be looked up at once."""
        stop = Exit._from(raw, self._where, self._me, extra, reason)
        kind = stop.reason
        if kind in (ExitReason.IO, ExitReason.MMIO, ExitReason.CPUID):
            self._answered = False
            self._waits = kind == ExitReason.CPUID or not stop.is_write
            if kind == ExitReason.CPUID:
                regs = Regs._from(self._handle.get_regs())
                extra = {"leaf": regs.eax, "subleaf": regs.ecx}
            elif kind == ExitReason.IO and stop.string and stop.is_write:
                extra = {"data": self._string_data(_engine.EXIT.unpack(raw))}
        elif kind == ExitReason.DEBUG and not self._single_step:
            rip = self._linear_rip(stop.rip)
            if rip in self._breakpoints:
                extra = {"breakpoint": rip}
        elif kind == ExitReason.EVENT:
            extra = {"event": self._event_of(stop)}
        if extra:
            stop = Exit._from(raw, self._where, self._me, extra, reason)
        self._last = stop
        return stop

    def _linear_rip(self, rip: int) -> int:
        sregs = SRegs._from(self._handle.get_sregs())
        return rip if sregs.mode == "long" else sregs.cs.base + rip & 0xFFFFFFFF

    def _event_of(self, stop: Exit) -> Event | None:
        """The record of the event that a run stopped at."""
        wanted = stop._number("event_kind")
        first, following = self._handle.trace_range()
        for at in range(following - 1, max(first, following - 256) - 1, -1):
            event = Event(self._handle.trace_read(at, 1)[1], self._where.vendor)
            if event.kind_number == wanted:
                return event
        return None

    @property
    def last_stop(self) -> Exit | None:
        """The latest stop; None before the first."""
        return self._last

    @property
    def progress(self) -> tuple[int, int]:
        """Instructions and exits so far; may be asked while another thread runs the machine."""
        if self._running or self._last is None:
            return self._counted
        return self._last.position.instructions, self._counted[1]

    def _answer(self, stop: Exit, value: object) -> None:
        """``stop.reply``."""
        self._acquire()
        try:
            if stop is not self._last:
                raise BadArgument(
                    "Only the machine's latest stop can be answered, and this is an older one.",
                    "Answer a stop before the next run: stop = vm.run(); stop.reply(value); vm.run().",
                )
            reason = stop.reason
            if reason not in (ExitReason.IO, ExitReason.MMIO, ExitReason.CPUID) or (
                reason != ExitReason.CPUID and stop.is_write
            ):
                raise BadArgument(
                    f"This stop asks for no answer: {stop.explain()}",
                    "An IN, an MMIO read and a CPUID do; the next run goes on without one.",
                )
            if self._answered:
                raise BadArgument("This stop was answered already.", "The next run completes the instruction.")
            if reason == ExitReason.CPUID:
                self._handle.complete_cpuid(*self._cpuid_answer(stop, value))
            else:
                self._complete(stop, value)
            self._answered, self._waits = True, False
        finally:
            self._release()

    def _complete(self, stop: Exit, value: object) -> None:
        size, count = stop.size, stop.count if stop.reason == ExitReason.IO else 1
        if isinstance(value, (bytes, bytearray, memoryview)):
            data = bytes(value)
            if len(data) != size * count:
                raise BadArgument(
                    f"The guest reads {size * count} bytes; {len(data)} were given.",
                    f"Give {size * count} bytes, low address first.",
                )
        elif isinstance(value, int):
            if count > 1:
                raise BadArgument(
                    f"The guest reads {count} elements of {size} bytes; one number was given.",
                    f"Give {size * count} bytes.",
                )
            data = number(value, "the answer", 8 * size).to_bytes(size, "little")
        else:
            raise BadArgument(f"{type(value).__name__} is no answer to a read.", "Give a number or bytes.")
        if count > 1:
            self._handle.string_answer(data)
        else:
            self._handle.complete(int.from_bytes(data, "little"))

    def _cpuid_answer(self, stop: Exit, value: object) -> tuple[int, int, int, int]:
        names = ("rax", "rbx", "rcx", "rdx")
        if not isinstance(value, dict):
            raise BadArgument(
                f"{type(value).__name__} is no answer to a CPUID.",
                'Give stop.reply({"rax": 1}); what is left out keeps the processor\'s own value.',
            )
        given = {("r" + name[1:] if name[:1] == "e" else name): word for name, word in value.items()}
        for name in given:
            if name not in names:
                raise unknown("The answer to a CPUID", str(name), names)
        own = self._handle.cpuid(stop.leaf, stop.subleaf)
        words = [number(given[name], name, 32) if name in given else own[n] for n, name in enumerate(names)]
        return words[0], words[1], words[2], words[3]

    def exits(self, max_instructions: int | None = None) -> Iterator[Exit]:
        """Runs again and again: every stop in turn, the last a HLT with nothing pending (or another end)."""
        left = max_instructions
        while True:
            before = self._counted[0]
            stop = self.run(left)
            yield stop
            if stop.reason in (ExitReason.HLT, ExitReason.SHUTDOWN, ExitReason.LIMIT, ExitReason.STOPPED,
                               ExitReason.FAIL_ENTRY, ExitReason.EXCEPTION, ExitReason.UNKNOWN):  # fmt: skip
                if stop.reason != ExitReason.HLT or not self._can_wake():
                    return
            if left is not None:
                left = max(0, left - (self._counted[0] - before))

    def _can_wake(self) -> bool:
        """Whether a halted processor has something that would wake it: the consumer may have queued an interrupt."""
        events = self.events
        return events.nmi_pending or (bool(events.interrupts) and self.regs.rflags & 0x200 != 0)

    def stop(self) -> None:
        """Stops a run that another thread is in, between two instructions. Without a run it does nothing."""
        if self._running:
            self._stop_asked = True
            self._handle.kick()

    # ---- stepping

    def step(self, n: int = 1) -> Exit:
        """Runs ``n`` instructions. An Exit: DEBUG if nothing else happened on the way."""
        if n != 1 or self._running or not self._remembers:
            return self._steps(n)
        lock = self._lock
        if not lock.acquire(False):
            self._wait_for_lock()
        try:
            self._waits = False
            raw = self._handle.step()
            if raw is None:
                self._fresh = False
                return self._steps_on(1)
            self._fresh = True
            stop = self._last = _new(Exit)
            _fill(stop, (raw, _DEBUG, self._where, None, self._me))
        finally:
            lock.release()
        if self._observers:
            self._notify()
        return stop

    def _steps(self, n: int) -> Exit:
        stop = self._go(number(n, "n", 63))
        return self._stepped(stop, n)

    def _stepped(self, stop: Exit, n: int) -> Exit:
        if stop.reason == ExitReason.LIMIT and not stop.no_progress:
            stop = self._last = Exit._from(stop._raw, self._where, self._me, {"steps": n}, ExitReason.DEBUG)
        return stop

    def _steps_on(self, n: int) -> Exit:
        """A step that met something: served by a function it goes on, else that is the stop."""
        handle = self._handle
        raw = handle.exit()
        reason = ExitReason(handle.reason())
        if reason not in (ExitReason.IO, ExitReason.MMIO) or not (self._ports or self._devices):
            stop = self._stop_at(raw)
        else:
            self._running = True
            try:
                if self._serve(raw):
                    stop = self._stepped(self._loop(n, Progress(False), None, 0, False), n)
                else:
                    stop = self._stop_at(raw)
            finally:
                self._running = False
        if self._observers:
            self._notify()
        return stop

    def step_record(self, n: int) -> list[Regs]:
        """Steps up to ``n`` instructions and returns the registers after each; ends early at a stop."""
        self._acquire()
        try:
            if self._running:
                raise self._inside()
            self._remember()
            done, data = self._handle.step_record(number(n, "n", 32))
            self._waits = False
        finally:
            self._release()
        if self._observers:
            self._notify()
        size = _engine.REGS.size
        return [Regs._from(data[at : at + size]) for at in range(0, done * size, size)]


def _next_slice(current: int, size: int, took: float) -> int:
    """A slice that takes about as long as it should, from how long this one took."""
    if size < current // 2:
        return current
    wanted = size * _SLICE_S / max(took, 1e-6)
    return max(1000, min(int(wanted), current * 4, _LONGEST_SLICE))


def _check_functions(read: object, write: object) -> None:
    for name, function in (("read", read), ("write", write)):
        if function is not None and not callable(function):
            raise BadArgument(
                f"{name}={function!r} cannot be called.",
                "read is f(where, size) -> int, write is g(where, size, value).",
            )


def _answer_of(value: object, where: int, size: int, reason: int) -> int:
    what = f"port {where:#x}" if reason == _IO else f"{where:#x}"
    if not isinstance(value, int):
        raise BadArgument(
            f"The function that reads {what} returned {value!r}.", f"It has to return a number of {size} bytes."
        )
    return number(value, f"the answer of the function for {what}", 8 * size)
