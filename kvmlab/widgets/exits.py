"""The list of exits with their sentences, and how often each kind came."""

from __future__ import annotations

import re
from collections import Counter

from . import driver
from .history import TO_USER, ExitRecord
from .protocol import Item, Panel
from .scene import Scene
from .timeline import exit_name

AROUND = 60
"""How many exits are listed before and after the current one."""


def state(scene: Scene) -> Panel:
    history = scene.history
    total, now = len(history.exits), history.now
    if not total:
        return Panel.of([("head", {"text": "No exits yet.", "back": False, "hidden": ""})])
    back = "goto_exit" in driver.can(scene.machine)
    low, high = max(0, now - 1 - AROUND), min(total, now + AROUND)
    hidden = total - (high - low)
    items: list[Item] = [("head", {
        "text": "A click on a number shows the state of that moment." if back else "Exits of this run.", "back": back,
        "hidden": f"{hidden:,} more are not listed; the timeline leads there." if hidden else ""})]
    for n, record in enumerate(history.exits[low:high], low + 1):
        items.append((f"exit:{n}", {
            "position": f"{record.instructions:,}", "reason": reason_text(record),
            "name": record.title, "what": listed(record.what),
            "to": "user" if record.marks & TO_USER else "hv",
            "cost": f"+{record.cost:,}", "now": n == now, "ahead": n > now, "goto": f"kvmlab.Position{record.done}"}))
    past = history.exits[:now]
    for reason, count in Counter(record.reason for record in past).most_common():
        same = [record for record in past if record.reason == reason]
        titles = {record.title for record in same[:AROUND]}
        items.append((f"kind:{reason}", {
            "reason": reason_text(same[0]), "name": titles.pop() if len(titles) == 1 else exit_name(scene, reason),
            "count": count, "to": "user" if any(record.marks & TO_USER for record in same) else "hv"}))
    if past and scene.now.position is not None:
        instructions = int(scene.now.position)
        items.append(("rate", {"text": f"{instructions:,} instructions, {now:,} exits: "
                                       f"one exit per {instructions / now:,.1f} instructions."}))
    return Panel.of(items)


def reason_text(record: ExitRecord) -> str:
    """The number as the manuals print it: decimal on VMX, hexadecimal on SVM."""
    return f"{record.reason:#x}" if record.event.vendor == "amd" else str(record.reason & 0xFFFF)


def listed(text: str) -> str:
    """The sentence as a row of a list has it: a capital, and without the control that selected the exit."""
    text = re.sub(r" \([^()]*\)\.$", ".", text)
    return text[:1].upper() + text[1:]

