"""What just happened and why: one sentence, the steps behind it, and an error where there was one."""

from __future__ import annotations

from . import bits, code, story
from .protocol import Item, Panel
from .scene import Scene

EMPTY = ("Nothing is loaded yet. Make a machine with `vm = kvmlab.VM()`, put a program into it with `vm.load(image)`, "
         "and this bench shows it.")
HEAD = 72
"""A heading of the sentence, up to its colon, is no longer than this."""


def state(scene: Scene) -> Panel:
    text = say(scene)
    colon = text.find(": ")
    items: list[Item] = [("say", {"text": text, "cut": colon + 1 if 0 < colon < HEAD else 0})]
    items += story.state(scene)
    if scene.failure is not None:
        failure = scene.failure
        items.append(("error", {"title": failure.title, "text": failure.text, "trace": failure.trace}))
    return Panel.of(items)


def say(scene: Scene) -> str:
    """The sentence of this stop."""
    if scene.machine is None:
        return EMPTY
    if scene.now.stop is not None:
        plain = scene.now.stop.reason.name in ("EVENT", "DEBUG") and getattr(scene.now.stop, "breakpoint", None) is None
        return (plain and (stepped(scene) or story.sentence(scene))) or str(scene.now.stop.explain())
    if scene.now.regs is None:
        return "The machine is there, but this engine shows no registers."
    at = int(scene.now.regs.rip).to_bytes(8, "big").hex().lstrip("0") or "0"
    if scene.now.position is not None and int(scene.now.position):
        return f"Stopped at 0x{at}, after {int(scene.now.position):,} instructions."
    reason = str(getattr(scene.machine, "engine_reason", ""))
    changed = f" The engine: {reason}." if "changed to soft" in reason else ""
    return f"Ready: nothing has run yet. The first instruction is at 0x{at}.{changed}"




def stepped(scene: Scene) -> str:
    """What one step did: the instruction, and what it changed. Empty where this stop is no plain step."""
    before, now = scene.before, scene.now
    if before is None or before.regs is None or before.position is None or now.position is None:
        return ""
    plain = now.stop.reason.name == "DEBUG" and getattr(now.stop, "breakpoint", None) is None
    if not plain or now.position - before.position != 1 or scene.history.now != scene.history.before(before.sequence):
        return ""
    line = code.at(scene.machine, before.regs, before.sregs)
    if line is None:
        return ""
    _, size, name, operands = line
    text = f"Step: `{f'{name} {operands}'.strip()}` at {int(before.regs.rip):#x}"
    effects = [f"{key} became {change.now:#x}" for key, change in now.regs.diff(before.regs).items()
               if key not in ("rip", "rflags")]
    flags = [f"{bit.name} became {bit.of(int(now.regs.rflags))}" for bit in reversed(bits.RFLAGS)
             if bit.of(int(now.regs.rflags)) != bit.of(int(before.regs.rflags))]
    went = int(now.regs.rip) - int(before.regs.rip) != size
    effects = [*([f"goes to {int(now.regs.rip):#x}"] if went else []), *effects[:4], *flags]
    return f"{text}: {', '.join(effects)}." if effects else f"{text}: nothing but RIP changed in the registers."
