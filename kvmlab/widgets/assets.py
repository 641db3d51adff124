"""The browser's side of the widgets: one ES module and one style sheet, shared by every widget class.

The build joins them into ``static/``. Where the package runs from its sources they are joined here instead.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from . import bundle


def _built(name: str) -> str | None:
    file = resources.files(__package__) / "static" / name
    return file.read_text("utf-8") if file.is_file() else None


@cache
def module() -> str:
    """The ES module, as text."""
    return _built("kvmlab.js") or bundle.module()


@cache
def style() -> str:
    """The style sheet, as text."""
    return _built("kvmlab.css") or bundle.style()
