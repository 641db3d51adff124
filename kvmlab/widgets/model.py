"""All panels of one moment: the only place that knows which panels there are and in what order."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from .. import html
from . import sentence, toolbar
from .protocol import Panel
from .scene import Scene

PANELS: dict[str, Callable[[Scene], Panel]] = {
    "toolbar": toolbar.state,
    "sentence": sentence.state,
}
"""Panel by name: a function of the scene."""

SAVED_BYTES = 8192
"""How much bulk data of a panel a saved notebook keeps: the newest."""


def draw(scene: Scene, only: tuple[str, ...] = ()) -> dict[str, Panel]:
    """What every panel shows (or only some), and what the bench itself shows."""
    panels = {name: state(scene) for name, state in PANELS.items() if not only or name in only}
    if not only:
        panels["bench"] = bench(scene, panels)
    return panels


def bench(scene: Scene, panels: Mapping[str, Panel]) -> Panel:
    """The name of it all, the tabs' counts, the lines of Python."""
    return Panel.of([("about", {
        "name": name(scene),
        "control": "",
        "counts": [],
        "lines": list(scene.lines),
        "answered": scene.answered,
    })])


def name(scene: Scene) -> str:
    """What a screen reader calls the bench."""
    if scene.machine is None:
        return "kvmlab bench, nothing loaded"
    position, what = toolbar.where(scene)
    return f"kvmlab bench, position {position} {what}" if position else "kvmlab bench"


def saved(state: Mapping[str, Panel]) -> list[Any]:
    """The state as a saved notebook keeps it: lists, and the bulk data of the timeline as text."""
    out: list[list[Any]] = [[key, [list(item) for item in panel.items]] for key, panel in state.items()]
    timeline = state.get("timeline")
    if timeline is not None and timeline.data:
        for key, items in out:
            if key == "bench":
                items.append(["lanes", base64.b64encode(timeline.data).decode("ascii")])
    return out


def still(state: Mapping[str, Panel], panel: str) -> tuple[str, str]:
    """The moment as HTML that stands alone, and as text."""
    said = dict(state["sentence"].items)["say"]["text"] if "sentence" in state else ""
    return html.paragraph(said), f"kvmlab {panel}: {said}"
