"""The widget: carries requests from the browser to the session, and what changed back to the browser."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import anywidget
import traitlets

from .. import html
from . import assets, model
from .protocol import Delta, Panel, full
from .session import Session
from .still import still

REST_S = 0.25
"""The snapshot that a saved notebook keeps is refreshed this long after the last change."""
ALWAYS = frozenset({"bench", "toolbar", "sentence"})
"""Panels that every view gets: a panel of its own has the keys and the sentence too."""


class View(anywidget.AnyWidget):
    """One view of a session: the whole bench, or a single panel.

    Parameters
    ----------
    session : Session
    panel : str
        ``"bench"`` or the name of a panel.
    """

    _esm = assets.module()
    _css = assets.style()
    panel = traitlets.Unicode("bench").tag(sync=True)
    snapshot: traitlets.List[Any] = traitlets.List([]).tag(sync=True)
    """``[number, [[panel, items], …]]``: what stands in a saved notebook. Written here only."""

    def __init__(self, session: Session, panel: str = "bench", **traits: Any) -> None:
        self.session = session
        self.panels = frozenset(session.state) if panel == "bench" else ALWAYS | {panel}
        self._seq = 0
        self._timer: threading.Timer | None = None
        self._timer_lock = threading.Lock()
        super().__init__(panel=panel, snapshot=self._snapshot(session.state), **traits)
        self.on_msg(self._heard)
        session.attach(self)

    # ---- from the browser

    def _heard(self, _widget: Any, content: Mapping[str, Any], _buffers: list[memoryview]) -> None:
        verb = content.get("ask")
        if verb == "open":
            # A view that opens, or has missed a message, gets everything. A run does not hold this lock.
            with self.session.lock:
                self.send(*full(self._mine(self.session.state), self._seq))
        elif isinstance(verb, str):
            self.session.ask(verb, content.get("detail") or {}, int(content.get("id") or 0))

    # ---- to the browser

    def deliver(self, delta: Delta, state: Mapping[str, Panel]) -> None:
        """Sends what changed in the panels of this view."""
        mine = delta if self.panel == "bench" else delta.only(self.panels)
        if not mine:
            return
        self._seq += 1
        self.send(*mine.message(self._seq))
        with self._timer_lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(REST_S, self._rest)
            self._timer.daemon = True
            self._timer.start()

    def _rest(self) -> None:
        self.snapshot = self._snapshot(self.session.state)

    def _mine(self, state: Mapping[str, Panel]) -> dict[str, Panel]:
        return {name: panel for name, panel in state.items() if self.panel == "bench" or name in self.panels}

    def _snapshot(self, state: Mapping[str, Panel]) -> list[Any]:
        return [self._seq, model.saved(self._mine(state))]

    # ---- without a browser

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        shown = super()._repr_mimebundle_(**kwargs)
        if shown is None:
            return None
        data, metadata = shown if isinstance(shown, tuple) else (shown, {})
        page, text = still(self.session.state, self.panel)
        return {**data, **html.bundle(page, text)}, metadata

    def close(self) -> None:
        with self._timer_lock:
            if self._timer is not None:
                self._timer.cancel()
        super().close()


