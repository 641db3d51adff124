"""How a machine is asked: every verb of the bench with its line of Python, and what is read at a stop.

A verb is there only where the machine has the function, so a control that could not work is not drawn.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BadArgument, Busy, Error
from ..trace import Position
from .history import Fact, History
from .scene import Look, Moment

KEPT_EVENTS = 1 << 16
"""Events that a machine keeps before the oldest give way."""
Detail = Mapping[str, Any]
Do = Callable[[Any, Look, Detail], Any]


def _nothing(_: Detail) -> str:
    return ""


@dataclass(frozen=True)
class Verb:
    """One thing that can be asked for."""

    do: Do
    python: Callable[[Detail], str] = _nothing
    says: str = ""
    """What a long run of it is called while it lasts."""
    moves: bool = False
    """Whether it moves the machine in time: it may take long, and marks then compare with the stop before."""
    edits: bool = False
    """Whether it changes the machine without moving it."""
    needs: str = ""
    """The method of the machine that it calls."""
    inside: bool = False
    """Whether it needs an engine that can be looked into."""
    always: bool = False
    """Whether it works without a machine."""


def _call(name: str) -> Do:
    def do(machine: Any, _look: Look, _detail: Detail) -> None:
        getattr(machine, name)()
    return do


def _line(text: str) -> Callable[[Detail], str]:
    return lambda _detail: text


def _run(machine: Any, _look: Look, _detail: Detail) -> None:
    machine.run(progress=False)  # the toolbar shows it


def _step_exit(machine: Any, _look: Look, detail: Detail) -> None:
    machine.step_exit(kind=detail.get("kind") or None, handled=True)


def _step_exit_line(detail: Detail) -> str:
    kind = detail.get("kind")
    return f"vm.step_exit(kind={kind!r}, handled=True)" if kind else "vm.step_exit(handled=True)"


def number(text: object, machine: Any = None) -> int:
    """An address as people type it: hexadecimal with or without 0x, or a label of the program."""
    words = str(text).strip()
    symbols = getattr(getattr(machine, "image", None), "symbols", None) or {}
    if words in symbols:
        return int(symbols[words])
    digits = words.lower().replace("_", "").replace(" ", "").removeprefix("0x")
    try:
        value = int(digits, 16)
    except ValueError:
        raise ValueError(f"{words!r} is no address: type hexadecimal digits"
                         + (f", or one of the labels {', '.join(list(symbols)[:6])}" if symbols else "")) from None
    if value >= 1 << 64:
        raise ValueError(f"{words!r} has more than 16 hexadecimal digits")
    return value


def _walk(machine: Any, look: Look, detail: Detail) -> None:
    text = str(detail.get("address", "")).strip()
    look.turn += 1
    look.address = f"{number(text, machine):#x}" if text else ""
    look.access = str(detail.get("access") or "r")
    look.user = bool(detail.get("user"))


def _walk_line(detail: Detail) -> str:
    address = str(detail.get("address", "")).strip()
    if not address:
        return ""
    shown = address if address.lower().startswith("0x") else f"0x{address}"
    user = ", user=True" if detail.get("user") else ""
    return f'vm.walk({shown}, access="{detail.get("access") or "r"}"{user})'


def _tree(_machine: Any, look: Look, detail: Detail) -> None:
    look.opened[str(detail["path"])] = bool(detail.get("open"))


def _kind(_machine: Any, look: Look, detail: Detail) -> None:
    look.kind = str(detail.get("kind") or "")


def _set(machine: Any, _look: Look, detail: Detail) -> None:
    machine.set(**{str(detail["name"]): int(str(detail["value"]), 16)})


def _set_line(detail: Detail) -> str:
    return f"vm.set({detail['name']}=0x{detail['value']})"


def breakpoints(machine: Any) -> tuple[int, ...]:
    """The breakpoints that stand, as linear addresses."""
    return tuple(getattr(machine, "breakpoints", ()) or ())


def _toggled(machine: Any, detail: Detail) -> list[int]:
    address = number(detail["address"])
    standing = list(breakpoints(machine))
    return [there for there in standing if there != address] if address in standing else [*standing, address]


def _breakpoint(machine: Any, _look: Look, detail: Detail) -> None:
    machine.debug(breakpoints=_toggled(machine, detail))


def _goto(machine: Any, _look: Look, detail: Detail) -> None:
    machine.goto(Position(*detail["position"]))


def _goto_line(detail: Detail) -> str:
    return f"vm.goto(kvmlab.Position{tuple(detail['position'])})" if "position" in detail else ""


def resolve(verb: str, detail: Detail, history: History) -> Detail:
    """Adds the position to a request that names an exit by its number, or by where it stands from here."""
    where = {"step_exit_back": history.now - 1, "earlier": history.now - 1, "later": history.now + 1,
             "goto_exit": int(detail.get("n") or 0)}
    if verb not in where:
        return detail
    n = where[verb]
    if not 1 <= n <= len(history.exits):
        if verb != "goto_exit" and history.exits:
            raise BadArgument(f"This is the {'last' if verb == 'later' else 'first'} exit that is known.",
                              "Next exit runs on." if verb == "later" else "Step back goes by instructions.")
        raise BadArgument(f"There is no exit #{n}.", f"There are {len(history.exits)}.")
    return {**detail, "position": history.exits[n - 1].done}


def _type(machine: Any, _look: Look, detail: Detail) -> None:
    machine.console_input(str(detail.get("text", "")))


def _soft(machine: Any, _look: Look, _detail: Detail) -> Any:
    return machine.on("soft")


VERBS: dict[str, Verb] = {
    "step": Verb(_call("step"), _line("vm.step()"), "step", moves=True, needs="step"),
    "step_back": Verb(_call("step_back"), _line("vm.step_back()"), "step back", moves=True,
                      needs="step_back", inside=True),
    "step_event": Verb(_call("step_event"), _line("vm.step_event()"), "next phase", moves=True,
                       needs="step_event", inside=True),
    "step_event_back": Verb(_call("step_event_back"), _line("vm.step_event_back()"), "previous phase", moves=True,
                            needs="step_event_back", inside=True),
    "step_exit": Verb(_step_exit, _step_exit_line, "running to the next exit", moves=True,
                      needs="step_exit", inside=True),
    "step_exit_back": Verb(_goto, _goto_line, "going back to the exit before", moves=True, needs="goto", inside=True),
    "earlier": Verb(_goto, _goto_line, "going back to the exit before", moves=True, needs="goto", inside=True),
    "later": Verb(_goto, _goto_line, "going to the exit after", moves=True, needs="goto", inside=True),
    "run": Verb(_run, _line("stop = vm.run()"), "running to user space", moves=True, needs="run"),
    "reset": Verb(_call("reset"), _line("vm.reset()"), "reset", moves=True, needs="reset"),
    "goto_exit": Verb(_goto, _goto_line, "going to that exit", moves=True, needs="goto", inside=True),
    "stop": Verb(lambda _machine, _look, _detail: None, _line("vm.stop()"), needs="stop"),
    "set": Verb(_set, _set_line, edits=True, needs="set"),
    "breakpoint": Verb(_breakpoint, lambda detail: f"vm.debug(breakpoints=[{detail['address']}, …])", edits=True,
                       needs="debug"),
    "walk": Verb(_walk, _walk_line),
    "tree": Verb(_tree),
    "kind": Verb(_kind),
    "dismiss": Verb(lambda _machine, _look, _detail: None, always=True),
    "type": Verb(_type, lambda detail: f"vm.console_input({detail.get('text', '')!r})", edits=True,
                 needs="console_input"),
    "soft": Verb(_soft, _line('vm = vm.on("soft")'), edits=True, needs="on"),
}
"""Every request that a view can make, by name."""


def can(machine: Any) -> list[str]:
    """The verbs that this machine has now, in the order of the table."""
    if machine is None:
        return []
    inside = getattr(machine, "engine", "soft") != "kvm"
    return [name for name, verb in VERBS.items()
            if (not verb.needs or callable(getattr(machine, verb.needs, None))) and (inside or not verb.inside)]


def peek(read: Callable[[], Any], otherwise: Any = None) -> Any:
    """What the machine answers, or ``otherwise`` where this engine has no answer."""
    try:
        return read()
    except Busy:
        raise
    except (Error, AttributeError):
        return otherwise


def capture(machine: Any, stop: Any = None) -> Moment:
    """Reads what marks compare with."""
    if machine is None:
        return Moment()
    position = peek(lambda: machine.position)
    block = peek(lambda: machine.vmcs)
    if block is None:
        block = peek(lambda: machine.vmcb)
    pages = peek(lambda: tuple(machine.shadow.pages()), ())
    return Moment(
        position=position,
        sequence=position.sequence if position is not None else 0,
        regs=peek(lambda: machine.regs),
        sregs=peek(lambda: machine.sregs),
        stop=stop if stop is not None else peek(lambda: machine.last_stop),
        block=block,
        pages=pages,
    )


def lost(machine: Any, sequence: int) -> bool:
    """Whether events from number ``sequence`` on were pushed out by newer ones: the engine keeps so many."""
    timeline = peek(lambda: machine.timeline)
    if timeline is None or len(timeline) < KEPT_EVENTS:
        return False
    return bool(timeline[0].position.sequence > sequence)


def facts(machine: Any, sequence: int) -> Iterator[Fact]:
    """The events from number ``sequence`` on."""
    timeline = peek(lambda: machine.timeline)
    if timeline is None:
        return
    for event in timeline.since(Position(0, sequence)):
        yield Fact.of(event)


def stop(machine: Any) -> None:
    """Stops a run that another thread is in."""
    machine.stop()


def progress_of(machine: Any) -> tuple[int, int]:
    """Instructions and exits so far; asked while a run goes on, so it must not wait for it."""
    counts = getattr(machine, "progress", None)
    if counts is None:
        return (0, 0)
    with contextlib.suppress(Error, TypeError, ValueError):
        instructions, exits = counts
        return int(instructions), int(exits)
    return (0, 0)


def listen(machine: Any, moved: Callable[..., None]) -> Callable[[], None]:
    """Asks to be told when the machine was moved or edited by anybody; returns how to end that."""
    observe = getattr(machine, "observe", None)
    if not callable(observe):
        return lambda: None
    forget = observe(moved)
    return forget if callable(forget) else lambda: None
