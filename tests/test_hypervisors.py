"""Hypervisors as guest code: programs on the bare machine that use VMX or SVM, and going back in time under them."""

from __future__ import annotations

from pathlib import Path

import pytest

import kvmlab

FOLDER = Path(__file__).parent / "hypervisors"
# name, processor, instructions until the guest runs
BOTH = pytest.mark.parametrize(("name", "cpu", "start"), [("vmx", "intel-2006", 600), ("svm", "amd-2006", 100)])


def load(name: str, cpu: str) -> kvmlab.Machine:
    machine = kvmlab.Machine(memory="1M", cpu=cpu)
    machine.load(kvmlab.assemble((FOLDER / f"{name}.S").read_text(encoding="utf-8"), bits=64, org=0x10000))
    machine.attach_console()
    return machine


@BOTH
def test_the_guest_prints_through_its_hypervisor(name: str, cpu: str, start: int) -> None:
    with load(name, cpu) as machine:
        stop = machine.run(max_instructions=100_000)
        assert stop.reason is kvmlab.ExitReason.HLT
        assert str(machine.console) == "hello from the guest\nthe guest halts\n"
        assert machine.regs.rax == 0x6C61626B
        assert machine.regs.r12 == len("hello from the guest\n") + 2


@BOTH
def test_the_control_block_is_visible(name: str, cpu: str, start: int) -> None:
    with load(name, cpu) as machine:
        machine.run(max_instructions=start + 200)
        block = machine.vmcs if name == "vmx" else machine.vmcb
        assert block["exit_reason" if name == "vmx" else "exit_code"] == (30 if name == "vmx" else 0x7B)
        assert not [check.explain() for check in block.check() if check.ok is False]


@BOTH
def test_time_goes_back_through_entries_and_exits(name: str, cpu: str, start: int) -> None:
    """Any moment, in the guest or in its hypervisor, comes back as it was."""
    with load(name, cpu) as machine:
        machine.run(max_instructions=start)
        seen = {}
        for _ in range(400):
            machine.step()
            seen[int(machine.position)] = (machine.regs, machine.sregs)
        for position in sorted(seen, key=lambda p: (p * 7919) % 1009)[:60]:
            machine.goto(position)
            assert (machine.regs, machine.sregs) == seen[position], position
