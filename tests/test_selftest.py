"""The self-test of /dev/kvm: its guests run on engines that have no gaps, its bytes are its texts, a hang is a no."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from kvmlab import VM, Machine, assemble, doctor, selftest

doctor_module = sys.modules["kvmlab.doctor"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Machine(memory="1M", cpu="intel"),
        lambda: VM(memory="1M", engine="soft", cpu="intel-2006"),
        lambda: VM(memory="1M", engine="soft", cpu="amd-2006"),
    ],
    ids=["machine", "intel-2006", "amd-2006"],
)
def test_the_soft_engine_has_no_gap(make: Callable[[], VM]) -> None:
    assert list(selftest.failures(make)) == []


def test_bytes_are_what_the_texts_assemble_to() -> None:
    assert assemble(selftest.LONG, bits=64, org=selftest.ORG).data.hex() == selftest.LONG_CODE
    assert assemble(selftest.PAGED, bits=32, org=selftest.ORG).data.hex() == selftest.PAGED_CODE


def test_a_gap_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose INT 40h handler is not reached: the gate is missing."""
    broken = bytes.fromhex(selftest.LONG_CODE).replace(b"\xcd\x40", b"\x90\x90")
    monkeypatch.setattr(selftest, "LONG_CODE", broken)
    failed = list(selftest.failures(lambda: Machine(memory="1M")))
    assert failed == ["INT n in long mode"]


def test_an_exception_is_a_failure_with_its_text() -> None:
    class Broken(Machine):
        def run(self, *_: object, **__: object) -> object:
            raise OSError("no such ioctl")

    failed = list(selftest.failures(lambda: Broken(memory="1M")))
    assert "long mode (no such ioctl)" in failed


def python(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import time; print('ready', flush=True); time.sleep(60)", "a guest hangs"),
        ("print('ready'); raise SystemExit(3)", "the self-test's process died"),
        ("import os; print('ready', flush=True); os.abort()", "the self-test's process died"),
        ("print('ready'); print('[\"ring 3\"]')", "ring 3 does not work"),
        ("print('ready'); print('[\"ring 3\", \"HLT\"]')", "ring 3, HLT do not work"),
    ],
)
def test_the_child_is_judged(code: str, said: str) -> None:
    assert selftest._judge(python(code)) == (False, said)


def test_a_child_that_passes() -> None:
    assert selftest._judge(python("print('ready'); print('[]')"))[0] is True


@pytest.fixture
def fresh_doctor() -> Iterator[None]:
    doctor_module.self_test.cache_clear()
    yield
    doctor_module.self_test.cache_clear()


@pytest.mark.parametrize(("works", "engine"), [(True, "kvm"), (False, "soft")])
@pytest.mark.usefixtures("fresh_doctor")
def test_auto_takes_kvm_only_where_it_passes(works: bool, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = doctor_module.Check("hardware virtualization", True, "/dev/kvm opens, version 12")
    monkeypatch.setattr(doctor_module, "kvm_check", lambda: there)
    monkeypatch.setattr(selftest, "passes", lambda: (works, "" if works else "ring 3 does not work"))
    diagnosis = doctor()
    assert diagnosis.engine == engine
    assert ("ring 3" in diagnosis.reason) == (not works)
    assert diagnosis["its self-test"].ok is (True if works else None)
