"""General registers, flags by name, control registers: what they hold, and what they held at the stop before."""

from __future__ import annotations

from typing import Any

from . import bits, driver
from .protocol import Item, Panel
from .scene import Scene, hexdigits

GENERAL = ("rip", "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
           "r15")
CONTROL = (("cr0", bits.CR0), ("cr2", ()), ("cr3", ()), ("cr4", bits.CR4), ("efer", bits.EFER))
ROLES = {
    "rip": "Where the next instruction is, as an offset in CS.",
    "rsp": "The top of the stack, as an offset in SS.",
    "rbp": "Often the frame of the function that runs.",
    "rcx": "Counts loops and string instructions.",
    "rsi": "Where string instructions read.",
    "rdi": "Where string instructions write.",
}


def state(scene: Scene) -> Panel:
    regs, sregs = scene.now.regs, scene.now.sregs
    if regs is None:
        return Panel.of([("head", {"aside": "", "changed": 0})])
    edit = "set" in driver.can(scene.machine)
    items: list[Item] = []
    count = 0
    for name in GENERAL:
        value = getattr(regs, name, None)
        if value is None:
            continue
        was = scene.was("regs", name)
        items.append(("gpr:" + name, register(name, value, was, edit)))
        count += was is not None and was != value
    flags = int(regs.rflags)
    before = scene.was("regs", "rflags")
    count += before is not None and before != flags
    items.append(("flags", {"value": hexdigits(flags), "was": bits.changed(flags, before, 64),
                            "bits": [entry[:4] for entry in bits.strip(bits.RFLAGS, flags, before)]}))
    if sregs is not None:
        for name, table in CONTROL:
            value = getattr(sregs, name, None)
            if value is None:
                continue
            was = scene.was("sregs", name)
            width = 64 if value >> 32 or (was or 0) >> 32 else 32
            items.append(("cr:" + name, {
                "value": hexdigits(value, width), "was": bits.changed(value, was, width), "edit": edit,
                "says": meaning(name), "names": bits.names(table, value) if table else note(name)}))
            count += was is not None and was != value
    words = "nothing changed since the last stop" if not count else f"{count} changed since the last stop"
    head: Item = ("head", {"aside": words if scene.before is not None and scene.before.regs is not None else "",
                           "changed": count})
    return Panel.of([head, *items])


def register(name: str, value: int, was: int | None, edit: bool) -> dict[str, Any]:
    """One general register."""
    signed = value - (1 << 64) if value >> 63 else value
    says = f"{ROLES[name]} " if name in ROLES else ""
    return {"value": hexdigits(value), "was": bits.changed(value, was, 64), "edit": edit,
            "says": f"{says}{signed:,} as a number." + ("" if was is None or was == value else f" It was {was:#x}.")}


def meaning(name: str) -> str:
    """What a control register is for."""
    return {
        "cr0": "The modes of the processor: protection, paging, caches.",
        "cr2": "The address of the last page fault that was delivered.",
        "cr3": "Where the guest's top page table is, as the guest believes.",
        "cr4": "What the processor is allowed to do beyond the 80386.",
        "efer": "Long mode, execute-disable and SYSCALL.",
    }[name]


def note(name: str) -> str:
    return {"cr2": "last page fault delivered", "cr3": "the guest's top page table"}[name]
