"""The benchmark measures what it says, and refuses to time a wrong result. How fast it is, is not asserted here."""

import pytest

from kvmlab import bench_guests, speed
from kvmlab.errors import Error
from kvmlab.machine import Machine


def machine() -> speed.Runner:
    return speed.Ours("Machine", lambda: Machine(memory=bench_guests.MEMORY, cpu="intel"))


@pytest.mark.parametrize("guest", [guest for guest in speed.GUESTS if not bench_guests.GUESTS[guest].sse])
def test_our_machine_counts_what_the_guest_states(guest: str) -> None:
    n = speed.GUESTS[guest]
    _, instructions = speed._seconds(machine, guest, n)
    stated = bench_guests.GUESTS[guest].instructions(n)
    assert stated is None or instructions == stated + 1  # the final HLT


def test_a_wrong_result_is_an_error_not_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed.Ours, "run", lambda self: 12345)
    with pytest.raises(Error, match="runs alu wrong: rax = 0x3039"):
        speed._seconds(machine, "alu", 10)


def test_unicorn_runs_the_same_guests() -> None:
    pytest.importorskip("unicorn")
    for guest in ("alu", "mem", "io"):
        speed._seconds(speed.Unicorn, guest, 100)


def test_a_report_is_a_table() -> None:
    figures = (speed.Figure("alu", "A", 1234.5, "MIPS"), speed.Figure("alu", "B", 9.876, "MIPS"))
    report = speed.Report((*figures, speed.Figure("steps", "A", 5.0, "a second")))
    lines = str(report).splitlines()[2:]
    assert [line.split() for line in lines] == [
        ["A", "B"],
        ["alu,", "MIPS", "1,234", "9.88"],
        ["steps,", "a", "second", "5.00", "-"],
    ]
