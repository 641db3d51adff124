"""Stops: why ``vm.run()`` came back, with the values, and one sentence that says what, where, why and who handles it.

An :class:`Exit` is immutable. It keeps the bytes of the engine's record and takes them apart when asked, because a
program that steps a million instructions looks at few of them.
"""

from __future__ import annotations

import enum
import struct
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from . import engine, html, tables
from .errors import BadArgument
from .state import Frozen
from .trace import EXCEPTIONS, Event, Position, vector_name

__all__ = ["Exit", "ExitReason", "hardware_sentence"]


class ExitReason(enum.IntEnum):
    """Why a run came back. The first eight are of the interface of 2006; the rest are ours."""

    UNKNOWN = engine.EXIT_REASONS["UNKNOWN"]
    EXCEPTION = engine.EXIT_REASONS["EXCEPTION"]
    IO = engine.EXIT_REASONS["IO"]
    CPUID = engine.EXIT_REASONS["CPUID"]
    DEBUG = engine.EXIT_REASONS["DEBUG"]
    HLT = engine.EXIT_REASONS["HLT"]
    MMIO = engine.EXIT_REASONS["MMIO"]
    FAIL_ENTRY = engine.EXIT_REASONS["FAIL_ENTRY"]
    SHUTDOWN = engine.EXIT_REASONS["SHUTDOWN"]
    LIMIT = engine.EXIT_REASONS["LIMIT"]
    STOPPED = engine.EXIT_REASONS["STOPPED"]
    EVENT = engine.EXIT_REASONS["EVENT"]
    REAL_MODE = engine.EXIT_REASONS["REAL_MODE"]


class Where(NamedTuple):
    """What an exit's sentence needs to know of its machine: ``vm`` or ``machine``; the engine; the vendor."""

    kind: str = "vm"
    engine: str = "soft"
    vendor: str = "intel"


NO_HARDWARE_EXIT = 0xFFFFFFFF

# Which fields an exit has, beside reason, rip and position.
_HARDWARE = ("hardware_reason", "instruction_length", "qualification", "info2")
_FIELDS: dict[ExitReason, tuple[str, ...]] = {
    ExitReason.UNKNOWN: ("suberror",),
    ExitReason.EXCEPTION: ("exception", "error_code", "address"),
    ExitReason.IO: (
        "direction",
        "port",
        "size",
        "count",
        "value",
        "data",
        "string",
        "rep",
        "down",
        "address",
        "is_write",
    ),
    ExitReason.CPUID: ("leaf", "subleaf"),
    ExitReason.DEBUG: ("breakpoint",),
    ExitReason.HLT: (),
    ExitReason.MMIO: ("direction", "gpa", "size", "value", "data", "is_write"),
    ExitReason.FAIL_ENTRY: ("entry_error", "rule"),
    ExitReason.SHUTDOWN: (),
    ExitReason.LIMIT: ("no_progress", "limit"),
    ExitReason.STOPPED: (),
    ExitReason.EVENT: ("event", "event_kind", "phase"),
    ExitReason.REAL_MODE: (),
}
_ENGINE_FIELDS = frozenset(engine.EXIT.names)
_AT = {name: engine.EXIT.offset(name) for name in ("reason", "rip", "instructions", "sequence")}
_U32, _U64 = struct.Struct("=I"), struct.Struct("=Q")


class Exit:
    """Why a run came back, at one moment.

    Attributes
    ----------
    reason : ExitReason
    rip : int
        The guest's RIP; at an I/O instruction, CPUID and an MMIO read it is still on the instruction.
    position : Position
        Instructions retired so far.

    Others by reason; asking for one that this reason does not have says which ones it has:

    ========== ==============================================================================================
    IO         direction (``in``, ``out``), port, size (bytes of one element), count, value (an ``out``), data (bytes of
               all elements), string, rep, down (DF = 1), address (of a string, linear)
    MMIO       direction (``read``, ``write``), gpa, size, value and data (a ``write``)
    CPUID      leaf, subleaf
    EXCEPTION  exception (vector), error_code, address (#PF)
    DEBUG      breakpoint: its linear address, or None after a step
    FAIL_ENTRY entry_error, rule: the entry check that failed
    LIMIT      limit, no_progress
    EVENT      event: what :meth:`VM.step_event` or ``step_exit`` stopped at
    ========== ==============================================================================================

    Where the hardware exited (hypervisor or /dev/kvm below): hardware_reason, instruction_length, qualification, info2.
    """

    __slots__ = ("__weakref__", "_state")
    # One slot: stops are made by the million, and setting one is what making one costs.
    _state: tuple[bytes, ExitReason, Where, dict[str, Any] | None, weakref.ref[Any] | None]
    fill: ClassVar[Callable[[Exit, tuple[Any, ...]], None]]

    def __init__(self, reason: ExitReason | str, where: Where | None = None, **fields: Any) -> None:
        """For tests and for those who write their own engine; machines make theirs from the engine's record."""
        reason = ExitReason[reason.upper()] if isinstance(reason, str) else ExitReason(reason)
        values = dict.fromkeys(engine.EXIT.names, 0)
        values["hardware_reason"] = NO_HARDWARE_EXIT
        extra: dict[str, Any] = {}
        position = fields.pop("position", None)
        if position is not None:
            values["instructions"], values["sequence"] = position.instructions, position.sequence
        if "direction" in fields:
            values["is_write"] = fields.pop("direction") in ("out", "write")
        if "gpa" in fields:
            values["address"] = fields.pop("gpa")
        for name, value in fields.items():
            if name in values and isinstance(value, int):
                values[name] = value
            else:
                extra[name] = value
        values["reason"] = int(reason)
        values["count"] = values["count"] or 1
        Exit.fill(self, (engine.EXIT.pack(values.values()), reason, where or Where(), extra or None, None))

    @classmethod
    def _from(
        cls,
        raw: bytes,
        where: Where,
        owner: weakref.ref[Any] | None = None,
        extra: dict[str, Any] | None = None,
        reason: ExitReason | None = None,
    ) -> Exit:
        """From the bytes of the engine's struct."""
        self = object.__new__(cls)
        if reason is None:
            reason = ExitReason(_U32.unpack_from(raw, _AT["reason"])[0])
        Exit.fill(self, (raw, reason, where, extra, owner))
        return self

    # ---- what it is

    @property
    def reason(self) -> ExitReason:
        return self._state[1]

    @property
    def _raw(self) -> bytes:
        return self._state[0]

    @property
    def _where(self) -> Where:
        return self._state[2]

    @property
    def _extra(self) -> dict[str, Any] | None:
        return self._state[3]

    @property
    def _owner(self) -> weakref.ref[Any] | None:
        return self._state[4]

    @property
    def rip(self) -> int:
        return _U64.unpack_from(self._raw, _AT["rip"])[0]  # type: ignore[no-any-return]

    @property
    def position(self) -> Position:
        return Position(
            _U64.unpack_from(self._raw, _AT["instructions"])[0], _U64.unpack_from(self._raw, _AT["sequence"])[0]
        )

    @property
    def kind(self) -> str:
        """The reason in small letters: ``io``, ``hlt`` …"""
        return self.reason.name.lower()

    def _names(self) -> tuple[str, ...]:
        names = _FIELDS[self.reason]
        if self.reason in (ExitReason.IO, ExitReason.MMIO) and not self._number("is_write"):
            names = tuple(n for n in names if n not in ("value", "data"))
        if self._number("hardware_reason") != NO_HARDWARE_EXIT:
            names += _HARDWARE
        return names

    def _number(self, name: str) -> int:
        return engine.EXIT.unpack(self._raw)[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._extra is not None and name in self._extra:
            return self._extra[name]
        if name in self._names():
            special = _SPECIAL.get(name)
            if special is not None:
                return special(self)
            if name in _ENGINE_FIELDS:
                value = self._number(name)
                return bool(value) if name in ("string", "rep", "down", "is_write", "no_progress") else value
            return None
        raise AttributeError(
            f"A stop of kind {self.reason.name}{self._way()} has no {name!r}; it has "
            f"{', '.join(('reason', 'rip', 'position', *self._names()))}."
        )

    def _way(self) -> str:
        if self.reason in (ExitReason.IO, ExitReason.MMIO):
            return f" ({_SPECIAL['direction'](self)})"
        return ""

    def __setattr__(self, name: str, value: Any) -> None:
        raise Frozen(
            "A stop says what happened, so it does not change.",
            "To answer a read: stop.reply(value). To change registers: vm.set(rax=1).",
        )

    def __delattr__(self, name: str) -> None:
        self.__setattr__(name, None)

    # ---- answering

    def reply(self, value: int | bytes | dict[str, int]) -> None:
        """Answers an IN, an MMIO read or a CPUID. The next run completes the instruction with it.

        Parameters
        ----------
        value : int, bytes or dict
            A number as wide as the access; bytes (low address first; for a string all its elements); for CPUID a
            dictionary of ``rax``, ``rbx``, ``rcx``, ``rdx``: what is left out keeps the processor's own value.

        Raises
        ------
        BadArgument
            This is not the machine's latest stop, it asks for nothing, or the value has another size.
        """
        owner = self._owner() if self._owner is not None else None
        if owner is None:
            raise BadArgument(
                "This stop has no machine any more: it was unpickled, or the machine is closed.",
                "Only the latest stop of a living machine can be answered.",
            )
        owner._answer(self, value)

    # ---- moments

    def _key(self) -> tuple[Any, ...]:
        return self._raw, self.reason, self._where, self._extra

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Exit) else NotImplemented

    def __hash__(self) -> int:
        return hash((self._raw, self.reason))

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self._raw, self.reason, self._where, self._extra)

    def to_dict(self) -> dict[str, Any]:
        """Reason by name, RIP, position and the fields that this reason has; bytes as hexadecimal text."""
        out: dict[str, Any] = {"reason": self.reason.name, "rip": self.rip, **self.position.to_dict()}
        for name in (*self._names(), *(self._extra or ())):
            value = getattr(self, name)
            if hasattr(value, "to_dict"):
                value = value.to_dict()
            elif hasattr(value, "_asdict"):
                value = value._asdict()
            out[name] = value.hex() if isinstance(value, bytes) else value
        return out

    def diff(self, before: Exit) -> dict[str, tuple[Any, Any]]:
        """What differs from another stop: name to (that one's, this one's)."""
        mine, theirs = self.to_dict(), before.to_dict()
        return {name: (theirs.get(name), value) for name, value in mine.items() if theirs.get(name) != value}

    def explain(self) -> str:
        """One sentence: what, with values; where; which rule or control bit made it exit; who handles it and why."""
        return _SENTENCE[self.reason](self)

    def __repr__(self) -> str:
        return f"<{self.reason.name}: {self.explain()}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        rows = [[name, _cell(value)] for name, value in self.to_dict().items()]
        shown = html.join([html.paragraph(self.explain()), html.table("", [], rows)])
        return html.bundle(shown, self.explain())


def _cell(value: Any) -> html.Html:
    return html.code(f"{value:#x}" if isinstance(value, int) and not isinstance(value, bool) else str(value))


Exit.fill = Exit.__dict__["_state"].__set__


def _unpickle(raw: bytes, reason: ExitReason, where: Where, extra: dict[str, Any] | None) -> Exit:
    return Exit._from(raw, Where(*where), None, extra, reason)


def _direction(stop: Exit) -> str:
    write = bool(stop._number("is_write"))
    return ("in", "out")[write] if stop.reason == ExitReason.IO else ("read", "write")[write]


def _data(stop: Exit) -> bytes:
    size = min(stop._number("size"), 8)
    return (stop._number("value") & (1 << 8 * size) - 1).to_bytes(size, "little")


_SPECIAL: dict[str, Any] = {
    "direction": _direction,
    "data": _data,
    "gpa": lambda stop: stop._number("address"),
    "rule": lambda stop: tables.check_row(stop._where.vendor, stop._number("failed_check")),
    "breakpoint": lambda stop: None,
    "leaf": lambda stop: stop._number("value") & 0xFFFFFFFF,
    "subleaf": lambda stop: stop._number("value") >> 32,
}


# ---- sentences ------------------------------------------------------------------------------------------------------

_TITLES = {
    "io": "I/O instruction", "hlt": "HLT", "cpuid": "CPUID", "cr_access": "CR access", "dr_access": "DR access",
    "msr": "MSR access", "interrupt": "external interrupt", "interrupt_window": "interrupt window",
    "triple_fault": "triple fault", "entry_failure": "entry refused", "invlpg": "INVLPG", "npf": "nested page fault",
    "hypercall": "hypercall", "task_switch": "task switch", "nmi": "NMI",
}  # fmt: skip
_CR_ACCESS = ("MOV to CR{cr}", "MOV from CR{cr}", "CLTS", "LMSW")


def _s(n: int, word: str) -> str:
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def _number_of(vendor: str, reason: int) -> str:
    return str(reason & 0xFFFF) if vendor == "intel" else f"{reason:#x}"


def _title(vendor: str, reason: int, name: str = "") -> str:
    row = tables.exit_row(vendor, reason)
    if not name and row:
        name = _TITLES.get(row.common, row.name.replace("_", " ").lower())
    return f"VM exit {_number_of(vendor, reason)}" + (f", {name}" if name else "")


def hardware_sentence(vendor: str, reason: int, qualification: int, info2: int, interruption: int, rip: int) -> str:
    """What the processor says about a VM exit, without a full stop: what, where, which control selected it."""
    row = tables.exit_row(vendor, reason)
    if row is None:
        return f"{_title(vendor, reason)}: unknown to the tables, at {rip:#x}"
    bits = tables.decode_bits(row.layout, qualification)
    title = _title(vendor, reason)
    where, why = f" at {rip:#x}", _BUILT_IN.get(row.common, row.why) if vendor == "intel" else row.why
    if row.common == "io":
        size = bits["size_minus_1"] + 1 if vendor == "intel" else bits["size"]
        way = "IN" if bits["in"] else "OUT"
        form = ("REP " if bits["rep"] else "") + (way + "S" if bits["string"] else way)
        what = f"{form} of {_s(size, 'byte')} {'from' if bits['in'] else 'to'} port {bits['port']:#x}"
    elif row.common == "cr_access" and vendor == "intel":
        what = _CR_ACCESS[bits["access"]].format(cr=bits["cr"])
        what = f"the guest executed {what}"
    elif row.common == "exception":
        vector = interruption & 0xFF if vendor == "intel" else reason - 0x40
        title, why = _title(vendor, reason, _exception_name(vector)), _why_exception(vendor, vector, row.why)
        if vendor == "intel" and interruption >> 8 & 7 == 2:
            title, what, why = _title(vendor, reason, "NMI"), "an NMI arrived", "NMI exiting is 1"
        elif vector == 14:
            address, error = (qualification, info2) if vendor == "intel" else (info2, qualification)
            who = "user-mode code" if error & 4 else "the guest"
            verb = "fetched from" if error & 16 else "wrote to" if error & 2 else "read"
            cause = "did not allow it" if error & 1 else "had no entry for that page"
            return f"{title}: {who} {verb} {address:#x}{where}, and the shadow tables {cause} ({why})"
        else:
            what = f"{EXCEPTIONS[vector][1] if vector in EXCEPTIONS else vector_name(vector)} came up in the guest"
    elif row.common == "entry_failure":
        return f"{title}: {row.what}{where} ({row.why})"
    else:
        what = row.what
    return f"{title}: {what}{where} ({why})"


_PAGE_FAULT = "it walks the guest's tables, then fills the shadow, or gives the fault to the guest"
_HANDLED_BY = {
    "io": "goes to user space because I/O always does",
    "cpuid": "goes to user space because CPUID always does",
    "hlt": "goes to user space unless an interrupt is pending",
    "cr_access": "the hypervisor does it on the guest's copy, because the real register is its own",
    "dr_access": "the hypervisor answers, because the real registers are its own",
    "msr": "the hypervisor answers, because the real register is its own",
    "interrupt": "it is meant for the host, which takes it, and the guest resumes",
    "nmi": "it is meant for the host, which takes it, and the guest resumes",
    "interrupt_window": "the hypervisor puts the vector that waits into the next entry",
    "triple_fault": "goes to user space, because only a reset goes on",
    "entry_failure": "goes to user space, because the guest cannot run so",
    "invlpg": "the hypervisor drops the shadow entry",
    "vmx_instruction": "the hypervisor hides VMX, so the guest gets #UD",
    "svm_instruction": "the hypervisor hides SVM, so the guest gets #UD",
}


def handled_by(common: str, vector: int) -> str:
    """Who deals with an exit of the built-in hypervisor, and why; ``vector`` is that of an exception."""
    if common == "exception":
        if vector == 14:
            return f"the hypervisor handles it: {_PAGE_FAULT}"
        if vector == 1:
            return "goes to user space, which asked to debug the guest"
        return "the hypervisor runs the instruction in software if that is all, else user space decides"
    return _HANDLED_BY.get(common, "the hypervisor has no handler for it, so user space gets the number")


# Exit 0 of VMX is any exception; which one it was follows from what it led to.
_VECTOR_OF = {"MMIO": 14, "HLT": 13, "IO": 13, "CPUID": 13, "DEBUG": 1, "REAL_MODE": 13}


def _hardware(stop: Exit) -> tuple[str, str]:
    """Where hardware exited: the head of the sentence (``VM exit 30, I/O instruction: ``) and what selected it."""
    reason = stop._number("hardware_reason")
    if reason == NO_HARDWARE_EXIT and not (stop._where.vendor == "amd" and stop.reason == ExitReason.FAIL_ENTRY):
        return "", ""
    vendor = stop._where.vendor
    row = tables.exit_row(vendor, reason)
    if row is not None and row.common == "exception":
        vector = reason - 0x40 if vendor == "amd" else _VECTOR_OF.get(stop.reason.name, -1)
        if stop.reason == ExitReason.EXCEPTION:
            vector = stop.exception
        return _title(vendor, reason, _exception_name(vector)) + ": ", f" ({_why_exception(vendor, vector, row.why)})"
    why = _BUILT_IN.get(row.common, row.why) if row and vendor == "intel" else row.why if row else ""
    return _title(vendor, reason) + ": ", f" ({why})" if why else ""


# What the built-in hypervisor has chosen where the processor's row names several ways (facts of 2006).
_BUILT_IN = {"io": "unconditional I/O exiting is 1"}


def _exception_name(vector: int) -> str:
    if vector == 14:
        return "page fault"
    return EXCEPTIONS[vector][0] if vector in EXCEPTIONS else "exception"


def _why_exception(vendor: str, vector: int, why: str) -> str:
    return f"bit {vector} of the exception bitmap is 1" if vendor == "intel" and vector >= 0 else why


def _who(stop: Exit, always: str) -> str:
    """Who handles what reaches user space, and why."""
    where = stop._where
    if where.kind == "machine":
        return "nothing in the machine answers, so Python does"
    if where.engine == "kvm":
        return "/dev/kvm hands it to user space"
    return f"goes to user space because {always} always does" if always else "goes to user space"


def _text_of(data: bytes) -> str:
    if data and all(0x20 <= byte < 0x7F for byte in data):
        text = data.decode("ascii")
        return f" {text!r}"
    return ""


def _value(value: int, size: int) -> str:
    shown = f"{value & (1 << 8 * size) - 1:#x}"
    return f"({shown}{_text_of(bytes([value & 0xFF])) if size == 1 else ''})"


def _io(stop: Exit) -> str:
    head, why = _hardware(stop)
    size, count, write = stop.size, stop.count, stop.is_write
    port, at = f"port {stop.port:#x}", f"at {stop.rip:#x}"
    if stop.string:
        form = ("REP " if stop.rep else "") + ("OUTS" if write else "INS")
        elements = f"{_s(count, 'element')} of {_s(size, 'byte')}" if count != 1 else _s(size, "byte")
        shown = _quoted(_string(stop)) if write else ""
        way = f"from {stop.address:#x} to {port}" if write else f"from {port} to {stop.address:#x}"
        what = f"{form} of {elements}{shown} {way} {at}{', going down' if stop.down else ''}"
    elif write:
        what = f"OUT of {_s(size, 'byte')} {_value(stop.value, size)} to {port} {at}"
    else:
        what = f"IN of {_s(size, 'byte')} from {port} {at}"
    return f"{head}{what}{why}; {_who(stop, 'I/O')}."


def _string(stop: Exit) -> bytes:
    """The bytes of a string OUT, where they were read; else empty."""
    data = (stop._extra or {}).get("data")
    return data if isinstance(data, bytes) else b""


def _quoted(data: bytes) -> str:
    """`` ("Hello\\n")`` for text, at most 24 characters; nothing for what is none."""
    if not data or any(not 0x20 <= byte < 0x7F and byte not in b"\t\r\n" for byte in data):
        return ""
    text = repr(data[:24].decode("ascii"))[1:-1].replace("\\'", "'")
    return f' ("{text}"' + (" …)" if len(data) > 24 else ")")


def _mmio(stop: Exit) -> str:
    head, why = _hardware(stop)
    size = _s(stop.size, "byte")
    verb = f"wrote {size} {_value(stop.value, stop.size)} to" if stop.is_write else f"read {size} from"
    what = f"the guest {verb} {stop.gpa:#x} at {stop.rip:#x}{why}"
    if stop._where.kind == "machine":
        return f"{head or 'MMIO: '}{what}; no memory is there, so this is MMIO and Python answers it."
    return f"{head or 'MMIO: '}{what}; the page lies in no memory slot, so this is MMIO and user space answers it."


def _cpuid(stop: Exit) -> str:
    head, why = _hardware(stop)
    return (
        f"{head}CPUID of leaf {stop.leaf:#x}, subleaf {stop.subleaf:#x} at {stop.rip:#x}{why}; {_who(stop, 'CPUID')}."
    )


def _hlt(stop: Exit) -> str:
    head, why = _hardware(stop)
    if stop._where.kind == "machine":
        return f"HLT before {stop.rip:#x}: the processor halted and nothing is pending, so the run ends here."
    faulted = ", which faults in virtual-8086 mode" if "#GP" in head else ""
    what = f"the guest executed HLT before {stop.rip:#x}{faulted}{why}"
    return f"{head or 'HLT: '}{what}; nothing is pending, so KVM_RUN returns."


def _debug(stop: Exit) -> str:
    extra = stop._extra or {}
    if "note" in extra:
        return str(extra["note"])
    if extra.get("breakpoint") is not None:
        return (
            f"Breakpoint at {extra['breakpoint']:#x}: the instruction there has not run yet; you asked for this stop."
        )
    steps = extra.get("steps", 1)
    return f"Stepped {_s(steps, 'instruction')}, as asked; the next instruction is at {stop.rip:#x}."


def _exception(stop: Exit) -> str:
    head, why = _hardware(stop)
    mnemonic, name = EXCEPTIONS.get(stop.exception, (vector_name(stop.exception), ""))
    words = f"{mnemonic} ({name})" if name else mnemonic
    error = f", error code {stop.error_code:#x}," if stop.exception in (8, 10, 11, 12, 13, 14, 17) else ""
    return (
        f"{head}exception {stop.exception}, {words}{error} at {stop.rip:#x}{why}; the hypervisor could not give it to "
        "the guest, so user space has to decide."
    )


_SUBERRORS = {
    1: "the kernel could not emulate the instruction",
    2: "two faults at once",
    3: "an exit during event delivery",
    4: "an exit it does not know",
}


def _unknown(stop: Exit) -> str:
    if stop._number("suberror"):
        n = stop._number("suberror")
        return (
            f"/dev/kvm gave up at {stop.rip:#x}: internal error {n}, {_SUBERRORS.get(n, 'without a name')}; "
            "user space gets the number because the kernel cannot go on."
        )
    reason, vendor = stop._number("hardware_reason"), stop._where.vendor
    if reason == NO_HARDWARE_EXIT:
        return f"An exit that nobody knows at {stop.rip:#x}; user space has to decide."
    said = hardware_sentence(vendor, reason, stop._number("qualification"), stop._number("info2"), 0, stop.rip)
    rule = tables.check_row(vendor, stop._number("failed_check"))
    if rule is not None:
        said += f", rule {rule.id}: {rule.rule}"
    return f"{said}; the hypervisor has no handler for it, so user space gets the raw number {reason:#x}."


def _fail_entry(stop: Exit) -> str:
    vendor = stop._where.vendor
    rule = stop.rule
    said = f"rule {rule.id}: {rule.rule}" if rule else ""
    error = stop._number("entry_error")
    if vendor == "intel":
        row = next((row for row in tables.vmx_errors() if row.number == error), None)
        number = f"VM-instruction error {error}" + (f" ({row.meaning})" if row else "")
        head = (
            "VM exit 33, entry refused"
            if error & 0x80000000
            else f"VM entry refused, {number}"
            if error
            else "VM entry refused"
        )
    else:
        head = "VMRUN refused, exit code INVALID"
    said = said or "the guest state breaks a rule"
    return f"{head}: {said}; the guest did not run, and user space gets the number {error:#x}."


def _shutdown(stop: Exit) -> str:
    head, why = _hardware(stop)
    what = f"triple fault at {stop.rip:#x}: a fault came up while a double fault was delivered"
    if stop._where.kind == "machine":
        return f"T{what[1:]}, so the processor shut down; only a reset goes on."
    return f"{head or 'Shutdown: '}{what}{why}; nothing can go on until a reset, so user space is told."


def _limit(stop: Exit) -> str:
    extra = stop._extra or {}
    if stop._number("no_progress"):
        return (
            f"Stopped at {stop.rip:#x} because no instruction retired: the processor delivers one event after the "
            "other and never gets to run; look at the handler's address and stack."
        )
    if extra.get("seconds") is not None:
        return f"Stopped after {extra['seconds']:g} s, as asked; the next instruction is at {stop.rip:#x}."
    n = extra.get("limit")
    after = f" after {_s(n, 'instruction')}, as asked" if n is not None else ""
    return f"Stopped{after}; the next instruction is at {stop.rip:#x}, and the next run goes on there."


def _stopped(stop: Exit) -> str:
    return f"Stopped on request before {stop.rip:#x}, between two instructions; the next run goes on there."


def _event(stop: Exit) -> str:
    event = (stop._extra or {}).get("event")
    if isinstance(event, Event):
        return event.explain()
    return f"Stopped at an event before {stop.rip:#x}, as asked."


def _real_mode(stop: Exit) -> str:
    return (
        f"Real-mode code at {stop.rip:#x} that virtual-8086 mode cannot express: user space emulates one basic block, "
        'because this machine was made with real_mode="user".'
    )


_SENTENCE = {
    ExitReason.UNKNOWN: _unknown, ExitReason.EXCEPTION: _exception, ExitReason.IO: _io, ExitReason.CPUID: _cpuid,
    ExitReason.DEBUG: _debug, ExitReason.HLT: _hlt, ExitReason.MMIO: _mmio, ExitReason.FAIL_ENTRY: _fail_entry,
    ExitReason.SHUTDOWN: _shutdown, ExitReason.LIMIT: _limit, ExitReason.STOPPED: _stopped, ExitReason.EVENT: _event,
    ExitReason.REAL_MODE: _real_mode,
}  # fmt: skip
