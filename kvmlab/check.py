"""What the check cells of labs call: each says what was expected, what came, and where to read.

A failed check is an AssertionError whose text is the whole message; in a notebook nothing else is shown. Cases are
drawn from a seed (the teacher's variable KVMLAB_SEED and the student's id), so that an answer for one student's cases
is none for another's, and the same student meets the same cases again.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import random
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from . import tables
from .errors import BadArgument, NotVisible
from .exits import Exit, ExitReason

__all__ = ["CheckFailed", "budget", "cases", "equal", "invariants", "score", "seed", "student", "trace"]


class CheckFailed(AssertionError):
    """A check did not hold; the text says what was expected, what came, and where to read."""

    def _render_traceback_(self) -> list[str]:
        """In a notebook: the message alone. The frames of this module help nobody."""
        return [str(self)]


def _fail(what: str, hint: str = "", see: str = "") -> CheckFailed:
    parts = [what]
    if hint:
        parts.append(f"Hint: {hint}")
    if see:
        parts.append(f"Read: {see}")
    return CheckFailed("\n".join(parts))


def _shown(value: Any) -> str:
    """A value as people of this field write it: numbers beyond 9 also in hexadecimal."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return str(value) if -10 < value < 10 else f"{value:#x} ({value})"
    if isinstance(value, (bytes, bytearray)):
        return (
            f"{bytes(value).hex(' ')} ({bytes(value)!r})"
            if len(value) <= 32
            else f"{bytes(value[:32]).hex(' ')} … ({len(value)} bytes)"
        )
    if isinstance(value, tuple):
        return "(" + ", ".join(_shown(item) for item in value) + ")"
    text = repr(value)
    return text if len(text) <= 400 else text[:400] + " …"


# ---- values ---------------------------------------------------------------------------------------------------------


def equal(got: Any, want: Any, hint: str = "", see: str = "") -> None:
    """Fails unless ``got == want``, and says both.

    Parameters
    ----------
    hint : str
        What may have gone wrong.
    see : str
        Where to read: ``"SDM 3A 4.6"``.
    """
    if got == want:
        return
    lines = [f"Expected: {_shown(want)}", f"Came:     {_shown(got)}"]
    if isinstance(got, int) and isinstance(want, int) and not isinstance(got, bool) and not isinstance(want, bool):
        wrong = got ^ want
        if wrong > 0:
            bits = [str(n) for n in range(wrong.bit_length()) if wrong >> n & 1]
            more = " …" if len(bits) > 12 else ""
            lines.append(f"They differ in bit{'s' if len(bits) > 1 else ''} {', '.join(bits[:12])}{more}.")
    elif isinstance(want, (str, bytes, list, tuple)) and isinstance(got, (str, bytes, list, tuple)):
        at = next((n for n, (a, b) in enumerate(zip(got, want, strict=False)) if a != b), min(len(got), len(want)))
        lines.append(f"They differ from index {at} on; {len(want)} were expected, {len(got)} came.")
    elif type(got) is not type(want):
        lines.append(f"A {type(want).__name__} was expected, a {type(got).__name__} came.")
    raise _fail("\n".join(lines), hint, see)


# ---- what happened --------------------------------------------------------------------------------------------------

_ALIASES = {"port": "io", "halt": "hlt"}


def _happened(vm: Any) -> list[tuple[str, dict[str, Any]]]:
    """What a machine did, as (kind, fields): exits by their common name, and every other event by its own."""
    if isinstance(vm, Sequence):
        return [(stop.kind, stop.to_dict()) for stop in vm]
    hardware = {event.kind for event in vm.timeline} & {"exit"}
    out = []
    for event in vm.timeline:
        fields = event.to_dict()
        kind = event.common
        if event.kind == "exit":
            row = tables.exit_row(event.vendor, event.reason)
            if row is not None:
                fields |= tables.decode_bits(row.layout, event.qualification)
            if kind == "io":
                fields["direction"] = "in" if fields["in"] else "out"
                fields.setdefault("size", fields.get("size_minus_1", 0) + 1)
            if kind == "exception" and event.interruption & 0xFF == 14:
                fields["vector"] = 14
        elif event.kind in _ALIASES and not hardware:
            kind = _ALIASES[event.kind]
        if event.kind in ("port", "mmio"):
            fields["direction"] = (
                ("in", "out")[event.is_write] if event.kind == "port" else ("read", "write")[event.is_write]
            )
        out.append((kind, fields))
    return out


def _fits(item: tuple[str, dict[str, Any]], kind: str, fields: Mapping[str, Any]) -> bool:
    return item[0] == kind and all(name in item[1] and item[1][name] == value for name, value in fields.items())


def _line(kind: str, fields: Mapping[str, Any], only: Iterable[str] = ()) -> str:
    names = list(only) or list(fields)
    words = [f"{name}={fields[name]:#x}" if isinstance(fields[name], int) else f"{name}={fields[name]}"
             for name in names if name in fields]  # fmt: skip
    return " ".join([kind, *words])


def trace(
    vm: Any, expected: Sequence[tuple[str, Mapping[str, Any]] | str], exact: bool = False, hint: str = "", see: str = ""
) -> None:
    """Fails unless these things happened in this order.

    Parameters
    ----------
    vm : VM, Machine or sequence of Exit
        Its timeline, or the stops themselves (``list(vm.exits())``, which works on the kvm engine too).
    expected : sequence of (kind, fields)
        Kinds are common names of exits (``io``, ``hlt``, ``cpuid``, ``cr_access`` …) or kinds of event (``fill``,
        ``delivery`` …); fields are those that have to be equal.
    exact : bool
        True: nothing else of the kinds named may have happened.
    """
    wanted = [(item, {}) if isinstance(item, str) else (item[0], dict(item[1])) for item in expected]
    happened = _happened(vm)
    kinds = {kind for kind, _ in wanted}
    seen = [item for item in happened if item[0] in kinds]
    at = 0
    for number, (kind, fields) in enumerate(wanted):
        if exact:
            found = at if at < len(seen) and _fits(seen[at], kind, fields) else None
        else:
            found = next((n for n in range(at, len(seen)) if _fits(seen[n], kind, fields)), None)
        if found is None:
            names = sorted({name for k, f in wanted if k == kind for name in f})
            came = _line(*seen[at], only=names) if at < len(seen) else "nothing more of these kinds"
            before = f" after {_line(*wanted[number - 1])}" if number else ""
            want = f"{_line(kind, fields)} (number {number + 1} of {len(wanted)}){before}"
            raise _fail(f"Expected: {want}\nCame:     {came}", hint, see)
        at = found + 1
    if exact and at < len(seen):
        came = _line(*seen[at], only=["port", "size", "direction", "gpa", "rip"])
        want = f"nothing more after {len(wanted)} of the kinds {', '.join(sorted(kinds))}"
        raise _fail(f"Expected: {want}\nCame:     {came}", hint, see)


_ENDS = (ExitReason.HLT, ExitReason.SHUTDOWN, ExitReason.FAIL_ENTRY, ExitReason.EXCEPTION, ExitReason.UNKNOWN)


def budget(vm: Any, instructions: int, hint: str = "", see: str = "") -> Exit:
    """Runs the guest to its end, and fails if it needs more instructions than this from its beginning.

    A guest that has ended already is not run again; its instructions are counted. An endless loop ends here.

    Returns
    -------
    Exit
        Its last stop.
    """
    stop = vm.last_stop
    while stop is None or stop.reason not in _ENDS:
        left = instructions - int(vm.position)
        if left <= 0:
            break
        stop = vm.run(left, progress=False)
        if stop.reason == ExitReason.LIMIT:
            break
    used = int(vm.position)
    if stop is None or stop.reason not in _ENDS:
        came = f"{used:,} instructions, and it is still running at {vm.regs.rip:#x}"
        raise _fail(f"Expected: the guest ends within {instructions:,} instructions\nCame:     {came}", hint, see)
    if used > instructions:
        raise _fail(f"Expected: at most {instructions:,} instructions\nCame:     {used:,}", hint, see)
    return stop  # type: ignore[no-any-return]


def invariants(vm: Any, hint: str = "", see: str = "") -> None:
    """Fails unless every invariant of the shadow page tables holds (``vm.shadow.audit()``)."""
    shadow = getattr(vm, "shadow", None)
    if shadow is None:
        raise NotVisible("This machine has no shadow page tables.", 'Use kvmlab.VM(engine="soft", mmu="shadow").')
    broken = [str(finding) for finding in shadow.audit()]
    if broken:
        more = f"\n          and {len(broken) - 8} more" if len(broken) > 8 else ""
        raise _fail("Expected: the shadow allows no more than the guest's tables and the slots\nCame:     "
                    + "\n          ".join(broken[:8]) + more, hint, see)  # fmt: skip


# ---- drawn cases ----------------------------------------------------------------------------------------------------


def student() -> str:
    """Who this is: KVMLAB_STUDENT, the folder in which nbgrader grades, or JUPYTERHUB_USER; else empty."""
    if "KVMLAB_STUDENT" in os.environ:
        return os.environ["KVMLAB_STUDENT"]
    parts = Path.cwd().parts
    for folder in ("autograded", "submitted"):
        if folder in parts[:-1]:
            return parts[parts.index(folder) + 1]
    return os.environ.get("JUPYTERHUB_USER", "")


def seed(name: str = "") -> int:
    """The seed for this teacher (KVMLAB_SEED), this student, and this task."""
    words = f"{os.environ.get('KVMLAB_SEED', 'kvmlab')}|{student()}|{name}"
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "little")


Draw = Callable[[random.Random], tuple[Any, ...]]


def cases(
    f: Callable[..., Any], oracle: Callable[..., Any], n: int = 500, seed: int | None = None, *,
    draw: Draw | None = None, hint: str = "", see: str = "",
) -> None:  # fmt: skip
    """Fails unless ``f`` and ``oracle`` agree on ``n`` drawn cases; the first that fails is made small and shown.

    Parameters
    ----------
    f : function
        The student's.
    oracle : function
        Knows the answer. A case on which it raises BadArgument or ValueError is no case.
    seed : int, optional
        Where not given: :func:`seed` for the name of ``f``.
    draw : function (random.Random) -> tuple of arguments, optional
        Where not given: ``oracle.draw``, else by the oracle's annotations: ``int`` (64 bits, edges often),
        ``Annotated[int, range(0, 0x10000)]``, ``bool``, ``bytes``, ``Literal``.
    """
    chosen = _seed_of(f) if seed is None else seed
    rng = random.Random(chosen)
    take: Draw = draw or getattr(oracle, "draw", None) or _draw_by_annotation(oracle)
    for number in range(n):
        arguments = tuple(take(rng))
        failure = _differs(f, oracle, arguments)
        if failure:
            small = _shrink(f, oracle, arguments)
            want, came = _differs(f, oracle, small) or failure
            call = f"{f.__name__}({', '.join(_argument(value) for value in small)})"
            note = f"case {number + 1} of {n}, seed {chosen}" + (", made smaller" if small != arguments else "")
            raise _fail(f"{call}\nExpected: {want}\nCame:     {came}\n({note})", hint, see)


def _seed_of(f: Callable[..., Any]) -> int:
    return seed(getattr(f, "__name__", ""))


def _argument(value: Any) -> str:
    return f"{value:#x}" if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 9 else repr(value)


def _differs(f: Callable[..., Any], oracle: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[str, str] | None:
    """(expected, came) where the two do not agree; None where they do, or where this is no case."""
    try:
        want = oracle(*arguments)
    except ValueError:  # BadArgument is one
        return None
    try:
        got = f(*arguments)
    except Exception as error:
        return _shown(want), f"{type(error).__name__}: {error}"
    if got == want:
        return None
    if got is None:
        return _shown(want), "None: does the function return its result?"
    return _shown(want), _shown(got)


def _draw_by_annotation(oracle: Callable[..., Any]) -> Draw:
    hints = typing.get_type_hints(oracle, include_extras=True)
    drawers = []
    for name in inspect.signature(oracle).parameters:
        drawers.append(_drawer(hints.get(name, int), name))
    return lambda rng: tuple(drawer(rng) for drawer in drawers)


def _drawer(hint: Any, name: str) -> Callable[[random.Random], Any]:
    if typing.get_origin(hint) is Annotated:
        inner, *extra = typing.get_args(hint)
        span = next((item for item in extra if isinstance(item, range)), None)
        if inner is int and span is not None:
            return lambda rng: _number(rng, span)
        hint = inner
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        return lambda rng: rng.choice(choices)
    if hint is bool:
        return lambda rng: rng.random() < 0.5
    if hint is int:
        return lambda rng: _number(rng, range(1 << 64))
    if hint is bytes:
        return lambda rng: rng.randbytes(rng.choice((0, 1, 2, 4, 8, 15, 64)))
    raise BadArgument(f"The parameter {name} of the oracle has the type {hint!r}, which nobody can draw.",
                      "Give draw=lambda rng: (…,), a function that makes the arguments.")  # fmt: skip


def _number(rng: random.Random, span: range) -> int:
    """A number of the range; edges, powers of two and their neighbours, and small ones come often."""
    kind = rng.random()
    if kind < 0.15:
        return rng.choice((span[0], span[-1]))
    if kind < 0.45:
        value = (1 << rng.randrange(max(span[-1].bit_length(), 1))) + rng.choice((-1, 0, 1))
        return value if value in span else span[0]
    if kind < 0.6:
        value = rng.randrange(256)
        return value if value in span else span[0]
    return span.start + span.step * rng.randrange((span.stop - span.start + span.step - 1) // span.step)


def _smaller(value: Any) -> Iterable[Any]:
    """Simpler values than this one, the simplest first."""
    if isinstance(value, bool):
        if value:
            yield False
    elif isinstance(value, int):
        if value:
            yield 0
            for bit in reversed(range(abs(value).bit_length())):
                if value > 0 and value >> bit & 1 and value != 1 << bit:
                    yield value & ~(1 << bit)
            yield value // 2
            if value > 0:
                yield value - 1
    elif isinstance(value, (bytes, str)):
        if value:
            yield value[:0]
            yield value[: len(value) // 2]
            yield value[:-1]
        if isinstance(value, bytes):
            for n, byte in enumerate(value):
                if byte:
                    yield value[:n] + b"\0" + value[n + 1 :]
    elif isinstance(value, (tuple, list)):
        make = type(value)
        for n in range(len(value)):
            if isinstance(value, list):
                yield make([*value[:n], *value[n + 1 :]])
            for small in _smaller(value[n]):
                yield make([*value[:n], small, *value[n + 1 :]])


def _shrink(f: Callable[..., Any], oracle: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """A simpler case that fails too; tries 2,000 at the most."""
    tries = 0
    while tries < 2000:
        for candidate in _smaller(arguments):
            tries += 1
            if tries >= 2000 or _differs(f, oracle, candidate):
                break
        else:
            return arguments
        if not _differs(f, oracle, candidate):
            return arguments
        arguments = candidate
    return arguments


# ---- marks ----------------------------------------------------------------------------------------------------------


def score(parts: Mapping[str, Any], points: float = 1.0) -> float:
    """Partial credit: prints every part with its reason; the result, a number of points, is the cell's last value.

    Parameters
    ----------
    parts : mapping
        Name to True or False, a number from 0 to 1, or a function: it earns its part unless a check in it fails, and
        a number that it returns counts as such.
    points : float
        What the cell is worth.
    """
    earned = 0.0
    for name, part in parts.items():
        value, reason = _earned(part)
        earned += value
        mark = "✓" if value == 1 else "✗" if value == 0 else "~"
        print(f"{mark} {name}: {value:.0%}" + (f"\n    {reason.replace(chr(10), chr(10) + '    ')}" if reason else ""))
    total = round(points * earned / len(parts), 4) if parts else 0.0
    print(f"{total:g} of {points:g} points")
    return total


def _earned(part: Any) -> tuple[float, str]:
    if callable(part):
        try:
            part = part()
        except AssertionError as error:
            return 0.0, str(error)
        except Exception as error:
            return 0.0, f"{type(error).__name__}: {error}"
        if part is None:
            return 1.0, ""
    if isinstance(part, bool):
        return float(part), "" if part else "not so"
    if isinstance(part, (int, float)) and 0 <= part <= 1:
        return float(part), ""
    raise BadArgument(f"A part of the score is {part!r}.", "Give True, False, a number from 0 to 1, or a function.")
