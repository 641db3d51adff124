"""Read what a guest in tests/guests says about itself, run it, and compare.

The format is described in tests/guests/README.md. Nothing here knows an engine: :func:`run` drives anything with the
interface of ``kvmlab.VM`` (``kvmlab.Machine`` too), and :func:`compare` says in words what differs.
"""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvmlab.guest import Image, assemble, compile_c

FOLDER = Path(__file__).parent / "guests"
_FIELD = re.compile(r"^\s*(?:#:|\*:|//:)\s*([a-z-]+)\s*:?\s*(.*?)\s*$")
_SIZES = {"K": 10, "M": 20}
KINDS = {"io", "mmio", "hlt", "shutdown", "limit", "exception", "unknown", "debug", "cpuid", "fail_entry"}
FIELDS = {
    "about", "bits", "org", "entry", "memory", "flags", "console", "exit", "expect", "bytes", "inject", "limit", "cpu",
    "engine", "machine", "gap", "oracle", "options", "registers",
}  # fmt: skip


class BadGuest(Exception):
    """A guest file that says something the runner does not understand."""


@dataclass(frozen=True)
class Expected:
    """One stop: its kind, and the fields that must have these values. ``times`` in a row; ``reply`` answers a read."""

    kind: str
    fields: dict[str, int | str] = field(default_factory=dict)
    reply: int | None = None
    times: int = 1

    def __str__(self) -> str:
        shown = " ".join(f"{k}={v:#x}" if isinstance(v, int) else str(v) for k, v in self.fields.items())
        return f"{self.kind} {shown}".strip()


@dataclass(frozen=True)
class Guest:
    """A guest and everything its comments state. Values that name labels are resolved by :meth:`value`."""

    path: Path
    text: str
    about: str = ""
    bits: int = 16
    org: int = 0x1000
    memory: str = "4M"
    flags: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    registers: dict[str, str] = field(default_factory=dict)
    console: str | None = None
    exits: tuple[Expected, ...] = ()
    expect: tuple[tuple[str, str | None, str], ...] = ()
    bytes: tuple[tuple[str, str], ...] = ()
    inject: tuple[tuple[str, int], ...] = ()
    limit: int = 2_000_000
    cpus: tuple[str, ...] = ("intel-2006", "amd-2006")
    engines: tuple[str, ...] = ("soft", "kvm")
    machine: bool = True
    gap: str = ""
    oracle: str = ""

    @property
    def name(self) -> str:
        return self.path.stem

    def build(self, tools: str = "auto") -> Image:
        if self.path.suffix == ".c":
            return compile_c(self.text, self.bits, self.org, flags=self.flags, name=self.name, tools=tools)
        return assemble(self.text, self.bits, self.org, name=self.name, tools=tools)

    def value(self, word: str | int, image: Image) -> int:
        """A number, a label or constant, or a sum of them: ``table+8``."""
        if isinstance(word, int):
            return word
        total = 0
        for part in word.split("+"):
            total += int(part, 0) if part[0].isdigit() else image.address_of(part)
        return total


def _number(text: str) -> int:
    text = text.replace("_", "")
    if text[-1:] in _SIZES:
        return int(text[:-1], 0) << _SIZES[text[-1]]
    return int(text, 0)


def _exit(words: list[str], where: str) -> Expected:
    kind, times, reply = words[0], 1, None
    if kind not in KINDS:
        raise BadGuest(f"{where}: {kind!r} is no kind of stop; there are {', '.join(sorted(KINDS))}")
    fields: dict[str, int | str] = {}
    for word in words[1:]:
        if word in ("in", "out", "read", "write"):
            fields["direction"] = {"read": "in", "write": "out"}.get(word, word)
        elif match := re.fullmatch(r"x(\d+)", word):
            times = int(match.group(1))
        elif "=" in word:
            key, value = word.split("=", 1)
            number = int(value, 0) if re.match(r"-?\d|'", value) else value
            if key == "reply":
                reply = int(value, 0)
            else:
                fields[key] = number
        else:
            raise BadGuest(f"{where}: {word!r} in an exit line; write key=value, in, out, read, write or x3")
    return Expected(kind, fields, reply, times)


def read(path: Path) -> Guest:
    """The guest in a file, with what its comments state."""
    text = path.read_text(encoding="utf-8")
    found: dict[str, Any] = {"exits": [], "expect": [], "bytes": [], "inject": []}
    for number, row in enumerate(text.splitlines(), 1):
        match = _FIELD.match(row)
        if not match:
            continue
        key, rest = match.groups()
        where = f"{path.name}:{number}"
        if key not in FIELDS:
            raise BadGuest(f"{where}: {key!r} is no field; there are {', '.join(sorted(FIELDS))}")
        if key == "about":
            found["about"] = (found.get("about", "") + " " + rest).strip()
        elif key in ("bits", "org", "limit"):
            found[key] = _number(rest)
        elif key in ("memory", "gap", "oracle"):
            found[key] = rest
        elif key == "flags":
            found["flags"] = tuple(shlex.split(rest))
        elif key in ("options", "registers"):
            found[key] = dict(word.split("=", 1) for word in rest.split())
        elif key == "console":
            found["console"] = found.get("console", "") + ast.literal_eval(rest)
        elif key == "exit":
            found["exits"].append(_exit(rest.split(), where))
        elif key == "expect":
            for word in rest.split():
                item = re.fullmatch(r"(\w+)(?:&(\w+))?=([\w+]+)", word)
                if not item:
                    raise BadGuest(f"{where}: {word!r}; write register=value or register&mask=value")
                found["expect"].append(item.groups())
        elif key == "bytes":
            at, content = rest.split("=", 1)
            found["bytes"].append((at.strip(), content.strip()))
        elif key == "inject":
            for item in rest.split(","):
                when, vector = item.split()
                found["inject"].append((when, int(vector, 0)))
        elif key == "cpu":
            found["cpus"] = tuple(rest.split())
        elif key == "engine":
            found["engines"] = tuple(rest.split())
        elif key == "machine":
            found["machine"] = rest == "yes"
    for key in ("exits", "expect", "bytes", "inject"):
        found[key] = tuple(found[key])
    if not found.get("about"):
        raise BadGuest(f"{path.name}: no line `#: about: …`")
    return Guest(path, text, **found)


def all_guests() -> list[Guest]:
    """Every guest of tests/guests, by name."""
    return [read(path) for path in sorted(FOLDER.iterdir()) if path.suffix in (".S", ".c")]


# --- Running ---------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a run gave: the stops in order, and the console's text where it was attached."""

    stops: list[Any] = field(default_factory=list)
    console: str | None = None
    answered: int = 0


def kind_of(stop: Any) -> str:
    return str(getattr(stop.reason, "name", stop.reason)).lower()


def _text(console: Any) -> str:
    text = getattr(console, "text", console)
    return text.decode("latin-1") if isinstance(text, bytes) else str(text)


def run(vm: Any, guest: Guest, image: Image, *, console: bool, callbacks: bool = False) -> Outcome:
    """Load and run a guest to its end: a HLT with nothing left to inject, a shutdown, a limit, or the last exit stated.

    With ``console`` the text ports are answered by the machine, and only the last of the stops is looked at. With
    ``callbacks`` reads from ports are answered by functions, as the bare machine needs it: there an unserved port stops
    nothing.
    """
    vm.load(image)
    if guest.registers:
        vm.set(**{name: guest.value(word, image) for name, word in guest.registers.items()})
    outcome = Outcome()
    if console:
        vm.attach_console()
    if callbacks:
        for port in {item.fields["port"] for item in guest.exits if item.reply is not None and item.kind == "io"}:
            answers = [item.reply for item in guest.exits if item.fields.get("port") == port and item.reply is not None]
            vm.on_io(port, read=lambda port, size, left=answers: left.pop(0) if left else 0xFF)
    todo = list(guest.inject)
    replies = [item.reply for item in guest.exits for _ in range(item.times)]

    def inject(when: str) -> bool:
        if todo and todo[0][0] == when:
            vm.interrupt(todo.pop(0)[1])
            return True
        return False

    inject("start")
    while len(outcome.stops) < 10_000:
        if getattr(vm, "engine", "soft") == "kvm":  # cannot count: time stands for the limit
            stop = vm.run(time_limit=0.5 if any(item.kind == "limit" for item in guest.exits) else 20.0)
        else:
            stop = vm.run(max_instructions=guest.limit)
        outcome.stops.append(stop)
        kind = kind_of(stop)
        if kind == "hlt":
            if not inject("hlt"):
                break
        elif kind in ("io", "mmio"):
            reads = str(getattr(stop, "direction", "")) in ("in", "read")
            if kind == "mmio" and not hasattr(stop, "direction"):
                reads = not stop.is_write
            at = len(outcome.stops) - 1
            if reads and not console:
                stop.reply(replies[at] if at < len(replies) and replies[at] is not None else 0xFF)
            elif reads:
                pending = [item.reply for item in guest.exits if item.reply is not None]
                stop.reply(pending[outcome.answered] if outcome.answered < len(pending) else 0xFF)
                outcome.answered += 1
            inject(kind)
        else:
            break
    if console:
        outcome.console = _text(vm.console)
    return outcome


def compare(vm: Any, guest: Guest, image: Image, outcome: Outcome) -> list[str]:
    """Every difference between what the guest states and what happened, each in one sentence."""
    wrong = []
    if outcome.console is not None and guest.console is not None and outcome.console != guest.console:
        wrong.append(f"console: {guest.console!r} stated, {outcome.console!r} came")
    ends = [item.kind for item in guest.exits if item.kind not in ("io", "mmio")] or ["hlt"]
    if kind_of(outcome.stops[-1]) != ends[-1]:
        wrong.append(f"the end: {ends[-1]} stated, {outcome.stops[-1]} came")
    if guest.exits and outcome.console is None:
        stated = [item for item in guest.exits for _ in range(item.times)]
        for index, (item, stop) in enumerate(zip(stated, outcome.stops, strict=False)):
            if item.kind != kind_of(stop):
                wrong.append(f"stop {index}: {item} stated, {stop} came")
                break
            for key, value in item.fields.items():
                got = getattr(stop, key, None)
                got = str(got) if key == "direction" else got
                if key == "direction" and got in ("read", "write"):
                    got = {"read": "in", "write": "out"}[got]
                want = guest.value(value, image) if key != "direction" else value
                if got != want:
                    shown = f"{got:#x}" if isinstance(got, int) else repr(got)
                    wrong.append(f"stop {index} ({item}): {key} is {shown}")
        if len(stated) != len(outcome.stops):
            wrong.append(f"{len(stated)} stops stated, {len(outcome.stops)} came, the last {outcome.stops[-1]}")
    regs = vm.regs
    for name, mask, word in guest.expect:
        want = guest.value(word, image)
        got = getattr(regs, name, None)
        if got is None:
            got = getattr(vm.sregs, name)
        if mask is not None:
            got &= int(mask, 0)
        if got != want:
            wrong.append(f"{name}{'&' + mask if mask else ''}: {want:#x} stated, {got:#x} came")
    for at, content in guest.bytes:
        want_bytes = ast.literal_eval("b" + content) if content.startswith('"') else bytes.fromhex(content)
        got_bytes = bytes(vm.memory.read(guest.value(at, image), len(want_bytes)))
        if got_bytes != want_bytes:
            wrong.append(f"bytes at {at}: {want_bytes.hex(' ')} stated, {got_bytes.hex(' ')} came")
    return wrong
