"""Registers, segments, control registers as moments: what they refuse, what they say, what survives a pickle."""

from __future__ import annotations

import pickle

import pytest

from kvmlab.errors import BadArgument, Error
from kvmlab.state import DebugRegs, DTable, Events, Regs, Segment, SRegs


def test_registers_and_their_parts() -> None:
    regs = Regs(rax=0x1122334455667788, r9=0xFFFFFFFF00000001, rip=0x1000)
    assert (regs.eax, regs.ax, regs.al, regs.ah) == (0x55667788, 0x7788, 0x88, 0x77)
    assert (regs.r9d, regs.r9w, regs.r9b, regs.eip) == (1, 1, 1, 0x1000)
    assert regs.rflags == 2 and regs["rax"] == regs.rax and list(regs)[:3] == ["rax", "rcx", "rdx"]


def test_replace_changes_what_it_names_and_nothing_else() -> None:
    before = Regs(rax=0x1122334455667788, rbx=5)
    after = before.replace(al=0, r15=-1)
    assert after.rax == 0x1122334455667700 and after.r15 == (1 << 64) - 1 and after.rbx == 5
    assert before.rax == 0x1122334455667788
    assert dict(after.diff(before)) == {"rax": (before.rax, after.rax), "r15": (0, after.r15)}
    assert "rax" in repr(after.diff(before)) and after.diff(after).explain() == "No register changed."


def test_assigning_shows_the_line_that_works() -> None:
    regs = Regs()
    with pytest.raises(AttributeError, match=r"vm\.regs = vm\.regs\.replace\(rax=0x1\)") as raised:
        regs.rax = 1  # type: ignore[misc]
    assert isinstance(raised.value, Error)
    with pytest.raises(AttributeError, match=r"vm\.sregs = vm\.sregs\.replace\(cr3=0x1000\)"):
        SRegs().cr3 = 0x1000  # type: ignore[misc]
    with pytest.raises(AttributeError, match="replace"):
        SRegs().cs.base = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rqx": 1}, "Did you mean"),
        ({"rax": 1 << 64}, "too wide"),
        ({"al": 256}, "al has 8 bits"),
        ({"rax": "1"}, "no number"),
        ({"rax": 1.5}, "no number"),
    ],
)
def test_what_registers_refuse(change: dict[str, object], says: str) -> None:
    with pytest.raises(BadArgument, match=says):
        Regs().replace(**change)  # type: ignore[arg-type]


def test_an_unknown_register_names_its_neighbours() -> None:
    with pytest.raises(AttributeError, match="Did you mean"):
        _ = Regs().raxx  # type: ignore[attr-defined]


def test_flags() -> None:
    regs = Regs(rflags=0x246)
    assert regs.zf and regs.pf and not regs.cf and regs.flags == ("PF", "ZF", "IF")
    assert Regs(rflags=0x3002).iopl == 3
    assert "ZF" in regs.explain() and "IF = 1" in regs.explain()


def test_a_segment_is_its_descriptor() -> None:
    code = Segment.from_descriptor(0x00AF9B000000FFFF, 8)
    assert (code.base, code.limit, code.l, code.db, code.g, code.dpl, code.present) == (
        0, 0xFFFFFFFF, True, False, True, 0, True)  # fmt: skip
    assert code.descriptor == 0x00AF9B000000FFFF
    assert code.explain().startswith("Selector 0x8: 64-bit code, execute/read, accessed, DPL 0")
    data = Segment.from_descriptor(0x0140F3121000FFFF & ~(0x0F << 48) | 0x4 << 52, 0x23)
    assert Segment.from_descriptor(data.descriptor, 0x23) == data
    stack = Segment(0x10, 0, 0xFFF, 0x97)
    assert "expand down" in stack.kind and Segment(0, 0, 0, 0x10000).kind == "unusable"


def test_sregs_say_the_mode() -> None:
    real = SRegs()
    assert (real.mode, real.bits, real.paging) == ("real", 16, "none")
    long = real.replace(cr0=0x80000031, cr4=0x20, efer=0x500, cr3=0x1000, cs=Segment(8, 0, 0xFFFFFFFF, 0xA09B))
    assert (long.mode, long.bits, long.paging, long.cpl) == ("long", 64, "4-level", 0)
    assert long.explain() == "64-bit mode, ring 0; 4-level paging from cr3 = 0x1000."
    pae = long.replace(efer=0, cs=Segment(8, 0, 0xFFFFFFFF, 0xC09B))
    assert (pae.mode, pae.bits, pae.paging) == ("protected", 32, "PAE")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cs": 8}, "no segment"),
        ({"cs": Segment(0x10000)}, "16 bits"),
        ({"cr3": 1 << 64}, "too wide"),
        ({"gdt": 5}, r"gdt=\(base, limit\)"),
        ({"idt": (0, 0x10000)}, "16 bits"),
        ({"cr7": 0}, "Did you mean"),
    ],
)
def test_what_sregs_refuse(change: dict[str, object], says: str) -> None:
    with pytest.raises(BadArgument, match=says):
        SRegs().replace(**change)


MOMENTS = [
    Regs(rax=5, rip=0x1000),
    SRegs(cr3=0x5000, gdt=DTable(0x1000, 0x37)),
    Segment(8, 0x1000, 0xFFFF, 0x9B),
    DebugRegs(dr0=0x7C05, dr7=1),
    Events(interrupts=(0x20, 0x21), nmi_pending=True, interruptibility=1),
    DTable(0x1000, 0x37),
]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: type(moment).__name__)
def test_moments(moment: object) -> None:
    again = pickle.loads(pickle.dumps(moment))
    assert again == moment and hash(again) == hash(moment) and again is not moment
    assert isinstance(moment.to_dict(), dict)  # type: ignore[attr-defined]
    assert len(moment.diff(again)) == 0  # type: ignore[attr-defined]
    said = moment.explain()  # type: ignore[attr-defined]
    assert said.endswith(".") and not said[0].islower()


def test_html_stands_alone() -> None:
    for moment in (Regs(rax=0xDEADBEEF), SRegs()):
        shown = moment._repr_mimebundle_()
        assert set(shown) == {"text/html", "text/plain"} and "<script" not in shown["text/html"]
    assert "00000000deadbeef" in Regs(rax=0xDEADBEEF)._repr_mimebundle_()["text/html"]
    assert "&lt;" not in SRegs()._repr_mimebundle_()["text/html"]


def test_debug_registers_and_events_in_words() -> None:
    assert DebugRegs(dr1=0x2000, dr7=4 | 0xD << 20).explain() == "DR1 watches write of 4 bytes at 0x2000."
    assert "DR0 watches execution at 0x7c05" in DebugRegs(dr0=0x7C05, dr7=1).explain()
    said = MOMENTS[4].explain()  # type: ignore[attr-defined]
    assert "0x20 0x21" in said and "NMI" in said and "STI" in said
