"""What just happened and why: one sentence, the steps behind it, and an error where there was one."""

from __future__ import annotations

from . import story
from .protocol import Item, Panel
from .scene import Scene

EMPTY = ("Nothing is loaded yet. Make a machine with `vm = kvmlab.VM()`, put a program into it with `vm.load(image)`, "
         "and this bench shows it.")
HEAD = 72
"""A heading of the sentence, up to its colon, is no longer than this."""


def state(scene: Scene) -> Panel:
    text = say(scene)
    colon = text.find(": ")
    items: list[Item] = [("say", {"text": text, "cut": colon + 1 if 0 < colon < HEAD else 0})]
    items += story.state(scene)
    if scene.failure is not None:
        failure = scene.failure
        items.append(("error", {"title": failure.title, "text": failure.text, "trace": failure.trace}))
    return Panel.of(items)


def say(scene: Scene) -> str:
    """The sentence of this stop."""
    if scene.machine is None:
        return EMPTY
    if scene.now.stop is not None:
        return str(scene.now.stop.explain())
    if scene.now.regs is None:
        return "The machine is there, but this engine shows no registers."
    at = int(scene.now.regs.rip).to_bytes(8, "big").hex().lstrip("0") or "0"
    if scene.now.position is not None and int(scene.now.position):
        return f"Stopped at 0x{at}, after {int(scene.now.position):,} instructions."
    return f"Ready: nothing has run yet. The first instruction is at 0x{at}."


