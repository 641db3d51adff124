"""The guest's own page tables: the walk of an address as the engine really did it, and the tables as a tree."""

from __future__ import annotations

import struct
from typing import Any

from ..paging import Walk, WalkStep
from . import bits, driver
from .protocol import Item, Panel
from .scene import Look, Scene, blind, hexdigits

MAX_NODES = 96
"""How many entries of one table the tree shows."""
LAYOUTS = {
    "4-level": (("PML4", 39, 9), ("PDPT", 30, 9), ("PD", 21, 9), ("PT", 12, 9)),
    "PAE": (("PDPT", 30, 2), ("PD", 21, 9), ("PT", 12, 9)),
    "32-bit": (("PD", 22, 10), ("PT", 12, 10)),
}
"""Names of the tables from the top, lowest bit and width of the index."""


def layout(sregs: Any) -> str:
    """The format of the tables, or "" without paging (or with one that is not drawn)."""
    return sregs.paging if sregs.paging in LAYOUTS else ""


def address(scene: Scene) -> int:
    """The address looked at: as typed, else the one that the last page fault was about, else where RIP is."""
    if scene.look.address:
        return driver.number(scene.look.address, scene.machine)
    walked = last_walk(scene)
    if walked is not None:
        return walked
    regs, sregs = scene.now.regs, scene.now.sregs
    return int(regs.rip) + (0 if layout(sregs) == "4-level" and sregs.cs.l else int(sregs.cs.base))


def last_walk(scene: Scene) -> int | None:
    """The address that the hypervisor walked for at this stop."""
    n = scene.history.now
    for fact in reversed(scene.history.exits[n - 1].facts if n else []):
        if fact.kind in ("guest_walk", "fill") and fact.sequence < scene.now.sequence:
            return int(fact.fields["gva"])
    return None


def query(scene: Scene) -> tuple[dict[str, Any], int]:
    """What the form shows, and the address."""
    gva = address(scene)
    sregs = scene.now.sregs
    name = layout(sregs) or "no paging"
    wide = 64 if name == "4-level" else 32
    aside = f"CR0.WP {int(sregs.cr0) >> 16 & 1} · EFER.NXE {int(sregs.efer) >> 11 & 1} · {name}"
    gva &= (1 << wide) - 1
    return {"address": f"{gva:#x}", "access": scene.look.access, "user": scene.look.user, "turn": scene.look.turn,
            "aside": aside if layout(sregs) else "paging is off", "wrong": ""}, gva


def state(scene: Scene) -> Panel:
    if not scene.visible:
        return Panel.of([blind(scene, "the page tables' walk")])
    if scene.now.sregs is None:
        return Panel.of([("blind", {"text": "No processor state yet.", "button": False})])
    asked, gva = query(scene)
    items: list[Item] = [("query", asked)]
    name = layout(scene.now.sregs)
    walk = driver.peek(lambda: scene.machine.walk(gva, access=scene.look.access, user=scene.look.user))
    steps = [step for step in walk.steps if not step.nested] if walk is not None else []
    if name:
        large = walk is not None and walk.fault is None and walk.page_size > 4096
        items += [("slice:" + part, content) for part, content in slices(gva, name, len(steps), large)]
    for i, step in enumerate(steps):
        before = scene.entries.get(f"{step.address:#x}")
        items.append((f"step:{i}", describe(step, scene.look, None if before is None else int(before, 16))))
    if walk is not None:
        items.append(("result", result(walk)))
    if name:
        locked = frozenset(page.gfn for page in scene.now.pages if not page.metaphysical)
        items += tree(scene, name, gva, locked)
    else:
        items.append(("notree", {"text": "Paging is off: a linear address is a physical address."}))
    return Panel.of(items)


def slices(gva: int, name: str, depth: int, large: bool) -> list[tuple[str, dict[str, str]]]:
    """The address cut into sign, indices and offset, as far as the walk used them."""
    levels = LAYOUTS[name]
    out: list[tuple[str, dict[str, str]]] = []
    if name == "4-level":
        top = gva >> 48
        all_same = "0 × 16" if top == 0 else "1 × 16" if top == 0xFFFF else f"{top:016b}"
        out.append(("sign", {"range": "63:48", "bits": all_same, "name": "sign", "value": ""}))
    used = levels[:depth] if large and 0 < depth < len(levels) else levels
    for table, low, width in used:
        index = gva >> low & (1 << width) - 1
        out.append((table, {"range": f"{low + width - 1}:{low}", "bits": f"{index:0{width}b}", "name": table,
                            "value": str(index)}))
    low = used[-1][1]
    offset = gva & (1 << low) - 1
    text = f"{offset:0{low}b}"
    if low > 12:
        text = f"{low} bits"
    out.append(("offset", {"range": f"{low - 1}:0", "bits": text, "name": "offset", "value": f"{offset:#x}"}))
    return out


FAILED = {"not_present": ("P", "P is 0: not present"), "write": ("W", "W is 0: write refused"),
          "user": ("U", "U is 0: user mode refused"), "nx": ("NX", "NX is 1: fetch refused"),
          "smep": ("U", "SMEP: ring 0 may not run a user page"),
          "smap": ("U", "SMAP: ring 0 may not touch a user page"),
          "reserved": ("", "a reserved bit is set"), "hole": ("", "the table lies where no memory is")}
"""The check that failed: the bit to look at, and the words."""


def describe(step: WalkStep, look: Look, before: int | None = None) -> dict[str, Any]:
    """One row of the walk: which entry of which table, and the checks in words."""
    entry = step.entry
    wide = step.entry_bytes * 8
    checks: list[list[Any]] = [[True, "present"]] if entry & 1 else []
    if look.access == "w" and entry >> 1 & 1:
        checks.append([True, "write allowed"])
    if look.user and entry >> 2 & 1:
        checks.append([True, "user allowed"])
    if look.access == "x" and wide == 64 and not entry >> 63:
        checks.append([True, "fetch allowed"])
    bit, words = FAILED.get(step.failed, ("", ""))
    if not step.ok:
        checks.append([False, words or step.failed])
    if step.set_bits:
        checks.append([True, f"the walk would set {' and '.join(step.set_bits)}"])
    only = () if wide == 64 else ("G", "PS", "D", "A", "U", "W", "P")
    return {"level": step.name, "table": f"{step.table:#x}", "index": step.index, "entry": hexdigits(entry, wide),
            "at": f"{step.address:#x}", "was": bits.changed(entry, before, wide),
            "bits": bits.strip(bits.ENTRY, entry, before, bit, only), "checks": checks, "ok": step.ok}


def result(walk: Walk) -> dict[str, Any]:
    """Where the walk led, or why it stopped, with the error code taken apart."""
    if walk.fault is None:
        return {"ok": True, "title": "page", "text": walk.explain(), "error": None}
    return {"ok": False, "title": "fault", "text": walk.explain(), "error": error_code(walk.fault.error_code)}


def error_code(code: int) -> list[Any]:
    """The error code of a page fault, bit by bit."""
    rows = (("0 P", 0, "An entry is not present.", "All entries are present: a matter of rights."),
            ("1 W", 1, "The access was no write.", "The access was a write."),
            ("2 U", 2, "It came from the supervisor.", "It came from user mode."),
            ("3 RSV", 3, "No reserved bit is set.", "A reserved bit is set."),
            ("4 I", 4, "It was no instruction fetch.", "It was an instruction fetch."))
    return [str(code), [[name, str(code >> bit & 1), yes if code >> bit & 1 else no, ""]
                        for name, bit, no, yes in rows]]


def tree(scene: Scene, name: str, gva: int, locked: frozenset[int]) -> list[Item]:
    """The tables from CR3 on, as far as they are opened. The path of the address looked at is marked."""
    levels = LAYOUTS[name]
    size = 4 if name == "32-bit" else 8
    cr3 = int(scene.now.sregs.cr3)
    root = cr3 & (~0x1F if name == "PAE" else ~0xFFF) & (1 << 52) - 1
    path = [gva >> low & (1 << width) - 1 for _, low, width in levels]
    out: list[Item] = []
    opened = scene.look.opened

    def visit(table: int, depth: int, prefix: str, start: int, on_path: bool) -> None:
        title, low, width = levels[depth]
        count = 1 << width
        entries = read_table(scene.machine, table, count, size)
        shown = 0
        for index, entry in enumerate(entries):
            if not entry & 1:
                continue
            key = f"{prefix}{index}"
            here = on_path and index == path[depth]
            if shown >= MAX_NODES and not here:
                continue
            shown += 1
            last = depth == len(levels) - 1
            large = bool(entry >> 7 & 1) and not last and not (depth == 0 and name != "32-bit")
            leaf = large or last
            is_open = opened.get(key, here)
            frame = entry & 0x000F_FFFF_FFFF_F000 if size == 8 else entry & 0xFFFF_F000
            if large:
                frame &= ~((1 << low) - 1)
            address = start | index << low
            if name == "4-level" and depth == 0 and index >= 256:
                address |= 0xFFFF << 48
            text = bits.names(bits.ENTRY, entry & ~0x80 if last else entry)
            if large:
                text += f" · {1 << (low - 20)} MB page" if low < 30 else " · 1 GB page"
            out.append((f"node:{key}", {
                "depth": depth + 1, "label": f"[{index}] {frame:06x}", "text": text, "leaf": leaf,
                "open": is_open, "on": here, "changed": False,
                "locked": not leaf and frame >> 12 in locked, "gva": f"{address:#x}",
                "says": f"Entry {index} of this {title}: {entry:#x}. It begins at guest-virtual {address:#x}."
                        + (" Click walks that address." if leaf else " Click opens the table.")}))
            if not leaf and is_open:
                visit(frame, depth + 1, key + ".", address, here)

    entries = read_table(scene.machine, root, 1 << levels[0][2], size)
    present = sum(entry & 1 for entry in entries)
    root_open = opened.get("", True)
    out.append(("node:", {
        "depth": 0, "label": f"CR3 {root:06x}", "text": f"{levels[0][0]}, {present} present", "leaf": False,
        "open": root_open, "on": True, "changed": False, "locked": root >> 12 in locked, "gva": "",
        "says": f"The top table is at guest-physical {root:#x}."}))
    if root_open:
        visit(root, 0, "", 0, True)
    return out


def read_table(machine: Any, table: int, count: int, size: int) -> list[int]:
    """The entries of a table, or none where it lies outside memory."""
    data = driver.peek(lambda: bytes(machine.memory.read(table, count * size)), b"")
    return list(struct.unpack(f"<{len(data) // size}{'I' if size == 4 else 'Q'}", data))
