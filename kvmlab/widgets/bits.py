"""Names of bits, with what 0 and 1 say. Registers: state.py; entries and rights: SDM vol. 3A, 4.1 to 4.6, 3.4.5."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import state
from .scene import hexdigits


class Bit(NamedTuple):
    """One named bit; ``width`` above 1 is a small number."""

    at: int
    name: str
    clear: str
    set: str
    width: int = 1

    def of(self, value: int) -> int:
        return value >> self.at & (1 << self.width) - 1

    def says(self, value: int) -> str:
        """What the bit means in this value, as a sentence."""
        text = self.set if self.of(value) else self.clear
        return text[0].upper() + text[1:] + "."


def _from(table: tuple[state.Bit, ...]) -> tuple[Bit, ...]:
    """A table of state.py, highest bit first."""
    return tuple(Bit(bit.number, bit.name, f"a 1 would mean: {bit.meaning}", bit.meaning) for bit in reversed(table))


RFLAGS = tuple(sorted((*_from(state.RFLAGS), Bit(12, "IOPL", "only ring 0 may use ports and change IF",
                                                 "rings up to this number may use ports and change IF", 2)),
                      reverse=True))
CR0, CR4, EFER = _from(state.CR0), _from(state.CR4), _from(state.EFER)

ENTRY = (
    Bit(63, "NX", "instruction fetch is allowed", "no instruction fetch, if EFER.NXE is 1"),
    Bit(8, "G", "not global", "global: survives a load of CR3"),
    Bit(7, "PS", "points to a table, or maps a 4 KB page", "maps a large page"),
    Bit(6, "D", "not dirty: no write yet", "dirty: the page was written"),
    Bit(5, "A", "not accessed yet", "accessed: set by a walk"),
    Bit(2, "U", "user mode may not come through here", "user mode may come through here"),
    Bit(1, "W", "writes are refused at this level", "writes are allowed at this level"),
    Bit(0, "P", "not present: every access faults", "present"),
)

RIGHTS = (
    Bit(16, "unusable", "usable", "unusable: any use faults"),
    Bit(15, "G", "the limit counts bytes", "the limit counts pages"),
    Bit(14, "D/B", "16-bit operands or stack pointer", "32-bit operands or stack pointer"),
    Bit(13, "L", "not 64-bit code", "64-bit code"),
    Bit(12, "AVL", "free for software", "free for software"),
    Bit(7, "P", "not present", "present"),
    Bit(5, "DPL", "ring 0", "the ring that may use it", 2),
    Bit(4, "S", "a system segment", "code or data"),
    Bit(0, "type", "see the type in words", "see the type in words", 4),
)


def strip(bits: tuple[Bit, ...], value: int, was: int | None = None, failed: str = "",
          only: tuple[str, ...] = ()) -> list[list[Any]]:
    """Bits as the browser draws them: name, value, what it says, whether it changed, whether a check failed on it."""
    return [[bit.name, bit.of(value), bit.says(value), was is not None and bit.of(was) != bit.of(value),
             bit.name == failed] for bit in bits if not only or bit.name in only]


def names(bits: tuple[Bit, ...], value: int) -> str:
    """The names of the bits that are set, lowest first, or ``no bit set``."""
    return " ".join(bit.name for bit in reversed(bits) if bit.of(value)) or "no bit set"


def changed(value: int, was: int | None, width: int) -> str | None:
    """The digits of what it was, where it changed."""
    return None if was is None or was == value else hexdigits(was, width)
