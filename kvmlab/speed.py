"""``kvmlab speed``: how fast guests run and are stepped here, beside Unicorn in the same run where it is installed.

Every figure is the median of pairs of runs of two sizes, so that loading and starting cancel out, in the process's CPU
time, so that other processes count less. Every run's result is checked: a wrong one is an error, not a figure.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from . import __version__, bench_guests
from .errors import BadArgument, Error

__all__ = ["Figure", "Report", "measure"]

# What is measured, with the amount of work to begin with; more is taken until a run is long enough.
GUESTS = {
    "alu": 100_000,
    "mixed": 3,
    "mem": 20_000,
    "rep": 2,
    "fp": 20_000,
    "smc": 2_000,
    "cr3": 500,
    "trapint": 5_000,
    "trapsys": 5_000,
    "trapud": 5_000,
}
# Where instructions a second say little: what one unit of work is instead, and how many of it.
UNITS = {
    "rep": (2.0, "MiB a second"),
    "smc": (1e-3, "thousand rewrites a second"),
    "cr3": (1e-3, "thousand switches and 64 touches a second"),
    "trapint": (1e-3, "thousand INT and IRET a second"),
    "trapsys": (1e-3, "thousand SYSCALL and SYSRET a second"),
    "trapud": (1e-3, "thousand #UD and IRET a second"),
}
LONG_ENOUGH_S = 0.1
FACTOR = 4
PORT = 0x500
MANY = 1 << 40

GENERAL = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15 rip rflags".split()


class Runner(Protocol):
    """As much of a machine as the benchmark needs."""

    name: str

    def start(self, guest: str, n: int) -> None: ...
    def run(self) -> int: ...
    def instructions(self) -> int | None: ...
    def step(self) -> object: ...
    def close(self) -> None: ...


class Ours:
    """Our own machines: the bare one, or a guest under the hypervisor."""

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self.name = name
        self._machine = make()

    def start(self, guest: str, n: int) -> None:
        bench_guests.prepare(self._machine, guest, n)
        self._machine.on_io(PORT, write=_nothing)
        self._before = int(self._machine.position)

    def run(self) -> int:
        stop = self._machine.run(progress=False)
        if stop.reason.name != "HLT":
            raise Error(f"{self.name}: {stop.explain()}", "The benchmark's guests end with HLT.")
        return int(self._machine.regs.rax)

    def instructions(self) -> int | None:
        return int(self._machine.position) - self._before

    def step(self) -> object:
        self._machine.step()
        return self._machine.regs

    def close(self) -> None:
        self._machine.close()


class Unicorn:
    """The peer: QEMU's translator as a library. It delivers nothing through gates in long mode."""

    name = "Unicorn"
    cannot = frozenset({"alu3", "trapint", "trapsys", "trapud"})

    def __init__(self) -> None:
        import unicorn
        from unicorn import x86_const

        self._x = x86_const
        self._uc: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self._uc.mem_map(0, 80 << 20)
        self._uc.hook_add(unicorn.UC_HOOK_INSN, lambda *_: None, None, 1, 0, x86_const.UC_X86_INS_OUT)
        self._numbers = [self._number(name) for name in GENERAL]
        self.memory = self

    def _number(self, register: str) -> int:
        return int(getattr(self._x, f"UC_X86_REG_{register.upper()}"))

    # What bench_guests.prepare() asks of a machine.

    def load(self, image: Any) -> None:
        self._uc.mem_write(image.org, image.data)

    def write(self, address: int, data: bytes) -> None:
        self._uc.mem_write(address, data)

    def set(self, **registers: int) -> None:
        for name in sorted(registers, key=lambda name: name == "cr3"):
            self._uc.reg_write(self._number(name), registers[name])
        self._uc.reg_write(self._number("cr0"), 0x80000033)

    def start(self, guest: str, n: int) -> None:
        bench_guests.prepare(self, guest, n)

    def run(self) -> int:
        self._uc.emu_start(self._uc.reg_read(self._number("rip")), bench_guests.RETURN_TO)
        return int(self._uc.reg_read(self._number("rax")))

    def instructions(self) -> int | None:
        return None

    def step(self) -> object:
        self._uc.emu_start(self._uc.reg_read(self._number("rip")), 0, count=1)
        return [self._uc.reg_read(number) for number in self._numbers]

    def close(self) -> None:
        del self._uc


@dataclasses.dataclass(frozen=True)
class Figure:
    """One measured thing: ``what``, on which ``machine``, ``value`` in ``unit``."""

    what: str
    machine: str
    value: float
    unit: str


@dataclasses.dataclass(frozen=True)
class Report:
    """All figures of a run. Prints as a table: a line for each thing, a column for each machine."""

    figures: tuple[Figure, ...]

    def value(self, what: str, machine: str) -> float | None:
        return next((f.value for f in self.figures if (f.what, f.machine) == (what, machine)), None)

    def __str__(self) -> str:
        machines = list(dict.fromkeys(figure.machine for figure in self.figures))
        things = {figure.what: figure.unit for figure in self.figures}
        width = max(len(f"{what}, {unit}") for what, unit in things.items())
        heads = [f"{machine:>12}" for machine in machines]
        lines = [f"kvmlab {__version__}, {platform.machine()}, Python {platform.python_version()}", ""]
        lines.append(" " * width + "".join(heads))
        for what, unit in things.items():
            cells = [_cell(self.value(what, machine)) for machine in machines]
            lines.append(f"{f'{what}, {unit}':{width}}" + "".join(cells))
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": __version__,
            "machine": platform.machine(),
            "figures": [dataclasses.asdict(figure) for figure in self.figures],
        }


def _cell(value: float | None) -> str:
    return f"{'-':>12}" if value is None else f"{value:>12,.0f}" if value >= 100 else f"{value:>12.2f}"


def _nothing(_port: int, _size: int, _value: int) -> None:
    pass


def runners() -> list[Callable[[], Runner]]:
    """What is compared: the bare machine, a guest under the hypervisor, and Unicorn where it is installed."""
    from .machine import Machine
    from .vm import VM

    memory = bench_guests.MEMORY
    found: list[Callable[[], Runner]] = [
        lambda: Ours("Machine", lambda: Machine(memory=memory, cpu="intel")),
        lambda: Ours("VM", lambda: VM(memory=memory, engine="soft", cpu="intel-2006")),
    ]
    try:
        import unicorn  # noqa: F401
    except ImportError:
        return found
    return [*found, Unicorn]


def _seconds(make: Callable[[], Runner], guest: str, n: int) -> tuple[float, int | None]:
    """CPU time of n units of work, and how many instructions they were."""
    runner = make()
    try:
        runner.start(guest, n)
        before = time.process_time()
        rax = runner.run()
        took = time.process_time() - before
        if bench_guests.check(guest, n, rax) is False:
            raise Error(f"{runner.name} runs {guest} wrong: rax = {rax:#x} for n = {n}.", "Please report this.")
        return took, runner.instructions()
    finally:
        runner.close()


def _size(make: Callable[[], Runner], guest: str) -> int:
    """How much work takes long enough to be measured."""
    n = GUESTS.get(guest, 2_000)
    while _seconds(make, guest, n)[0] < LONG_ENOUGH_S and n < MANY:
        n *= FACTOR
    return n


def _per_unit(make: Callable[[], Runner], guest: str, pairs: int) -> tuple[float, float | None]:
    """Seconds and instructions for one more unit of work."""
    small = _size(make, guest)
    large = small * FACTOR
    times, counts = [], None
    for _ in range(pairs):
        first, some = _seconds(make, guest, small)
        second, more = _seconds(make, guest, large)
        times.append((second - first) / (large - small))
        counts = None if some is None or more is None else (more - some) / (large - small)
    return statistics.median(times), counts


def _can(make: Callable[[], Runner], guest: str) -> bool:
    if make is Unicorn:
        return guest not in Unicorn.cannot
    if not bench_guests.GUESTS[guest].sse:
        return True
    from .machine import Machine

    with Machine(memory="64K", cpu="intel") as machine:
        return bool(machine.cpuid(1)["rdx"] >> 26 & 1)


def figures(pairs: int = 3, guests: tuple[str, ...] = tuple(GUESTS)) -> Iterator[Figure]:
    """Measure, one figure after the other."""
    counts: dict[str, float] = {}
    for guest in guests:
        for make in runners():
            if not _can(make, guest):
                continue
            seconds, instructions = _per_unit(make, guest, pairs)
            if guest in UNITS:
                amount, unit = UNITS[guest]
                yield Figure(guest, _name(make), amount / seconds, unit)
                continue
            # A peer that does not count executes the same instructions.
            count = counts.setdefault(guest, instructions) if instructions else counts.get(guest)
            if count:
                yield Figure(guest, _name(make), count / seconds / 1e6, "million instructions a second")
    for make in runners():
        seconds, _ = _per_unit(make, "io", pairs)
        yield Figure("exit to a Python function and back", _name(make), seconds * 1e9, "ns")
    for make in runners():
        yield Figure("step and all registers", _name(make), _steps(make, pairs), "a second")


def _name(make: Callable[[], Runner]) -> str:
    runner = make()
    runner.close()
    return runner.name


def _steps(make: Callable[[], Runner], pairs: int) -> float:
    rates = []
    for _ in range(pairs):
        runner = make()
        runner.start("alu", MANY)
        steps, before = 0, time.process_time()
        while (took := time.process_time() - before) < 2 * LONG_ENOUGH_S:
            for _ in range(500):
                runner.step()
            steps += 500
        runner.close()
        rates.append(steps / took)
    return statistics.median(rates)


def measure(pairs: int = 3, guests: tuple[str, ...] = tuple(GUESTS)) -> Report:
    """Measure everything.

    Parameters
    ----------
    pairs
        How many pairs of runs each figure is the median of.
    guests
        Which of :data:`kvmlab.bench_guests.GUESTS`.
    """
    return Report(tuple(figures(pairs, guests)))


def measure_and_tell(pairs: int, guests: list[str], as_json: bool) -> None:
    """For the command line: a line on stderr for each figure as it comes, the report at the end on stdout."""
    unknown = [guest for guest in guests if guest not in bench_guests.GUESTS]
    if unknown:
        raise BadArgument(
            f"{unknown[0]!r} is no guest of the benchmark.", f"There are {', '.join(bench_guests.GUESTS)}."
        )
    found = []
    for figure in figures(pairs, tuple(guests) or tuple(GUESTS)):
        found.append(figure)
        if sys.stderr.isatty():
            print(f"{figure.what}, {figure.machine}: {figure.value:,.1f} {figure.unit}", file=sys.stderr)
    report = Report(tuple(found))
    print(json.dumps(report.to_dict(), indent=1) if as_json else report)
