"""The exits of a run, in order, with what the hypervisor did about each; kept also for the future already seen.

Fed with events as they come, once each: a step costs the events of that step and not those of the whole run. After
going back the later exits stay, hatched on the screen; running forward again checks them, and drops them where an edit
made another future.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from ..exits import hardware_sentence
from ..trace import PHASE_HANDLED

RECORD = struct.Struct("<IHH")
"""One exit on the wire: instructions since the exit before, reason, marks."""
TO_USER, FILL, FILL_READ_ONLY, TABLE_WRITE, CR_ACCESS, DIRTY = (1 << bit for bit in range(6))
GUEST_FAULT, INTERRUPT, ZAP = (1 << bit for bit in range(6, 9))
LANES = {"zap": ZAP, "spte_clear": ZAP, "table_write": TABLE_WRITE, "dirty": DIRTY, "user_exit": TO_USER}
"""The mark of those kinds of event that always have the same one."""
EXCEPTION = 3
"""The type of an injected event that is a hardware exception."""
WRITABLE = 2
"""Bit 1 of a shadow entry."""


class Fact(NamedTuple):
    """An event as the engine recorded it."""

    kind: str
    instructions: int
    sequence: int
    rip: int
    fields: dict[str, int]
    event: Any

    @classmethod
    def of(cls, event: Any) -> Fact:
        """An event of :mod:`kvmlab.trace`, taken apart once."""
        at = event.position
        return cls(event.kind, at.instructions, at.sequence, event.rip, event.fields, event)


@dataclass
class ExitRecord:
    """One hardware exit and what followed until the next entry."""

    sequence: int
    instructions: int
    cost: int
    reason: int
    rip: int
    event: Any
    marks: int = 0
    facts: list[Fact] = field(default_factory=list)
    packed: bytes = b""

    def __post_init__(self) -> None:
        if getattr(self.event, "common", "") == "cr_access":
            self.marks |= CR_ACCESS
        self.packed = RECORD.pack(min(self.cost, 0xFFFFFFFF), self.reason & 0xFFFF, self.marks)

    def add(self, fact: Fact) -> None:
        """Takes in an event that followed; one that is known already is left out."""
        if self.facts and fact.sequence <= self.facts[-1].sequence:
            return
        self.facts.append(fact)
        self.marks |= mark_of(fact)
        self.packed = RECORD.pack(min(self.cost, 0xFFFFFFFF), self.reason & 0xFFFF, self.marks)

    @property
    def refused(self) -> bool:
        """Whether it tells of an entry that a rule refused: no instruction of the guest ran."""
        return bool(self.event.common == "entry_failure")

    @cached_property
    def title(self) -> str:
        """What it is called: ``page fault``, ``I/O instruction``."""
        head = str(self.event.explain()).partition(":")[0]
        return head.partition(", ")[2] or head

    @cached_property
    def what(self) -> str:
        """The sentence of it, without number and name, and without who will handle it."""
        e = self.event
        second = e.info2 if e.vendor == "amd" else e.error_code
        said = hardware_sentence(e.vendor, e.reason, e.qualification, second, e.interruption, e.rip)
        _, colon, rest = said.partition(": ")
        return f"{rest if colon else said}."

    @property
    def done(self) -> tuple[int, int]:
        """The position where it is dealt with: what "next exit" shows, and so does a click on the exit."""
        for fact in self.facts:
            if fact.kind == "user_exit" or (fact.kind == "phase" and fact.fields["phase"] == PHASE_HANDLED):
                return fact.instructions, fact.sequence + 1
        return self.instructions, self.sequence + 1

    def same(self, other: ExitRecord) -> bool:
        return (self.sequence, self.instructions, self.reason, self.rip) == (
            other.sequence, other.instructions, other.reason, other.rip)


class Counts(NamedTuple):
    """How often each of the four ways was taken so far."""

    ioctl: int
    returns: int
    entries: int
    exits: int


WAYS = {"user_enter": "ioctl", "user_exit": "return", "entry": "entry", "exit": "exit"}
"""Kind of event to the arrow that it lights."""


class History:
    """What has been seen of a run."""

    def __init__(self) -> None:
        self.exits: list[ExitRecord] = []
        self.at = 0
        """Sequence number up to which the present has come; what lies behind it is future already seen."""
        self.gap = False
        """Whether events are missing, because a long run pushed them out: then the counters are lower bounds."""
        self._ways: list[tuple[int, str]] = []
        self._refused: set[int] = set()
        self._counts: dict[str, list[int]] = {way: [] for way in WAYS.values()}

    def move(self, to: int, facts: Iterable[Fact]) -> None:
        """The present is now before event number ``to``; ``facts`` are the events since the last present."""
        if to <= self.at:
            self.at = to
            return
        start, exits = self.at, self.exits
        first, last = (bisect_left(exits, sequence, key=_sequence) for sequence in (start, to))
        current = exits[first - 1] if first else None
        fresh: list[ExitRecord] = []
        ways: list[tuple[int, str]] = []
        for fact in facts:
            if not start <= fact.sequence < to:
                continue
            way = WAYS.get(fact.kind)
            if way is not None:
                ways.append((fact.sequence, way))
                if fact.kind == "entry" and fact.fields["failed_check"]:
                    self._refused.add(fact.sequence)
            if fact.kind == "exit":
                cost = fact.instructions - (current.instructions if current is not None else 0)
                current = ExitRecord(fact.sequence, fact.instructions, cost, fact.fields["reason"], fact.rip,
                                     fact.event)
                fresh.append(current)
            elif current is not None:
                current.add(fact)
        replaced = exits[first:last]
        same = len(replaced) == len(fresh) and all(a.same(b) for a, b in zip(replaced, fresh, strict=True))
        if replaced and not same:  # an edit made another future
            last, to_cut = len(exits), None
        else:
            to_cut = to
        exits[first:last] = fresh
        self._put(self._ways, ways, (start, ""), None if to_cut is None else (to_cut, ""))
        for way, numbers in self._counts.items():
            self._put(numbers, [sequence for sequence, name in ways if name == way], start, to_cut)
        self.at = to

    @staticmethod
    def _put(ordered: list[Any], fresh: list[Any], start: Any, stop: Any) -> None:
        """Replaces what lies from ``start`` to before ``stop`` (None: to the end)."""
        end = len(ordered) if stop is None else bisect_left(ordered, stop)
        ordered[bisect_left(ordered, start):end] = fresh

    @property
    def now(self) -> int:
        """How many exits lie before the present: the number of the current one."""
        return bisect_left(self.exits, self.at, key=_sequence)

    def before(self, sequence: int) -> int:
        """How many exits lie before event number ``sequence``."""
        return bisect_left(self.exits, sequence, key=_sequence)

    def counts(self) -> Counts:
        """The four counters at the present."""
        at = {way: bisect_left(numbers, self.at) for way, numbers in self._counts.items()}
        return Counts(at["ioctl"], at["return"], at["entry"], at["exit"])

    def last_way(self) -> tuple[str, bool]:
        """The way just taken, ``""`` for none, and whether it was an entry that was refused."""
        i = bisect_right(self._ways, (self.at, ""))
        if not i:
            return "", False
        sequence, way = self._ways[i - 1]
        return way, sequence in self._refused

    def bulk(self, first: int) -> bytes:
        """The exits from number ``first`` on (from 1), as the timeline draws them."""
        return b"".join(record.packed for record in self.exits[first - 1:])


def mark_of(fact: Fact) -> int:
    """The lane that an event belongs to."""
    if fact.kind == "fill":
        return FILL if fact.fields["now"] & WRITABLE else FILL_READ_ONLY
    if fact.kind == "inject":
        return GUEST_FAULT if fact.fields["type"] == EXCEPTION else INTERRUPT
    return LANES.get(fact.kind, 0)


def _sequence(record: ExitRecord) -> int:
    return record.sequence
