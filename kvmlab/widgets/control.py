"""The VMCS or the VMCB: every field by group, what changed, what it means, and the checks of the next entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from .. import tables
from ..trace import vector_name
from . import bits, driver
from .protocol import Item, Panel
from .scene import Scene, blind, hexdigits

GROUPS = {
    "EXIT_INFO": "Exit information", "GUEST": "Guest state", "CONTROL": "Controls", "HOST": "Host state",
    "SAVE": "State of the guest",
}
OPEN = ("EXIT_INFO", "GUEST", "SAVE")
MAIN = frozenset((
    "exit_reason", "exit_qualification", "exit_interruption_info", "exit_interruption_error_code", "idt_vectoring_info",
    "exit_instruction_length", "guest_rip", "guest_rsp", "guest_rflags", "guest_cr0", "guest_cr3", "guest_cr4",
    "guest_interruptibility", "exception_bitmap", "pin_based_controls", "primary_proc_based_controls",
    "vm_entry_controls", "vm_exit_controls", "vm_entry_interruption_info", "cr0_guest_host_mask", "cr0_read_shadow",
    "host_rip", "host_cr3", "rip", "rsp", "rax", "rflags", "cr0", "cr2", "cr3", "cr4", "efer", "exit_code",
    "exit_info_1", "exit_info_2", "exit_int_info", "event_inj", "intercept_exceptions", "intercept_misc1", "int_ctl",
    "guest_asid", "tlb_control",
))
"""Fields that a group shows before it is asked for the rest."""
NAMED = {
    "guest_rflags": bits.RFLAGS, "rflags": bits.RFLAGS, "guest_cr0": bits.CR0, "cr0": bits.CR0, "host_cr0": bits.CR0,
    "cr0_read_shadow": bits.CR0, "cr0_guest_host_mask": bits.CR0, "guest_cr4": bits.CR4, "cr4": bits.CR4,
    "host_cr4": bits.CR4, "cr4_read_shadow": bits.CR4, "cr4_guest_host_mask": bits.CR4, "efer": bits.EFER,
    "guest_efer": bits.EFER,
}
EVENTS = frozenset(("exit_interruption_info", "idt_vectoring_info", "vm_entry_interruption_info", "exit_int_info",
                    "event_inj"))
"""Fields that hold an event, all in one format."""
TYPES = ("external interrupt", "type 1", "NMI", "hardware exception", "software interrupt",
         "privileged software exception", "software exception", "other event")
LAMPS = {True: "p", False: "f", None: "n"}


def state(scene: Scene) -> Panel:
    if not scene.visible:
        return Panel.of([blind(scene, "its VMCS")])
    found = scene.now.block
    if found is None:
        return Panel.of([])
    name = "vmcb" if "exit_code" in found else "vmcs"
    if not found:
        return Panel.of([("blind", {"button": False, "text": (
            "There is no VMCS or VMCB yet: the hypervisor makes one for the first entry.")})])
    before = scene.before.block if scene.before is not None and scene.before.block is not None else {}
    checks = checks_of(found)
    failing = [check for check in checks if check.ok is False]
    bad = {check.field for check in failing[:1]}
    rows: list[tuple[str, dict[str, Any]]] = []
    counts: dict[str, int] = {}
    now = found
    for field, value in found.items():
        known = facts(name)[field]
        was = before.get(field)
        changed = bits.changed(value, was, known.width)
        counts[known.group] = counts.get(known.group, 0) + (changed is not None)
        rows.append((f"field:{field}", {
            "code": known.code, "group": known.group, "value": hexdigits(value, known.width), "was": changed,
            "says": meaning(field, value, known.meaning, now), "main": field in MAIN, "bad": field in bad}))
    items: list[Item] = [("head", {"object": name, "lead": (
        "Left: what the processor wrote down and what the hypervisor asks for. Right: what the next entry checks.")})]
    present = {content["group"] for _, content in rows}
    items += [(f"group:{group}", {"title": title, "changed": counts.get(group, 0), "open": group in OPEN})
              for group, title in GROUPS.items() if group in present]
    items += rows
    if checks:
        items += lamps(checks, failing, name)
    return Panel.of(items)


class Facts(NamedTuple):
    """What the tables say about a field."""

    code: str
    group: str
    width: int
    meaning: str


@cache
def facts(name: str) -> dict[str, Facts]:
    """Every field of the VMCS or the VMCB by name."""
    if name == "vmcs":
        return {row.name: Facts(f"0x{row.encoding:04X}", row.group, int(row.width) if row.width.isdigit() else 64,
                                row.meaning) for row in tables.vmcs_fields()}
    return {row.name: Facts(f"+{row.offset:03x}", "EXIT_INFO" if row.name.startswith("exit_") else row.area,
                            row.size * 8, row.meaning) for row in tables.vmcb_fields()}


@cache
def controls() -> dict[str, tuple[tuple[int, str], ...]]:
    """The named bits of each VMX control field."""
    fields = {"PIN": "pin_based_controls", "PRI": "primary_proc_based_controls", "SEC": "secondary_proc_based_controls",
              "EXIT": "vm_exit_controls", "ENTRY": "vm_entry_controls"}
    return {field: tuple((row.bit, row.printed) for row in tables.control_bits() if row.group == group)
            for group, field in fields.items()}


def meaning(field: str, value: int, otherwise: str, now: Mapping[str, int]) -> str:
    """What the value says, as far as the tables know: bits by name, the exit by name, its qualification in parts."""
    if field in NAMED:
        return bits.names(NAMED[field], value)
    if field in controls():
        return ", ".join(name for bit, name in controls()[field] if value >> bit & 1) or "no named bit set"
    if field in ("exit_reason", "exit_code"):
        row = tables.exit_row("intel" if field == "exit_reason" else "amd", value)
        failed = "entry failed: " if field == "exit_reason" and value >> 31 & 1 else ""
        return f"{failed}{row.what}" if row is not None else otherwise
    if field in EVENTS:
        return event(value)
    if field in ("exit_qualification", "exit_info_1"):
        vendor, reason = ("intel", "exit_reason") if field == "exit_qualification" else ("amd", "exit_code")
        row = tables.exit_row(vendor, now.get(reason, 0))
        parts = tables.decode_bits(row.layout, value) if row is not None else {}
        return ", ".join(f"{name} {part:#x}" if part > 9 else f"{name} {part}"
                         for name, part in parts.items()) or otherwise
    return otherwise


def event(value: int) -> str:
    """An event to inject, or one that was being delivered, in words."""
    parts = tables.decode_bits("INTERRUPTION", value)
    if not parts["valid"]:
        return "not valid: there is no event"
    error = ", with an error code" if parts["error_code"] else ""
    return f"{vector_name(parts['vector'])}, {TYPES[parts['type']]}{error}"


@lru_cache(maxsize=4)
def checks_of(found: Any) -> tuple[Any, ...]:
    """Every rule on these fields; a block is one moment, so it is asked once."""
    return tuple(driver.peek(found.check, ()))


def lamps(checks: Sequence[Any], failing: list[Any], name: str) -> list[Item]:
    """One lamp per rule; the first failure in words."""
    holds = sum(check.ok is True for check in checks)
    absent = sum(check.ok is None for check in checks)
    first = failing[0] if failing else None
    text = f"{holds} rules hold." + (f" {len(failing)} fail." if failing else "") + (
        f" {absent} do not apply here." if absent else "")
    out: list[Item] = [("verdict", {
        "what": f"Checks of the next entry, {'VMRUN' if name == 'vmcb' else 'VMLAUNCH or VMRESUME'}",
        "text": text + " Arrow keys read the lamps.",
        "failed": None if first is None else {
            "id": str(first.id), "rule": str(first.rule),
            "text": f"{first.field} is {int(first.value):#x}." if first.field and first.value is not None else ""}})]
    areas: dict[str, list[list[str]]] = {}
    for check in checks:
        area = str(check.id).rsplit("-", 1)[0]
        areas.setdefault(area, []).append([str(check.id), LAMPS[check.ok], str(check.rule)])
    return out + [(f"area:{area}", {"list": entries}) for area, entries in areas.items()]
