"""Segment registers: the selector that the guest sees, and the hidden part that the processor uses."""

from __future__ import annotations

from typing import Any

from ..state import Segment
from . import bits, code
from .protocol import Item, Panel
from .scene import Scene, hexdigits

NAMES = ("cs", "ss", "ds", "es", "fs", "gs", "tr", "ldtr")
MAX_ENTRIES = 64
"""How many entries of a descriptor table are shown."""


def taken_apart(selector: int, protected: bool) -> str:
    """A selector in words."""
    if not protected:
        return f"paragraph {selector:#x}: base would be {selector << 4:#x}"
    if not selector & ~3:
        return "null"
    return f"{'LDT' if selector & 4 else 'GDT'} entry {selector >> 3}, RPL {selector & 3}"


def state(scene: Scene) -> Panel:
    sregs = scene.now.sregs
    if sregs is None:
        return Panel.of([("head", {"lead": "No processor state yet."})])
    vm86 = bool(int(scene.now.regs.rflags) >> 17 & 1)
    protected = bool(int(sregs.cr0) & 1) and not vm86
    long_mode = sregs.mode == "long"
    items: list[Item] = [("head", {"lead": lead(protected, vm86, long_mode)})]
    for name in NAMES:
        segment = getattr(sregs, name)
        was = scene.was("sregs", name)
        items.append(("seg:" + name, row(segment, was, protected, long_mode, name)))
    for name in ("gdt", "idt"):
        table = getattr(sregs, name)
        items.append(("table:" + name, descriptor_table(scene, name, int(table.base), int(table.limit), protected)))
    return Panel.of(items)


def lead(protected: bool, vm86: bool, long_mode: bool) -> str:
    if long_mode:
        return ("In 64-bit mode the processor ignores base and limit of CS, DS, ES and SS. The entry checks do not: "
                "every hidden part must still be well formed.")
    if protected:
        return ("A selector names a descriptor in a table. Loading it copies the descriptor into the hidden part, "
                "and only the hidden part counts until the next load.")
    return ("In real mode" + (" (here as virtual-8086)" if vm86 else "") + " a load sets the hidden base to 16 times "
            "the selector. Limit and rights stay what they were.")


def row(segment: Segment, was: Segment | None, protected: bool, long_mode: bool, name: str) -> dict[str, Any]:
    """One segment register with both its parts."""
    access = segment.attr
    now = {"selector": hexdigits(int(segment.selector), 16), "base": hexdigits(int(segment.base)),
           "limit": hexdigits(int(segment.limit), 32), "rights": hexdigits(access, 32)}
    old: dict[str, str] = {}
    before = None
    if was is not None:
        before = was.attr
        then = {"selector": hexdigits(int(was.selector), 16), "base": hexdigits(int(was.base)),
                "limit": hexdigits(int(was.limit), 32), "rights": hexdigits(before, 32)}
        old = {key: then[key] for key in now if then[key] != now[key]}
    base, limit = int(segment.base), int(segment.limit)
    room = 1 << (32 if protected else 20)
    flat = long_mode and name in ("cs", "ss", "ds", "es")
    span = [0.0, 1.0] if flat else [min(1.0, base / room), min(1.0, (limit + 1) / room)]
    span[1] = min(span[1], 1.0 - span[0])
    usable = not segment.unusable
    says = segment.explain()
    if flat:
        says = "64-bit mode ignores base and limit here. " + says
    return {**now, "was": old, "type": segment.kind, "visible": taken_apart(int(segment.selector), protected),
            "bits": bits.strip(bits.RIGHTS, access, before), "span": span if usable else [0.0, 0.0],
            "scope": "4 GB of linear addresses" if protected else "1 MB of linear addresses", "says": says,
            "refused": ""}


def descriptor_table(scene: Scene, name: str, base: int, limit: int, protected: bool) -> dict[str, Any]:
    """GDT or IDT, entry by entry, as far as it can be read."""
    wide = name == "idt" and bool(int(scene.now.sregs.efer) >> 10 & 1)
    size = 16 if wide else 8
    if name == "idt" and not protected:
        size = 4
    count = min((limit + 1) // size, MAX_ENTRIES)
    whole = code.read(scene.machine, base, count * size)
    rows = []
    for index in range(len(whole) // size):
        data = whole[index * size:index * size + size]
        if not any(data):
            continue
        what = vector(data) if size == 4 else gate(data) if name == "idt" else descriptor(data)
        rows.append([f"{index:#x}" if name == "idt" else f"{index * 8:#06x}", data.hex(" "), what])
    total = (limit + 1) // size
    if name == "idt" and limit == 0:
        says = "no entry fits: an exception would become a triple fault"
    else:
        cut = f", the first {MAX_ENTRIES} here" if total > MAX_ENTRIES else ""
        says = f"{total} entries{cut}, empty ones left out"
    return {"base": f"{base:#x}", "limit": f"{limit:#x}", "says": says, "rows": rows}


def vector(data: bytes) -> str:
    """An entry of the real-mode vector table."""
    return f"handler at {int.from_bytes(data[2:4], 'little'):04x}:{int.from_bytes(data[:2], 'little'):04x}"


def descriptor(data: bytes) -> str:
    """A descriptor in words."""
    segment = Segment.from_descriptor(int.from_bytes(data[:8], "little"))
    if not segment.present:
        return f"not present ({segment.kind})"
    wide = ", 64-bit" if segment.l else ""
    return f"{segment.kind}, base {segment.base:#x}, limit {segment.limit:#x}, DPL {segment.dpl}{wide}"


def gate(data: bytes) -> str:
    """A gate of the IDT in words."""
    value = int.from_bytes(data[:8], "little")
    offset = value & 0xFFFF | value >> 48 << 16
    if len(data) == 16:
        offset |= int.from_bytes(data[8:12], "little") << 32
    words = Segment(attr=value >> 40 & 0xFF).kind
    if not value >> 47 & 1:
        return f"not present ({words})"
    stack = f", IST {value >> 32 & 7}" if len(data) == 16 and value >> 32 & 7 else ""
    return f"{words} to {value >> 16 & 0xFFFF:#06x}:{offset:#x}, DPL {value >> 45 & 3}{stack}"
