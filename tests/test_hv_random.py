"""A guest under the hypervisor is what it is on the bare machine: random programs, compared at instruction counts.

Virtual-8086 mode shows IOPL 3 in the flags it pushes, so 16-bit programs run on Intel's processor by emulation.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

import kvmlab
from kvmlab import VM, Image, Machine

CASES = 40
COMMON = [0x0F, 0x66, 0x67, 0xF3, 0x8E, 0xCD, 0x22, 0x20, 0x89, 0x8B, 0xA4, 0xA2, 0x01, 0x29, 0x50, 0x58, 0xFF, 0x8D]
# CPUID, RDTSC, MSRs and HLT differ by design; a string of port accesses is one exit here and many there
LEFT_OUT = (b"\x0f\xa2", b"\x0f\x31", b"\x0f\x32", b"\x0f\x30", b"\x6c", b"\x6d", b"\x6e", b"\x6f", b"\xf4")
SIZE = 0x40000
TABLES = SIZE - 0x3000  # the last three pages hold the TSS of vm86


def _program(rnd: random.Random) -> bytes:
    code = bytes(rnd.choice([rnd.randrange(256), rnd.choice(COMMON)]) for _ in range(300))
    for word in LEFT_OUT:
        code = code.replace(word, b"\x90" * len(word))
    return code


def _advance(machine: Any, target: int) -> str:
    """Runs to an instruction count; what stopped it before."""
    for _ in range(400):
        left = target - machine.position.instructions
        if left <= 0:
            return ""
        stop = machine.run(max_instructions=left)
        if stop.reason.name not in ("IO", "MMIO", "CPUID", "LIMIT"):
            return str(stop.reason.name)
        if stop.reason.name == "LIMIT" and stop.no_progress:
            return "no progress"
    return "no progress"


def _state(machine: Any) -> dict[str, Any]:
    sregs = machine.sregs.to_dict()
    return machine.regs.to_dict() | {name: value for name, value in sregs.items() if name not in ("tr", "ldtr")}


@pytest.mark.parametrize(("cpu", "bits"), [("intel-2006", 16), ("intel-2006", 32), ("intel-2006", 64),
                                           ("amd-2006", 16), ("amd-2006", 32), ("amd-2006", 64)])  # fmt: skip
def test_the_hypervisor_changes_nothing(cpu: str, bits: int) -> None:
    seed = random.SystemRandom().getrandbits(32)
    for case in range(CASES):
        rnd = random.Random(f"{seed}/{case}")
        code = _program(rnd)
        regs = {
            name: rnd.choice([rnd.getrandbits(64), rnd.randrange(SIZE), rnd.randrange(0x400)])
            for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp")
        }
        vectors = b"".join((0x1000 + rnd.randrange(300)).to_bytes(4, "little") for _ in range(256))
        with VM(SIZE, engine="soft", cpu=cpu, real_mode="emulate") as vm, Machine(SIZE, cpu=cpu) as machine:
            for each in (vm, machine):
                each.load(Image(code, org=0x1000, bits=bits))
                each.memory.write(0, vectors)
                each.set(**regs)
            machine.memory.write(TABLES, vm.memory.read(TABLES, SIZE - TABLES))
            where = f"seed {seed}, case {case}: {code.hex()}"
            for target in range(10, 800, 61):
                stops = _advance(vm, target), _advance(machine, target)
                if "no progress" in stops:
                    break
                assert stops[0] == stops[1], where
                if stops[0]:
                    break
                assert _state(vm) == _state(machine), where
            else:
                assert vm.memory.read(0, TABLES) == machine.memory.read(0, TABLES), where
            found = vm.shadow.audit()
            assert not found, (where, found)


def test_random_code_in_every_real_mode_ends_in_a_stop() -> None:
    seed = random.SystemRandom().getrandbits(32)
    for case in range(CASES):
        rnd = random.Random(f"{seed}/{case}")
        mode = rnd.choice(["auto", "user", "vm86", "emulate"])
        with kvmlab.VM(SIZE, engine="soft", cpu=rnd.choice(["intel-2006", "amd-2006"]), real_mode=mode) as vm:
            vm.load(Image(rnd.randbytes(400), org=0x1000, bits=16))
            vm.memory.write(0, b"".join((0x1000 + rnd.randrange(300)).to_bytes(4, "little") for _ in range(256)))
            for _ in range(30):
                stop = vm.run(max_instructions=200)
                if stop.reason.name not in ("IO", "MMIO", "CPUID", "LIMIT", "HLT"):
                    break
                if rnd.random() < 0.2:
                    vm.interrupt(rnd.randrange(256))
            assert not vm.shadow.audit(), f"seed {seed}, case {case}"


@pytest.mark.parametrize("cpu", ["intel-2006", "amd-2006"])
def test_any_moment_can_be_reached_again(cpu: str) -> None:
    seed = random.SystemRandom().getrandbits(32)
    for case in range(CASES):
        rnd = random.Random(f"{seed}/{case}")
        bits, mode = rnd.choice([16, 32, 64]), rnd.choice(["auto", "emulate"])
        where = f"seed {seed}, case {case}"
        with VM(SIZE, engine="soft", cpu=cpu, real_mode=mode) as vm:
            vm.load(Image(_program(rnd), org=0x1000, bits=bits))
            vm.memory.write(0, b"".join((0x1000 + rnd.randrange(300)).to_bytes(4, "little") for _ in range(256)))
            vm._handle.history_start(50)
            moments = []
            for _ in range(20):
                stop = vm.run(max_instructions=rnd.randrange(1, 60))
                if stop.reason.name in ("SHUTDOWN", "UNKNOWN", "FAIL_ENTRY") or (
                    stop.reason.name == "LIMIT" and stop.no_progress
                ):
                    break
                if stop.reason.name == "LIMIT":
                    moments.append((vm.position, vm._handle.state_hash()))
            rnd.shuffle(moments)
            for position, expected in moments[:6]:
                vm.goto(position)
                assert (vm.position, vm._handle.state_hash()) == (position, expected), where
