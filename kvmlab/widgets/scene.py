"""What the panels are drawn from: the machine, the stop before, and what the person looks at."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .history import History


@dataclass
class Look:
    """What somebody looks at: typed addresses, opened tables. Moves with no step, and no step moves it."""

    address: str = ""
    """As typed; empty follows the last fault, else the instruction pointer."""
    access: str = "r"
    user: bool = False
    turn: int = 0
    """Counts the walks asked for, so that what was typed is replaced by what it meant."""
    opened: dict[str, bool] = field(default_factory=dict)
    """Paths of page tables in the tree that somebody opened or closed; the others are open on the way of the walk."""
    kind: str = ""
    """The kind of exit that "next exit" runs to."""
    top: int = -1
    """Address of the first line of code shown; the list stands still while RIP stays inside it."""


@dataclass(frozen=True)
class Moment:
    """All that marks compare with, read once per stop."""

    position: Any = None
    regs: Any = None
    sregs: Any = None
    stop: Any = None
    block: Any = None
    """The VMCS or VMCB: a mapping in the order of its table."""
    pages: tuple[Any, ...] = ()
    """Shadow pages."""
    sequence: int = 0
    """Number of the next event."""


@dataclass(frozen=True)
class Progress:
    """How far a long run is."""

    what: str
    first: tuple[int, int]
    """Instructions and exits when it began."""
    now: tuple[int, int]
    seconds: float


@dataclass(frozen=True)
class Failure:
    """An error, as the person who clicked sees it."""

    title: str
    text: str
    trace: str = ""


@dataclass(frozen=True)
class Scene:
    """Everything a panel may look at. Panels are functions of this and nothing else."""

    machine: Any = None
    now: Moment = Moment()
    before: Moment | None = None
    look: Look = field(default_factory=Look)
    progress: Progress | None = None
    failure: Failure | None = None
    lines: tuple[str, ...] = ()
    answered: int = 0
    history: History = field(default_factory=History)
    entries: Mapping[str, str] = field(default_factory=dict)
    """Page-table entries as they were shown at the stop before: address to digits."""

    @property
    def visible(self) -> bool:
        """Whether this engine lets itself be looked into."""
        return self.machine is not None and getattr(self.machine, "engine", "") != "kvm"

    def was(self, part: str, name: str) -> Any:
        """A value at the stop before, as ``was("regs", "rip")``, or None where there was none."""
        if self.before is None:
            return None
        return getattr(getattr(self.before, part), name, None)


def failure(error: BaseException) -> Failure:
    """An error in words: its class split into words, its message, and where it came from."""
    name = type(error).__name__
    words = "".join(f" {letter.lower()}" if letter.isupper() and i else letter for i, letter in enumerate(name))
    text = str(error) or "It gave no reason."
    return Failure(f"{words}:", text, "".join(traceback.format_exception(error)))


def hexdigits(value: int, bits: int = 64) -> str:
    """A number in hexadecimal, padded to its width."""
    return f"{value & (1 << bits) - 1:0{bits // 4}x}"


def blind(scene: Scene, what: str) -> tuple[str, Any]:
    """The item that stands where this engine cannot look."""
    if scene.machine is None:
        return ("blind", {"text": "Nothing is loaded yet.", "button": False})
    return ("blind", {"text": f"Not visible here: /dev/kvm does not show {what}. "
                              "The soft engine runs the same guest and shows it.",
                      "button": hasattr(scene.machine, "on")})
