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
    "AssemblyError": "kvmlab.errors",
    "AssemblyWarning": "kvmlab.errors",
    "BadArgument": "kvmlab.errors",
    "Busy": "kvmlab.errors",
    "Console": "kvmlab.console",
    "DTable": "kvmlab.state",
    "DebugRegs": "kvmlab.state",
    "EngineUnavailable": "kvmlab.errors",
    "Error": "kvmlab.errors",
    "Event": "kvmlab.trace",
    "Events": "kvmlab.state",
    "Exit": "kvmlab.exits",
    "ExitReason": "kvmlab.exits",
    "Image": "kvmlab.guest",
    "Machine": "kvmlab.machine",
    "NoSuchSlot": "kvmlab.errors",
    "NotVisible": "kvmlab.errors",
    "Position": "kvmlab.trace",
    "Regs": "kvmlab.state",
    "SRegs": "kvmlab.state",
    "Segment": "kvmlab.state",
    "SlotOverlap": "kvmlab.errors",
    "Timeline": "kvmlab.trace",
    "ToolUnavailable": "kvmlab.errors",
    "Translation": "kvmlab.paging",
    "VM": "kvmlab.vm",
    "Walk": "kvmlab.paging",
    "assemble": "kvmlab.guest",
    "check": "kvmlab.check",
    "compile_c": "kvmlab.guest",
    "doctor": "kvmlab.doctor",
    "tables": "kvmlab.tables",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'kvmlab' has no attribute {name!r}")
    module = importlib.import_module(_WHERE[name])
    value = module if _WHERE[name] == f"kvmlab.{name}" and not hasattr(module, name) else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext kvmlab``: the magics ``%%guest`` and ``%vm``."""
    from .magics import load_ipython_extension as load

    load(shell)
