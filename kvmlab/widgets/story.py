"""The steps behind the sentence: what the processor and the hypervisor did at this stop, in order."""

from __future__ import annotations

from typing import Any

from .history import ExitRecord, Fact
from .protocol import Item
from .scene import Scene
from .timeline import exit_name

TOLD = frozenset(("guest_walk", "fill", "zap", "table_write", "inject", "emulated", "root_switch", "window",
                  "decision", "user_exit", "entry"))
"""The kinds of event that are steps of the story; the rest is detail."""
STEPS = 6
"""The most steps that are told."""


def state(scene: Scene) -> list[Item]:
    record = current(scene)
    if record is None:
        return []
    steps = [leave(scene, record), *(step for group in grouped(record) if (step := tell(group)) is not None)]
    if not any(fact.kind in ("user_exit", "entry") for fact in record.facts):
        steps.append(step_of("hw", "hw", "Next", "The hypervisor enters the guest again.",
                             "Nothing of it has happened yet. Click: what the entry will check.", "control"))
        here = len(steps) - 2
    else:
        here = len(steps) - 1
    steps = steps[:STEPS]
    steps[min(here, len(steps) - 1)]["current"] = True
    return [(f"step:{i}", step) for i, step in enumerate(steps)]


def current(scene: Scene) -> ExitRecord | None:
    """The exit that this stop is about: the last one, if the guest has not gone on since."""
    n = scene.history.now
    if not n or scene.now.position is None:
        return None
    record = scene.history.exits[n - 1]
    return record if record.instructions >= int(scene.now.position) else None


def step_of(who: str, mark: str, title: str, text: str, says: str, panel: str,
            address: int | None = None) -> dict[str, Any]:
    return {"who": who, "mark": mark, "title": title, "text": text, "says": says, "panel": panel, "current": False,
            "address": None if address is None else f"{address:#x}"}


def leave(scene: Scene, record: ExitRecord) -> dict[str, Any]:
    return step_of("hw", "hw", "Exit", f"{exit_name(scene, record.reason)} at {record.rip:#x}.",
                   f"{record.event.explain()} Click: what the processor wrote down.", "control")


def grouped(record: ExitRecord) -> list[list[Fact]]:
    """What followed the exit, the same kinds together."""
    groups: list[list[Fact]] = []
    for fact in record.facts:
        if groups and groups[-1][0].kind == fact.kind:
            groups[-1].append(fact)
        else:
            groups.append([fact])
    return groups


def tell(group: list[Fact]) -> dict[str, Any] | None:
    """One step for events of one kind, or None for what is no step of the story."""
    fact = group[-1]
    if fact.kind not in TOLD:
        return None
    fields, says = fact.fields, str(fact.event.explain())
    match fact.kind:
        case "guest_walk":
            found = "finds a fault" if fields["failed"] else f"finds {fields['gpa']:#x}"
            text = f"The hypervisor reads the guest's tables for {fields['gva']:#x}: {found}."
            return step_of("hv", "hv", "Walk", text, says, "paging", fields["gva"])
        case "fill":
            writable = fields["now"] & 2
            many = f"{len(group)} shadow entries" if len(group) > 1 else "One shadow entry"
            return step_of("hv", "fill" if writable else "fillro", "Fill",
                           f"{many} for {fields['gva']:#x}, {'writable' if writable else 'read-only'}.", says, "shadow",
                           fields["gva"])
        case "zap":
            many = f"{len(group)} shadows" if len(group) > 1 else "A shadow"
            return step_of("hv", "zap", "Zap", f"{many} of guest frame {fields['gfn']:#x} dropped.", says, "shadow")
        case "table_write":
            return step_of("hv", "locked", "Table write",
                           f"Store to the guest's table at {fields['gpa']:#x}, emulated.", says, "paging")
        case "inject":
            return step_of("hv", "fault" if fields["type"] == 3 else "irq", "Inject",
                           f"Vector {fields['vector']:#x} goes into the next entry.", says, "control")
        case "emulated":
            n = fields["instructions"]
            return step_of("hv", "hv", "Emulate", f"{n} instruction{'' if n == 1 else 's'} done in software.", says,
                           "exits")
        case "root_switch":
            return step_of("hv", "hv", "New root", f"{'Found' if fields['found'] else 'Made'} the shadow root for CR3 "
                           f"{fields['cr3']:#x}.", says, "shadow")
        case "window":
            return step_of("hv", "irq", "Window", "Asked for an exit when the guest can take an interrupt."
                           if fields["asked"] else "The interrupt window is open.", says, "control")
        case "decision":
            return step_of("hv", "ok", "Decision", says, says, "exits")
        case "user_exit":
            return step_of("user", "user", "User space", "KVM_RUN returns: user space deals with it.", says, "exits")
        case "entry":
            title = "Refused" if fields["failed_check"] else "Resume"
            text = "The entry breaks a rule." if fields["failed_check"] else "The guest goes on."
            return step_of("hw", "fault" if fields["failed_check"] else "hw", title, text, says, "control")
    raise AssertionError(f"TOLD names {fact.kind}, which has no words")
