"""Moving in time: what can be done now, where we are, and how far a long run is."""

from __future__ import annotations

from typing import Any

from . import driver
from .protocol import Panel
from .scene import Progress, Scene

KINDS = (("exception", "exception"), ("page_fault", "page fault"), ("io", "I/O instruction"),
         ("cr_access", "CR access"), ("cpuid", "CPUID"), ("msr", "MSR access"), ("hlt", "HLT"),
         ("interrupt_window", "interrupt window"))
"""The kinds of exit that one can run to, by their common name."""


def state(scene: Scene) -> Panel:
    if scene.machine is None:
        return Panel.of([("about", {"can": [], "position": "0", "what": "instructions", "running": None, "kinds": [],
                                    "kind": ""})])
    can = driver.can(scene.machine)
    position, what = where(scene)
    return Panel.of([("about", {
        "can": can,
        "position": position,
        "what": what,
        "running": None if scene.progress is None else running(scene.progress),
        "kinds": [list(kind) for kind in KINDS] if "step_exit" in can else [],
        "kind": scene.look.kind,
    })])


def where(scene: Scene) -> tuple[str, str]:
    """The position in words: ``58`` and ``instructions``."""
    if scene.now.position is None:
        return "", "not counted on this engine"
    return f"{int(scene.now.position):,}", "instruction" if int(scene.now.position) == 1 else "instructions"


def running(progress: Progress) -> dict[str, Any]:
    """How far a long run is."""
    instructions, exits = (now - then for now, then in zip(progress.now, progress.first, strict=True))
    rate = instructions / progress.seconds if progress.seconds > 0.05 else 0.0
    return {"what": progress.what, "instructions": f"{instructions:,}", "exits": f"{exits:,}",
            "rate": f"{rate / 1e6:.1f} million a second" if rate else "", "part": None}
