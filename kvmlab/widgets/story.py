"""The steps behind the sentence: what the processor and the hypervisor did at this stop, in order."""

from __future__ import annotations

from typing import Any

from ..trace import PHASE_HANDLED
from .history import ExitRecord, Fact
from .protocol import Item
from .scene import Scene

TOLD = frozenset(("guest_walk", "fill", "zap", "table_write", "inject", "emulated", "root_switch", "window",
                  "decision", "user_exit", "entry"))
"""The kinds of event that are steps of the story; the rest is detail."""
STEPS = 6
"""The most steps that are told."""


def state(scene: Scene) -> list[Item]:
    record = current(scene)
    if record is None:
        return []
    facts = so_far(scene, record)
    told = (tell(group) for group in grouped(facts, fault_address(record)))
    steps = [leave(record), *(step for step in told if step is not None)]
    if not any(fact.kind in ("user_exit", "entry") for fact in facts):
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
    return scene.history.exits[n - 1] if n and scene.history.last_way()[0] in ("exit", "return") else None


def so_far(scene: Scene, record: ExitRecord) -> list[Fact]:
    """What followed the exit up to this moment."""
    return [fact for fact in record.facts if fact.sequence < scene.now.sequence]


def step_of(who: str, mark: str, title: str, text: str, says: str, panel: str,
            address: int | None = None) -> dict[str, Any]:
    return {"who": who, "mark": mark, "title": title, "text": text, "says": says, "panel": panel, "current": False,
            "address": None if address is None else f"{address:#x}"}


def sentence(scene: Scene) -> str:
    """The exit and what was done about it, or "" where this stop is about no exit."""
    record = current(scene)
    if record is None:
        return ""
    facts = so_far(scene, record)
    kinds = {fact.kind for fact in facts}
    head = str(record.event.explain()).partition(": ")[0]
    said = [f"{head}: {record.what}"]
    if any(fact.kind == "fill" for fact in facts):
        said.append("The guest's own tables allow it, so the hypervisor made the entry and lets the guest try again.")
    for kind in ("decision", "table_write", "emulated", "inject"):
        last = next((fact for fact in reversed(facts) if fact.kind == kind), None)
        if last is not None and not (kind == "table_write" and "decision" in kinds):
            said.append(str(last.event.explain()))
    if "user_exit" not in kinds:
        handled = any(fact.kind == "phase" and fact.fields["phase"] == PHASE_HANDLED for fact in facts)
        said.append("User space is not involved." if handled else "The hypervisor has not dealt with it yet.")
    return " ".join(said)


def leave(record: ExitRecord) -> dict[str, Any]:
    text = f"{record.title[:1].upper()}{record.title[1:]} at {record.rip:#x}."
    if record.refused:
        text = "The processor refuses to enter the guest: a rule does not hold."
    return step_of("hw", "fault" if record.refused else "hw", "Refused" if record.refused else "Exit", text,
                   f"{record.event.explain()} Click: what the processor wrote down.", "control")


def fault_address(record: ExitRecord) -> int | None:
    """The address that a page fault was about."""
    event = record.event
    if event.vendor == "amd":
        return int(event.info2) if event.reason == 0x4E else None
    return int(event.qualification) if event.common == "exception" and event.interruption & 0xFF == 14 else None


def grouped(facts: list[Fact], about: int | None) -> list[list[Fact]]:
    """The same kinds together; of walks only the one for the address that faulted, the rest reads the instruction."""
    groups: list[list[Fact]] = []
    for fact in facts:
        if fact.kind == "guest_walk" and fact.fields["gva"] != about:
            continue
        if fact.kind not in TOLD:
            continue
        if groups and groups[-1][0].kind == fact.kind:
            groups[-1].append(fact)
        else:
            groups.append([fact])
    return groups


def tell(group: list[Fact]) -> dict[str, Any] | None:
    """One step for events of one kind, or None for what is no step of the story."""
    fact = group[-1]
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
