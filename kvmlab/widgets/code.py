"""The instructions around the instruction pointer, decoded in the mode the guest is in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

from . import driver
from .protocol import Item, Panel
from .scene import Scene

LINES = 15
"""How many instructions are shown."""
ROWS = 15
"""Rows of the list, labels included: what the first screen has room for."""
BEFORE = 5
"""How many of them stand before the current one when the list is laid out anew."""
LONGEST = 15


def mode(regs: Any, sregs: Any) -> int:
    """16, 32 or 64."""
    return 16 if regs.vm else int(sregs.bits)


def words(regs: Any, sregs: Any) -> str:
    """The mode in words, with the ring."""
    if regs.vm:
        return "virtual-8086 mode"
    if sregs.mode == "real":
        return "real mode"
    name = "64-bit mode" if sregs.mode == "long" else f"{sregs.bits}-bit {sregs.mode} mode"
    return f"{name} · CPL {sregs.cpl}"


@lru_cache(maxsize=3)
def _decoder(bits: int) -> Any:
    import capstone

    return capstone.Cs(capstone.CS_ARCH_X86, {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32,
                                              64: capstone.CS_MODE_64}[bits])


Line = tuple[int, int, str, str]


def decode(data: bytes, address: int, bits: int, count: int) -> list[Line]:
    """Up to ``count`` instructions: address, length, mnemonic, operands. What does not decode is one byte ``db``."""
    out: list[Line] = []
    at = 0
    decoder = _decoder(bits)
    while at < len(data) and len(out) < count:
        found = False
        for start, size, name, operands in decoder.disasm_lite(data[at:], address + at, count - len(out)):
            out.append((start, size, name, operands))
            at = start + size - address
            found = True
        if len(out) < count and at < len(data):
            out.append((address + at, 1, "db", f"0x{data[at]:02x}"))
            at += 1
            found = True
        if not found:
            break
    return out


def anchor(data: bytes, base: int, pointer: int, bits: int, starts: Mapping[int, Any]) -> list[Line]:
    """Instructions from before the pointer on, such that one of them begins at the pointer.

    x86 reads differently from every byte on, so a start is right if the source says so, or else if decoding from it
    comes out at the pointer; the farthest such start wins.
    """
    known = sorted(address for address in starts if base <= address < pointer)
    candidates = [*known[-BEFORE:], *range(max(base, pointer - BEFORE * 4), pointer)]
    for start in candidates:
        lines = decode(data[start - base:pointer - base], start, bits, BEFORE * 4 + 1)
        if lines and lines[-1][0] + lines[-1][1] == pointer and all(name != "db" for _, _, name, _ in lines):
            return lines[-BEFORE:] + decode(data[pointer - base:], pointer, bits, LINES - len(lines[-BEFORE:]))
    return decode(data[pointer - base:], pointer, bits, LINES)


def read(machine: Any, address: int, size: int) -> bytes:
    """Bytes of the guest from a linear address on, as far as they are mapped."""
    out = b""
    while size > 0:
        part = min(size, 4096 - address % 4096)
        data = driver.peek(partial(_read, machine, address, part), b"")
        out += data
        if len(data) < part:
            break
        address, size = address + part, size - part
    return out


def _read(machine: Any, address: int, size: int) -> bytes:
    where = machine.translate(address)
    return bytes(machine.memory.read(int(where.gpa), size)) if where.valid else b""


def state(scene: Scene) -> Panel:
    regs, sregs = scene.now.regs, scene.now.sregs
    if regs is None or sregs is None:
        return Panel.of([("head", {"aside": "", "empty": "No code yet.", "breakpoints": False})])
    bits = mode(regs, sregs)
    pointer = linear(regs, sregs)
    image = getattr(scene.machine, "image", None)
    source = getattr(image, "lines", None) or {}
    labels: dict[int, str] = {}
    for name, address in (getattr(image, "symbols", None) or {}).items():
        labels.setdefault(int(address), name)
    lines = listing(scene, pointer, bits, source)
    standing = driver.breakpoints(scene.machine)
    items: list[Item] = [("head", {"aside": aside(words(regs, sregs), source, pointer),
                                   "empty": f"Nothing is mapped at {pointer:#x}.",
                                   "breakpoints": "breakpoint" in driver.can(scene.machine)})]
    end = program(scene, pointer)[1]
    for address, data, name, operands in lines:
        if address >= end and address != pointer:
            continue
        if address in labels:
            items.append((f"line:label:{address:x}", {
                "kind": "label", "op": labels[address], "address": f"{address:#x}", "bytes": "", "args": "",
                "now": False, "stop": False, "why": "", "source": ""}))
        here = address == pointer
        line = source.get(address)
        items.append((f"line:{address:x}", {
            "kind": "bytes" if name == "db" else "insn", "address": f"{address:#x}", "bytes": data.hex(" "),
            "op": name, "args": symbolic(operands, labels), "now": here, "stop": address in standing,
            "why": why(scene) if here else "", "source": "" if line is None else str(line[1]).strip()}))
    return Panel.of(items[:ROWS + 1])


def at(machine: Any, regs: Any, sregs: Any) -> Line | None:
    """The instruction that these registers point at."""
    bits = mode(regs, sregs)
    pointer = linear(regs, sregs)
    lines = decode(read(machine, pointer, LONGEST), pointer, bits, 1)
    return lines[0] if lines else None


def linear(regs: Any, sregs: Any) -> int:
    """The linear address of the instruction pointer."""
    if mode(regs, sregs) == 64:
        return int(regs.rip)
    return int(sregs.cs.base) + int(regs.rip) & (1 << 32) - 1


def symbolic(operands: str, labels: Mapping[int, str]) -> str:
    """A jump's target by its label, where it has one."""
    if operands.startswith("0x"):
        try:
            return labels.get(int(operands, 16), operands)
        except ValueError:
            return operands
    return operands


def listing(scene: Scene, pointer: int, bits: int, source: Mapping[int, Any]) -> list[tuple[int, bytes, str, str]]:
    """The lines to show. The list stands still while the pointer stays inside it."""
    machine, look = scene.machine, scene.look
    if look.top >= 0 and look.top <= pointer < look.top + LINES * LONGEST:
        data = read(machine, look.top, LINES * LONGEST)
        lines = decode(data, look.top, bits, LINES)
        starts = [address for address, *_ in lines]
        if pointer in starts[:-2]:
            return [(at, data[at - look.top:at - look.top + size], name, text) for at, size, name, text in lines]
    low, _ = program(scene, pointer)
    base = max(low, pointer - BEFORE * LONGEST)
    data = read(machine, base, pointer + LINES * LONGEST - base)
    if len(data) <= pointer - base:
        base, data = pointer, read(machine, pointer, LINES * LONGEST)
    lines = anchor(data, base, pointer, bits, source)
    look.top = lines[0][0] if lines else -1
    return [(at, data[at - base:at - base + size], name, text) for at, size, name, text in lines]


def program(scene: Scene, pointer: int) -> tuple[int, int]:
    """From where to where the program lies that the pointer is in or at the end of: nothing else is worth decoding."""
    image = getattr(scene.machine, "image", None)
    for address, size in getattr(image, "segments", ()):
        if address <= pointer <= address + size:
            return address, address + size
    return 0, 1 << 64


def aside(mode_words: str, source: Mapping[int, Any], pointer: int) -> str:
    line = source.get(pointer)
    return mode_words + (f" · line {line[0]}" if line is not None else "")


def why(scene: Scene) -> str:
    """One line under the current instruction, where there is something to say."""
    stop = scene.now.stop
    reason = getattr(getattr(stop, "reason", None), "name", "")
    if reason in ("IO", "MMIO", "CPUID"):
        return "Not completed yet: it waits for user space."
    if reason == "HLT":
        return "Halted: the guest waits for an interrupt."
    return ""
