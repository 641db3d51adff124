# ruff: noqa: E501
"""Stops: their fields by reason, what they refuse, what survives a pickle, and their sentences."""

from __future__ import annotations

import pickle

import pytest

from kvmlab.errors import BadArgument
from kvmlab.exits import Exit, ExitReason, Where, hardware_sentence
from kvmlab.trace import Position

INTEL, AMD = Where("vm", "soft", "intel"), Where("vm", "soft", "amd")
OUT = {"direction": "out", "port": 0x3F8, "size": 1, "value": 0x41, "rip": 0x100B}

STOPS = [
    (Exit("io", INTEL, **OUT, hardware_reason=30),
     "VM exit 30, I/O instruction: OUT of 1 byte (0x41 'A') to port 0x3f8 at 0x100b (unconditional I/O exiting is 1); "
     "goes to user space because I/O always does."),
    (Exit("io", AMD, direction="in", port=0x60, size=2, rip=0x1000, hardware_reason=0x7B),
     "VM exit 0x7b, I/O instruction: IN of 2 bytes from port 0x60 at 0x1000 (intercept bit IO is 1); goes to user space "
     "because I/O always does."),
    (Exit("io", Where("machine"), **OUT),
     "OUT of 1 byte (0x41 'A') to port 0x3f8 at 0x100b; nothing in the machine answers, so Python does."),
    (Exit("mmio", INTEL, direction="write", gpa=0xFE000000, size=4, value=0x12345678, rip=0x1000, hardware_reason=0),
     "VM exit 0, page fault: the guest wrote 4 bytes (0x12345678) to 0xfe000000 at 0x1000 (bit 14 of the exception bitmap "
     "is 1); the page lies in no memory slot, so this is MMIO and user space answers it."),
    (Exit("hlt", INTEL, rip=0x1006, hardware_reason=12),
     "VM exit 12, HLT: the guest executed HLT before 0x1006 (HLT exiting is 1); nothing is pending, so KVM_RUN returns."),
    (Exit("cpuid", INTEL, leaf=1, subleaf=0, rip=0x1000, hardware_reason=10),
     "VM exit 10, CPUID: CPUID of leaf 0x1, subleaf 0x0 at 0x1000 (CPUID always exits); goes to user space because CPUID "
     "always does."),
    (Exit("unknown", INTEL, rip=0x1000, hardware_reason=18),
     "VM exit 18, hypercall: the guest executed VMCALL at 0x1000 (VMCALL always exits); the hypervisor has no handler for it, "
     "so user space gets the raw number 0x12."),
    (Exit("fail_entry", INTEL, rip=0x1000, entry_error=0x80000021, failed_check=100), "VM exit 33, entry refused: rule "),
    (Exit("exception", INTEL, exception=13, error_code=0x10, rip=0x1000, hardware_reason=0),
     "VM exit 0, #GP: exception 13, #GP (general protection), error code 0x10, at 0x1000 (bit 13 of the exception bitmap "
     "is 1); the hypervisor could not give it to the guest, so user space has to decide."),
    (Exit("shutdown", Where("machine"), rip=0x1000),
     "Triple fault at 0x1000: a fault came up while a double fault was delivered, so the processor shut down; only a reset "
     "goes on."),
    (Exit("limit", INTEL, rip=0x1000, limit=1_000_000),
     "Stopped after 1,000,000 instructions, as asked; the next instruction is at 0x1000, and the next run goes on there."),
    (Exit("limit", INTEL, rip=0x1000, no_progress=1), "Stopped at 0x1000 because no instruction retired"),
    (Exit("stopped", INTEL, rip=0x1000), "Stopped on request before 0x1000"),
    (Exit("debug", INTEL, rip=0x7C05, breakpoint=0x7C05), "Breakpoint at 0x7c05"),
    (Exit("unknown", Where("vm", "kvm"), rip=0x1000, suberror=1), "/dev/kvm gave up at 0x1000: internal error 1"),
    (Exit("real_mode", INTEL, rip=0x1000), "Real-mode code at 0x1000"),
]  # fmt: skip


@pytest.mark.parametrize(("stop", "says"), STOPS, ids=lambda item: item.kind if isinstance(item, Exit) else "")
def test_sentences(stop: Exit, says: str) -> None:
    said = stop.explain()
    assert said == says if says.endswith(".") else said.startswith(says)
    assert said.endswith(".") and "  " not in said and "!" not in said and "None" not in said


@pytest.mark.parametrize("stop", [stop for stop, _ in STOPS], ids=lambda stop: stop.kind)
def test_moments(stop: Exit) -> None:
    again = pickle.loads(pickle.dumps(stop))
    assert again == stop and hash(again) == hash(stop) and again.explain() == stop.explain()
    assert stop.to_dict()["reason"] == stop.reason.name and stop.diff(again) == {}
    assert stop.explain() in repr(stop)
    shown = stop._repr_mimebundle_()
    assert set(shown) == {"text/html", "text/plain"} and "<script" not in shown["text/html"]
    with pytest.raises(AttributeError, match=r"stop\.reply"):
        stop.value = 5  # type: ignore[misc]
    with pytest.raises(BadArgument, match="no machine"):
        stop.reply(1)


def test_fields_by_reason() -> None:
    out = STOPS[0][0]
    assert (out.direction, out.data, out.is_write, out.string, out.count) == ("out", b"A", True, False, 1)
    assert (out.hardware_reason, out.kind, out.reason) == (30, "io", ExitReason.IO)
    reads = STOPS[1][0]
    with pytest.raises(AttributeError, match=r"A stop of kind IO \(in\) has no 'value'; it has .*port"):
        _ = reads.value
    with pytest.raises(AttributeError, match="A stop of kind HLT has no 'port'"):
        _ = STOPS[4][0].port
    assert STOPS[7][0].rule.id and STOPS[11][0].no_progress is True
    assert Exit("hlt", position=Position(5, 9)).position == Position(5, 9)


def test_the_processor_in_words() -> None:
    said = hardware_sentence("intel", 0, 0x80806045A8, 6, 0x80000B0E, 0x100073)
    assert said == ("VM exit 0, page fault: user-mode code wrote to 0x80806045a8 at 0x100073, and the shadow tables had no entry "
                    "for that page (bit 14 of the exception bitmap is 1)")  # fmt: skip
    assert hardware_sentence("intel", 28, 3 | 1 << 4, 3, 0, 0x1000).startswith(
        "VM exit 28, CR access: the guest executed MOV from CR3 at 0x1000")  # fmt: skip
    assert hardware_sentence("amd", 0x4E, 3, 0x2000, 0, 0x1000).startswith(
        "VM exit 0x4e, page fault: the guest wrote to 0x2000"
    )
    assert "NMI" in hardware_sentence("intel", 0, 0, 0, 0x80000202, 0x1000)
    assert hardware_sentence("intel", 9999, 0, 0, 0, 0x1000).startswith("VM exit 9999: unknown")
