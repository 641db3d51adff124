"""All panels of one moment: the only place that knows which panels there are and in what order."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import Busy
from . import (
    code,
    console,
    control,
    exits,
    paging,
    registers,
    segments,
    sentence,
    shadow,
    timeline,
    toolbar,
    world,
)
from .protocol import Panel
from .scene import Scene

PANELS: dict[str, Callable[[Scene], Panel]] = {
    "toolbar": toolbar.state,
    "sentence": sentence.state,
    "world": world.state,
    "timeline": timeline.state,
    "code": code.state,
    "registers": registers.state,
    "shadow": shadow.state,
    "paging": paging.state,
    "control": control.state,
    "segments": segments.state,
    "exits": exits.state,
    "console": console.state,
}
"""Panel by name: a function of the scene."""

LOG = logging.getLogger("kvmlab.widgets")
SAVED_BYTES = 8192
"""How much bulk data of a panel a saved notebook keeps: the newest."""


def draw(scene: Scene, only: tuple[str, ...] = ()) -> dict[str, Panel]:
    """What every panel shows (or only some), and what the bench itself shows."""
    panels = {name: attempt(name, scene) for name in PANELS if not only or name in only}
    if not only:
        panels["bench"] = bench(scene, panels)
    return panels


def attempt(name: str, scene: Scene) -> Panel:
    """What a panel shows; where its drawing fails, that: one broken panel must not take the others' stop away."""
    try:
        return PANELS[name](scene)
    except Busy:
        raise
    except Exception as error:
        LOG.exception("the panel %s could not be drawn", name)
        text = f"This panel could not be drawn: {type(error).__name__}: {error}"
        if name == "sentence":
            return Panel.of([("say", {"text": text, "cut": 0})])
        return Panel.of([("blind", {"text": text, "button": False})])


def bench(scene: Scene, panels: Mapping[str, Panel]) -> Panel:
    """The name of it all, the tabs' counts, the lines of Python."""
    return Panel.of([("about", {
        "name": name(scene),
        "control": dict(panels["control"].items).get("head", {}).get("object", "").upper(),
        "counts": [[key, count] for key, count in counts(panels).items() if count],
        "lines": list(scene.lines),
        "answered": scene.answered,
    })])


def counts(panels: Mapping[str, Panel]) -> dict[str, int]:
    """How much changed inside each tab."""
    out = {"shadow": 0, "paging": 0, "control": 0, "segments": 0}
    for key, content in panels["shadow"].items:
        out["shadow"] += key.startswith("event:") and content["kind"] != "table_write"
    for key, content in panels["control"].items:
        out["control"] += content["changed"] if key.startswith("group:") else 0
    for key, content in panels["segments"].items:
        out["segments"] += key.startswith("seg:") and bool(content["was"])
    for key, content in panels["paging"].items:
        out["paging"] += key.startswith("step:") and content["was"] is not None
    return out


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

