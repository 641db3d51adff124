"""Run an image under Unicorn from kvmlab's entry state: the oracle for what guests are expected to do.

Only what Unicorn can: no interrupts through gates in long mode, no hypervisor. Console text is what goes to ports
0x3f8 and 0xe9.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import unicorn
from unicorn import x86_const as x

from kvmlab.guest import Image

MODES = {16: unicorn.UC_MODE_16, 32: unicorn.UC_MODE_32, 64: unicorn.UC_MODE_64}


def _register(name: str, bits: int) -> int:
    """Unicorn's number of a register: RAX in 64-bit mode, EAX below; both are called rax here."""
    name = name.upper()
    if bits < 64 and name[0] == "R" and not name[1].isdigit():
        name = "EFLAGS" if name == "RFLAGS" else "E" + name[1:]
    return int(getattr(x, f"UC_X86_REG_{name}"))


@dataclass
class Result:
    """Registers at the HLT, console text, and how many instructions ran."""

    regs: dict[str, int] = field(default_factory=dict)
    console: str = ""
    instructions: int = 0
    memory: bytes = b""


def run(image: Image, *, memory: int = 4 << 20, limit: int = 5_000_000, **regs: int) -> Result:
    """Run to HLT (RIP on the instruction after it) and return what is there then."""
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, MODES[image.bits])
    uc.mem_map(0, memory)
    uc.mem_write(image.org, image.data)
    stack = 0x7C00 if image.bits == 16 else memory - 0x8000 - 8
    uc.reg_write(_register("rsp", image.bits), stack)
    for name, value in regs.items():
        uc.reg_write(_register(name, image.bits), value)
    result = Result()
    text = bytearray()

    def out(_uc: unicorn.Uc, port: int, size: int, value: int, _data: object) -> None:
        if port in (0x3F8, 0xE9):
            text.extend(value.to_bytes(4, "little")[:size])

    def count(_uc: unicorn.Uc, _at: int, _size: int, _data: object) -> None:
        result.instructions += 1

    uc.hook_add(unicorn.UC_HOOK_INSN, out, None, 1, 0, x.UC_X86_INS_OUT)
    uc.hook_add(unicorn.UC_HOOK_CODE, count)
    uc.emu_start(image.entry, 0, count=limit)
    result.console = text.decode("latin-1")
    for name in "rax rbx rcx rdx rsi rdi rsp rbp rip rflags".split():
        result.regs[name] = uc.reg_read(_register(name, image.bits))
    result.memory = bytes(uc.mem_read(0, memory))
    return result
