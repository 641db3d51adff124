"""The guest's tables and the tables that the processor walks, side by side for one address; and all shadow pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..paging import WalkStep
from . import bits, driver, paging
from .history import Fact
from .protocol import Item, Panel
from .scene import Scene, blind, hexdigits

SHOWN = ("D", "A", "U", "W", "P")
MAX_PAGES = 256
MAX_EVENTS = 40
SHADOW_KINDS = frozenset(("fill", "zap", "spte_clear", "table_write"))


def state(scene: Scene) -> Panel:
    if not scene.visible:
        return Panel.of([blind(scene, "its shadow tables")])
    shadow = driver.peek(lambda: scene.machine.shadow)
    if shadow is None or scene.now.sregs is None:
        return Panel.of([])
    asked, gva = paging.query(scene)
    look = scene.look
    guest = driver.peek(lambda: scene.machine.walk(gva, access=look.access, user=look.user))
    host = driver.peek(lambda: shadow.walk(gva))
    items: list[Item] = [("query", asked)]
    items += chain(gva, guest, host)
    items += pairs(scene, guest, host)
    items += pages(scene)
    items += notes(scene, guest)
    items += events(scene)
    return Panel.of(items)


def chain(gva: int, guest: Any, host: Any) -> list[Item]:
    """The address in its three worlds, as far as it gets."""
    out: list[Item] = [("chain:gva", {"who": "guest", "name": "guest-virtual", "value": f"{gva:#x}", "by": "",
                                      "says": "The address that the instruction uses."})]
    if guest is not None and guest.fault is None:
        out.append(("chain:gpa", {"who": "guest", "name": "guest-physical", "value": f"{int(guest.gpa):#x}",
                                  "by": "guest tables", "says": "What the guest's own tables make of it."}))
    if host is not None and host.fault is None:
        out.append(("chain:hpa", {"who": "hv", "name": "host-physical", "value": f"{int(host.gpa):#x}",
                                  "by": "memory slot", "says": "Where the byte really is."}))
    return [*out, ("verdict", {"text": verdict(guest, host)})]


def verdict(guest: Any, host: Any) -> str:
    """How the two walks agree, in one sentence."""
    seen = host is not None and host.fault is None
    if guest is not None and guest.fault is not None:
        return "The guest's own tables refuse this access: the hypervisor would hand the fault to the guest."
    if seen:
        return "The shadow tables lead from the first to the last in one walk. The processor walks only them."
    return "The shadow has no entry for it yet: an access exits, and the hypervisor makes the entry."


def pairs(scene: Scene, guest: Any, host: Any) -> list[Item]:
    """Guest table and shadow table of the same level beside each other."""
    name = paging.layout(scene.now.sregs)
    mine = {step.name: step for step in guest.steps} if guest is not None and name else {}
    theirs = {step.name: step for step in host.steps} if host is not None else {}
    out: list[Item] = []
    fresh = {fact.fields["spte_address"]: fact.fields["was"] for fact in recent(scene) if fact.kind == "fill"}
    pages = {page.hpa: page for page in scene.now.pages}
    locked = shadowed(scene)
    titles = {table for layout in paging.LAYOUTS.values() for table, _, _ in layout}
    for level in [title for title in ("PML4", "PDPT", "PD", "PT") if title in titles]:
        one, two = mine.get(level), theirs.get(level)
        if one is None and two is None:
            continue
        size = 32 if name == "32-bit" else 64
        out.append((f"pair:{level}", {
            "guest": None if one is None else {**card(one, "gpa", size), "locked": one.table >> 12 in locked},
            "shadow": None if two is None else {**card(two, "hpa", 64, fresh.get(two.address)), **facts(two, pages)},
            "noguest": "A large page ends the guest's walk above; the shadow maps it in small pages." if mine else
                       "Paging is off: no guest table.",
            "noshadow": "The shadow's walk stops above: no table yet."}))
    return out


def card(step: WalkStep, space: str, size: int, before: int | None = None) -> dict[str, Any]:
    """One table with the entry on the path."""
    entry = step.entry
    width = size if entry >> 32 or size == 32 else 40
    owner = "guest table" if space == "gpa" else "shadow page"
    return {
        "level": step.name, "name": step.name, "where": f"{space} {step.table:06x}", "locked": False,
        "index": step.index, "entry": hexdigits(entry, width), "was": bits.changed(entry, before, width),
        "bits": bits.strip(bits.ENTRY, entry, before, "" if step.ok else "P", SHOWN), "ok": step.ok,
        "title": f"{step.name}, a {owner}", "aside": "", "present": "",
        "fresh": "" if before is None else "changed" if before & 1 else "new",
        "says": f"Entry {step.index} of the {owner} at {space} {step.table:#x} is {entry:#x}."}


def facts(step: WalkStep, pages: Mapping[int, Any]) -> dict[str, Any]:
    """What the hypervisor keeps about the shadow page that a walk went through."""
    page = pages.get(step.table & ~0xFFF)
    if page is None:
        return {}
    return {"aside": f"gfn {page.gfn:x} · role {page.role:x}", "present": f"{page.present} of 512",
            "says": page.explain()}


def shadowed(scene: Scene) -> frozenset[int]:
    """The guest frames that hold a table which is shadowed: read-only in the shadow, so a store to them exits."""
    return frozenset(page.gfn for page in scene.now.pages if not page.metaphysical)


def pages(scene: Scene) -> list[Item]:
    """All shadow pages, those made since the stop before marked."""
    now = scene.now.pages
    old = {key(page): page for page in scene.before.pages} if scene.before is not None else None
    pool = driver.peek(lambda: scene.machine.shadow.state)
    total = pool.total if pool is not None else len(now)
    out: list[Item] = [("use", {"text": f"Shadow pages: {len(now)} of {total}", "used": len(now), "total": total})]
    for page in now[:MAX_PAGES]:
        name = key(page)
        before = old.get(name) if old is not None else None
        fresh = old is not None and (before is None or before.present != page.present)
        words = f"L{page.level}" + (" root" if page.roots else "") + (", no guest table" if page.metaphysical else "")
        out.append((f"page:{name}", {
            "gfn": f"{page.gfn:x}", "role": f"{page.role:x}", "name": words, "present": str(page.present),
            "fresh": fresh, "gone": False, "title": f"Shadow page for guest frame {page.gfn:#x}",
            "says": page.explain()}))
    gone = [page for name, page in (old or {}).items() if name not in {key(page) for page in now}]
    if gone:
        out.append(("note:gone", {"title": "Dropped since the last stop", "mark": "zap", "text": ", ".join(
            f"gfn {page.gfn:x} L{page.level}" for page in gone[:12])}))
    return out


def notes(scene: Scene, guest: Any) -> list[Item]:
    """Reverse map of the frame looked at, and the audit."""
    out: list[Item] = []
    shadow = scene.machine.shadow
    if guest is not None and guest.fault is None:
        gfn = guest.gpa >> 12
        found = driver.peek(lambda: shadow.rmap(gfn), ())
        text = ", ".join(f"{spte.hpa:#x}" for spte in found[:8]) or "none: a store to it exits"
        out.append(("note:rmap", {"title": f"Writable entries that map frame {gfn:#x} (reverse map)", "mark": "",
                                  "text": text}))
    findings = driver.peek(shadow.audit)
    if findings is not None:
        said = " ".join(str(finding) for finding in findings) or "Invariants A to E hold."
        out.append(("note:audit", {"title": "Audit of the shadow", "mark": "fault" if findings else "ok",
                                   "text": said}))
    return out


def key(page: Any) -> str:
    """What names a shadow page: the guest frame that it shadows, and in which role."""
    return f"{page.gfn:x}.{page.role:x}"


def recent(scene: Scene) -> list[Fact]:
    """What the hypervisor did to the shadow since the stop before."""
    if scene.before is None:
        return []
    out: list[Fact] = []
    for record in reversed(scene.history.exits[:scene.history.now]):
        if record.facts and record.facts[-1].sequence < scene.before.sequence:
            break
        out += [fact for fact in record.facts if fact.kind in SHADOW_KINDS
                and scene.before.sequence <= fact.sequence < scene.now.sequence]
    return sorted(out, key=lambda fact: fact.sequence)


def events(scene: Scene) -> list[Item]:
    """Fills and zaps since the stop before."""
    out: list[Item] = []
    for fact in recent(scene)[-MAX_EVENTS:]:
        writable = fact.kind == "fill" and fact.fields["now"] & 2
        kind = "fill" if writable else "fillro"
        mark = {"zap": "zap", "spte_clear": "zap", "table_write": "locked"}.get(fact.kind, kind)
        out.append((f"event:{fact.sequence}", {"kind": fact.kind, "mark": mark, "text": str(fact.event.explain())}))
    return out
