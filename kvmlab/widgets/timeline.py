"""The timeline: one record of eight bytes per exit, and which of them is now."""

from __future__ import annotations

from .. import tables
from . import driver
from .protocol import MAX_BYTES, Panel
from .scene import Scene

SHOWN = MAX_BYTES // 8
"""Exits on the timeline: the newest."""


def vendor(scene: Scene) -> str:
    return str(getattr(scene.machine, "vendor", "intel"))


def exit_name(scene: Scene, reason: int) -> str:
    """An exit's name in words, by its number."""
    row = tables.exit_row(vendor(scene), reason)
    return words(row.name) if row is not None else f"reason {reason:#x}"


def words(name: str) -> str:
    """``IO_INSTRUCTION`` as people write it: names of instructions and registers keep their capitals."""
    known = {"IO": "I/O", "NMI": "NMI", "CR": "CR", "DR": "DR", "MSR": "MSR", "CPUID": "CPUID", "HLT": "HLT"}
    out = []
    for part in name.split("_"):
        capital = part in known or part.startswith(("VM", "RD", "WR", "INV", "CR", "DR", "EPT")) or part.isdigit()
        out.append(known.get(part, part) if capital else part.lower())
    return " ".join(out)


def state(scene: Scene) -> Panel:
    back = "goto_exit" in driver.can(scene.machine)
    history = scene.history
    total, now = len(history.exits), history.now
    if scene.machine is None or not total:
        if scene.machine is None:
            what = "No exits yet: nothing is loaded."
        elif not hasattr(scene.machine, "mmu"):
            what = "Nothing exits: there is no hypervisor of ours below."
        elif not scene.visible:
            what = "Not visible here: /dev/kvm shows only the exits that go up to user space."
        else:
            what = "No exits yet: the guest has not left the processor."
        return Panel.of([("head", {"now": 0, "total": 0, "first": 1, "aside": "", "what": what, "names": [],
                                   "back": back, "hex": False})])
    first = max(1, total - SHOWN + 1)
    reasons = sorted({record.reason for record in history.exits[first - 1:]})
    return Panel.of([("head", {
        "now": now, "total": total, "first": first, "aside": aside(now, total, first, history.gap), "what": "",
        "names": [[reason & 0xFFFF, exit_name(scene, reason)] for reason in reasons], "back": back,
        "hex": vendor(scene) == "amd"})],
        history.bulk(first))


def aside(now: int, total: int, first: int, gap: bool) -> str:
    """Where we are, in words."""
    text = f"#{now} of {total:,}." if now else f"Before the first of {total:,}."
    if now < total:
        ahead = f"#{now + 1} lies" if total == now + 1 else f"#{now + 1} to #{total} lie"
        text += f" You went back: {ahead} ahead."
    if gap:
        text += " A long run pushed older events out, so exits are missing."
    if first > 1:
        text += f" The first {first - 1:,} are not drawn."
    return text
