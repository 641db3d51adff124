"""What the guest wrote to its console port."""

from __future__ import annotations

from . import driver
from .protocol import Panel
from .scene import Scene

KEPT = 4000
"""Characters shown: the newest."""


def state(scene: Scene) -> Panel:
    text = driver.peek(lambda: str(scene.machine.console)) if scene.machine is not None else None
    if text is None:
        return Panel.of([])
    return Panel.of([("out", {"text": text[-KEPT:], "cut": len(text) > KEPT, "ports": "ports 0x3f8 and 0xe9",
                              "input": "type" in driver.can(scene.machine)})])
