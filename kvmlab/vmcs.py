"""The VMCS and the VMCB as they were at one moment, and what each rule of the next entry says about them.

SDM vol. 3C, "Virtual Machine Control Structures" and "VM Entries"; APM vol. 2 chapter 15 and appendix B.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from . import engine, html, tables
from .state import Change, Diff, Moment, moment, unknown

__all__ = ["Check", "ControlBlock", "Vmcb", "Vmcs"]

_HOLDS, _FAILS, _NOT_APPLICABLE, _NOT_HERE = range(4)
_WORDS = {_HOLDS: "holds", _FAILS: "fails", _NOT_APPLICABLE: "does not apply now", _NOT_HERE: "not on this processor"}


@moment("A check says what the processor would find. To change it: change the field it names.")
class Check(Moment):
    """One rule of VM entry or VMRUN, applied to the fields as they are.

    Parameters
    ----------
    id : str
        The rule, such as ``GUEST-SEG-04``.
    area : str
        The part of the manual's chapter it belongs to.
    ok : bool or None
        True: it holds. False: it fails. None: it does not apply now, or this processor has no such rule.
    verdict : str
        The same in words.
    rule : str
        What must hold.
    applies : str
        When the rule counts.
    field : str or None
        The field at fault, or the first one that the rule looks at.
    value : int or None
        What it holds.
    """

    id: str
    area: str
    ok: bool | None
    verdict: str
    rule: str
    applies: str
    field: str | None
    value: int | None

    def explain(self) -> str:
        """One sentence."""
        where = f" ({self.field} is {self.value:#x})" if self.field is not None and self.value is not None else ""
        return f"{self.id} {self.verdict}{where}: {self.rule}."


@cache
def _names(is_vmcs: bool) -> tuple[str, ...]:
    return tuple(row.name for row in (tables.vmcs_fields() if is_vmcs else tables.vmcb_fields()))


class ControlBlock(Mapping[str, int]):
    """The fields by name, in the order of the table. It shows one moment and never changes."""

    title = ""
    _is_vmcs = True

    def __init__(self, raw: engine.ControlBlock) -> None:
        names = _names(self._is_vmcs)
        self._raw = raw
        self._fields = {name: value for name, value in zip(names, raw.values, strict=True) if value is not None}

    def __getitem__(self, name: str) -> int:
        if name not in self._fields:
            raise unknown(f"The {self.title}", name, self._fields)
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ControlBlock) and type(self) is type(other) and self._raw == other._raw

    def __hash__(self) -> int:
        return hash(self._raw)

    def __getstate__(self) -> engine.ControlBlock:
        return self._raw

    def __setstate__(self, raw: engine.ControlBlock) -> None:
        self.__init__(raw)  # type: ignore[misc]

    def check(self) -> list[Check]:
        """Every rule of the next entry, in the order in which the processor would look; nothing is entered."""
        rules = tables.vmx_checks() if self._is_vmcs else tables.svm_checks()
        found = []
        for row, (verdict, field, value) in zip(rules, self._raw.verdicts, strict=True):
            ok = {_HOLDS: True, _FAILS: False}.get(verdict)
            name = field if field in self._fields else None
            what = value if name else None
            found.append(Check(row.id, row.area, ok, _WORDS[verdict], row.rule, row.applies, name, what))
        return found

    def diff(self, before: ControlBlock) -> Diff:
        """What changed since ``before``."""
        changes = {
            name: Change(before._fields.get(name), value)
            for name, value in self._fields.items()
            if before._fields.get(name) != value
        }
        return Diff(changes, "field")

    def to_dict(self) -> dict[str, int]:
        """The fields as a plain dictionary."""
        return dict(self._fields)

    def _rows(self) -> list[tuple[str, str, str]]:
        rows: Any = tables.vmcs_fields() if self._is_vmcs else tables.vmcb_fields()
        return [(row.name, f"{self._fields[row.name]:#x}", row.meaning) for row in rows if row.name in self._fields]

    def __repr__(self) -> str:
        lines = [f"{name:<32} {value:>18}  {meaning}" for name, value, meaning in self._rows()]
        return "\n".join([f"{self.title}: {len(self)} fields", *lines])

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        rows = [[html.bold(name), html.code(value), meaning] for name, value, meaning in self._rows()]
        caption = f"{self.title}: {len(self)} fields"
        return html.bundle(html.table(caption, ["field", "value", "meaning"], rows), repr(self))


class Vmcs(ControlBlock):
    """The VMCS that is current: every field that this processor has."""

    title = "VMCS"
    _is_vmcs = True


class Vmcb(ControlBlock):
    """The VMCB of the next VMRUN, or of the last: every field that this processor uses."""

    title = "VMCB"
    _is_vmcs = False
