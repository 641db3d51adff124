"""What check cells say: expected, came, where to read; drawn cases and their shrinking; marks."""

from __future__ import annotations

import random
from typing import Annotated, Literal

import pytest
import small_guests as g

import kvmlab
from kvmlab import check
from kvmlab.check import CheckFailed
from kvmlab.errors import BadArgument


def said(call: object, *arguments: object, **options: object) -> str:
    with pytest.raises(AssertionError) as raised:
        call(*arguments, **options)  # type: ignore[operator]
    return str(raised.value)


def test_equal() -> None:
    check.equal(5, 5)
    check.equal("A", "A")
    text = said(check.equal, 0x1234, 0x1230, hint="mask the low bits", see="SDM 3A 4.6")
    assert text.splitlines() == ["Expected: 0x1230 (4656)", "Came:     0x1234 (4660)", "They differ in bit 2.",
                                 "Hint: mask the low bits", "Read: SDM 3A 4.6"]  # fmt: skip
    assert "from index 1 on; 3 were expected, 2 came" in said(check.equal, "ab", "acc")
    assert "A int was expected, a str came" in said(check.equal, "5", 5)
    assert issubclass(CheckFailed, AssertionError)
    with pytest.raises(CheckFailed) as raised:
        check.equal(1, 2)
    assert raised.value._render_traceback_() == [str(raised.value)]


@pytest.fixture(params=["machine", "intel-2006", "amd-2006"])
def ran(request: pytest.FixtureRequest) -> kvmlab.Machine:
    vm = kvmlab.Machine("1M") if request.param == "machine" else kvmlab.VM("1M", "soft", request.param)
    vm.attach_console()
    vm.load(g.FIVE)
    vm.run()
    return vm  # type: ignore[return-value]


def test_trace(ran: kvmlab.Machine) -> None:
    check.trace(ran, [("io", {"port": 0x3F8, "direction": "out", "size": 1})])
    check.trace(ran, [("io", {"port": 0x3F8})], exact=True)
    text = said(check.trace, ran, [("io", {"port": 0x3F9})], see="lab 2")
    assert (
        "Expected: io port=0x3f9 (number 1 of 1)" in text
        and "Came:     io port=0x3f8" in text
        and "Read: lab 2" in text
    )
    assert "nothing more of these kinds" in said(check.trace, ran, [("io", {}), "io"])
    assert "nothing more after 1" in said(check.trace, [*_stops(), *_stops()], ["io"], exact=True)
    check.trace(_stops(), [("io", {"value": 0x41}), "hlt"], exact=True)


def _stops() -> list[kvmlab.Exit]:
    machine = kvmlab.Machine("1M")
    machine.load(g.FIVE)
    return list(machine.exits())


def test_budget() -> None:
    machine = kvmlab.Machine("1M")
    machine.load(g.COUNT)
    assert check.budget(machine, 12).kind == "hlt"
    assert check.budget(machine, 100).kind == "hlt"
    assert "at most 5 instructions" in said(check.budget, machine, 5)
    endless = kvmlab.Machine("1M")
    endless.load(g.LOOP)
    assert "still running at 0x100" in said(check.budget, endless, 10_000, hint="a HLT is missing")
    assert endless.position == 10_000


def test_invariants() -> None:
    vm = kvmlab.VM("4M", "soft")
    vm.load(g.MMIO)
    vm.run()
    check.invariants(vm)


def test_cases() -> None:
    def oracle(selector: Annotated[int, range(0x10000)], offset: Annotated[int, range(0x10000)]) -> int:
        return (selector << 4) + offset & 0xFFFFF

    check.cases(oracle, oracle)
    text = said(check.cases, lambda selector, offset: (selector << 4) + offset, oracle, seed=1, see="lab 3")
    assert "made smaller" in text and "seed 1" in text and "Read: lab 3" in text
    call = text.splitlines()[0]
    selector, offset = (int(word, 0) for word in call[call.index("(") + 1 : -1].split(", "))
    assert (selector << 4) + offset == 0x100000  # the smallest sum that wraps
    assert "returns its result" not in text
    assert "does the function return" in said(check.cases, lambda selector, offset: None, oracle)
    assert "ZeroDivisionError" in said(check.cases, lambda selector, offset: 1 // 0, oracle)


def test_cases_of_every_type() -> None:
    def oracle(data: bytes, flag: bool, size: Literal[1, 2, 4], wide: int) -> tuple[bytes, bool, int, int]:
        if len(data) > 60:
            raise BadArgument("no case")
        return data, flag, size, wide

    seen = []

    def student(*arguments: object) -> tuple[object, ...]:
        seen.append(arguments)
        return arguments

    check.cases(student, oracle, n=300)
    assert {a[2] for a in seen} == {1, 2, 4} and {a[1] for a in seen} == {True, False}
    assert any(a[3] > 1 << 62 for a in seen) and any(a[3] < 256 for a in seen)
    text = said(check.cases, lambda data, flag, size, wide: (data[:3], flag, size, wide), oracle)
    assert text.splitlines()[0].count("\\x00") <= 4 and "b'" in text
    with pytest.raises(BadArgument, match="draw"):
        check.cases(_odd, _odd)


def _odd(x: complex) -> complex:
    return x


def test_seeds_belong_to_teacher_student_and_task(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.delenv("JUPYTERHUB_USER", raising=False)
    monkeypatch.setenv("KVMLAB_SEED", "autumn")
    monkeypatch.setenv("KVMLAB_STUDENT", "ada")
    ada = check.seed("walk")
    assert check.seed("walk") == ada and check.seed("fill") != ada
    monkeypatch.setenv("KVMLAB_STUDENT", "bob")
    assert check.seed("walk") != ada
    monkeypatch.delenv("KVMLAB_STUDENT")
    folder = tmp_path / "autograded" / "ada" / "lab3"  # type: ignore[operator]
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert check.student() == "ada" and check.seed("walk") == ada
    drawn: list[int] = []
    check.cases(lambda x: drawn.append(x) or x, lambda x: x, n=5)
    again: list[int] = []
    check.cases(lambda x: again.append(x) or x, lambda x: x, n=5)
    assert drawn == again


def test_draw_may_be_given() -> None:
    def draw(rng: random.Random) -> tuple[int, int]:
        return rng.randrange(10), rng.randrange(10)

    check.cases(lambda a, b: a + b, lambda a, b: a + b, n=20, draw=draw)


def test_score(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        check.equal(1, 2, see="SDM 3A 4.6")

    total = check.score({"a": True, "b": 0.5, "c": broken, "d": lambda: None}, points=8)
    out = capsys.readouterr().out
    assert total == 5.0
    assert "✓ a: 100%" in out and "~ b: 50%" in out and "✗ c: 0%\n    Expected: 2" in out and "5 of 8 points" in out
    assert check.score({}) == 0.0
    with pytest.raises(BadArgument):
        check.score({"a": 5})
