"""A page walk that the engine really did: every entry it read, the check that failed, the error code that results.

SDM vol. 3A chapter 4; APM vol. 2 chapter 5.
"""

from __future__ import annotations

from . import engine, html
from .state import Bit, Moment, bit_names, moment

__all__ = ["ENTRY_BITS", "ERROR_BITS", "PageFault", "Translation", "Walk", "WalkStep", "make_walk"]

ENTRY_BITS = (
    Bit(0, "P", "present"), Bit(1, "W", "writable"), Bit(2, "U", "user may use it"), Bit(3, "PWT", "write-through"),
    Bit(4, "PCD", "not cached"), Bit(5, "A", "accessed"), Bit(6, "D", "dirty"), Bit(7, "PS", "maps a large page"),
    Bit(8, "G", "global"), Bit(63, "NX", "no execution"),
)  # fmt: skip
"""The flags of a page-table entry. In the last level bit 7 is PAT."""
ERROR_BITS = (
    Bit(0, "P", "the page was present"), Bit(1, "W", "it was a write"), Bit(2, "U", "it was in user mode"),
    Bit(3, "RSVD", "a reserved bit was set"), Bit(4, "I", "it was a fetch"),
)  # fmt: skip
"""The error code of #PF (SDM vol. 3A section 4.7)."""
_FLAGS = 0x1FF | 1 << 63

_CHECKS = ("", "not_present", "reserved", "write", "user", "nx", "smep", "smap", "not_canonical", "hole")
_CHECK_WORDS = {
    "not_present": "the entry has P = 0",
    "reserved": "the entry has a reserved bit set",
    "write": "the entry has W = 0",
    "user": "the entry has U = 0",
    "nx": "the entry has NX = 1",
    "smep": "SMEP keeps ring 0 from executing a user page",
    "smap": "SMAP keeps ring 0 from touching a user page",
    "not_canonical": "the address is not canonical",
    "hole": "the table lies where no memory is",
}
_LEVELS = {
    "32-bit": {2: "PD", 1: "PT"},
    "PAE": {3: "PDPT", 2: "PD", 1: "PT"},
    "4-level": {4: "PML4", 3: "PDPT", 2: "PD", 1: "PT"},
    "5-level": {5: "PML5", 4: "PML4", 3: "PDPT", 2: "PD", 1: "PT"},
    "none": {},
}
_ACCESS = {"r": "read", "w": "write", "x": "fetch"}


@moment("A walk says what the tables held. To change them: vm.memory.u64[address] = entry.")
class WalkStep(Moment):
    """One entry that a walk read.

    Parameters
    ----------
    level : int
        5 to 1, counted from the page table.
    table : int
        Address of the table, in the space the tables are in.
    index : int
        Number of the entry.
    entry : int
        Its value.
    entry_bytes : int
        4 or 8.
    ok : bool
        False for the entry that stopped the walk, or whose right was missing.
    failed : str
        The check that failed: ``not_present``, ``reserved``, ``write``, ``user``, ``nx``, ``smep``, ``smap``; or empty.
    set_bits : str
        ``A``, ``D`` or ``AD``: what the walk would set; else empty.
    nested : bool
        Belongs to the walk of nested tables for the address of a guest table.
    name : str
        What the table is called: ``PML4``, ``PDPT``, ``PD``, ``PT``.
    """

    level: int
    table: int
    index: int
    entry: int
    entry_bytes: int = 8
    ok: bool = True
    failed: str = ""
    set_bits: str = ""
    nested: bool = False
    name: str = ""

    @property
    def address(self) -> int:
        """Where the entry is."""
        return self.table + self.index * self.entry_bytes

    @property
    def flags(self) -> tuple[str, ...]:
        """The names of the flags that are 1."""
        names = bit_names(self.entry & _FLAGS, ENTRY_BITS)
        if self.level == 1:
            names = tuple("PAT" if name == "PS" else name for name in names)
        return names

    @property
    def frame(self) -> int:
        """The address in the entry."""
        return self.entry & (0xFFFFF000 if self.entry_bytes == 4 else 0x000FFFFFFFFFF000)

    def explain(self) -> str:
        """One sentence."""
        where = f"{self.name} at {self.table:#x}, entry {self.index:#x} at {self.address:#x}: {self.entry:#x}"
        flags = f" ({' '.join(self.flags)})" if self.flags else ""
        return f"{where}{flags}" + ("." if self.ok else f"; the walk fails because {_CHECK_WORDS[self.failed]}.")


@moment("A fault says what happened; it does not change.")
class PageFault(Moment):
    """The #PF that a walk ends in."""

    error_code: int
    check: str
    level: int = 0

    @property
    def bits(self) -> tuple[str, ...]:
        """The names of the error code's bits that are 1."""
        return bit_names(self.error_code, ERROR_BITS)

    def explain(self) -> str:
        """One sentence."""
        bits = " ".join(self.bits) or "no bit set"
        return f"#PF with error code {self.error_code:#x} ({bits}): {_CHECK_WORDS[self.check]}."


@moment("A translation says what was; it does not change.")
class Translation(Moment):
    """What the tables make of an address, as the interface of 2006 answers it."""

    gpa: int | None
    valid: bool
    writeable: bool
    usermode: bool

    def explain(self) -> str:
        """One sentence."""
        if not self.valid:
            return "The address is not mapped."
        how = "writable" if self.writeable else "read-only"
        who = "for user code too" if self.usermode else "for ring 0 only"
        return f"The address is guest-physical {self.gpa:#x}, {how}, {who}."

    def __bool__(self) -> bool:
        return self.valid


@moment("A walk says what the tables held. To change them: vm.memory.u64[address] = entry.")
class Walk(Moment):
    """A walk from CR3 (or from the shadow's root) to a page, or to a fault.

    Parameters
    ----------
    gva : int
        The address that was looked up.
    access : str
        ``r``, ``w`` or ``x``.
    user : bool
        At CPL 3.
    format : str
        ``none``, ``32-bit``, ``PAE``, ``4-level`` or ``5-level``.
    steps : tuple of WalkStep
        In the order they were read.
    gpa : int or None
        Where the address is; None where the walk fails.
    page_size : int
        Bytes of the page: 4 KB, 2 MB, 4 MB or 1 GB.
    fault : PageFault or None
    rights : str
        What all levels allow together: ``w`` writable, ``u`` user, ``x`` executable, ``g`` global.
    tables : str
        ``guest``, or ``processor``: shadow, EPT or NPT.
    """

    gva: int
    access: str
    user: bool
    format: str
    steps: tuple[WalkStep, ...]
    gpa: int | None
    page_size: int = 4096
    fault: PageFault | None = None
    rights: str = ""
    tables: str = "guest"

    @property
    def ok(self) -> bool:
        return self.fault is None

    @property
    def failed_step(self) -> WalkStep | None:
        """The entry that stopped it."""
        return next((step for step in self.steps if not step.ok), None)

    @property
    def index_bits(self) -> tuple[tuple[str, int, int, int], ...]:
        """The parts of the address: name, high bit, low bit, value; the offset last."""
        names = _LEVELS[self.format]
        width = 10 if self.format == "32-bit" else 9
        parts, low = [], 12
        for level in sorted(names):
            bits = 2 if self.format == "PAE" and level == 3 else width
            parts.append((names[level], low + bits - 1, low, self.gva >> low & (1 << bits) - 1))
            low += width
        return (*reversed(parts), ("offset", 11, 0, self.gva & 0xFFF))

    def explain(self) -> str:
        """One sentence."""
        who = ("a user-mode " if self.user else "a ") + _ACCESS[self.access]
        if self.format == "none":
            return f"Paging is off: {self.gva:#x} is its own physical address."
        if self.fault is None:
            size = {4096: "4 KB", 2 << 20: "2 MB", 4 << 20: "4 MB", 1 << 30: "1 GB"}.get(
                self.page_size, f"{self.page_size} bytes"
            )
            return f"{self.gva:#x} is at {self.gpa:#x}, in a page of {size}; {who} is allowed."
        step = self.failed_step
        if step is None:
            return f"The walk for {self.gva:#x} does not begin: {_CHECK_WORDS[self.fault.check]}."
        code = f"error code {self.fault.error_code:#x}"
        if self.fault.check == "not_present":
            where = f"The walk for {self.gva:#x} stops at {step.name}"
            return f"{where}: entry {step.index:#x} is not present; {who} gives #PF, {code}."
        why = _CHECK_WORDS[self.fault.check]
        return f"At {self.gva:#x} {who} is refused at {step.name}, entry {step.index:#x}, because {why}; {code}."

    def __repr__(self) -> str:
        rows = [
            f"{' !'[not s.ok]} {s.name:<4} {s.table:#012x} [{s.index:#05x}] -> {s.entry:#018x} {' '.join(s.flags)}"
            for s in self.steps
        ]
        return "\n".join([self.explain(), *rows])

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        rows = [
            [html.mark(s.ok), html.bold(s.name), html.code(f"{s.table:#x}"), html.code(f"{s.index:#x}"),
             html.hexadecimal(s.entry, 2 * s.entry_bytes), " ".join(s.flags), "" if s.ok else _CHECK_WORDS[s.failed]]
            for s in self.steps
        ]  # fmt: skip
        head = ["", "table", "at", "index", "entry", "flags", "check"]
        return html.bundle(html.table(self.explain(), head, rows, row_header=False), repr(self))


def make_walk(raw: engine.Walk, access: str, user: bool, paging: str, tables: str = "guest") -> Walk:
    """A :class:`Walk` from the engine's; ``paging`` is ``SRegs.paging`` of that moment."""
    names = _LEVELS[paging]
    width = 4 if paging == "32-bit" else 8
    check = _CHECKS[raw.failed]
    at_fault = _culprit(raw, check)
    steps = tuple(
        WalkStep(
            level,
            table,
            index,
            entry,
            width,
            number != at_fault,
            check if number == at_fault else "",
            ("", "A", "D", "AD")[set_bits & 3],
            bool(nested),
            names.get(level, f"level {level}"),
        )
        for number, (table, index, entry, level, _ok, nested, set_bits, _failed) in enumerate(raw.steps)
    )
    fault = (
        PageFault(raw.error, check, steps[at_fault].level if 0 <= at_fault < len(steps) else 0) if raw.failed else None
    )
    rights = "".join(letter for bit, letter in ((1, "w"), (2, "u"), (8, "g")) if raw.flags & bit)
    rights += "" if raw.flags & 4 else "x"
    return Walk(
        raw.linear,
        access,
        user,
        paging,
        steps,
        None if raw.failed else raw.physical,
        raw.page_size,
        fault,
        rights,
        tables,
    )


def _culprit(raw: engine.Walk, check: str) -> int:
    """The entry to blame: for a missing right the first that lacks it, since rights are ANDed down the levels."""
    lacking = {"write": (2, 0), "user": (4, 0), "nx": (1 << 63, 1 << 63)}.get(check)
    if lacking is not None:
        bit, value = lacking
        for number, step in enumerate(raw.steps):
            registers = step[3] == 3 and len(raw.steps) <= 3 and raw.steps[0][3] == 3 and number == 0
            if not registers and step[2] & bit == value:
                return number
    return len(raw.steps) - 1 if check else -1
