"""A short self-test of this host's /dev/kvm: may ``VM(engine="auto")`` take it without a student meeting a gap?

Some hosts' KVM, above all where it is nested or emulated itself, opens and runs and yet lacks paging without long mode,
INT n, ring 3 or single steps. Four small guests try these; they run in a process of their own, which is killed if it
hangs. The guests' bytes are here, so that no assembler is needed; a test assembles the texts again.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from .entry import USER_CODE, USER_DATA
from .exits import Exit, ExitReason
from .guest import Image
from .state import Segment

__all__ = ["failures", "passes"]

START_S = 10.0
"""How long Python may take to start."""
HANG_S = 0.2
"""How long the guests may take; they need a few milliseconds. More is a hang."""
BUDGET_S = 0.05
"""For one run of one guest, inside the child."""

MEMORY = "1M"
ORG = 0x8000
ALIAS, PLAIN = 0x203000, 0x3000
TABLES_32 = 0x2000
PORT, HOLE = 0x500, 0xFE000000
PATTERN = 0x1122334455667788

# Long mode, ring 0: the second 2 MB page maps the first once more. Through INT 40h and back, to ring 3 and back by
# INT 41h, a port written and read, a device in a hole written and read.
LONG = """
_start:
    movabs rax, 0x1122334455667788
    mov ebx, 0x203000
    mov [rbx], rax
    mov ecx, 0x3000
    mov rcx, [rcx]
    lidt [rip + idtr]
    int 0x40
    push 0x1b
    push 0x7000
    push 2
    push 0x23
    push offset user
    iretq
user:
    inc r9
    int 0x41
inside:
    inc r8
    iretq
back:
    inc r10
    mov edx, 0x500
    mov eax, 0x55
    out dx, al
    in al, dx
    movzx esi, al
    mov ebx, 0xfe000000
    mov [rbx], esi
    mov edi, [rbx]
    hlt
idtr:
    .word 0x41f
    .quad idt - 0x400
idt:
    .word inside, 8, 0xee00, 0, 0, 0, 0, 0
    .word back, 8, 0xee00, 0, 0, 0, 0, 0
"""
LONG_CODE = (
    "48b88877665544332211bb00302000488903b900300000488b090f011d3a000000cd406a1b68007000006a026a2368358000"
    "0048cf49ffc1cd4149ffc048cf49ffc2ba00050000b855000000eeec0fb6f0bb000000fe89338b3bf41f04657c0000000000"
    "003a80080000ee000000000000000000003f80080000ee00000000000000000000"
)

# Flat protected mode: paging with 4 MB pages is switched on; the second maps the first once more.
PAGED = """
_start:
    mov eax, cr4
    or eax, 0x10
    mov cr4, eax
    mov eax, 0x2000
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    mov eax, 0x55667788
    mov ebx, 0x403000
    mov [ebx], eax
    mov ecx, 0x3000
    mov ecx, [ecx]
    hlt
"""
PAGED_CODE = "0f20e083c8100f22e0b8002000000f22d80f20c00d000000800f22c0b888776655bb003040008903b9003000008b09f4"

NOPS = bytes([0x90, 0x90, 0x90, 0xF4])

Make = Callable[[], Any]


def _image(code: str | bytes, bits: int) -> Image:
    return Image(bytes.fromhex(code) if isinstance(code, str) else code, org=ORG, bits=bits)


def _run(vm: Any) -> Exit:
    stop: Exit = vm.run(progress=False, time_limit=BUDGET_S)
    return stop


def long_mode(vm: Any) -> Iterator[tuple[str, bool]]:
    """What the long-mode guest reaches, in its order."""
    vm.load(_image(LONG_CODE, 64))
    directory = _second_directory_entry(vm)
    vm.memory.write(directory, struct.pack("<Q", 0x87))
    stop = _run(vm)
    regs = vm.regs
    yield "paging in long mode", regs.rcx == PATTERN
    yield "INT n in long mode", regs.r8 == 1
    yield "ring 3", regs.r9 == 1
    yield "from ring 3 back to ring 0", regs.r10 == 1
    yield "a port write", _is(stop, ExitReason.IO, port=PORT, value=0x55, is_write=True)
    stop = _run(vm)
    yield "a port read", _is(stop, ExitReason.IO, port=PORT, is_write=False)
    stop.reply(0xAA)
    stop = _run(vm)
    yield "a device write", _is(stop, ExitReason.MMIO, gpa=HOLE, value=0xAA, is_write=True)
    stop = _run(vm)
    yield "a device read", _is(stop, ExitReason.MMIO, gpa=HOLE, is_write=False)
    stop.reply(0x12345678)
    stop = _run(vm)
    yield "HLT", stop.reason == ExitReason.HLT and vm.regs.edi == 0x12345678


def _second_directory_entry(vm: Any) -> int:
    """Where the entry state's tables map 2 MB to 4 MB: PML4, PDPT, page directory."""
    table = vm.sregs.cr3
    for _ in range(2):
        table = struct.unpack("<Q", vm.memory.read(table, 8))[0] & ~0xFFF
    return int(table) + 8


def protected_mode(vm: Any) -> Iterator[tuple[str, bool]]:
    vm.load(_image(PAGED_CODE, 32))
    vm.memory.write(TABLES_32, struct.pack("<2I", 0x87, 0x87))
    stop = _run(vm)
    yield "paging without long mode", stop.reason == ExitReason.HLT and vm.regs.ecx == PATTERN & 0xFFFFFFFF


def steps_in_ring_0(vm: Any) -> Iterator[tuple[str, bool]]:
    vm.load(_image(NOPS, 64))
    yield "single steps in ring 0", _steps(vm)


def steps_in_ring_3(vm: Any) -> Iterator[tuple[str, bool]]:
    vm.load(_image(NOPS, 64))
    code, data = Segment(USER_CODE, 0, 0xFFFFFFFF, 0xA0FB), Segment(USER_DATA, 0, 0xFFFFFFFF, 0xC0F3)
    vm.sregs = vm.sregs.replace(cs=code, ss=data, ds=data, es=data, fs=data, gs=data)
    yield "single steps in ring 3", _steps(vm)


def _steps(vm: Any) -> bool:
    for n in range(1, 4):
        if vm.step().reason != ExitReason.DEBUG or vm.regs.rip != ORG + n:
            return False
    return True


def _is(stop: Exit, reason: ExitReason, **wanted: int) -> bool:
    return stop.reason == reason and all(getattr(stop, name) == value for name, value in wanted.items())


TESTS = (long_mode, protected_mode, steps_in_ring_0, steps_in_ring_3)


def failures(make: Make) -> Iterator[str]:
    """What does not work on the machines that ``make()`` makes, one for each guest; of each guest the first only.

    An exception is a failure of what was tried, with its text.
    """
    for test in TESTS:
        name = test.__name__.replace("_", " ")
        with make() as vm:
            try:
                for name, works in test(vm):
                    if not works:
                        yield name
                        break
            except Exception as error:  # whatever it is: this guest does not run as it should
                yield f"{name} ({error})"


def passes() -> tuple[bool, str]:
    """Whether /dev/kvm on this host passes, tried in a process of its own; and in words what does not work."""
    child = subprocess.Popen(
        [sys.executable, "-c", "from kvmlab.selftest import child; child()"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return _judge(child)


def _judge(child: subprocess.Popen[str]) -> tuple[bool, str]:
    """Wait until it says that it is ready, then no longer than a hang takes."""
    import threading

    assert child.stdout is not None
    hung = threading.Event()

    def kill() -> None:
        hung.set()
        child.kill()

    said = ""
    for limit in (START_S, HANG_S):
        timer = threading.Timer(limit, kill)
        timer.start()
        said = child.stdout.readline()
        timer.cancel()
    child.kill()
    child.wait()
    child.stdout.close()
    if hung.is_set():
        return False, "a guest hangs"
    try:
        failed = json.loads(said)
    except ValueError:
        return False, "the self-test's process died"
    return not failed, ", ".join(failed) + (" does not work" if len(failed) == 1 else " do not work")


def child() -> None:
    """The process of its own: says that it is ready, then what failed."""
    from .vm import VM

    print("ready", flush=True)
    print(json.dumps(list(failures(lambda: VM(memory=MEMORY, engine="kvm")))), flush=True)
