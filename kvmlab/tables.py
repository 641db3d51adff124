"""Reference tables: what the engine itself is made from, as rows.

The engine's ``.def`` files are the only place where an instruction, a VMCS field, an exit or an entry rule is
described; this module reads the same files (they are in the package), so what a screen says is what the processor does.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any, NamedTuple

from . import html
from .errors import BadArgument

__all__ = [
    "CheckRow",
    "ControlRow",
    "ErrorRow",
    "ExitRow",
    "FieldRow",
    "MsrRow",
    "Table",
    "VmcbRow",
    "control_bits",
    "exit_bits",
    "exit_row",
    "instructions",
    "msrs",
    "profiles",
    "svm_checks",
    "svm_exits",
    "vmcb_fields",
    "vmcs_fields",
    "vmx_checks",
    "vmx_errors",
    "vmx_exits",
]


class ExitRow(NamedTuple):
    """A VM exit of one vendor."""

    number: int
    name: str
    common: str
    kind: str
    layout: str
    what: str
    why: str


class FieldRow(NamedTuple):
    """A field of the VMCS."""

    encoding: int
    name: str
    width: str
    group: str
    needs: str
    meaning: str


class VmcbRow(NamedTuple):
    """A field of the VMCB."""

    offset: int
    size: int
    name: str
    area: str
    moved_by: str
    since: str
    meaning: str


class CheckRow(NamedTuple):
    """A rule that VM entry checks."""

    name: str
    id: str
    area: str
    since: str
    failure: str
    field: str
    applies: str
    rule: str


class ErrorRow(NamedTuple):
    """A VM-instruction error."""

    number: int
    name: str
    meaning: str


class ControlRow(NamedTuple):
    """A bit of a VMX control field."""

    group: str
    bit: int
    name: str
    since: str
    default1: int
    printed: str
    effect: str


class BitsRow(NamedTuple):
    """Some bits of an exit qualification or of EXITINFO1."""

    layout: str
    high: int
    low: int
    name: str
    meaning: str


class PhaseRow(NamedTuple):
    """A step of a VM entry."""

    name: str
    vendors: str
    summary: str


class MsrRow(NamedTuple):
    """A model-specific register."""

    number: int
    name: str
    storage: str
    feature: str
    reset: str
    writable: str
    kind: str
    summary: str


class InstructionRow(NamedTuple):
    """An instruction, as the decoder has it."""

    mnemonic: str
    encoding: str
    operands: str
    summary: str
    flags: str
    feature: str
    vmx: str
    svm: str
    attr: int


class Table(Sequence[Any]):
    """Rows that show themselves as a table and can be asked for by a word."""

    def __init__(self, title: str, columns: Sequence[str], rows: Sequence[Any]) -> None:
        self.title = title
        self.columns = tuple(columns)
        self._rows = tuple(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Table(self.title, self.columns, self._rows[index])
        return self._rows[index]

    def find(self, word: str) -> Table:
        """The rows that have the word in any column."""
        word = word.lower()
        return Table(
            f"{self.title} with {word!r}",
            self.columns,
            [row for row in self._rows if any(word in str(cell).lower() for cell in row)],
        )

    def to_records(self) -> list[dict[str, Any]]:
        """A dictionary per row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self._rows]

    def __repr__(self) -> str:
        shown = [
            [f"{c:#x}" if isinstance(c, int) and not isinstance(c, bool) else str(c) for c in row] for row in self._rows
        ]
        widths = [max([len(name), *(len(row[n]) for row in shown)]) for n, name in enumerate(self.columns)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [list(self.columns), *shown]
        ]
        return "\n".join([f"{self.title}: {len(self)} rows", *lines])

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        rows = [[f"{c:#x}" if isinstance(c, int) else str(c) for c in row] for row in self._rows]
        return html.bundle(html.table(f"{self.title}: {len(self)} rows", self.columns, rows), repr(self))


# ---- reading the .def files -----------------------------------------------------------------------------------------

_CELL = re.compile(r'\s*((?:"(?:[^"\\]|\\.)*"\s*)+|(?:[^,"()]|\([^()]*\))+?)\s*(?:,|$)')


@functools.cache
def _lines(name: str) -> tuple[str, ...]:
    text = resources.files("kvmlab").joinpath("engine", *name.split("/")).read_text(encoding="utf-8")
    return tuple(text.splitlines())


def _rows(name: str, macro: str) -> Iterator[list[str]]:
    """The arguments of every row ``macro(…)`` of a .def file; strings without their quotes."""
    for line in _lines(name):
        if line.startswith(macro + "(") and line.rstrip().endswith(")"):
            cells = _CELL.findall(line.rstrip()[len(macro) + 1 : -1])
            yield [
                "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', cell)) if cell.startswith('"') else cell for cell in cells
            ]


def _int(text: str) -> int:
    return int(text.rstrip("uUlL"), 0)


@functools.cache
def vmx_exits() -> Table:
    """VMX basic exit reasons (SDM vol. 3D appendix C)."""
    rows = [ExitRow(_int(r[0]), *r[1:]) for r in _rows("cpu/exit.def", "VMX_EXIT")]
    return Table("VMX exit reasons", ExitRow._fields, rows)


@functools.cache
def svm_exits() -> Table:
    """SVM exit codes (APM vol. 2 appendix C)."""
    rows = [ExitRow(_int(r[0]), *r[1:]) for r in _rows("cpu/exit.def", "SVM_EXIT")]
    return Table("SVM exit codes", ExitRow._fields, rows)


@functools.cache
def _exits(vendor: str) -> dict[int, ExitRow]:
    return {row.number: row for row in (vmx_exits() if vendor == "intel" else svm_exits())}


def exit_row(vendor: str, number: int) -> ExitRow | None:
    """The row of a hardware exit; ``vendor`` is ``intel`` or ``amd``. Bit 31 of a VMX reason is not looked at."""
    if vendor == "intel":
        number &= 0xFFFF
    elif number == 0xFFFFFFFF:
        number = 0xFFFFFFFFFFFFFFFF
    return _exits(vendor).get(number)


@functools.cache
def exit_bits(layout: str) -> tuple[BitsRow, ...]:
    """How to read the exit qualification, or EXITINFO1, of a layout."""
    rows = (BitsRow(r[0], _int(r[1]), _int(r[2]), *r[3:]) for r in _rows("cpu/exit.def", "EXIT_BITS"))
    return tuple(row for row in rows if row.layout == layout)


def decode_bits(layout: str, value: int) -> dict[str, int]:
    """The named parts of an exit qualification or of EXITINFO1."""
    return {row.name: value >> row.low & (1 << row.high - row.low + 1) - 1 for row in exit_bits(layout)}


@functools.cache
def vmcs_fields() -> Table:
    """VMCS fields (SDM vol. 3D appendix B)."""
    rows = [FieldRow(_int(r[0]), *r[1:]) for r in _rows("cpu/vmcs.def", "VMCS_FIELD")]
    return Table("VMCS fields", FieldRow._fields, rows)


@functools.cache
def vmcb_fields() -> Table:
    """VMCB fields (APM vol. 2 appendix B)."""
    rows = [VmcbRow(_int(r[0]), _int(r[1]), *r[2:]) for r in _rows("cpu/vmcb.def", "VMCB_FIELD")]
    return Table("VMCB fields", VmcbRow._fields, rows)


@functools.cache
def control_bits() -> Table:
    """Bits of the VMX controls (SDM vol. 3C, "VM-Execution Control Fields")."""
    rows = [
        ControlRow(r[0], _int(r[1]), r[2], r[3], _int(r[4]), *r[5:])
        for r in _rows("cpu/vmx_control.def", "VMX_CONTROL")
    ]
    return Table("VMX controls", ControlRow._fields, rows)


@functools.cache
def vmx_checks() -> Table:
    """What VM entry checks, in order (SDM vol. 3C, "VM Entries")."""
    return Table("VM entry checks", CheckRow._fields, [CheckRow(*r) for r in _rows("cpu/vmx_check.def", "VMX_CHECK")])


@functools.cache
def svm_checks() -> Table:
    """What VMRUN checks, in order (APM vol. 2 section 15.5)."""
    return Table("VMRUN checks", CheckRow._fields, [CheckRow(*r) for r in _rows("cpu/svm_check.def", "SVM_CHECK")])


def check_row(vendor: str, number: int) -> CheckRow | None:
    """The entry rule with this row number, from 1; None for 0."""
    table = vmx_checks() if vendor == "intel" else svm_checks()
    return table[number - 1] if 1 <= number <= len(table) else None


@functools.cache
def entry_phases() -> Table:
    """The steps of a VM entry, in order."""
    return Table(
        "Steps of a VM entry", PhaseRow._fields, [PhaseRow(*r) for r in _rows("cpu/entry_phase.def", "ENTRY_PHASE")]
    )


@functools.cache
def vmx_errors() -> Table:
    """VM-instruction errors (SDM vol. 3C, "VM Instruction Error Numbers")."""
    rows = [ErrorRow(_int(r[0]), *r[1:]) for r in _rows("cpu/vmx_error.def", "VMX_ERROR")]
    return Table("VM-instruction errors", ErrorRow._fields, rows)


@functools.cache
def msrs() -> Table:
    """Model-specific registers of the engine."""
    rows = [MsrRow(_int(r[0]), *r[1:]) for r in _rows("cpu/msr.def", "MSR")]
    return Table("Model-specific registers", MsrRow._fields, rows)


def msr_index(name: str) -> int:
    """The number of an MSR by its name, in any case."""
    for row in msrs():
        if row.name.lower() == name.lower():
            return int(row.number)
    raise BadArgument(f"There is no MSR {name!r}.", f"There are {', '.join(row.name.lower() for row in msrs())}.")


def msr_name(index: int) -> str | None:
    """The name of an MSR by its number."""
    return next((str(row.name) for row in msrs() if row.number == index), None)


@functools.cache
def instructions() -> Table:
    """Every instruction, from the decoder's own table."""
    from . import engine

    rows = [InstructionRow(*(row[name] for name in InstructionRow._fields)) for row in engine.instruction_rows()]
    return Table("Instructions", InstructionRow._fields, rows)


@functools.cache
def profiles() -> tuple[str, ...]:
    """The processors that can be asked for by name."""
    from . import engine

    return engine.profiles()


def vendor(cpu: str) -> str:
    """``intel`` or ``amd``."""
    for line in _lines("cpu/profile.def"):
        if found := re.match(r'PROFILE\(\w+,\s*"([^"]+)",\s*(\w+)', line):
            if found.group(1) == cpu:
                return found.group(2).lower()
    return "intel"
