"""One instruction at a time against Unicorn: real mode, and flat 32-bit code on hosts of any kind.

Unicorn checks neither segment limits nor alignment and delivers no faults, so only cases that run through on both
sides are compared; what it does otherwise than processors stands in the tables, with the reason. The host's own CPU
(test_oracle.py) is the better judge of everything but real mode.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import oracle_engine
import pytest
import unicorn
from oracle_engine import NO_FAULT, Bits, Case
from unicorn import x86_const as x

CODE, DATA = 0x10000000, 0x10010000
REAL_CODE, REAL_DATA = 0x20000, 0x30000
MODES = {Bits.REAL: unicorn.UC_MODE_16, Bits.FLAT32: unicorn.UC_MODE_32}
GPRS = [
    getattr(x, f"UC_X86_REG_{name}")
    for name in "RAX RCX RDX RBX RSP RBP RSI RDI R8 R9 R10 R11 R12 R13 R14 R15".split()
]
GPRS32 = [getattr(x, f"UC_X86_REG_{name}") for name in "EAX ECX EDX EBX ESP EBP ESI EDI".split()]
SEGMENTS = [getattr(x, f"UC_X86_REG_{name}") for name in "ES CS SS DS FS GS".split()]
FLAG_BITS = {"O": 1 << 11, "S": 1 << 7, "Z": 1 << 6, "A": 1 << 4, "P": 1 << 2, "C": 1}
DF, TF, AC = 1 << 10, 1 << 8, 1 << 18
REPEATS = {0xF2, 0xF3}
SEGMENT_REGISTERS = {"8C /r", "06", "0E", "16", "1E", "0F A0", "0F A8"}
STRINGS = {"movs", "stos", "lods", "cmps", "scas"}

# Rows that are not compared; besides those that take a privilege or belong to virtualization.
NOT_COMPARED = {
    "cpuid": "the profile's answer",
    "rdtsc": "the time",
    "rdtscp": "the time",
    "rdpmc": "the time",
    "in": "a port",
    "out": "a port",
    "ins": "a port",
    "outs": "a port",
    "int": "delivery is not part of a case",
    "int1": "delivery is not part of a case",
    "int3": "delivery is not part of a case",
    "into": "delivery is not part of a case",
    "esc": "x87",
    "wait": "x87",
}
SYSTEM = set(
    "arpl clac clgi cli clts hlt invd invlpg invlpga lar lgdt lidt lldt lmsw lsl ltr monitor mwait "
    "rdfsbase rdgsbase rdmsr sgdt sidt skinit sldt smsw stac stgi sti str swapgs syscall sysenter sysexit "
    "sysret verr verw vmcall vmclear vmlaunch vmload vmmcall vmptrld vmptrst vmread vmresume vmrun vmsave "
    "vmwrite vmxoff vmxon wbinvd wrfsbase wrgsbase wrmsr xgetbv xsetbv".split()
)


# Encodings where Unicorn (2.1) does otherwise than processors do, or than the profile's do.
_WIDE_PUSH = "a 32-bit push of a segment register writes two bytes on Intel's processors, four in Unicorn"
_LOCKED_NEG = "with LOCK the flags come from the value in memory after the exchange"
_WIDE_16 = "in 16-bit code without 66 it takes 32 bits"
EXPLAINED = {
    **dict.fromkeys(("06", "0E", "16", "1E", "0F A0", "0F A8"), _WIDE_PUSH),
    **dict.fromkeys(("F6 /3", "F7 /3"), _LOCKED_NEG),
    "C8 iw ib": "a 32-bit ENTER on a 16-bit stack: EBP takes the upper half of ESP too (the host's CPU agrees)",
    "C2 iw": "iw is taken as signed",
    **dict.fromkeys(("F3 0F B8 /r", "NP 0F 38 F0 /r", "NP 0F 38 F1 /r"), _WIDE_16),
}


@pytest.fixture(scope="module")
def bare() -> oracle_engine.Bare:
    oracle_engine.build()
    return oracle_engine.Bare("intel")


class Other:
    """Unicorn with the oracle's code and data."""

    def __init__(self, bits: Bits) -> None:
        self.bits = bits
        self.code, self.data = (REAL_CODE, REAL_DATA) if bits is Bits.REAL else (CODE, DATA)
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, MODES[bits])
        self.uc.mem_map(self.code, 0x1000)
        self.uc.mem_map(self.data, 0x2000)
        self.gprs = GPRS if bits is Bits.BITS_64 else GPRS32

    def run(self, case: Case, memory: bytes) -> tuple[list[int], int, int, bytes, list[int]] | None:
        """Registers, RIP, flags and memory behind the instruction; None where Unicorn raised something."""
        uc, before = self.uc, case.before
        at = self.code + before.rip if self.bits is Bits.REAL else before.rip
        uc.ctl_remove_cache(self.code, self.code + 0x1000)
        uc.mem_write(at, bytes(case.bytes))
        uc.mem_write(self.data, memory)
        if self.bits is Bits.REAL:
            for number, register in enumerate(SEGMENTS):
                uc.reg_write(register, (REAL_CODE if number == 1 else REAL_DATA + 0x10 * number) >> 4)
        for number, register in enumerate(self.gprs):
            uc.reg_write(register, before.r[number])
        uc.reg_write(x.UC_X86_REG_EFLAGS, before.rflags)
        try:
            uc.emu_start(at, 0, count=1)
        except unicorn.UcError as error:
            self.why = str(error)
            return None
        rip = uc.reg_read(x.UC_X86_REG_RIP if self.bits is Bits.BITS_64 else x.UC_X86_REG_EIP)
        registers = [uc.reg_read(register) for register in self.gprs]
        selectors = [uc.reg_read(register) for register in SEGMENTS]
        return registers, rip, uc.reg_read(x.UC_X86_REG_EFLAGS), bytes(uc.mem_read(self.data, 0x2000)), selectors


@pytest.mark.parametrize("bits", MODES, ids=lambda bits: bits.name.lower())
def test_against_unicorn(bits: Bits, bare: oracle_engine.Bare, seed: int, cases: Callable[[int, int], int]) -> None:
    other = Other(bits)
    bare.seed(seed)
    compared: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    wrong = []
    for _ in range(cases(15_000, 1_000_000)):
        case = bare.generate(bare.random(bare.nr_rows), bits)
        if case is None or bare.mnemonic(case.row) in SYSTEM | NOT_COMPARED.keys():
            continue
        code = bytes(case.bytes)
        case.before.rflags &= ~(TF | AC)
        case.step = 0
        memory = bare.data
        ours = bare.run(case)
        mnemonic = bare.mnemonic(case.row)
        if mnemonic == "mov" and bare.flags(case.row) != "-":
            continue  # control and debug registers
        if 0x2E in code[:8]:
            continue  # CS: the engine's code page holds other bytes
        if bits is Bits.FLAT32 and bare.encoding(case.row) in SEGMENT_REGISTERS:
            continue  # flat on both sides, but with other selectors
        if REPEATS & set(code[:8]) and mnemonic in STRINGS:
            continue  # a count of one instruction is one iteration there
        if ours.vector != NO_FAULT:
            continue  # Unicorn aborts the process at some of what it should refuse (LOCK BTR with a register)
        theirs = other.run(case, memory)
        if theirs is None:
            refused[f"{mnemonic} {other.why}"] += 1
            continue
        registers, rip, flags, data, selectors = theirs
        mask = DF | sum(bit for name, bit in FLAG_BITS.items() if name.lower() not in bare.flags(case.row))
        compared[mnemonic] += 1
        found = {
            "registers": registers != list(ours.after.r)[: len(registers)],
            "rip": rip != ours.after.rip,
            "flags": (flags ^ ours.after.rflags) & mask,
            "memory": data != bare.data,
            "selectors": bits is Bits.REAL and selectors != list(ours.selector),
        }
        if any(found.values()) and bare.encoding(case.row) not in EXPLAINED:
            what = ", ".join(f"{name} {value:x}" for name, value in found.items() if value)
            wrong.append(f"{mnemonic}: {code.hex()}: {what}")
    print(f"{compared.total():,} compared, {len(compared)} mnemonics, seed {seed}; refused by Unicorn:")
    for why, number in refused.most_common():
        print(f"  {number} {why}")
    assert not wrong, f"seed {seed}, {len(wrong)} differences:\n" + "\n".join(wrong[:60])
    assert compared
