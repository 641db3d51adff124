"""What people see: the bench and its panels, as Jupyter widgets.

``vm.bench()`` and ``vm.view.registers()`` come here; so can anybody, with ``bench(vm)`` and ``Views(vm)``.
Needs the extra ``kvmlab[lab]``; importing this package loads none of it before a widget is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import View

__all__ = ["PANELS", "Views", "bench"]

PANELS = ("toolbar", "sentence", "world", "timeline", "code", "registers", "segments", "paging", "shadow", "control",
          "exits", "console")
"""The panels by name. ``vmcs`` and ``vmcb`` are other names of ``control``."""

_ALIASES = {"vmcs": "control", "vmcb": "control"}


def _view(machine: Any, panel: str) -> View:
    try:
        from .base import View
    except ImportError as error:
        raise ImportError("the widgets need Jupyter's side: pip install 'kvmlab[lab]' "
                          f"(missing here: {error.name})") from error
    from .session import Session, session_of

    return View(Session() if machine is None else session_of(machine), panel)


def bench(machine: Any = None) -> View:
    """The whole bench of a VM or a Machine; without one, an empty bench."""
    return _view(machine, "bench")


class Views:
    """``vm.view``: each panel of the bench as a widget of its own, for a lab that wants to show just one."""

    def __init__(self, machine: Any) -> None:
        self._machine = machine

    def __getattr__(self, name: str) -> Any:
        panel = _ALIASES.get(name, name)
        if panel not in PANELS:
            raise AttributeError(f"no panel {name!r}; there are {', '.join([*PANELS, *_ALIASES])}")

        def open_panel() -> View:
            return _view(self._machine, panel)

        open_panel.__name__ = name
        open_panel.__doc__ = f"The panel {name!r} as a widget."
        return open_panel

    def __dir__(self) -> list[str]:
        return [*PANELS, *_ALIASES]
