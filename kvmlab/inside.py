"""Looking into the hypervisor: shadow page tables, reverse maps, and the invariants that hold between them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from . import paging
from .errors import BadArgument
from .state import Moment, moment, number

if TYPE_CHECKING:
    from .vm import VM

__all__ = ["Finding", "Shadow", "ShadowPage", "ShadowState", "Spte"]

_INVARIANTS = {
    "A": "the reverse map lists exactly the writable leaves",
    "B": "no shadowed guest table can be written by the guest",
    "C": "every present leaf leads where the guest's own tables lead",
    "D": "every present upper entry is once in its child's list of parents",
    "E": "no root in use is freed, and every page of the pool is free or in use",
}


_SPTE_BITS = (
    (0, "P"),
    (1, "W"),
    (2, "U"),
    (5, "A"),
    (6, "D"),
    (8, "G"),
    (9, "soft"),
    (10, "guest W"),
    (11, "guest U"),
    (63, "NX"),
)


@moment("A shadow entry is the hypervisor's. Write the guest's table instead: vm.memory.u64[address] = entry.")
class Spte(Moment):
    """One entry of a shadow page.

    Parameters
    ----------
    index : int
        0 to 511.
    value : int
        The entry as hardware reads it.
    hpa : int
        Where it lies.
    """

    index: int
    value: int
    hpa: int

    @property
    def present(self) -> bool:
        return bool(self.value & 1)

    @property
    def target(self) -> int:
        """Host-physical address of the page or table it leads to."""
        return self.value & 0x000F_FFFF_FFFF_F000

    @property
    def flags(self) -> tuple[str, ...]:
        """Hardware bits by letter, and the hypervisor's own bits 9 to 11 by name."""
        return tuple(name for bit, name in _SPTE_BITS if self.value >> bit & 1)


@moment("A shadow page is the hypervisor's; it cannot be assigned.")
class ShadowPage(Moment):
    """One page of the shadow, as it was when asked.

    Parameters
    ----------
    number : int
        Of the pool's 256.
    hpa : int
        Where it lies.
    gfn : int
        The guest frame it shadows; of a metaphysical page, the first frame that it maps.
    role : int
        The role word.
    level, guest_levels, quadrant : int
    metaphysical : bool
        It stands for no table of the guest: a large page, or no paging.
    present : int
        How many entries are present.
    roots : int
        How many times it is a root in use.
    parents : tuple of int
        Host-physical addresses of the entries that point to it.
    entries : tuple of Spte
        The entries that are not zero.
    """

    number: int
    hpa: int
    gfn: int
    role: int
    level: int
    guest_levels: int
    quadrant: int
    metaphysical: bool
    present: int
    roots: int
    parents: tuple[int, ...]
    entries: tuple[Spte, ...]

    def explain(self) -> str:
        """One sentence."""
        what = "a table that no guest has, for frames from" if self.metaphysical else "guest frame"
        root = "; the root in use" if self.roots else ""
        return (
            f"Shadow page at {self.hpa:#x}: level {self.level} for {what} {self.gfn:#x} (role {self.role:#05x}), "
            f"{self.present} of 512 entries present{root}."
        )


@moment("A state says what was at one moment.")
class ShadowState(Moment):
    """Root, pool and counters of the shadow.

    Parameters
    ----------
    root : int
        What CR3 holds while the guest runs.
    pae_root : tuple of int
        Level-2 pages behind the four PAE root entries; 0 where there is none.
    fixed, guest_faults, table_writes : int
        Page faults that only the shadow lacked, that became the guest's, stores to guest tables.
    zapped, recycled, flushes : int
        Shadow pages dropped, those of them for want of room, and drops of the whole shadow.
    free, total : int
        Pages of the pool.
    guest_levels : int
    role : int
        Bits that every page of this context has in its role.
    last_written_gfn, written : int
        The flood detector.
    """

    root: int
    pae_root: tuple[int, ...]
    fixed: int
    guest_faults: int
    table_writes: int
    zapped: int
    recycled: int
    flushes: int
    last_written_gfn: int
    written: int
    free: int
    total: int
    guest_levels: int
    role: int


@moment("A finding says what an audit found.")
class Finding(Moment):
    """An invariant of the shadow that does not hold.

    Parameters
    ----------
    letter : str
        A to E.
    what : str
    where : int
        Host-physical address, or a count.
    """

    letter: str
    what: str
    where: int

    def explain(self) -> str:
        """One sentence."""
        rule = _INVARIANTS.get(self.letter, "")
        return f"Invariant {self.letter} does not hold ({rule}): {self.what}, at {self.where:#x}."

    def __str__(self) -> str:
        return self.explain()


class Shadow:
    """``vm.shadow``: the tables that hardware walks while the guest runs."""

    def __init__(self, vm: VM) -> None:
        self._vm = vm

    def pages(self) -> list[ShadowPage]:
        """All shadow pages, newest first."""
        handle = self._vm._acquire()
        try:
            return [
                ShadowPage(
                    page["number"], page["hpa"], page["gfn"], page["role"], page["level"], page["guest_levels"],
                    page["quadrant"], bool(page["metaphysical"]), page["present"], page["root_count"],
                    handle.shadow_parents(page["number"]),
                    tuple(Spte(index, value, page["hpa"] + 8 * index)
                          for index, value in enumerate(handle.shadow_entries(page["number"])) if value),
                )
                for page in handle.shadow_pages()
            ]  # fmt: skip
        finally:
            self._vm._release()

    @property
    def state(self) -> ShadowState:
        """Root, pool and counters."""
        handle = self._vm._acquire()
        try:
            raw = handle.shadow_state()
        finally:
            self._vm._release()
        names = (field.name for field in dataclasses.fields(ShadowState))
        return ShadowState(**{name: raw[name] for name in names})

    def walk(self, gva: int, access: str = "r", user: bool = False) -> paging.Walk:
        """The walk that hardware would make now; ``gpa`` of the result is host-physical."""
        if access not in ("r", "w", "x"):
            raise BadArgument(f"access={access!r} is not known.", "There are 'r', 'w' and 'x'.")
        handle = self._vm._acquire()
        try:
            raw = handle.walk(1, number(gva, "gva"), "rwx".index(access), bool(user))
            form = "4-level" if handle.shadow_state()["guest_levels"] == 4 else "PAE"
        finally:
            self._vm._release()
        return paging.make_walk(raw, access, bool(user), form, "processor")

    def rmap(self, gfn: int) -> tuple[Spte, ...]:
        """The writable entries that map a guest frame."""
        handle = self._vm._acquire()
        try:
            found = handle.shadow_rmap(number(gfn, "gfn"))
            return tuple(Spte(at >> 3 & 511, int.from_bytes(handle.read(1, at, 8), "little"), at) for at in found)
        finally:
            self._vm._release()

    def audit(self) -> list[Finding]:
        """Checks the invariants of the shadow: what does not hold; empty where all do."""
        handle = self._vm._acquire()
        try:
            letter, what, where = handle.shadow_audit()
        finally:
            self._vm._release()
        return [Finding(letter, what, where)] if letter else []

    def __repr__(self) -> str:
        state = self.state
        return (
            f"<shadow: {state.total - state.free} of {state.total} pages in use, root {state.root:#x}; "
            f"{state.fixed} faults filled, {state.guest_faults} were the guest's, "
            f"{state.table_writes} stores to its tables>"
        )
