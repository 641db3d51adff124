"""The benchmark's guests: known instruction counts, known check values, built from source on this machine.

``prepare(vm, "alu", 1000)`` puts a guest into anything with the interface of :class:`kvmlab.VM` or
:class:`kvmlab.Machine`; after ``vm.run()`` the machine is at a HLT with the check value in RAX.
"""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import BadArgument
from ..guest import Image, assemble, compile_c

__all__ = ["GUESTS", "MEMORY", "BenchGuest", "build", "check", "page_tables", "prepare"]

PAYLOAD = 0x00100000
PAGETABLE = 0x00010000
PTS = 0x00200000
STACKTOP = 0x00300000
RETURN_TO = 0x000FF000  # a HLT stands here; the guest's RET goes to it
MAPPED = 256 << 20
MEMORY = "80M"  # enough for the largest: mem walks over 64 MiB from 4 MiB on

CR4 = 0x20  # PAE
CR4_SSE = 0x600  # OSFXSR, OSXMMEXCPT: only for the guest that needs them, a processor without SSE refuses them
M64 = (1 << 64) - 1


@dataclass(frozen=True)
class BenchGuest:
    """One guest: what it measures, how many instructions it retires, and what RAX holds at the end.

    ``fixed`` and ``per_unit`` count retired instructions up to and with the final RET; a REP is one instruction, and
    one that faults (trapud's UD2, alu3's last HLT) does not retire;
    None where they depend on the compiler. ``expected(n)`` is the check value; None where only a few are known.
    """

    name: str
    about: str
    fixed: int | None
    per_unit: int | None
    expected: Callable[[int], int | None]
    file: str = ""
    prefix: str = ""
    rings: bool = False
    sse: bool = False
    exits_per_unit: int = 0

    def instructions(self, n: int) -> int | None:
        """Retired instructions for n units of work, with the RET; None where it must be counted."""
        return None if self.fixed is None or self.per_unit is None else self.fixed + self.per_unit * n


def _sum(n: int) -> int:
    return n * (n + 1) // 2 & M64


def _known(**values: int) -> Callable[[int], int | None]:
    table = {int(name[1:]): value for name, value in values.items()}
    return table.get


GUESTS: dict[str, BenchGuest] = {
    guest.name: guest
    for guest in (
        BenchGuest("alu", "a dependent loop of add, dec, jnz", 3, 3, _sum),
        BenchGuest("alu3", "the same loop in ring 3", 46, 3, _sum, rings=True),
        BenchGuest(
            "mixed",
            "compiled C: sieve, quicksort, CRC-32, a bytecode interpreter",
            None,
            None,
            _known(n3=0x63F570D5E6FEBE0B, n30=0xAEEF6C96833E0354),
            file="mixed.c",
        ),
        BenchGuest("mem", "a load and a store to random pages of 64 MiB", 7, 13, _known(n100000=0x27686D3)),
        BenchGuest("rep", "1 MiB of REP STOSQ and 1 MiB of REP MOVSB", 5, 11, _sum),
        BenchGuest("repalias", "rep, with buffers 2 MiB apart", 5, 11, _sum, file="rep.S", prefix=".equ GAP, 0"),
        BenchGuest(
            "fp",
            "SSE2 doubles, scalar and packed",
            13,
            10,
            _known(n1000=0x00E147E2BF55F187, n100000=0x0083D1EDFF03DB8E),
            sse=True,
        ),
        BenchGuest("smc", "rewrites the next instruction's immediate", 4, 4, lambda n: _sum(n) & 0xFFFFFFFF),
        BenchGuest("cr3", "a CR3 switch, then 64 page touches", 15, 262, lambda n: n + 1),
        BenchGuest("io", "OUT to port 0x500", 5, 3, lambda n: n, exits_per_unit=1),
        BenchGuest("trapint", "INT 0x80 and IRETQ, ring 3 to 0 and back", 57, 5, lambda n: n, rings=True),
        BenchGuest("trapsys", "SYSCALL and SYSRET, ring 3 to 0 and back", 63, 5, lambda n: n, rings=True),
        BenchGuest("trapud", "#UD and IRETQ, ring 3 to 0 and back", 56, 5, lambda n: n, rings=True),
    )
}


def _guest(name: str) -> BenchGuest:
    if name not in GUESTS:
        raise BadArgument(f"{name!r} is no guest of the benchmark.", f"There are {', '.join(GUESTS)}.")
    return GUESTS[name]


def _text(file: str) -> str:
    return (importlib.resources.files(__name__) / file).read_text(encoding="utf-8")


@functools.cache
def build(name: str, tools: str = "auto") -> Image:
    """A guest's image: 64-bit, at 0x100000, entered at its first byte."""
    guest = _guest(name)
    file = guest.file or f"{name}.S"
    if file.endswith(".c"):
        return compile_c(_text(file), 64, PAYLOAD, runtime=False, name=name, tools=tools)
    parts = [guest.prefix, _text("layout.inc"), _text("rings.inc") if guest.rings else "", _text(file)]
    return assemble("\n".join(parts), 64, PAYLOAD, name=name, tools=tools)


def page_tables() -> Iterator[tuple[int, bytes]]:
    """(address, bytes) of 4-level tables that map 0 to 256 MiB one to one in 4 KiB pages, present, writable, user."""
    yield PAGETABLE, (PAGETABLE + 0x1000 + 7).to_bytes(8, "little") + bytes(4088)
    yield PAGETABLE + 0x1000, (PAGETABLE + 0x2000 + 7).to_bytes(8, "little") + bytes(4088)
    tables = MAPPED >> 21
    directory = b"".join((PTS + i * 4096 + 7).to_bytes(8, "little") for i in range(tables))
    yield PAGETABLE + 0x2000, directory + bytes(4096 - len(directory))
    yield PTS, b"".join((page * 4096 + 7).to_bytes(8, "little") for page in range(MAPPED >> 12))


def prepare(vm: Any, name: str, n: int, *, tools: str = "auto") -> BenchGuest:
    """Load a guest with its page tables and its amount of work; run() then goes to a HLT.

    Parameters
    ----------
    vm
        A VM or Machine with at least 80 MB of memory (``MEMORY``).
    n
        How much work, in units.
    """
    guest = _guest(name)
    if not isinstance(n, int) or n < 1:
        raise BadArgument(f"n={n!r} is no amount of work.", "Give a whole number of units, at least 1.")
    vm.load(build(name, tools))
    for address, content in page_tables():
        vm.memory.write(address, content)
    vm.memory.write(RETURN_TO, b"\xf4\xeb\xfd")
    vm.memory.write(STACKTOP - 8, RETURN_TO.to_bytes(8, "little"))
    vm.set(rip=PAYLOAD, rsp=STACKTOP - 8, rdi=n, rflags=2, cr3=PAGETABLE, cr4=CR4 | (CR4_SSE if name == "fp" else 0))
    return guest


def check(name: str, n: int, rax: int) -> bool | None:
    """True where RAX is the check value, False where it is not, None where the value for this n is not known."""
    expected = _guest(name).expected(n)
    return None if expected is None else rax == expected
