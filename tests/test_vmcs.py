"""vm.vmcs and vm.vmcb: the fields by name, the rules of the next entry, and where there is nothing to see."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

import kvmlab

# VMXON, VMCLEAR and VMPTRLD by hand, from 64-bit mode with VMX regions in the first page behind the code
HYPERVISOR = """
    mov rax, cr4
    or eax, 0x2000
    mov cr4, rax
    mov rax, cr0
    or eax, 0x20
    mov cr0, rax
    mov ecx, 0x480
    rdmsr
    mov [0x20000], eax
    mov [0x21000], eax
    push 0x20000
    vmxon [rsp]
    push 0x21000
    vmclear [rsp]
    vmptrld [rsp]
    mov eax, 0x681e
    mov ecx, 0x1234
    vmwrite rax, rcx
    hlt
"""


@pytest.fixture
def vm() -> Iterator[kvmlab.VM]:
    with kvmlab.VM(memory="1M", engine="soft", cpu="intel-2006") as made:
        yield made


def test_fields_by_name(vm: kvmlab.VM) -> None:
    block = vm.vmcs
    assert block["vmcs_link_pointer"] == 2**64 - 1
    assert "guest_rip" in block and len(block) == len(list(block)) == len(block.to_dict())
    assert "ept_pointer" not in block, "intel-2006 has no EPT"
    with pytest.raises(kvmlab.BadArgument, match="guest_rip"):
        block["guest_ripp"]


def test_it_is_a_moment(vm: kvmlab.VM) -> None:
    before = vm.vmcs
    assert pickle.loads(pickle.dumps(before)) == before
    image = kvmlab.assemble("mov al, 1\nout 0x80, al\nhlt", bits=16, org=0x1000)
    vm.load(image)
    vm.run()
    now = vm.vmcs
    assert before["exit_reason"] != now["exit_reason"] == 30
    assert now.diff(before)["exit_reason"].now == 30
    assert "exit_reason" in repr(now) and "text/html" in now._repr_mimebundle_()


def test_check_names_every_rule(vm: kvmlab.VM) -> None:
    image = kvmlab.assemble("cpuid\nhlt", bits=32, org=0x1000)
    vm.load(image)
    vm.run()
    checks = {check.id: check for check in vm.vmcs.check()}
    assert len(checks) == 194
    assert not [check.explain() for check in checks.values() if check.ok is False]
    assert checks["GUEST-CR-01"].ok is True and checks["GUEST-CR-01"].field == "guest_cr0"
    assert checks["CTL-EXEC-23"].ok is None, "no EPT on intel-2006"
    assert checks["GUEST-CR-01"].value == vm.vmcs["guest_cr0"]


def test_what_is_not_there_says_so() -> None:
    with kvmlab.Machine(memory="1M", cpu="intel-2006") as machine:
        with pytest.raises(kvmlab.NotVisible, match="no VMCS is current"):
            _ = machine.vmcs
        with pytest.raises(kvmlab.NotVisible, match=r"\.vmcs shows it"):
            _ = machine.vmcb
    with kvmlab.Machine(memory="1M", cpu="amd-2006") as machine:
        with pytest.raises(kvmlab.NotVisible, match=r"\.vmcb shows it"):
            _ = machine.vmcs


def test_a_bare_machine_shows_the_vmcs_of_its_code() -> None:
    with kvmlab.Machine(memory="1M", cpu="intel-2006") as machine:
        machine.load(kvmlab.assemble(HYPERVISOR, bits=64, org=0x1000))
        stop = machine.run(max_instructions=100)
        assert stop.reason is kvmlab.ExitReason.HLT
        assert machine.vmcs["guest_rip"] == 0x1234
        failing = [check.id for check in machine.vmcs.check() if check.ok is False]
        assert failing[0] == "CTL-EXEC-01", "an empty VMCS fails at the first rule"


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("cr3_target_count", 9, "CTL-EXEC-06"),
        ("host_cs_selector", 0, "HOST-SEG-02"),
        ("guest_tr_access_rights", 0x89, "GUEST-SEG-27"),
        ("vmcs_link_pointer", 8, "GUEST-LNK-01"),
    ],
)
def test_a_broken_field_is_named_by_its_rule(vm: kvmlab.VM, field: str, value: int, rule: str) -> None:
    vm.load(kvmlab.assemble("cpuid\nhlt", bits=32, org=0x1000))
    vm._handle.set_field([row.name for row in kvmlab.tables.vmcs_fields()].index(field), value)
    first = next(check for check in vm.vmcs.check() if check.ok is False)
    assert (first.id, first.field, first.value) == (rule, field, value)
    stop = vm.run()
    assert stop.reason in (kvmlab.ExitReason.FAIL_ENTRY, kvmlab.ExitReason.UNKNOWN)
    assert rule in stop.explain()


def test_the_vmcb_of_a_vm() -> None:
    with kvmlab.VM(memory="1M", engine="soft", cpu="amd-2006") as vm:
        vm.load(kvmlab.assemble("cpuid\nhlt", bits=32, org=0x1000))
        vm.run()
        assert vm.vmcb["exit_code"] == 0x72 and vm.vmcb["rip"] == 0x1000
        assert "nested_cr3" not in vm.vmcb, "amd-2006 has no nested paging"
        checks = {check.id: check for check in vm.vmcb.check()}
        assert len(checks) == 44
        assert not [check.explain() for check in checks.values() if check.ok is False]
        assert checks["SVM-CTL-01"].ok is True and checks["SVM-CTL-06"].ok is None
        with pytest.raises(kvmlab.NotVisible):
            _ = vm.vmcs
