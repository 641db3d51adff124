"""An auto VM on /dev/kvm that has not run yet changes to soft where somebody wants to look inside, and says so."""

import pytest

import kvmlab


@pytest.fixture
def vm(monkeypatch):
    try:
        kvmlab.VM(memory="64K", engine="kvm").close()
    except kvmlab.Error as error:
        pytest.skip(f"no /dev/kvm here: {error}")
    monkeypatch.setattr("kvmlab.vm.host_choice", lambda: ("kvm", "as if this host's KVM had no gaps"))
    monkeypatch.delenv("KVMLAB_ENGINE", raising=False)
    made = kvmlab.VM(memory="4M")
    assert made.engine == "kvm"
    made.load(kvmlab.assemble("mov dx, 0x3f8\nmov al, 'A'\nout dx, al\nhlt", bits=16, org=0x1000))
    return made


def test_looking_inside_before_the_first_run_changes_to_soft(vm):
    vm.set(rbx=7)
    assert int(vm.position) == 0
    assert vm.engine == "soft" and "changed to soft" in vm.engine_reason
    assert vm.regs.rbx == 7 and vm.regs.rip == 0x1000
    assert vm.step_exit().reason.name == "EVENT"


def test_the_bench_changes_to_soft_and_says_so(vm):
    pytest.importorskip("anywidget")
    bench = vm.bench()
    assert vm.engine == "soft"
    assert "changed to soft" in dict(bench.session.state["sentence"].items)["say"]["text"]


def test_once_it_has_run_it_stays_where_it_is(vm):
    assert vm.run().port == 0x3F8
    with pytest.raises(kvmlab.NotVisible):
        _ = vm.timeline
    assert vm.engine == "kvm"
