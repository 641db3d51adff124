"""How far a long run is: a line after the first second, in a notebook or a terminal; silence elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

__all__ = ["Progress"]

FIRST_S, EVERY_S = 1.0, 0.25


def line(instructions: int | None, exits: int, seconds: float, part: float | None = None) -> str:
    """``12,000,000 instructions, 3 exits, 104.2 million a second``."""
    words = [] if instructions is None else [f"{instructions:,} instructions"]
    words.append(f"{exits:,} exits")
    if instructions is not None and seconds > 0.05:
        words.append(f"{instructions / seconds / 1e6:.1f} million a second")
    words.append(f"{seconds:.0f} s")
    return ("" if part is None else f"{part:4.0%}  ") + ", ".join(words)


class Progress:
    """Shows a run's progress; made once per run, told at every slice.

    Parameters
    ----------
    wanted : bool or None
        None: where somebody looks (a notebook, a terminal on stderr); True: always; False: never.
    """

    def __init__(self, wanted: bool | None) -> None:
        self._wanted = wanted
        self._start = time.monotonic()
        self._next = self._start + FIRST_S if wanted is not False else float("inf")
        self._notebook: Any = None
        self._shown = False

    def tell(self, instructions: int | None, exits: int, part: float | None = None) -> None:
        """Called after every slice of a run."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY_S
        text = line(instructions, exits, now - self._start, part)
        if not self._shown:
            self._shown = True
            self._notebook = _notebook()
            if self._notebook is None and not self._wanted and not _terminal():
                self._next = float("inf")
                self._shown = False
                return
        if self._notebook is not None:
            self._notebook.update({"text/plain": text}, raw=True)
        else:
            print(f"\r{text:<70}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Takes the line away in a terminal; a notebook keeps the last one."""
        if self._shown and self._notebook is None:
            print(f"\r{'':<70}\r", end="", file=sys.stderr, flush=True)


def _terminal() -> bool:
    return bool(sys.stderr is not None and sys.stderr.isatty())


def _notebook() -> Any:
    """A display that can be updated, inside a Jupyter kernel; else None. Never imports IPython by itself."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import display

    return display({"text/plain": ""}, raw=True, display_id=True)  # type: ignore[no-untyped-call]
