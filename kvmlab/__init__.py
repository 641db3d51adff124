"""kvmlab: a virtualization laboratory for Python and Jupyter.

Names are loaded when first asked for, so that Jupyter's server (``kvmlab.server``) and ``kvmlab --help`` load no
engine, and scripts no Jupyter.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# For type checkers and editors the same names, plainly; tests/test_names.py holds the two lists together.
if TYPE_CHECKING:
    from . import abi2006 as abi2006
    from . import check as check
    from . import tables as tables
    from .console import Console as Console
    from .doctor import doctor as doctor
    from .engine import __version__ as __version__
    from .errors import AssemblyError as AssemblyError
    from .errors import AssemblyWarning as AssemblyWarning
    from .errors import BadArgument as BadArgument
    from .errors import Busy as Busy
    from .errors import EngineUnavailable as EngineUnavailable
    from .errors import Error as Error
    from .errors import NoSuchSlot as NoSuchSlot
    from .errors import NotVisible as NotVisible
    from .errors import SlotOverlap as SlotOverlap
    from .errors import ToolUnavailable as ToolUnavailable
    from .exits import Exit as Exit
    from .exits import ExitReason as ExitReason
    from .guest import Image as Image
    from .guest import assemble as assemble
    from .guest import compile_c as compile_c
    from .machine import Machine as Machine
    from .paging import Translation as Translation
    from .paging import Walk as Walk
    from .state import DebugRegs as DebugRegs
    from .state import DTable as DTable
    from .state import Events as Events
    from .state import Regs as Regs
    from .state import Segment as Segment
    from .state import SRegs as SRegs
    from .trace import Event as Event
    from .trace import Position as Position
    from .trace import Timeline as Timeline
    from .vm import VM as VM

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
    "abi2006": "kvmlab.abi2006",
    "assemble": "kvmlab.guest",
    "check": "kvmlab.check",
    "compile_c": "kvmlab.guest",
    "doctor": "kvmlab.doctor",
    "tables": "kvmlab.tables",
}

__all__ = sorted(_WHERE)


def _load(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'kvmlab' has no attribute {name!r}")
    module = importlib.import_module(_WHERE[name])
    value = module if _WHERE[name] == f"kvmlab.{name}" and not hasattr(module, name) else getattr(module, name)
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # a checker that saw it would take any name for granted
    __getattr__ = _load


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext kvmlab``: the magics ``%%guest`` and ``%vm``."""
    from .magics import load_ipython_extension as load

    load(shell)
