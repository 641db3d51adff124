"""kvmlab: a virtualization laboratory for Python and Jupyter.

Names are loaded when first asked for, so that Jupyter's server (``kvmlab.server``) and ``kvmlab --help`` load no
engine, and scripts no Jupyter.
"""

from __future__ import annotations

import importlib
from typing import Any

# public name -> the module that has it
_WHERE = {
    "__version__": "kvmlab.engine",
    "doctor": "kvmlab.doctor",
    "Image": "kvmlab.guest",
    "assemble": "kvmlab.guest",
    "compile_c": "kvmlab.guest",
    "AssemblyError": "kvmlab.errors",
    "AssemblyWarning": "kvmlab.errors",
    "BadArgument": "kvmlab.errors",
    "Busy": "kvmlab.errors",
    "EngineUnavailable": "kvmlab.errors",
    "Error": "kvmlab.errors",
    "NoSuchSlot": "kvmlab.errors",
    "NotVisible": "kvmlab.errors",
    "SlotOverlap": "kvmlab.errors",
    "ToolUnavailable": "kvmlab.errors",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'kvmlab' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext kvmlab``: the magics ``%%guest`` and ``%vm``."""
    from .magics import load_ipython_extension as load

    load(shell)
