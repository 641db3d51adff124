"""What a processor holds at one moment: general registers, segments, control registers, pending events.

All of it is immutable: ``vm.regs`` hands out what the registers *were* when asked, and
``vm.regs = vm.regs.replace(rax=1)`` puts new ones in. Moments compare, pickle, say what they mean (``explain()``), what
changed (``diff()``) and show themselves as plain HTML.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar, dataclass_transform

from . import html
from .errors import BadArgument

__all__ = [
    "CR0",
    "CR4",
    "EFER",
    "GPRS",
    "RFLAGS",
    "Bit",
    "Change",
    "DTable",
    "DebugRegs",
    "Diff",
    "Events",
    "Frozen",
    "Regs",
    "SRegs",
    "Segment",
    "bit_names",
]


# ---- bits -----------------------------------------------------------------------------------------------------------


class Bit(NamedTuple):
    """A bit of a register: its number, its name in the manual, what a 1 means."""

    number: int
    name: str
    meaning: str


RFLAGS = (
    Bit(0, "CF", "carry"), Bit(2, "PF", "parity of the low byte is even"), Bit(4, "AF", "carry out of bit 3"),
    Bit(6, "ZF", "the result was zero"), Bit(7, "SF", "the result was negative"),
    Bit(8, "TF", "single step: #DB after every instruction"), Bit(9, "IF", "maskable interrupts are taken"),
    Bit(10, "DF", "string instructions go down"), Bit(11, "OF", "signed overflow"),
    Bit(14, "NT", "nested task"), Bit(16, "RF", "no debug fault at the next instruction"),
    Bit(17, "VM", "virtual-8086 mode"), Bit(18, "AC", "alignment check, or SMAP override"),
    Bit(19, "VIF", "virtual interrupt flag"), Bit(20, "VIP", "a virtual interrupt is pending"),
    Bit(21, "ID", "CPUID can be used"),
)  # fmt: skip
"""RFLAGS, SDM vol. 1 section 3.4.3. IOPL is bits 13:12."""
CR0 = (
    Bit(0, "PE", "protected mode"), Bit(1, "MP", "WAIT obeys TS"),
    Bit(2, "EM", "no x87 unit: its instructions raise #NM"),
    Bit(3, "TS", "task switched: x87 and SSE raise #NM"), Bit(4, "ET", "387 present (always 1)"),
    Bit(5, "NE", "x87 errors raise #MF"), Bit(16, "WP", "ring 0 obeys read-only pages"),
    Bit(18, "AM", "alignment checks are possible"), Bit(29, "NW", "not write-through"),
    Bit(30, "CD", "cache disabled"), Bit(31, "PG", "paging"),
)  # fmt: skip
"""CR0, SDM vol. 3A section 2.5."""
CR4 = (
    Bit(0, "VME", "virtual-8086 extensions"), Bit(1, "PVI", "protected-mode virtual interrupts"),
    Bit(2, "TSD", "RDTSC only in ring 0"), Bit(3, "DE", "I/O breakpoints"),
    Bit(4, "PSE", "4 MB pages in 32-bit paging"),
    Bit(5, "PAE", "64-bit page-table entries"), Bit(6, "MCE", "machine checks"), Bit(7, "PGE", "global pages"),
    Bit(8, "PCE", "RDPMC in ring 3"), Bit(9, "OSFXSR", "FXSAVE and SSE"), Bit(10, "OSXMMEXCPT", "SSE errors raise #XM"),
    Bit(11, "UMIP", "SGDT, SIDT, SLDT, SMSW, STR only in ring 0"), Bit(12, "LA57", "5-level paging"),
    Bit(13, "VMXE", "VMX can be turned on"), Bit(14, "SMXE", "SMX"), Bit(16, "FSGSBASE", "RDFSBASE and its kin"),
    Bit(17, "PCIDE", "process-context identifiers"), Bit(18, "OSXSAVE", "XSAVE"),
    Bit(20, "SMEP", "ring 0 does not execute user pages"), Bit(21, "SMAP", "ring 0 does not touch user pages"),
    Bit(22, "PKE", "protection keys"), Bit(23, "CET", "control-flow enforcement"),
)  # fmt: skip
"""CR4, SDM vol. 3A section 2.5."""
EFER = (
    Bit(0, "SCE", "SYSCALL and SYSRET"), Bit(8, "LME", "long mode is wanted"), Bit(10, "LMA", "long mode is active"),
    Bit(11, "NXE", "no-execute pages"), Bit(12, "SVME", "SVM can be used"),
    Bit(13, "LMSLE", "segment limits in long mode"),
    Bit(14, "FFXSR", "fast FXSAVE"),
)  # fmt: skip
"""EFER (MSR C0000080h), APM vol. 2 section 3.1.7."""


def bit_names(value: int, bits: Iterable[Bit]) -> tuple[str, ...]:
    """The names of the bits that are 1, lowest first; bits without a name as ``bit 12``."""
    table = {bit.number: bit.name for bit in bits}
    return tuple(table.get(n, f"bit {n}") for n in range(value.bit_length()) if value >> n & 1)


# ---- moments --------------------------------------------------------------------------------------------------------


class Frozen(BadArgument, AttributeError):
    """A moment was assigned to: it says what was, so it does not change."""


class Change(NamedTuple):
    """A value then and now."""

    was: Any
    now: Any


class Diff(Mapping[str, Change]):
    """What differs between two moments: name to (was, now), in the order of the registers."""

    def __init__(self, changes: Mapping[str, Change], what: str = "value") -> None:
        self._changes = dict(changes)
        self._what = what

    def __getitem__(self, name: str) -> Change:
        return self._changes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._changes)

    def __len__(self) -> int:
        return len(self._changes)

    def explain(self) -> str:
        """One sentence."""
        if not self._changes:
            return f"No {self._what} changed."
        return "; ".join(f"{name} was {_shown(c.was)}, is {_shown(c.now)}" for name, c in self._changes.items()) + "."

    def __repr__(self) -> str:
        width = max((len(name) for name in self._changes), default=0)
        rows = [f"{name:<{width}}  {_shown(c.was)} -> {_shown(c.now)}" for name, c in self._changes.items()]
        return "\n".join(rows) if rows else self.explain()

    def to_dict(self) -> dict[str, Any]:
        return {name: {"was": _plain(c.was), "now": _plain(c.now)} for name, c in self._changes.items()}

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        rows = [
            [html.bold(f"{html.CHANGED} {name}"), html.code(_shown(c.was)), html.bold(html.code(_shown(c.now)))]
            for name, c in self._changes.items()
        ]
        shown = (
            html.table(f"{len(rows)} changed", [self._what, "was", "is"], rows)
            if rows
            else html.paragraph(self.explain())
        )
        return html.bundle(shown, repr(self))


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    return f"{value:#x}" if isinstance(value, int) else str(value)


def _plain(value: Any) -> Any:
    """The value in types that JSON has."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    return value


_T = TypeVar("_T")


@dataclass_transform(frozen_default=True)
def moment(hint: str) -> Callable[[type[_T]], type[_T]]:
    """A frozen dataclass whose assignment error shows ``hint``, the line that changes the machine instead."""

    def make(cls: type[_T]) -> type[_T]:
        made: Any = dataclasses.dataclass(frozen=True, slots=True)(cls)

        def refuse(self: Any, name: str, value: Any = None) -> None:
            line = hint.format(name=name, value=_shown(value) if isinstance(value, int) else "…")
            raise Frozen(f"{type(self).__name__} says what was at one moment, so {name} cannot be assigned.", line)

        made.__setattr__ = refuse
        made.__delattr__ = refuse
        return made  # type: ignore[no-any-return]

    return make


class Moment:
    """What all moments have beside their fields."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Its fields in plain types; bytes as hexadecimal text."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    def replace(self: _T, **changes: Any) -> _T:
        """The same moment with some fields changed."""
        known = [f.name for f in dataclasses.fields(self)]  # type: ignore[arg-type]
        for name in changes:
            if name not in known:
                raise unknown(type(self).__name__, name, known)
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def diff(self: _T, before: _T) -> Diff:
        """What changed since ``before``."""
        if type(before) is not type(self):
            raise BadArgument(
                f"{type(self).__name__} cannot be compared with {type(before).__name__}.",
                f"Give another {type(self).__name__}.",
            )
        changes = {}
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            was, now = getattr(before, f.name), getattr(self, f.name)
            if was != now:
                changes[f.name] = Change(was, now)
        return Diff(changes, "field")


def unknown(what: str, name: str, known: Iterable[str]) -> BadArgument:
    import difflib

    known = list(known)
    near = difflib.get_close_matches(name.lower(), known, 3)
    right = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(known)}."
    return BadArgument(f"{what} has no {name!r}.", right)


def number(value: object, name: str, bits: int = 64) -> int:
    """The value as an unsigned number of that many bits; negative numbers in two's complement."""
    try:
        given = value.__index__()  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        raise BadArgument(f"{name}={value!r} is no number.", f"Give one of {bits} bits, such as 0x1000.") from None
    if not -(1 << bits - 1) <= given < 1 << bits:
        raise BadArgument(
            f"{name}={given:#x} is too wide: {name} has {bits} bits.", f"It takes 0 to {(1 << bits) - 1:#x}."
        )
    return int(given) & (1 << bits) - 1


# ---- general registers ----------------------------------------------------------------------------------------------

GPRS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
"""The general registers in the order of their numbers in an instruction."""
_NAMES = (*GPRS, "rip", "rflags")
_STRUCT = struct.Struct("=18Q")
_ONE = struct.Struct("=Q")


def _parts() -> dict[str, tuple[str, int, int]]:
    """Narrower names: register, shift, bits."""
    parts: dict[str, tuple[str, int, int]] = {}
    for n, name in enumerate(GPRS):
        short = name[1:]
        if n < 8:
            parts["e" + short] = (name, 0, 32)
            parts[short] = (name, 0, 16)
            parts[short[0] + "l" if n < 4 else short + "l"] = (name, 0, 8)
            if n < 4:
                parts[short[0] + "h"] = (name, 8, 8)
        else:
            parts.update({name + "d": (name, 0, 32), name + "w": (name, 0, 16), name + "b": (name, 0, 8)})
    parts.update({"eip": ("rip", 0, 32), "ip": ("rip", 0, 16), "eflags": ("rflags", 0, 32)})
    return parts


_PARTS = _parts()
_OFFSET = {name: 8 * n for n, name in enumerate(_NAMES)}


class Regs:
    """The general registers, RIP and RFLAGS at one moment. 64 bits each.

    ``regs.rax`` … ``regs.r15``, ``regs.rip``, ``regs.rflags``; narrower parts by their own names (``regs.eax``,
    ``regs.al``); flags as True or False (``regs.zf``). ``regs.replace(rax=1, al=2)`` gives another one.
    """

    __slots__ = ("_raw",)
    _raw: bytes

    rax: int
    rcx: int
    rdx: int
    rbx: int
    rsp: int
    rbp: int
    rsi: int
    rdi: int
    r8: int
    r9: int
    r10: int
    r11: int
    r12: int
    r13: int
    r14: int
    r15: int
    rip: int
    rflags: int
    NAMES: ClassVar[tuple[str, ...]] = _NAMES

    def __init__(self, **values: int) -> None:
        object.__setattr__(self, "_raw", Regs._from(bytes(_STRUCT.size - 8) + _ONE.pack(2)).replace(**values)._raw)

    @classmethod
    def _from(cls, raw: bytes) -> Regs:
        """From the 144 bytes of the engine's struct; numbers are taken out of them only when asked for."""
        self = _new(cls)
        _put(self, raw)
        return self

    @property
    def raw(self) -> bytes:
        """The engine's struct: 18 numbers of 64 bits, in the order of ``Regs.NAMES``."""
        return self._raw

    def __getattr__(self, name: str) -> Any:
        part = _PARTS.get(name)
        if part is not None:
            whole, shift, bits = part
            return _ONE.unpack_from(self._raw, _OFFSET[whole])[0] >> shift & (1 << bits) - 1
        if name.startswith("_"):
            raise AttributeError(name)
        for bit in RFLAGS:
            if bit.name.lower() == name:
                return bool(self.rflags >> bit.number & 1)
        if name == "iopl":
            return self.rflags >> 12 & 3
        raise AttributeError(str(unknown("Regs", name, _NAMES)))

    def __setattr__(self, name: str, value: Any) -> None:
        shown = f"{value:#x}" if isinstance(value, int) else "…"
        raise Frozen(
            f"Regs says what was at one moment, so {name} cannot be assigned.",
            f"To change the machine: vm.regs = vm.regs.replace({name}={shown}), or in short vm.set({name}={shown}).",
        )

    def __delattr__(self, name: str) -> None:
        self.__setattr__(name, None)

    def __getitem__(self, name: str) -> int:
        if name not in _OFFSET and name not in _PARTS:
            raise unknown("Regs", str(name), _NAMES)
        return int(getattr(self, name))

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __eq__(self, other: object) -> bool:
        return self._raw == other._raw if isinstance(other, Regs) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._raw)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle_regs, _STRUCT.unpack(self._raw)

    def values(self) -> tuple[int, ...]:
        """All numbers, in the order of ``Regs.NAMES``."""
        return _STRUCT.unpack(self._raw)

    def to_dict(self) -> dict[str, int]:
        """Name to number."""
        return dict(zip(_NAMES, _STRUCT.unpack(self._raw), strict=True))

    def replace(self, **changes: int) -> Regs:
        """The same registers with some changed; parts (``al``) change only their bits.

        Raises
        ------
        BadArgument
            An unknown register, or a value wider than it.
        """
        values = self.to_dict()
        for name, value in changes.items():
            if name in values:
                values[name] = number(value, name)
            elif name in _PARTS:
                whole, shift, bits = _PARTS[name]
                kept = values[whole] & ~((1 << bits) - 1 << shift)
                values[whole] = kept | number(value, name, bits) << shift
            else:
                raise unknown("Regs", name, _NAMES)
        return Regs._from(_STRUCT.pack(*values.values()))

    def diff(self, before: Regs) -> Diff:
        """What changed since ``before``."""
        if not isinstance(before, Regs):
            raise BadArgument(
                f"Regs cannot be compared with {type(before).__name__}.", "Give other registers: vm.regs."
            )
        pairs = zip(_NAMES, before.values(), self.values(), strict=True)
        return Diff({name: Change(was, now) for name, was, now in pairs if was != now}, "register")

    @property
    def flags(self) -> tuple[str, ...]:
        """The names of the flags that are 1."""
        rflags = self.rflags & ~0x3002
        return bit_names(rflags, RFLAGS)

    def explain(self) -> str:
        """One sentence."""
        named = " ".join(self.flags) or "none"
        taken = "are taken" if self.rflags & 0x200 else "wait"
        return (
            f"The next instruction is at {self.rip:#x} and the stack at {self.rsp:#x}; flags set: {named}; "
            f"maskable interrupts {taken} (IF = {self.rflags >> 9 & 1})."
        )

    def __repr__(self) -> str:
        cells = [f"{name:<6} {value:016x}" for name, value in zip(_NAMES, self.values(), strict=True)]
        rows = ["   ".join(cells[n : n + 3]) for n in range(0, len(cells), 3)]
        return "\n".join(rows) + f"   {' '.join(self.flags) or 'no flags'}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        values = self.values()
        rows = [
            [
                html.bold(_NAMES[n]),
                html.hexadecimal(values[n]),
                html.bold(_NAMES[n + 8]),
                html.hexadecimal(values[n + 8]),
            ]
            for n in range(8)
        ]
        rows.append(
            [
                html.bold("rip"),
                html.hexadecimal(values[16]),
                html.bold("rflags"),
                html.join([html.hexadecimal(values[17]), " ", " ".join(self.flags)]),
            ]
        )
        return html.bundle(
            html.table("General registers", ["register", "value", "register", "value"], rows), repr(self)
        )


_new = object.__new__
_put = Regs.__dict__["_raw"].__set__


def _register(name: str) -> property:
    offset, unpack = _OFFSET[name], _ONE.unpack_from

    def get(self: Regs) -> int:
        return unpack(self._raw, offset)[0]  # type: ignore[no-any-return]

    return property(get, doc=f"{name.upper()}, 64 bits.")


for _name in _NAMES:
    setattr(Regs, _name, _register(_name))


def _unpickle_regs(*values: int) -> Regs:
    return Regs._from(_STRUCT.pack(*values))


# ---- segments and control registers ---------------------------------------------------------------------------------

_SYSTEM_TYPES = {
    1: "16-bit TSS, free",
    2: "LDT",
    3: "16-bit TSS, busy",
    4: "16-bit call gate",
    5: "task gate",
    6: "16-bit interrupt gate",
    7: "16-bit trap gate",
    9: "TSS, free",
    11: "TSS, busy",
    12: "call gate",
    14: "interrupt gate",
    15: "trap gate",
}


@moment("To change the machine: vm.set(cs=vm.sregs.cs.replace({name}={value})).")
class Segment(Moment):
    """A segment register with its hidden part: what the processor loaded from the descriptor.

    Parameters
    ----------
    selector : int
        16 bits: index, table (bit 2), RPL (bits 1:0).
    base : int
        Linear address, 64 bits.
    limit : int
        The last offset inside, in bytes, 32 bits.
    attr : int
        Access rights as VMX has them (SDM vol. 3C, "Guest Register State"): type in bits 3:0, S 4, DPL 6:5, P 7,
        AVL 12, L 13, D/B 14, G 15, unusable 16.
    """

    selector: int = 0
    base: int = 0
    limit: int = 0xFFFF
    attr: int = 0x93

    @property
    def type(self) -> int:
        return self.attr & 15

    @property
    def s(self) -> bool:
        """Code or data (True), or of the system."""
        return bool(self.attr >> 4 & 1)

    @property
    def dpl(self) -> int:
        return self.attr >> 5 & 3

    @property
    def present(self) -> bool:
        return bool(self.attr >> 7 & 1)

    @property
    def avl(self) -> bool:
        return bool(self.attr >> 12 & 1)

    @property
    def l(self) -> bool:  # noqa: E743
        """64-bit code."""
        return bool(self.attr >> 13 & 1)

    @property
    def db(self) -> bool:
        """32-bit code, stack or upper bound."""
        return bool(self.attr >> 14 & 1)

    @property
    def g(self) -> bool:
        """The limit counts pages of 4 KB."""
        return bool(self.attr >> 15 & 1)

    @property
    def unusable(self) -> bool:
        return bool(self.attr >> 16 & 1)

    @property
    def rpl(self) -> int:
        return self.selector & 3

    @property
    def code(self) -> bool:
        return self.s and bool(self.attr & 8)

    @classmethod
    def from_descriptor(cls, descriptor: int, selector: int = 0) -> Segment:
        """From the 8 bytes of a descriptor, as one number (SDM vol. 3A section 3.4.5)."""
        descriptor = number(descriptor, "descriptor")
        attr = descriptor >> 40 & 0xF0FF
        limit = descriptor & 0xFFFF | descriptor >> 32 & 0xF0000
        if attr >> 15 & 1:
            limit = limit << 12 | 0xFFF
        return cls(selector, descriptor >> 16 & 0xFFFFFF | descriptor >> 32 & 0xFF000000, limit, attr)

    @property
    def descriptor(self) -> int:
        """The 8 bytes of the descriptor that gives this segment; the upper half of a 64-bit base is left out."""
        limit = self.limit >> 12 if self.g else self.limit
        return (
            limit & 0xFFFF
            | (limit & 0xF0000) << 32
            | (self.base & 0xFFFFFF) << 16
            | (self.base & 0xFF000000) << 32
            | (self.attr & 0xF0FF) << 40
        )

    @property
    def kind(self) -> str:
        """The type in words."""
        if self.unusable:
            return "unusable"
        if not self.s:
            return _SYSTEM_TYPES.get(self.type, f"reserved type {self.type}")
        if self.type & 8:
            words = "code, execute/read" if self.type & 2 else "code, execute only"
            words += ", conforming" if self.type & 4 else ""
        else:
            words = "data, read/write" if self.type & 2 else "data, read only"
            words += ", expand down" if self.type & 4 else ""
        return words + (", accessed" if self.type & 1 else "")

    def explain(self) -> str:
        """One sentence."""
        if self.unusable:
            return f"Selector {self.selector:#x}: unusable; any use of it faults."
        size = ("64-bit" if self.l else "32-bit" if self.db else "16-bit") if self.code else ""
        words = f"{size} {self.kind}".strip()
        here = "" if self.present else ", not present"
        return (
            f"Selector {self.selector:#x}: {words}, DPL {self.dpl}{here}; offsets 0 to {self.limit:#x} "
            f"from base {self.base:#x}."
        )

    def __str__(self) -> str:
        return f"{self.selector:#06x} base {self.base:#x} limit {self.limit:#x} {self.kind}"


@moment("To change the machine: vm.sregs = vm.sregs.replace(gdt=DTable(base, limit)).")
class DTable(Moment):
    """GDTR or IDTR: where the table begins (linear) and its last byte's offset."""

    base: int = 0
    limit: int = 0

    def explain(self) -> str:
        """One sentence."""
        return f"{(self.limit + 1) // 8} entries of 8 bytes from {self.base:#x}."

    def __str__(self) -> str:
        return f"base {self.base:#x} limit {self.limit:#x}"


SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
_CONTROL = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")
_SREGS = struct.Struct("=" + "QIIH6x" * 8 + "QQII" + "Q" * 7)


@moment("To change the machine: vm.sregs = vm.sregs.replace({name}={value}), or in short vm.set({name}={value}).")
class SRegs(Moment):
    """Segments, descriptor tables and control registers at one moment."""

    es: Segment = Segment()
    cs: Segment = Segment(attr=0x9B)
    ss: Segment = Segment()
    ds: Segment = Segment()
    fs: Segment = Segment()
    gs: Segment = Segment()
    ldtr: Segment = Segment(attr=0x82)
    tr: Segment = Segment(attr=0x8B)
    gdt: DTable = DTable()
    idt: DTable = DTable(0, 0xFFFF)
    cr0: int = 0x10
    cr2: int = 0
    cr3: int = 0
    cr4: int = 0
    cr8: int = 0
    efer: int = 0
    apic_base: int = 0

    @classmethod
    def _from(cls, raw: bytes) -> SRegs:
        """From the bytes of the engine's struct."""
        v = _SREGS.unpack(raw)
        made: dict[str, Any] = {
            name: Segment(v[4 * n + 3], v[4 * n], v[4 * n + 1], v[4 * n + 2]) for n, name in enumerate(SEGMENTS)
        }
        made |= zip(_CONTROL, v[36:], strict=True)
        return cls(gdt=DTable(v[32], v[34]), idt=DTable(v[33], v[35]), **made)

    @property
    def raw(self) -> bytes:
        """The engine's struct."""
        values: list[int] = []
        for name in SEGMENTS:
            s = getattr(self, name)
            values += (s.base, s.limit, s.attr, s.selector)
        values += (self.gdt.base, self.idt.base, self.gdt.limit, self.idt.limit)
        return _SREGS.pack(*values, *(getattr(self, name) for name in _CONTROL))

    def replace(self, **changes: Any) -> SRegs:
        """The same with some changed; ``cs=Segment(…)``, ``gdt=DTable(…)`` (or a pair), ``cr3=0x1000``.

        Raises
        ------
        BadArgument
            An unknown register, a value wider than it, or something else where a segment belongs.
        """
        checked: dict[str, Any] = {}
        for name, value in changes.items():
            name = "ldtr" if name == "ldt" else name
            if name in SEGMENTS:
                checked[name] = _segment(value, name)
            elif name in ("gdt", "idt"):
                checked[name] = _dtable(value, name)
            elif name in _CONTROL:
                checked[name] = number(value, name)
            else:
                raise unknown("SRegs", name, [*SEGMENTS, "gdt", "idt", *_CONTROL])
        return dataclasses.replace(self, **checked)

    @property
    def ldt(self) -> Segment:
        """The interface of 2006 calls LDTR so."""
        return self.ldtr

    @property
    def cpl(self) -> int:
        """The ring: DPL of SS; virtual-8086 mode, where it is 3, is told by RFLAGS.VM."""
        return self.ss.dpl if self.cr0 & 1 else 0

    @property
    def mode(self) -> str:
        """``real``, ``protected``, ``compatibility`` or ``long`` (virtual-8086 is told by RFLAGS.VM)."""
        if not self.cr0 & 1:
            return "real"
        if self.efer & 0x400:
            return "long" if self.cs.l else "compatibility"
        return "protected"

    @property
    def bits(self) -> int:
        """Size of code that CS gives: 16, 32 or 64."""
        if self.mode == "long":
            return 64
        return 32 if self.cs.db else 16

    @property
    def paging(self) -> str:
        """``none``, ``32-bit``, ``PAE``, ``4-level`` or ``5-level``."""
        if not self.cr0 >> 31:
            return "none"
        if not self.cr4 >> 5 & 1:
            return "32-bit"
        if not self.efer >> 10 & 1:
            return "PAE"
        return "5-level" if self.cr4 >> 12 & 1 else "4-level"

    def explain(self) -> str:
        """One sentence."""
        mode = {
            "real": "Real mode",
            "protected": "Protected mode",
            "compatibility": "Compatibility mode of long mode",
            "long": "64-bit mode",
        }[self.mode]
        code = "" if self.mode == "long" else f", {self.bits}-bit code"
        ring = "" if self.mode == "real" else f", ring {self.cpl}"
        pages = "paging is off" if self.paging == "none" else f"{self.paging} paging from cr3 = {self.cr3:#x}"
        return f"{mode}{code}{ring}; {pages}."

    def _bits(self, name: str) -> str:
        tables = {"cr0": CR0, "cr4": CR4, "efer": EFER}
        return " ".join(bit_names(getattr(self, name), tables[name])) if name in tables else ""

    def __repr__(self) -> str:
        rows = [f"{name:<5} {getattr(self, name)}" for name in SEGMENTS]
        rows += [f"{name:<5} {getattr(self, name)}" for name in ("gdt", "idt")]
        rows += [f"{name:<5} {getattr(self, name):#x} {self._bits(name)}".rstrip() for name in _CONTROL]
        return "\n".join(rows)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        segments = [
            [html.bold(name), html.hexadecimal(s.selector, 4), html.hexadecimal(s.base), html.hexadecimal(s.limit, 8),
             s.kind, s.dpl if not s.unusable else ""]
            for name, s in ((name, getattr(self, name)) for name in SEGMENTS)
        ]  # fmt: skip
        control: list[list[object]] = [
            [html.bold(name), html.hexadecimal(getattr(self, name)), self._bits(name)] for name in _CONTROL
        ]
        control[:0] = [
            [html.bold(f"{name}r"), html.hexadecimal(t.base), f"limit {t.limit:#x}"]
            for name, t in (("gdt", self.gdt), ("idt", self.idt))
        ]
        shown = html.join([
            html.table(self.explain(), ["segment", "selector", "base", "limit", "kind", "DPL"], segments),
            html.table("Control registers", ["register", "value", "bits"], control),
        ])  # fmt: skip
        return html.bundle(shown, repr(self))


POWER_ON = SRegs(
    cs=Segment(0xF000, 0xFFFF0000, 0xFFFF, 0x9B), gdt=DTable(0, 0xFFFF), cr0=0x60000010, apic_base=0xFEE00900
)
"""Segments and control registers after power-on (SDM vol. 3A section 9.1)."""


def _segment(value: object, name: str) -> Segment:
    if not isinstance(value, Segment):
        raise BadArgument(
            f"{name}={value!r} is no segment: it has a hidden part beside the selector.",
            f"Give kvmlab.Segment(selector, base, limit, attr), or vm.sregs.{name}.replace(base=…).",
        )
    number(value.selector, f"{name}.selector", 16)
    number(value.base, f"{name}.base", 64)
    number(value.limit, f"{name}.limit", 32)
    number(value.attr, f"{name}.attr", 32)
    return value


def _dtable(value: object, name: str) -> DTable:
    if isinstance(value, DTable):
        base, limit = value.base, value.limit
    elif isinstance(value, (tuple, list)) and len(value) == 2:
        base, limit = value
    else:
        raise BadArgument(f"{name}={value!r} is no table register.", f"Give {name}=(base, limit).")
    return DTable(number(base, f"{name}.base"), number(limit, f"{name}.limit", 16))


# ---- debug registers and pending events -----------------------------------------------------------------------------


@moment("To change the machine: vm.debug_regs = vm.debug_regs.replace({name}={value}), or vm.set({name}={value}).")
class DebugRegs(Moment):
    """DR0 to DR3 (addresses), DR6 (what happened), DR7 (what is watched)."""

    dr0: int = 0
    dr1: int = 0
    dr2: int = 0
    dr3: int = 0
    dr6: int = 0xFFFF0FF0
    dr7: int = 0x400

    def explain(self) -> str:
        """One sentence."""
        on = [n for n in range(4) if self.dr7 >> 2 * n & 3]
        if not on:
            return "No hardware breakpoint is on (DR7)."
        kinds = ("execution", "write", "I/O", "read or write")
        each = []
        for n in on:
            kind, size = self.dr7 >> 16 + 4 * n & 3, (1, 2, 8, 4)[self.dr7 >> 18 + 4 * n & 3]
            width = "" if kind == 0 else f" of {size} byte{'s' if size > 1 else ''}"
            each.append(f"DR{n} watches {kinds[kind]}{width} at {getattr(self, f'dr{n}'):#x}")
        return "; ".join(each) + "."


_ACTIVITY = ("active", "halted", "shut down", "waits for a start-up IPI")


@moment("To change the machine: vm.events = vm.events.replace({name}={value}), or vm.interrupt(vector).")
class Events(Moment):
    """What stands between the processor and its next instruction: pending interrupts, and what holds them off.

    Parameters
    ----------
    activity : int
        0 active, 1 halted, 2 shut down, 3 waits for a start-up IPI.
    interruptibility : int
        Bit 0: after STI, bit 1: after MOV SS, bit 3: NMIs are blocked.
    interrupts : tuple of int
        Vectors that wait; the lowest is taken first.
    """

    activity: int = 0
    interruptibility: int = 0
    nmi_pending: bool = False
    interrupts: tuple[int, ...] = ()
    pending_db: int = 0
    tsc: int = 0
    xcr0: int = 0
    pdpte: tuple[int, ...] = (0, 0, 0, 0)

    @property
    def activity_name(self) -> str:
        return _ACTIVITY[self.activity] if self.activity < len(_ACTIVITY) else str(self.activity)

    def explain(self) -> str:
        """One sentence."""
        words = [
            f"The processor is {self.activity_name}" if self.activity < 3 else f"The processor {self.activity_name}"
        ]
        if self.interrupts:
            words.append("vectors that wait: " + " ".join(f"{v:#x}" for v in self.interrupts))
        if self.nmi_pending:
            words.append("an NMI waits")
        held = [text for bit, text in ((1, "STI"), (2, "MOV SS")) if self.interruptibility & bit]
        if held:
            words.append(f"interrupts are held off for one instruction after {held[0]}")
        if self.interruptibility & 8:
            words.append("NMIs are blocked until IRET")
        return "; ".join(words) + "."
