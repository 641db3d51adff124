"""Page walks: every format, the check that failed, and whom to blame for it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

import kvmlab
from kvmlab.errors import BadArgument
from kvmlab.paging import Translation, Walk

PML4, PDPT, PD, PT = 0x10000, 0x11000, 0x12000, 0x13000


@pytest.fixture
def long_mode() -> Iterator[kvmlab.Machine]:
    """Four levels; 0x200000 + n: page n of 0x13000's table."""
    with kvmlab.Machine(memory="4M", cpu="intel") as machine:
        machine.load(kvmlab.Image(b"\xf4", 0x100000, bits=64))
        memory = machine.memory
        memory.u64[PML4], memory.u64[PDPT] = PDPT | 7, PD | 7
        memory.u64[PD], memory.u64[PD + 8] = 0x83 | 4, PT | 7
        memory.u64[PT] = 0x5000 | 7
        memory.u64[PT + 8] = 0x6000 | 5  # read-only
        memory.u64[PT + 16] = 0x7000 | 3  # of ring 0
        memory.u64[PT + 24] = 0x8000 | 7 | 1 << 63  # no execution
        memory.u64[PT + 32] = 0x9000 | 7 | 1 << 51  # reserved
        machine.set(cr3=PML4, efer=0xD00, cr0=machine.sregs.cr0 | 1 << 16)
        yield machine


def test_a_walk_that_arrives(long_mode: kvmlab.Machine) -> None:
    walk = long_mode.walk(0x200123)
    assert walk.ok and walk.gpa == 0x5123 and walk.page_size == 4096 and walk.format == "4-level"
    assert [step.name for step in walk.steps] == ["PML4", "PDPT", "PD", "PT"]
    assert [step.table for step in walk.steps] == [PML4, PDPT, PD, PT] and walk.steps[2].address == PD + 8
    assert walk.steps[3].flags[:3] == ("P", "W", "U") and walk.steps[3].frame == 0x5000
    assert walk.explain() == "0x200123 is at 0x5123, in a page of 4 KB; a read is allowed."
    large = long_mode.walk(0x123456, "w", user=True)
    assert large.gpa == 0x123456 and large.page_size == 2 << 20 and large.steps[-1].set_bits == ""
    assert walk.index_bits == (("PML4", 47, 39, 0), ("PDPT", 38, 30, 0), ("PD", 29, 21, 1), ("PT", 20, 12, 0),
                               ("offset", 11, 0, 0x123))  # fmt: skip


@pytest.mark.parametrize(
    ("gva", "access", "user", "code", "check", "name"),
    [
        (0x205000, "r", False, 0, "not_present", "PT"),
        (0x400000, "w", False, 2, "not_present", "PD"),
        (1 << 39, "x", False, 0x10, "not_present", "PML4"),
        (0x201000, "w", False, 3, "write", "PT"),
        (0x201000, "w", True, 7, "write", "PT"),
        (0x202000, "r", True, 5, "user", "PT"),
        (0x203000, "x", False, 0x11, "nx", "PT"),
        (0x204000, "r", False, 9, "reserved", "PT"),
    ],
)
def test_walks_that_fail(
    long_mode: kvmlab.Machine, gva: int, access: str, user: bool, code: int, check: str, name: str
) -> None:
    walk = long_mode.walk(gva, access, user)
    assert walk.fault is not None and (walk.gpa, walk.ok) == (None, False)
    assert (walk.fault.error_code, walk.fault.check) == (code, check)
    step = walk.failed_step
    assert step is not None and step.name == name and step.failed == check and not step.ok
    assert all(other.ok for other in walk.steps if other is not step)
    assert f"error code {code:#x}" in walk.explain() and name in walk.explain()


def test_the_first_entry_that_lacks_a_right_is_to_blame(long_mode: kvmlab.Machine) -> None:
    long_mode.memory.u64[PDPT] = PD | 5
    step = long_mode.walk(0x200000, "w").failed_step
    assert step is not None and step.name == "PDPT"
    long_mode.memory.u64[PML4] = PDPT | 3
    step = long_mode.walk(0x200000, "r", user=True).failed_step
    assert step is not None and step.name == "PML4"


def test_looking_changes_nothing(long_mode: kvmlab.Machine) -> None:
    before = long_mode.memory[PML4 : PT + 0x1000]
    long_mode.walk(0x200000, "w")
    long_mode.translate(0x200000)
    assert long_mode.memory[PML4 : PT + 0x1000] == before


def test_32_bits_and_pae() -> None:
    with kvmlab.Machine(memory="4M", cpu="intel") as machine:
        machine.load(kvmlab.Image(b"\xf4", 0x100000, bits=32))
        assert machine.walk(0x1234).explain() == "Paging is off: 0x1234 is its own physical address."
        memory = machine.memory
        memory.u32[PD], memory.u32[PD + 4], memory.u32[PT] = PT | 7, 0x83, 0x5000 | 1
        machine.set(cr3=PD, cr4=0x10, cr0=machine.sregs.cr0 | 0x80010000)
        walk = machine.walk(0x123, "w")
        assert walk.format == "32-bit" and [(s.name, s.entry_bytes) for s in walk.steps] == [("PD", 4), ("PT", 4)]
        assert walk.fault is not None and walk.fault.error_code == 3
        assert machine.walk(0x400000).page_size == 4 << 20
        assert machine.walk(0x400000).index_bits[0] == ("PD", 31, 22, 1)
        memory.u64[0x20000], memory.u64[0x21000], memory.u64[0x22000] = 0x21001, 0x22007, 0x5007
        machine.set(cr3=0x20000, cr4=0x20)
        pae = machine.walk(0x123, "w")
        assert pae.format == "PAE" and pae.gpa == 0x5123 and [s.name for s in pae.steps] == ["PDPT", "PD", "PT"]
        assert machine.walk(1 << 30).failed_step.name == "PDPT"  # type: ignore[union-attr]


def test_moments(long_mode: kvmlab.Machine) -> None:
    for walk in (long_mode.walk(0x200000), long_mode.walk(0x202000, user=True)):
        again = pickle.loads(pickle.dumps(walk))
        assert again == walk and hash(again) == hash(walk) and len(again.diff(walk)) == 0
        assert isinstance(walk, Walk) and walk.to_dict()["steps"][0]["name"] == "PML4"
        shown = walk._repr_mimebundle_()
        assert walk.explain()[:20] in shown["text/html"] and "PDPT" in shown["text/plain"]
        with pytest.raises(AttributeError, match=r"vm\.memory"):
            walk.gpa = 5  # type: ignore[misc]
    yes, no = long_mode.translate(0x200000), long_mode.translate(0x205000)
    assert yes == Translation(0x5000, True, True, True) and yes and not no and no.gpa is None
    assert yes.explain() == "The address is guest-physical 0x5000, writable, for user code too."


def test_what_a_walk_refuses(long_mode: kvmlab.Machine) -> None:
    with pytest.raises(BadArgument, match="access"):
        long_mode.walk(0, "read")
    with pytest.raises(BadArgument, match="gva"):
        long_mode.walk(1 << 64)
