"""The world switch: user space, hypervisor, guest, and the four ways between them."""

from __future__ import annotations

from . import driver
from .history import TO_USER
from .protocol import Panel
from .scene import Scene

NEXT = {"ioctl": "entry", "exit": "entry", "entry": "exit", "return": "ioctl", "": "ioctl"}
"""What comes after a way was taken."""
AT = {"ioctl": "hv", "exit": "hv", "entry": "guest", "return": "user", "": "user"}
"""Who acts after it."""


def state(scene: Scene) -> Panel:
    machine = scene.machine
    if machine is None or scene.now.regs is None:
        return Panel.of([])
    if not hasattr(machine, "mmu"):
        return Panel.of([("world", {"bare": True, "guest": f"at {int(scene.now.regs.rip):#x}", "aside": chips(scene)})])
    rip = f"{int(scene.now.regs.rip):#x}"
    if not scene.visible:
        returns = driver.progress_of(machine)[1]
        return Panel.of([("world", {
            "ioctl": returns, "returns": returns, "entries": "–", "exits": "–", "lit": "return" if returns else "",
            "next": "ioctl", "at": "user", "refused": False,
            "user": "acts on the exit" if returns else "has not called KVM_RUN", "hv": "not visible: /dev/kvm",
            "guest": f"stopped at {rip}", "kept": 0, "up": 0, "aside": chips(scene), "bare": False})])
    history = scene.history
    counts = history.counts()
    lit, refused = history.last_way()
    now = history.now
    refused = refused or (lit in ("exit", "return") and now > 0 and history.exits[now - 1].refused)
    up = sum(1 for record in history.exits[:now] if record.marks & TO_USER)
    at = AT[lit]
    counted = {"ioctl": counts.ioctl, "returns": counts.returns, "entries": counts.entries, "exits": counts.exits}
    return Panel.of([("world", {
        **{name: f"{count}+" if history.gap else count for name, count in counted.items()},
        "lit": lit, "next": NEXT[lit], "at": at, "refused": refused,
        "user": "acts on the exit" if lit == "return" else "has not called KVM_RUN" if not lit else "waits in KVM_RUN",
        "hv": "has no handler for it" if refused and lit == "return" else
              {"exit": "handles the exit", "ioctl": "about to enter"}.get(lit, "waits"),
        "guest": "not entered" if refused else f"stopped at {rip}",
        "kept": now - up, "up": up, "aside": chips(scene), "bare": False})])


def chips(scene: Scene) -> str:
    """Engine, processor, MMU."""
    machine = scene.machine
    parts = [f"{getattr(machine, 'engine', 'soft')} engine", str(getattr(machine, "cpu", "") or "")]
    mmu = getattr(machine, "mmu", None)
    return " · ".join(part for part in [*parts, f"{mmu} MMU" if mmu else ""] if part)
