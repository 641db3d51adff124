"""The benchmark's guests: their bytes, their counts, their check values, on foreign machines before our own."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import qemu_run
import unicorn
from unicorn import x86_const as x

import kvmlab
from kvmlab import bench_guests, toolchain
from kvmlab.errors import BadArgument, ToolUnavailable
from kvmlab.guest import Image, assemble

# The bytes that the figures were measured with; another assembler must give them too.
BYTES = {
    "alu": "9ea99c3ac9c4c1b1",
    "alu3": "23d99a32b45348b0",
    "mem": "1df3d96b21991048",
    "rep": "057b64d126265f3a",
    "repalias": "1c6e59559039d92b",
    "fp": "9daa1c870b935b12",
    "smc": "e3b1ad6440c3cac7",
    "cr3": "9abef535d51438ca",
    "io": "5a9d139a3ed26e71",
    "trapint": "1cf06bc4cbc1eea3",
    "trapsys": "dc0a673e13b20199",
    "trapud": "4867820915ea60eb",
}
SMALL = {"mixed": 3, "fp": 1000, "mem": 100000, "rep": 3, "repalias": 2}
NOT_IN_UNICORN = {"alu3", "trapint", "trapsys", "trapud"}  # it delivers nothing through gates in long mode


class _Unicorn:
    """As much of a VM as prepare() needs, on Unicorn."""

    def __init__(self, memory: int = 80 << 20) -> None:
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self.uc.mem_map(0, memory)
        self.memory = self
        self.entry = 0

    def load(self, image: Image) -> None:
        self.uc.mem_write(image.org, image.data)

    def write(self, address: int, data: bytes) -> None:
        self.uc.mem_write(address, data)

    def set(self, **registers: int) -> None:
        self.entry = registers.pop("rip")
        cr4, cr3 = registers.pop("cr4"), registers.pop("cr3")
        for name, value in registers.items():
            self.uc.reg_write(getattr(x, f"UC_X86_REG_{name.upper()}"), value)
        self.uc.reg_write(x.UC_X86_REG_CR4, cr4)
        self.uc.reg_write(x.UC_X86_REG_CR3, cr3)
        self.uc.reg_write(x.UC_X86_REG_CR0, 0x80000033)

    def run(self, counted: bool) -> tuple[int, int]:
        """RAX at the HLT, and the instructions before it."""
        count = [0]

        def one(_uc: Any, _at: int, _size: int, _data: Any) -> None:
            count[0] += 1

        if counted:
            self.uc.hook_add(unicorn.UC_HOOK_CODE, one)
        self.uc.emu_start(self.entry, bench_guests.RETURN_TO)
        return int(self.uc.reg_read(x.UC_X86_REG_RAX)), count[0]


def _families() -> list[str]:
    out = []
    for family in toolchain.FAMILIES:
        try:
            toolchain.find(family)
        except ToolUnavailable:
            continue
        out.append(family)
    return out


@pytest.mark.parametrize("family", _families())
@pytest.mark.parametrize("name", BYTES)
def test_bytes(name: str, family: str) -> None:
    assert hashlib.sha256(bench_guests.build(name, family).data).hexdigest()[:16] == BYTES[name]


@pytest.mark.parametrize("name", [name for name in bench_guests.GUESTS if name not in NOT_IN_UNICORN])
def test_unicorn_gives_the_check_value(name: str) -> None:
    n = SMALL.get(name, 50)
    machine = _Unicorn()
    bench_guests.prepare(machine, name, n)
    assert bench_guests.check(name, n, machine.run(counted=False)[0]) is True


# Unicorn counts each turn of a REP, and an instruction again that it translates again (smc).
@pytest.mark.parametrize(("name", "extra"), [("alu", 0), ("mem", 0), ("fp", 0), ("io", 0), ("cr3", 512)])
def test_unicorn_counts_the_same(name: str, extra: int) -> None:
    machine = _Unicorn()
    guest = bench_guests.prepare(machine, name, 50)
    assert machine.run(counted=True)[1] == (guest.instructions(50) or 0) + extra


@pytest.mark.skipif(qemu_run.QEMU is None, reason="qemu-system-x86_64 is not installed: nothing to compare with")
@pytest.mark.parametrize("name", list(bench_guests.GUESTS))
def test_qemu_gives_the_check_value(name: str) -> None:
    n = SMALL.get(name, 50)
    payload = bench_guests.build(name)
    parts = [*bench_guests.page_tables(), (payload.org, payload.data)]
    stub = assemble(
        f"mov eax, 0x620; mov cr4, rax; mov eax, 0x10000; mov cr3, rax; mov esp, 0x300000; mov edi, {n}\n"
        "mov eax, 0x100000; call rax; cli; hlt",
        64,
        0x9F000,
    )
    done = qemu_run.run(stub, memory=128 << 20, extra=parts)
    assert done.end == "hlt" and bench_guests.check(name, n, done.regs["rax"]) is True


def test_bad_arguments() -> None:
    with pytest.raises(BadArgument, match="'allu' is no guest"):
        bench_guests.build("allu")
    with pytest.raises(BadArgument, match="no amount of work"):
        bench_guests.prepare(None, "alu", 0)
    assert bench_guests.check("mixed", 7, 0) is None
    assert bench_guests.GUESTS["alu"].instructions(10) == 33 and bench_guests.GUESTS["mixed"].instructions(1) is None


@pytest.mark.parametrize("name", list(bench_guests.GUESTS))
@pytest.mark.parametrize("kind", ["Machine", "VM"])
def test_on_our_own(name: str, kind: str) -> None:
    if bench_guests.GUESTS[name].sse:
        pytest.skip("SSE2 comes with a later processor")
    n = SMALL.get(name, 50)
    options = {"engine": "soft", "cpu": "intel-2006"} if kind == "VM" else {"cpu": "intel"}
    machine = getattr(kvmlab, kind)(memory=bench_guests.MEMORY, **options)
    machine.on_io(0x500, write=lambda port, size, value: None)
    bench_guests.prepare(machine, name, n)
    start = int(machine.position)
    stop = machine.run()
    assert stop.reason.name == "HLT", stop
    stated = bench_guests.GUESTS[name].instructions(n)
    if stated is not None:
        assert int(machine.position) - start == stated + 1  # and the HLT
    assert bench_guests.check(name, n, machine.regs.rax) is True
