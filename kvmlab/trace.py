"""Positions in time, events, and the timeline that keeps them.

An event is a record of 64 bytes that the engine wrote when something worth seeing happened; what its words mean is said
by the row of its kind in ``engine/trace.def``. Python takes a record apart only when somebody looks at it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

from . import engine, html, tables
from .errors import BadArgument
from .state import Frozen

__all__ = ["EXCEPTIONS", "Event", "EventList", "Position", "Timeline", "kinds", "vector_name"]

EXCEPTIONS = {
    0: ("#DE", "divide error"), 1: ("#DB", "debug"), 2: ("NMI", "non-maskable interrupt"), 3: ("#BP", "breakpoint"),
    4: ("#OF", "overflow"), 5: ("#BR", "bound range"), 6: ("#UD", "invalid opcode"), 7: ("#NM", "no x87 unit"),
    8: ("#DF", "double fault"), 10: ("#TS", "invalid TSS"), 11: ("#NP", "segment not present"),
    12: ("#SS", "stack fault"), 13: ("#GP", "general protection"), 14: ("#PF", "page fault"),
    16: ("#MF", "x87 error"), 17: ("#AC", "alignment check"), 18: ("#MC", "machine check"), 19: ("#XM", "SIMD error"),
    20: ("#VE", "virtualization"), 21: ("#CP", "control protection"),
}  # fmt: skip
"""Vector to mnemonic and name (SDM vol. 3A section 6.15)."""
_TYPES = {
    0: "external interrupt",
    2: "NMI",
    3: "exception",
    4: "software interrupt",
    5: "INT1",
    6: "software exception",
}


def vector_name(vector: int) -> str:
    """``#PF`` for 14, ``vector 0x20`` for what is no exception."""
    return EXCEPTIONS[vector][0] if vector in EXCEPTIONS else f"vector {vector:#x}"


# ---- positions ------------------------------------------------------------------------------------------------------


@functools.total_ordering
class Position:
    """A moment of a run: retired instructions, and the number of the next event.

    Ordered, hashable, usable as an int (the instructions). Numbers compare with the instructions.
    """

    __slots__ = ("instructions", "sequence")
    instructions: int
    sequence: int

    def __init__(self, instructions: int, sequence: int = 0) -> None:
        object.__setattr__(self, "instructions", instructions)
        object.__setattr__(self, "sequence", sequence)

    def __setattr__(self, name: str, value: Any) -> None:
        raise Frozen("A position does not change.", "To go somewhere else: vm.goto(position).")

    def __index__(self) -> int:
        return self.instructions

    __int__ = __index__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Position):
            return self.instructions == other.instructions and self.sequence == other.sequence
        return self.instructions == other if isinstance(other, int) else NotImplemented

    def __lt__(self, other: object) -> bool:
        if isinstance(other, Position):
            return (self.instructions, self.sequence) < (other.instructions, other.sequence)
        return self.instructions < other if isinstance(other, int) else NotImplemented

    def __sub__(self, other: object) -> int:
        """Instructions from ``other`` to here."""
        if isinstance(other, (Position, int)):
            return self.instructions - int(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.instructions)  # equal to an int, so equal hashes

    def __reduce__(self) -> tuple[Any, ...]:
        return Position, (self.instructions, self.sequence)

    def to_dict(self) -> dict[str, int]:
        return {"instructions": self.instructions, "sequence": self.sequence}

    def diff(self, before: Position) -> dict[str, int]:
        """Instructions and events since ``before``."""
        return {"instructions": self - before, "sequence": self.sequence - before.sequence}

    def explain(self) -> str:
        """One sentence."""
        s = "" if self.instructions == 1 else "s"
        return f"After {self.instructions:,} instruction{s} and {self.sequence:,} events."

    def __repr__(self) -> str:
        return f"Position({self.instructions}, {self.sequence})"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return html.bundle(html.paragraph(self.explain()), self.explain())


# ---- events ---------------------------------------------------------------------------------------------------------


@functools.cache
def _rows() -> tuple[dict[str, str], ...]:
    return tuple(engine.event_rows())


@functools.cache
def kinds() -> tuple[str, ...]:
    """The kinds of event by name, in the order of their numbers."""
    return tuple(row["name"] for row in _rows())


def kind_number(name: str) -> int:
    """The number of a kind."""
    try:
        return kinds().index(name)
    except ValueError:
        raise BadArgument(f"There is no event kind {name!r}.", f"There are {', '.join(kinds())}.") from None


def kind_mask(names: Sequence[str]) -> int:
    """A bit per kind."""
    return sum(1 << kind_number(name) for name in set(names))


# What the words a to e are called in Python, by kind. A pair takes some bits of a word: (name, shift, mask).
_WORDS: dict[str, dict[str, Any]] = {
    "retired": {"b": "rflags", "c": "rsp", "d": "rax"},
    "entry": {"a": "failed_check", "b": "guest_rip", "c": "injected", "d": "control_block"},
    "entry_phase": {"a": "phase", "b": "failed_check"},
    "exit": {"a": "reason", "b": "qualification", "c": "info2", "d": "interruption", "e": "idt_vectoring"},
    "decision": {"a": "what", "b": "address", "c": "value"},
    "guest_walk": {"a": "error", "b": "gva", "c": "gpa", "d": "levels"},
    "fill": {"a": "level", "b": "gva", "c": "spte_address", "d": "was", "e": "now"},
    "table_write": {"a": "size", "b": "gpa", "c": "was", "d": "now"},
    "zap": {"a": "level", "b": "gfn", "c": "page", "d": "why"},
    "tlb_flush": {"a": "what", "b": "gva", "c": "asid"},
    "cr_write": {"a": "cr", "b": "was", "c": "now"},
    "irq_queued": {"a": "vector"},
    "window": {"a": "asked"},
    "inject": {"a": [("vector", 0, 0xFF), ("type", 8, 7)], "b": "error_code", "c": "address"},
    "delivery": {"a": [("vector", 0, 0xFF), ("type", 8, 0xFF)], "b": "error_code", "c": "handler", "d": "cr2"},
    "port": {"a": [("size", 0, 0xFF), ("is_write", 8, 1)], "b": "port", "c": "value"},
    "mmio": {"a": [("size", 0, 0xFF), ("is_write", 8, 1)], "b": "gpa", "c": "value"},
    "dirty": {"a": "slot", "b": "gfn"},
    "user_enter": {},
    "user_exit": {"a": "reason"},
    "page_walk": {"a": "error", "b": "gva", "c": "gpa"},
    "emulated": {"a": "instructions", "b": "why", "c": "address"},
    "field_write": {"a": "field", "b": "was", "c": "now"},
    "root_switch": {"a": "found", "b": "cr3", "c": "root"},
    "halt": {},
    "shutdown": {},
    "phase": {"a": "phase"},
    "spte_clear": {"a": "level", "b": "spte_address", "c": "was", "d": "now", "e": "why"},
    "protect": {"a": "locked", "b": "gfn", "c": "role", "d": "page"},
    "rmap": {"a": "added", "b": "gfn", "c": "spte_address", "d": "spte"},
}


@functools.cache
def _words_of(kind: int) -> dict[str, Any]:
    """What a kind's words are called; one without names of ours takes those of its row."""
    row = _rows()[kind]
    known = _WORDS.get(row["name"])
    if known is not None:
        return known
    return {word: re.sub(r"\W+", "_", row[word]).strip("_") for word in "abcde" if row[word]}


_OFFSET = {name: engine.EVENT.offset(name) for name in engine.EVENT.names}
_SIDES = ("guest", "hardware", "hypervisor", "user")
SHADOW_LEVELS = {1: "page", 2: "directory", 3: "PDPT", 4: "PML4", 5: "PML5"}


class Event:
    """Something that happened, with its position and, by kind, its own fields.

    Attributes
    ----------
    kind
        One of :func:`kinds`: ``exit``, ``fill``, ``port`` …
    position
        When it happened.
    side
        Who did it: ``guest``, ``hardware``, ``hypervisor`` or ``user``.
    rip
        The guest's RIP, where that means something.
    vendor
        ``intel`` or ``amd``.
    """

    __slots__ = ("_raw", "vendor")
    _raw: bytes
    vendor: str

    def __init__(self, raw: bytes, vendor: str = "intel") -> None:
        object.__setattr__(self, "_raw", raw)
        object.__setattr__(self, "vendor", vendor)

    def _word(self, name: str) -> int:
        return engine.EVENT.unpack(self._raw)[name]

    @property
    def kind_number(self) -> int:
        return int.from_bytes(self._raw[_OFFSET["kind"] : _OFFSET["kind"] + 2], "little")

    @property
    def kind(self) -> str:
        return kinds()[self.kind_number]

    @property
    def position(self) -> Position:
        return Position(self._word("instructions"), self._word("sequence"))

    @property
    def rip(self) -> int:
        return self._word("rip")

    @property
    def side(self) -> str:
        return _rows()[self.kind_number]["side"].lower()

    @property
    def fields(self) -> dict[str, int]:
        """Its own fields, by name."""
        words = engine.EVENT.unpack(self._raw)
        out: dict[str, int] = {}
        for word, name in _words_of(self.kind_number).items():
            if isinstance(name, str):
                out[name] = words[word]
            else:
                out.update({part: words[word] >> shift & mask for part, shift, mask in name})
        if self.kind in ("guest_walk", "page_walk"):
            out["failed"] = out["error"] >> 31
            out["error"] &= 0x7FFFFFFF
        elif self.kind == "exit" and self.vendor == "intel":
            length = out.pop("info2")
            out["instruction_length"], out["error_code"] = length & 0xFFFFFFFF, length >> 32
        return out

    def __getattr__(self, name: str) -> int:
        if name.startswith("_"):
            raise AttributeError(name)
        fields = self.fields
        if name in fields:
            return fields[name]
        if name == "direction" and "is_write" in fields:
            return ("in", "out")[fields["is_write"]]  # type: ignore[return-value]
        raise AttributeError(
            f"An event of kind {self.kind} has no {name!r}; it has {', '.join(fields) or 'no fields'}."
        )

    def __setattr__(self, name: str, value: Any) -> None:
        raise Frozen("An event is what happened; it does not change.", "To go there: vm.goto(event).")

    def __eq__(self, other: object) -> bool:
        return self._raw == other._raw if isinstance(other, Event) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._raw)

    def __reduce__(self) -> tuple[Any, ...]:
        return Event, (self._raw, self.vendor)

    def to_dict(self) -> dict[str, Any]:
        """Kind, side, position, RIP and its own fields."""
        at = self.position
        return {
            "kind": self.kind,
            "side": self.side,
            "instructions": at.instructions,
            "sequence": at.sequence,
            "rip": self.rip,
            **self.fields,
        }

    def diff(self, before: Event) -> dict[str, tuple[Any, Any]]:
        """What differs from another event: name to (that one's, this one's)."""
        mine, theirs = self.to_dict(), before.to_dict()
        return {name: (theirs.get(name), value) for name, value in mine.items() if theirs.get(name) != value}

    @property
    def common(self) -> str:
        """For an exit: its name on either vendor, such as ``io`` or ``cr_access``; else the kind."""
        if self.kind == "exit":
            row = tables.exit_row(self.vendor, self.reason)
            return row.common if row else "unknown"
        return self.kind

    def explain(self) -> str:
        """One sentence."""
        say = _SAY.get(self.kind)
        return say(self) if say is not None else _plain_sentence(self)

    def __repr__(self) -> str:
        at = self.position
        own = " ".join(f"{name}={value:#x}" for name, value in self.fields.items())
        return f"<{at.instructions}.{at.sequence} {self.kind} {own}".rstrip() + ">"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        rows = [
            [name, html.code(f"{value:#x}" if isinstance(value, int) else value)]
            for name, value in self.to_dict().items()
        ]
        shown = html.join([html.paragraph(self.explain()), html.table("", [], rows)])
        return html.bundle(shown, self.explain())


# ---- their sentences ------------------------------------------------------------------------------------------------


def _plural(n: int, word: str, words: str | None = None) -> str:
    return f"{n:,} {word if n == 1 else words or word + 's'}"


def _bits_of_error(error: int) -> str:
    return f"error code {error:#x}"


def _retired(e: Event) -> str:
    return f"An instruction retired; the next is at {e.rip:#x}, rax is {e.rax:#x}, rsp is {e.rsp:#x}."


def _check(e: Event, row: int) -> str:
    rule = tables.check_row(e.vendor, row)
    return f"rule {rule.id}, {rule.rule}" if rule else f"rule number {row}"


def _entry(e: Event) -> str:
    word = "VM entry" if e.vendor == "intel" else "VMRUN"
    if e.failed_check:
        return f"{word} refused: {_check(e, e.failed_check)}."
    injected = ""
    if e.injected >> 31 & 1:
        injected = f", injecting {vector_name(e.injected & 0xFF)}"
    return f"{word}: the guest goes on at {e.guest_rip:#x}{injected}."


def _entry_phase(e: Event) -> str:
    rows = tables.entry_phases()
    what = rows[e.phase - 1].summary if 1 <= e.phase <= len(rows) else f"phase {e.phase}"
    if e.failed_check:
        return f"VM entry, {what}: it fails on {_check(e, e.failed_check)}."
    return f"VM entry, {what}: passed."


# The phases of the hypervisor's run loop, and its decisions: enum hv_phase and enum hv_decision of hv/hv.h.
_PHASES = ("is back in user space", "is about to enter the guest", "has entered the guest", "has an exit to handle",
           "has handled the exit", "is in a phase without a name")  # fmt: skip
PHASE_HANDLED = 4
_CR_WAYS = ("write CR{}", "read CR{}", "clear CR0.TS", "load the low half of CR0")
_DECISIONS: dict[int, Callable[[Event], str]] = {
    1: lambda e: f"the fault at {e.address:#x} is the guest's own, so the guest gets #PF with error code {e.value:#x}",
    2: lambda e: f"{e.address:#x} lies in no memory slot, so this is MMIO and user space answers it",
    3: lambda e: f"{e.address:#x} is one of the guest's page tables, so the store is emulated",
    4: lambda e: f"port {e.address:#x} belongs to user space, as I/O always does",
    5: lambda e: f"CPUID leaf {e.address & 0xFFFFFFFF:#x} goes to user space, as CPUID always does",
    6: lambda e: "an interrupt waits, so the guest goes on" if e.value else "nothing is pending, so KVM_RUN returns",
    7: lambda e: f"MSR {e.address:#x} is answered here, {e.value:#x}",
    8: lambda e: (
        f"the guest may {_CR_WAYS[e.address >> 4 & 3].format(e.address & 15)}; it is done for it"
        if e.vendor == "intel"
        else "the access to the control register is done for the guest"
    ),
    9: lambda e: f"the access to DR{e.address} is done for the guest",
    10: lambda e: f"virtual-8086 mode cannot do what stands at {e.address:#x}, so it is done in software",
    11: lambda e: f"there is no handler for exit reason {e.address:#x}, so user space gets UNKNOWN",
    12: lambda e: "the interrupt was meant for the host, which took it",
    13: lambda e: f"the delivery of an event touched {e.address:#x} and is tried again",
    14: lambda e: f"user space debugs the guest and stops it at {e.address:#x}",
    15: lambda e: "the guest shut down, and KVM_RUN returns",
    16: lambda e: f"the guest has no such instruction at {e.address:#x}: it gets #UD",
}


def _decision(e: Event) -> str:
    words = _DECISIONS.get(e.what)
    return f"The hypervisor decides: {words(e)}." if words else f"The hypervisor decides (kind {e.what})."


def exit_title(vendor: str, reason: int) -> str:
    """``VM exit 30, IO_INSTRUCTION``: number and name as the vendor prints them."""
    row = tables.exit_row(vendor, reason)
    number = str(reason & 0xFFFF) if vendor == "intel" else f"{reason:#x}"
    return f"VM exit {number}" + (f", {row.name}" if row else "")


def _exit(e: Event) -> str:
    from .exits import handled_by, hardware_sentence

    said = hardware_sentence(e.vendor, e.reason, e.qualification, _second(e), e.interruption, e.rip)
    vector = e.interruption & 0xFF if e.vendor == "intel" else e.reason - 0x40
    who = handled_by(e.common, vector)
    return f"{said}; {who}." if who else f"{said}."


def _second(e: Event) -> int:
    """EXITINFO2, or the error code of the exception that exited."""
    return e.info2 if e.vendor == "amd" else e.error_code


def _plain_sentence(e: Event) -> str:
    """For a kind without a sentence of its own: what its row says, and its words."""
    words = ", ".join(f"{name.replace('_', ' ')} {value:#x}" for name, value in e.fields.items())
    summary = _rows()[e.kind_number]["summary"]
    return f"{summary[0].upper()}{summary[1:]}{': ' + words if words else ''}."


def _walked(e: Event, who: str) -> str:
    if e.failed:
        return f"{who} walked the page tables for {e.gva:#x} and found a fault, {_bits_of_error(e.error)}."
    return f"{who} walked the page tables: {e.gva:#x} is at {e.gpa:#x}."


def _fill(e: Event) -> str:
    where = f"shadow entry at {e.spte_address:#x} (level {e.level})"
    verb = "changed" if e.was & 1 else "made"
    return f"The hypervisor {verb} the {where} for {e.gva:#x}: {e.was:#x} became {e.now:#x}."


def _table_write(e: Event) -> str:
    return (
        f"The guest stored {_plural(e.size, 'byte')} to its own page table at {e.gpa:#x}: {e.was:#x} became "
        f"{e.now:#x}; the table is write-protected, so the hypervisor emulated the store."
    )


def _zap(e: Event) -> str:
    why = _ZAP_WHY.get(e.why, "")
    return f"The hypervisor dropped the shadow of guest frame {e.gfn:#x} (level {e.level}, page {e.page:#x}){why}."


_ZAP_WHY = {
    1: ", because the guest stored to that table",
    2: ", because the guest stores to that table again and again, so it is no table any more",
    3: ", because the guest stored across an entry, so it is no table any more",
    4: ", because the pool had no free page",
    5: ", because a memory slot changed",
    6: ", because user space wrote there",
    7: ", because an event had to be delivered through it",
    8: ", because the entry above it was dropped",
    9: ", because another entry takes its place",
}
_EMULATED_WHY = (  # enum emulated_why of hv/hv.h; {1}: the segment
    "virtual-8086 mode cannot do what stands at {0:#x}",
    "the limit of {1} is above 64 KB, which virtual-8086 mode cannot express",
    "the limit of {1} is below 64 KB, which virtual-8086 mode cannot express",
    "the base of {1} is not its selector times 16, which virtual-8086 mode cannot express",
    "{1} is a 32-bit segment, which virtual-8086 mode cannot express",
    'real_mode="emulate" asks for it',
    "it accesses a device",
    "it stores to a page table that is shadowed",
    "it accesses a control or debug register, and SVM does not tell how",
)
_SEGMENTS = ("ES", "CS", "SS", "DS", "FS", "GS")


def _spte_clear(e: Event) -> str:
    if e.now & 1:
        return f"The shadow entry at {e.spte_address:#x} lost a right: {e.was:#x} became {e.now:#x}."
    why = _ZAP_WHY.get(e.why, "")
    return f"The hypervisor dropped the shadow entry at {e.spte_address:#x} (level {e.level}, {e.was:#x}){why}."


def _protect(e: Event) -> str:
    if e.locked:
        return (
            f"Guest frame {e.gfn:#x} is a page table that is shadowed now, so its page became read-only in the shadow."
        )
    return f"Guest frame {e.gfn:#x} is shadowed as a page table no more, so the guest may write to it again."


def _rmap(e: Event) -> str:
    verb = "entered into" if e.added else "taken out of"
    return f"The shadow entry at {e.spte_address:#x} was {verb} the reverse map of guest frame {e.gfn:#x}."


def _tlb_flush(e: Event) -> str:
    what = (
        "all translations, global ones too,",
        "all translations that are not global",
        f"the translation of {e.gva:#x}",
    )[min(e.what, 2)]
    return f"The processor forgot {what} of address space {e.asid}."


def _cr_write(e: Event) -> str:
    return f"The guest wrote CR{e.cr}: {e.was:#x} became {e.now:#x}."


def _inject(e: Event) -> str:
    kind = _TYPES.get(e.type, "event")
    error = f", error code {e.error_code:#x}" if e.vector in (8, 10, 11, 12, 13, 14, 17, 21) and e.type == 3 else ""
    where = f" for {e.address:#x}" if e.vector == 14 and e.type == 3 else ""
    return f"The hypervisor put {vector_name(e.vector)} ({kind}{error}){where} into the next VM entry."


def _delivery(e: Event) -> str:
    name = EXCEPTIONS.get(e.vector, ("", ""))[1] if e.type == 3 else ""
    words = f"{vector_name(e.vector)}" + (f", {name}," if name else "")
    error = (
        f" with {_bits_of_error(e.error_code)}" if e.vector in (8, 10, 11, 12, 13, 14, 17, 21) and e.type == 3 else ""
    )
    where = f" for {e.cr2:#x}" if e.vector == 14 and e.type == 3 else ""
    handler = e.handler & (1 << 48) - 1
    return f"The processor delivered {words}{error}{where} at {e.rip:#x}: the handler at {handler:#x} goes on."


def _access(e: Event, what: str) -> str:
    verb = (
        f"wrote {e.value:#x} ({_plural(e.size, 'byte')}) to"
        if e.is_write
        else f"read {e.value:#x} ({_plural(e.size, 'byte')}) from"
    )
    return f"The guest {verb} {what} at {e.rip:#x}."


def _user_exit(e: Event) -> str:
    from .exits import ExitReason

    try:
        name = ExitReason(e.reason).name
    except ValueError:
        name = str(e.reason)
    return f"KVM_RUN returns to user space: {name}."


def _emulated(e: Event) -> str:
    segment = _SEGMENTS[min(e.why >> 8 & 0xFF, len(_SEGMENTS) - 1)]
    why = _EMULATED_WHY[min(e.why & 0xFF, len(_EMULATED_WHY) - 1)].format(e.address, segment)
    return f"The hypervisor emulated {_plural(e.instructions, 'instruction')} from {e.address:#x}, because {why}."


def _field_write(e: Event) -> str:
    name = (
        next((row.name for row in tables.vmcs_fields() if row.encoding == e.field), None)
        if e.vendor == "intel"
        else None
    )
    if name is None and e.vendor == "amd":
        name = next((row.name for row in tables.vmcb_fields() if row.offset == e.field), None)
    block = "VMCS" if e.vendor == "intel" else "VMCB"
    return f"The hypervisor wrote {name or hex(e.field)} in the {block}: {e.was:#x} became {e.now:#x}."


_SAY: dict[str, Callable[[Event], str]] = {
    "retired": _retired,
    "entry": _entry,
    "entry_phase": _entry_phase,
    "exit": _exit,
    "decision": _decision,
    "spte_clear": _spte_clear,
    "protect": _protect,
    "rmap": _rmap,
    "phase": lambda e: f"The hypervisor's run loop {_PHASES[min(e.phase, len(_PHASES) - 1)]}.",
    "guest_walk": lambda e: _walked(e, "The hypervisor"),
    "fill": _fill,
    "table_write": _table_write,
    "zap": _zap,
    "tlb_flush": _tlb_flush,
    "cr_write": _cr_write,
    "irq_queued": lambda e: f"User space queued an interrupt, vector {e.vector:#x}.",
    "window": lambda e: ("The guest cannot take the interrupt now, so the hypervisor asked for an exit when it can."
                         if e.asked else "The interrupt window is open: the guest can take the interrupt now."),
    "inject": _inject,
    "delivery": _delivery,
    "port": lambda e: _access(e, f"port {e.port:#x}"),
    "mmio": lambda e: _access(e, f"device memory at {e.gpa:#x}"),
    "dirty": lambda e: f"Page {e.gfn:#x} of slot {e.slot} was written since the log was read, so the log marks it.",
    "user_enter": lambda e: "KVM_RUN begins: user space asks the hypervisor to run the guest.",
    "user_exit": _user_exit,
    "page_walk": lambda e: _walked(e, "The processor"),
    "emulated": _emulated,
    "field_write": _field_write,
    "root_switch": lambda e: (f"The guest's CR3 is {e.cr3:#x}: the hypervisor "
                              f"{'found its shadow root' if e.found else 'made a shadow root'} at {e.root:#x}."),
    "halt": lambda e: f"The processor halted at {e.rip:#x}: it waits for an interrupt.",
    "shutdown": lambda e: f"Triple fault at {e.rip:#x}: the processor shut down.",
}  # fmt: skip


# ---- the timeline ---------------------------------------------------------------------------------------------------


class EventList(Sequence[Event]):
    """Events that were picked from a timeline."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = tuple(events)

    def __len__(self) -> int:
        return len(self._events)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> EventList: ...
    def __getitem__(self, index: int | slice) -> Event | EventList:
        return EventList(self._events[index]) if isinstance(index, slice) else self._events[index]

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._events)

    def filter(self, kind: str | Sequence[str] | None = None, **fields: Any) -> EventList:
        """Events of a kind (or one of several; for exits also the common name, ``io``), with these fields."""
        return EventList([event for event in self if _matches(event, kind, fields)])

    def to_records(self) -> list[dict[str, Any]]:
        """A dictionary per event, as pandas takes them."""
        return [event.to_dict() for event in self]

    def explain(self) -> str:
        """What they are, counted by kind."""
        return _counted(self)

    def __repr__(self) -> str:
        return _listed(self)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return _table(self)


class Timeline:
    """All events that are kept, oldest first. Read from the engine piece by piece, while it is looked at.

    ``vm.timeline[-1]``, ``for event in vm.timeline``, ``vm.timeline.filter(kind="exit")``, ``.to_records()``.
    """

    _PIECE = 2048

    def __init__(
        self, source: Callable[[int, int], tuple[int, bytes]], bounds: Callable[[], tuple[int, int]], vendor: str
    ) -> None:
        self._source = source
        self._bounds = bounds
        self._vendor = vendor

    def __len__(self) -> int:
        first, following = self._bounds()
        return following - first

    def __bool__(self) -> bool:
        return len(self) > 0

    def _raw(self) -> Iterator[bytes]:
        at, following = self._bounds()
        size = engine.EVENT.size
        while at < following:
            at, data = self._source(at, min(self._PIECE, following - at))
            if not data:
                return
            for n in range(0, len(data), size):
                yield data[n : n + size]
            at += len(data) // size

    def __iter__(self) -> Iterator[Event]:
        return (Event(raw, self._vendor) for raw in self._raw())

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> EventList: ...
    def __getitem__(self, index: int | slice) -> Event | EventList:
        first, following = self._bounds()
        if isinstance(index, slice):
            chosen = range(first, following)[index]
            if chosen.step == 1 and chosen:
                return EventList([Event(raw, self._vendor) for raw in self._between(chosen[0], chosen[-1] + 1)])
            return EventList([self._one(number) for number in chosen])
        try:
            return self._one(range(first, following)[index])
        except IndexError:
            raise IndexError(f"event {index} is not kept; the timeline has {following - first}") from None

    def _between(self, start: int, end: int) -> Iterator[bytes]:
        size = engine.EVENT.size
        while start < end:
            start, data = self._source(start, min(self._PIECE, end - start))
            if not data:
                return
            for n in range(0, len(data), size):
                yield data[n : n + size]
            start += len(data) // size

    def _one(self, number: int) -> Event:
        return Event(self._source(number, 1)[1], self._vendor)

    def filter(self, kind: str | Sequence[str] | None = None, **fields: Any) -> EventList:
        """Events of a kind (or one of several; for exits also the common name, ``io``), with these fields."""
        return EventList([event for event in self if _matches(event, kind, fields)])

    def since(self, position: Position) -> EventList:
        """Events at or after a position."""
        first, following = self._bounds()
        low, high = first, following
        while low < high:  # positions are in order
            middle = (low + high) // 2
            if self._one(middle).position.sequence < position.sequence:
                low = middle + 1
            else:
                high = middle
        return EventList([Event(raw, self._vendor) for raw in self._between(low, following)])

    def to_records(self) -> list[dict[str, Any]]:
        """A dictionary per event, as pandas takes them."""
        return [event.to_dict() for event in self]

    def counts(self) -> dict[str, int]:
        """How many of each kind."""
        counted: dict[int, int] = {}
        at = _OFFSET["kind"]
        for raw in self._raw():
            counted[raw[at]] = counted.get(raw[at], 0) + 1
        return {name: counted[n] for n, name in enumerate(kinds()) if n in counted}

    def explain(self) -> str:
        """What is in it, counted by kind."""
        return _counted(self)

    def __repr__(self) -> str:
        return _listed(self)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return _table(self)


def _matches(event: Event, kind: str | Sequence[str] | None, fields: dict[str, Any]) -> bool:
    if kind is not None:
        wanted = (kind,) if isinstance(kind, str) else tuple(kind)
        if event.kind not in wanted and event.common not in wanted:
            return False
    if not fields:
        return True
    known = event.to_dict()
    return all(name in known and known[name] == value for name, value in fields.items())


def _counted(events: Timeline | EventList) -> str:
    counted: dict[str, int] = {}
    for event in events:
        counted[event.kind] = counted.get(event.kind, 0) + 1
    if not counted:
        return "No events."
    return (
        f"{_plural(sum(counted.values()), 'event')}: " + ", ".join(f"{name} {n:,}" for name, n in counted.items()) + "."
    )


_SHOWN = 60


def _listed(events: Timeline | EventList) -> str:
    total = len(events)
    rows = [
        f"{e.position.instructions:>10,}.{e.position.sequence:<8} {e.kind:<12} {e.explain()}" for e in events[-_SHOWN:]
    ]
    head = f"{_plural(total, 'event')}" + (f", the last {_SHOWN}:" if total > _SHOWN else ":" if total else "")
    return "\n".join([head, *rows])


def _table(events: Timeline | EventList) -> dict[str, str]:
    total = len(events)
    rows = [[f"{e.position.instructions:,}", e.side, e.kind, e.explain()] for e in events[-_SHOWN:]]
    caption = f"{_plural(total, 'event')}" + (f", the last {_SHOWN}" if total > _SHOWN else "")
    return html.bundle(
        html.table(caption, ["instructions", "who", "kind", "what happened"], rows, align="r"), _listed(events)
    )
