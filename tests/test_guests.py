"""Every guest of tests/guests on every engine, processor and MMU, on the bare machine, and on foreign machines."""

from __future__ import annotations

import ast
from typing import Any

import guest_runner
import pytest
import qemu_run

import kvmlab
from kvmlab.errors import EngineUnavailable

GUESTS = guest_runner.all_guests()
MMUS = ("shadow",)


def _cases() -> list[Any]:
    cases = []
    for guest in GUESTS:
        for engine in guest.engines:
            if engine == "kvm":
                cases.append(pytest.param(guest, "kvm", None, None, id=f"{guest.name}-kvm"))
                continue
            for cpu in guest.cpus:
                cases += [pytest.param(guest, engine, cpu, mmu, id=f"{guest.name}-{cpu}-{mmu}") for mmu in MMUS]
    return cases


def _ways(guest: guest_runner.Guest) -> list[bool]:
    """With the console attached, and without it where the stops are stated (and not only the answers to reads)."""
    ways = [True] if guest.console is not None or not guest.exits else []
    stated = [item for item in guest.exits if item.reply is None]
    return ways + ([False] if stated else [])


def _report(wrong: list[str]) -> str:
    return "\n".join(wrong)


@pytest.mark.parametrize(("guest", "engine", "cpu", "mmu"), _cases())
def test_on_a_vm(guest: guest_runner.Guest, engine: str, cpu: str | None, mmu: str | None) -> None:
    image = guest.build()
    for console in _ways(guest):
        options: dict[str, Any] = {"memory": guest.memory, "engine": engine, **guest.options}
        if cpu is not None:
            options.update(cpu=cpu, mmu=mmu)
        try:
            vm = kvmlab.VM(**options)
        except EngineUnavailable as error:
            pytest.skip(str(error))
        with vm:
            outcome = guest_runner.run(vm, guest, image, console=console)
            wrong = guest_runner.compare(vm, guest, image, outcome)
        if wrong and engine == "kvm" and guest.gap:
            pytest.xfail(f"this host's KVM may have a gap ({guest.gap}): {wrong[0]}")
        assert not wrong, _report(wrong)


@pytest.mark.parametrize("guest", [guest for guest in GUESTS if guest.machine], ids=lambda guest: guest.name)
@pytest.mark.parametrize("cpu", ["intel-2006", "amd-2006"])
def test_on_the_bare_machine(guest: guest_runner.Guest, cpu: str) -> None:
    image = guest.build()
    with kvmlab.Machine(memory=guest.memory, cpu=cpu) as machine:
        outcome = guest_runner.run(machine, guest, image, console=True, callbacks=True)
        wrong = guest_runner.compare(machine, guest, image, outcome)
    assert not wrong, _report(wrong)


@pytest.mark.skipif(qemu_run.QEMU is None, reason="qemu-system-x86_64 is not installed: nothing to compare with")
@pytest.mark.parametrize("guest", [g for g in GUESTS if "qemu" in g.oracle], ids=lambda guest: guest.name)
def test_qemu_agrees(guest: guest_runner.Guest) -> None:
    """What the guests state is what a foreign machine does too: the statements are not ours alone."""
    image = guest.build()
    done = qemu_run.run(image)
    if guest.console is not None:
        assert done.console == guest.console
    assert done.end == ("shutdown" if any(item.kind == "shutdown" for item in guest.exits) else "hlt")
    for name, mask, word in guest.expect:
        got = done.regs[name] & (int(mask, 0) if mask else ~0)
        assert got == guest.value(word, image), name
    for at, content in guest.bytes:
        want = ast.literal_eval("b" + content) if content.startswith('"') else bytes.fromhex(content)
        place = guest.value(at, image)
        assert done.memory[place : place + len(want)] == want, at


# --- The runner itself -----------------------------------------------------------------------------------------------


def test_a_guest_file_is_read() -> None:
    guest = next(guest for guest in GUESTS if guest.name == "mmio")
    assert (guest.bits, guest.org, guest.memory) == (64, 0x100000, "4M")
    assert str(guest.exits[0]) == "mmio gpa=0xfe000000 size=0x1 out" or "gpa=0xfe000000" in str(guest.exits[0])
    assert guest.exits[4].reply == 0x12345678
    five = next(guest for guest in GUESTS if guest.name == "five")
    assert five.expect[0] == ("rax", "0xff", "0x42") and five.console == "A"
    image = five.build()
    assert five.value("0x10+5", image) == 0x15


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("#: colour: red", "no field"),
        ("#: exit wink", "no kind of stop"),
        ("#: exit io sideways", "key=value"),
        ("#: expect rax", "register=value"),
        ("hlt", "about"),
    ],
)
def test_a_bad_guest_file_is_refused(tmp_path: Any, line: str, says: str) -> None:
    path = tmp_path / "bad.S"
    path.write_text(line + "\n")
    with pytest.raises(guest_runner.BadGuest, match=says):
        guest_runner.read(path)


class _Stop:
    def __init__(self, kind: str, **fields: Any) -> None:
        self.reason = kind
        self.__dict__.update(fields)

    def __repr__(self) -> str:
        return f"<{self.reason}>"


class _Fake:
    """A machine that stops where it is told to: the comparison is tested, not an engine."""

    def __init__(self, *stops: _Stop, **registers: int) -> None:
        self.stops = list(stops)
        self.regs = _Stop("regs", **registers)
        self.sregs = _Stop("sregs")
        self.console = "A"

    def load(self, image: Any) -> None: ...
    def attach_console(self) -> None: ...
    def run(self, max_instructions: int) -> _Stop:
        return self.stops.pop(0)


def test_differences_are_named() -> None:
    five = next(guest for guest in GUESTS if guest.name == "five")
    image = five.build()
    out = _Stop("IO", port=0x3F8, size=1, value=0x41, direction="out")
    good = _Fake(out, _Stop("HLT"), rax=0x42, rdx=0x3F8)
    assert guest_runner.compare(good, five, image, guest_runner.run(good, five, image, console=False)) == []
    wrong = _Stop("IO", port=0x3F9, size=1, value=0x41, direction="out")
    bad = _Fake(wrong, _Stop("SHUTDOWN"), rax=0x41, rdx=0x3F8)
    said = guest_runner.compare(bad, five, image, guest_runner.run(bad, five, image, console=False))
    assert any("port is 0x3f9" in line for line in said)
    assert any("hlt stated, <SHUTDOWN> came" in line for line in said)
    assert any("rax&0xff: 0x42 stated, 0x41 came" in line for line in said)
