"""Notebooks for pages without script: takes the widget view out where HTML that stands alone is beside it.

Every renderer prefers the widget where both are there, and without its scripts (GitHub, an offline page, a PDF) shows
a blank for it. ``kvmlab static NB.ipynb`` writes a notebook without those views; :class:`StaticPreprocessor` does the
same inside nbconvert (``--Exporter.preprocessors=kvmlab.static.StaticPreprocessor``) and in nbgrader's feedback.
"""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BadArgument

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"

__all__ = ["make_static", "rewrite"]  # and StaticPreprocessor, which needs nbconvert


def make_static(notebook: MutableMapping[str, Any]) -> int:
    """Takes widget views out of a notebook, in place.

    A view without HTML beside it stays, and with it its state: it is somebody else's, and nothing could replace it.

    Parameters
    ----------
    notebook : mapping
        A notebook of format 4, as nbformat or json reads it.

    Returns
    -------
    int
        How many views were taken out.
    """
    removed = 0
    kept: set[str] = set()
    for cell in notebook.get("cells", []):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if VIEW not in data:
                continue
            if "text/html" in data:
                del data[VIEW]
                removed += 1
            else:
                kept.add(data[VIEW].get("model_id", ""))
    if removed and not kept:
        widgets = notebook.get("metadata", {}).get("widgets", {})
        widgets.pop(STATE, None)
        if "widgets" in notebook.get("metadata", {}) and not widgets:
            del notebook["metadata"]["widgets"]
    return removed


def rewrite(source: str | Path, target: str | Path | None = None) -> int:
    """Reads a notebook, makes it static, writes it.

    Parameters
    ----------
    source : path
        A notebook with outputs.
    target : path, optional
        Where to; the same file without.

    Returns
    -------
    int
        How many widget views were taken out.

    Raises
    ------
    BadArgument
        The file is not there, or is no notebook of format 4.
    """
    source = Path(source)
    try:
        notebook = json.loads(source.read_text("utf-8"))
    except FileNotFoundError:
        raise BadArgument(f"there is no file {source}.", "Give the path of a notebook.") from None
    except (ValueError, UnicodeDecodeError):
        raise BadArgument(f"{source} is no notebook: it is not JSON.", "Give a file that JupyterLab saved.") from None
    if not isinstance(notebook, dict) or notebook.get("nbformat") != 4:
        raise BadArgument(f"{source} is no notebook of format 4.", "Open it in JupyterLab and save it.")
    removed = make_static(notebook)
    Path(target or source).write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return removed


if TYPE_CHECKING:
    from nbconvert.preprocessors import Preprocessor

    class StaticPreprocessor(Preprocessor):
        """:func:`make_static` as a step of nbconvert."""


def __getattr__(name: str) -> Any:
    """``StaticPreprocessor`` is made when first asked for: scripts need no nbconvert."""
    if name != "StaticPreprocessor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nbconvert.preprocessors import Preprocessor

    def preprocess(self: Any, nb: Any, resources: Any) -> tuple[Any, Any]:
        make_static(nb)
        return nb, resources

    made = type("StaticPreprocessor", (Preprocessor,), {
        "__module__": __name__, "__doc__": "make_static() as a step of nbconvert.", "preprocess": preprocess})
    globals()[name] = made
    return made
