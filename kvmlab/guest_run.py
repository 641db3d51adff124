"""``kvmlab run GUEST``: a guest from a file, run to its end, with its output as it comes."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from .console import COM1, DEBUG_PORT
from .errors import BadArgument
from .exits import Exit, ExitReason
from .guest import Image, assemble, compile_c

if TYPE_CHECKING:
    from .machine import Computer

__all__ = ["image_of", "make_computer", "run_and_tell", "run_to_end", "where"]

ASSEMBLER = {".s", ".asm"}
# What the guest asks user space for; a command line answers with what an absent device gives, and goes on.
ANSWERED = (ExitReason.IO, ExitReason.MMIO, ExitReason.CPUID)


def image_of(path: Path, bits: int | None = None, org: int | None = None) -> Image:
    """The guest in a file: assembler text (.S, .s, .asm), C (.c), else an ELF executable or a flat image.

    Parameters
    ----------
    path
        The file.
    bits
        16, 32 or 64, the mode it starts in; by default 16 for text and flat images, 64 for C, an ELF file's own.
    org
        The address of its first byte, where the kind of file leaves it open.
    """
    kind = path.suffix.lower()
    if kind != ".c" and kind not in ASSEMBLER:
        return Image.from_file(path, org=org, bits=bits)
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise BadArgument(
            f"{path} cannot be read: {error.strerror}.", "Give a file's path.", errno=error.errno
        ) from None
    except UnicodeDecodeError:
        raise BadArgument(f"{path} is no text.", "A guest that is built already ends in neither .S nor .c.") from None
    if kind == ".c":
        return compile_c(text, bits or 64, org, name=path.stem)
    return assemble(text, bits or 16, 0x1000 if org is None else org, name=path.stem)


def run_to_end(vm: Computer, max_instructions: int | None, out: TextIO) -> tuple[Exit, Counter[str]]:
    """Run until the guest halts for good or cannot go on; what it writes to its console goes to ``out`` at once.

    Returns
    -------
    tuple
        The last stop, and how often what was asked for that nobody here is: ``{"port 0x60": 3}``.
    """
    console = vm.attach_console()

    def write(port: int, size: int, value: int) -> None:
        before = len(console.data)
        console.port_write(port, size, value)
        out.write(console.data[before:].decode("latin-1"))
        out.flush()

    vm.on_io([*range(COM1, COM1 + 8), DEBUG_PORT], console.port_read, write)
    unanswered: Counter[str] = Counter()
    for stop in vm.exits(max_instructions):
        if stop.reason == ExitReason.IO:
            unanswered[f"port {stop.port:#x}"] += 1
        elif stop.reason == ExitReason.MMIO:
            unanswered[f"address {stop.gpa:#x}"] += 1
        elif stop.reason not in ANSWERED:
            break
    return stop, unanswered


def where(vm: Computer) -> str:
    """Where the guest is, for a person: the address, the label before it, and how many instructions it took."""
    regs, sregs = vm.regs, vm.sregs
    linear = regs.rip if sregs.mode == "long" else sregs.cs.base + regs.rip
    text = f"{sregs.cs.selector:#x}:{regs.rip:#x}"
    symbols = [(at, name) for name, at in vm.image.symbols.items() if at <= linear] if vm.image else []
    if symbols:
        at, name = max(symbols)
        text += f" ({name}+{linear - at:#x})" if linear > at else f" ({name})"
    if vm.engine == "soft":
        text += f", after {int(vm.position):,} instructions"
    return text


def describe(vm: Computer, stop: Exit, unanswered: Counter[str]) -> None:
    """What happened, on stderr: how it ended, what nobody answered, the registers."""
    say(stop.explain())
    for what, times in unanswered.most_common(5):
        say(f"  {what}: asked {times:,} times, and nobody is there")
    if len(unanswered) > 5:
        say(f"  and {len(unanswered) - 5} more")
    say(vm.regs)


def make_computer(memory: str, engine: str, cpu: str | None, mmu: str | None, bare: bool) -> Computer:
    """What the options of the command line ask for: a virtual machine, or a bare one."""
    if not bare:
        from .vm import VM

        return VM(memory=memory, engine=engine, cpu=cpu, mmu=mmu)
    if mmu is not None or engine == "kvm":
        raise BadArgument("A bare machine has no hypervisor, and so neither --mmu nor /dev/kvm.", "Leave out --bare.")
    from .machine import Machine

    return Machine(memory=memory, cpu=cpu or "intel")


def run_and_tell(computer: Computer, image: Image, max_instructions: int | None) -> int:
    """Load, run, and say what happened.

    Returns
    -------
    int
        The exit status for a shell: 0 if the guest ended with HLT, 130 if Ctrl-C stopped it, else 1.
    """
    say(f"{image.name}: {computer.engine} engine, {computer.cpu}; {computer.engine_reason}")
    computer.load(image)
    try:
        stop, unanswered = run_to_end(computer, max_instructions, sys.stdout)
    except KeyboardInterrupt:
        say(f"\nstopped at {where(computer)}")
        return 130
    describe(computer, stop, unanswered)
    return 0 if stop.reason == ExitReason.HLT else 1


def say(what: object) -> None:
    print(what, file=sys.stderr)
