"""The length of an instruction is what Capstone says, on random bytes in all three modes."""

from collections.abc import Callable
from random import Random

import capstone
import oracle_engine
import pytest
from oracle_engine import Bits

MODES = {Bits.BITS_64: capstone.CS_MODE_64, Bits.BITS_32: capstone.CS_MODE_32, Bits.BITS_16: capstone.CS_MODE_16}
PREFIXES = bytes.fromhex("26 2e 36 3e 64 65 66 67 f0 f2 f3")

# Our mnemonic: why Capstone (5.0) has another length, or none.
DIFFERENT_LENGTH = {
    "ud0": "Capstone reads no ModRM byte; the manual prints 0F FF /r",
    "ud1": "Capstone reads no ModRM byte; the manual prints 0F B9 /r",
    "jo": "66 in 64-bit mode: Capstone reads 16 bits here and at JNO, 32 at the other fourteen",
    "jno": "as jo",
    "ret": "66 with REX.W before C2: Capstone reads four bytes of iw",
}
UNKNOWN_TO_CAPSTONE = {
    "esc": "all of D8 to DF is one row until x87 comes",
    "mov": "segment registers 6, 7 and CS, control and debug registers that do not exist: #UD by the handler",
    "nop": "hints 0F 19 to 0F 1E",
    "prefetchw": "hints 0F 0D /2 to /7",
    "movsxd": "67 without REX.W",
}


def refused_with_prefixes(code: bytes, mnemonic: str) -> bool:
    """Capstone takes F2 and F3 for mandatory: it does not know them with 66 or 67 before a two-byte opcode or 90, nor
    before BSF and BSR. Processors ignore them there (tests/oracle runs such instructions on the host's CPU)."""
    prefixes = code[: next(n for n, byte in enumerate(code) if byte not in PREFIXES and not 0x40 <= byte <= 0x4F)]
    opcode = code[len(prefixes)]
    repeat = 0xF2 in prefixes or 0xF3 in prefixes
    sizes = 0x66 in prefixes or 0x67 in prefixes
    return repeat and ((sizes and opcode in (0x0F, 0x90)) or mnemonic in ("bsf", "bsr"))


@pytest.fixture(scope="module")
def bare() -> oracle_engine.Bare:
    oracle_engine.build()
    return oracle_engine.Bare("intel")


def random_code(draw: Random) -> bytes:
    prefixes = bytes(draw.choice(PREFIXES) for _ in range(draw.choice((0, 0, 0, 1, 1, 2, 3))))
    two_bytes = b"\x0f" if draw.random() < 0.3 else b""
    return (prefixes + two_bytes + draw.randbytes(15))[:15]


@pytest.mark.parametrize("bits", MODES, ids=lambda bits: bits.name.lower())
def test_lengths(bits: Bits, bare: oracle_engine.Bare, seed: int, cases: Callable[[int, int], int]) -> None:
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, MODES[bits])
    draw = Random(seed)
    both, wrong = 0, []
    for _ in range(cases(40_000, 4_000_000)):
        code = random_code(draw)
        ours = bare.length(bits, code)
        if ours <= 0:
            continue
        mnemonic = bare.mnemonic(bare.row_of(bits, code))
        theirs = next(disassembler.disasm_lite(code, 0, 1), None)
        if theirs is None:
            explained = mnemonic in UNKNOWN_TO_CAPSTONE or refused_with_prefixes(code, mnemonic)
        else:
            both += 1
            explained = theirs[1] == ours or mnemonic in DIFFERENT_LENGTH
        if not explained:
            wrong.append(f"{code.hex()}: {mnemonic}, {ours} bytes; Capstone {theirs and (theirs[2:], theirs[1])}")
    assert not wrong, f"seed {seed}, {len(wrong)} differences:\n" + "\n".join(wrong[:40])
    assert both
