"""What the doctor says about hosts that have and lack things."""

import subprocess
import sys

import pytest

import kvmlab
from kvmlab.doctor import Check, Diagnosis, kvm_check

# The module's name in the package is the function's: `kvmlab.doctor` is called.
module = sys.modules["kvmlab.doctor"]


def test_says_an_engine_and_why() -> None:
    diagnosis = kvmlab.doctor()
    assert diagnosis.engine in {"soft", "kvm"}
    assert diagnosis.reason
    assert diagnosis["engine"].ok is True
    text = str(diagnosis)
    for check in diagnosis.checks:
        assert check.name in text and check.found in text
        assert bool(check.remedy) == (check.ok is not True), check


def test_table_stands_alone() -> None:
    bundle = kvmlab.doctor()._repr_mimebundle_()
    assert "<table" in bundle["text/html"] and "<script" not in bundle["text/html"]


def test_a_host_without_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KVM_DEVICE", "/nowhere/kvm")
    monkeypatch.setattr(sys, "platform", "linux")
    check = kvm_check()
    assert check.ok is None and "there is no /nowhere/kvm" in check.found and "modprobe" in check.remedy


def test_a_host_whose_kvm_may_not_be_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "KVM_DEVICE", str(tmp_path))
    monkeypatch.setattr("os.open", refuse)
    monkeypatch.setattr(sys, "platform", "linux")
    check = kvm_check()
    assert check.ok is None and "may not open it" in check.found and "usermod -aG kvm" in check.remedy


def test_a_device_that_is_not_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KVM_DEVICE", "/dev/null")
    monkeypatch.setattr(sys, "platform", "linux")
    check = kvm_check()
    assert check.ok is None and "does not answer as KVM does" in check.found


def test_callable_by_either_import() -> None:
    for first in ("import kvmlab.doctor", "from kvmlab import doctor"):
        code = f"{first}; import kvmlab; print(type(kvmlab.doctor()).__name__)"
        assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "Diagnosis"


def test_diagnosis_is_found_by_name() -> None:
    diagnosis = Diagnosis(False, "soft", "because", (Check("a", True, "x"), Check("b", None, "y", "z")))
    assert diagnosis["b"].remedy == "z"
    assert diagnosis.to_dict()["engine"] == "soft"
