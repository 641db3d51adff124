"""The tables of the virtualization hardware against an independent set of facts, and against each other.

KVMLAB_FACTS names a folder with the facts as JSON (vmcs_fields.json and its neighbours). Without it the comparisons are
skipped; the checks of one table against another always run.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path

import pytest

CPU = Path(__file__).resolve().parent.parent / "kvmlab" / "engine" / "cpu"
FACTS = os.environ.get("KVMLAB_FACTS")
needs_facts = pytest.mark.skipif(not FACTS, reason="KVMLAB_FACTS does not name a folder of facts")

WIDTHS = {16: "16", 32: "32", 64: "64", "natural": "NAT"}
GROUPS = {
    "control": "CONTROL",
    "read_only_exit_info": "EXIT_INFO",
    "guest_state": "GUEST",
    "host_state": "HOST",
}
CONTROL_GROUPS = {
    "pin_based": "PIN",
    "primary_proc_based": "PRI",
    "secondary_proc_based": "SEC",
    "tertiary_proc_based": "TER",
    "vm_exit": "EXIT",
    "vm_entry": "ENTRY",
}


def rows(table: str, macro: str) -> list[list[str]]:
    """Return the arguments of every row `macro(...)` of a .def file, strings without their quotes."""
    found = []
    for line in (CPU / table).read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(rf"{macro}\((.*)\)", line)
        if match:
            cells = re.findall(r'\s*("(?:[^"\\]|\\.)*"|[^,]+?)\s*(?:,|$)', match.group(1))
            found.append([cell.strip('"') for cell in cells])
    assert found, f"{table} has no row {macro}"
    return found


def facts(name: str) -> dict:
    assert FACTS
    with open(Path(FACTS) / f"{name}.json", encoding="utf-8") as file:
        return json.load(file)


def test_vmcs_fields_need_controls_that_exist() -> None:
    controls = {f"{group}_{name}" for group, _, name, *_ in rows("vmx_control.def", "VMX_CONTROL")}
    for encoding, name, width, group, needs, _ in rows("vmcs.def", "VMCS_FIELD"):
        assert needs in controls | {"ALWAYS", "NEVER"}, name
        bits = int(encoding, 16)
        assert ["16", "64", "32", "NAT"][bits >> 13] == width, name
        assert ["CONTROL", "EXIT_INFO", "GUEST", "HOST"][bits >> 10 & 3] == group, name
        assert bits & 1 == 0


def test_vmcs_names_and_encodings_are_unique_and_fit() -> None:
    fields = rows("vmcs.def", "VMCS_FIELD")
    assert len({row[0] for row in fields}) == len({row[1] for row in fields}) == len(fields)
    slots = re.search(r"#define VMCS_SLOTS (\d+)", (CPU / "cpu.h").read_text(encoding="utf-8"))
    assert slots and len(fields) <= int(slots.group(1))


def test_check_rows_name_fields_that_exist() -> None:
    vmcs = {row[1] for row in rows("vmcs.def", "VMCS_FIELD")} | {"NONE"}
    for name, identifier, area, *_, field, _, _ in rows("vmx_check.def", "VMX_CHECK"):
        assert name == identifier.replace("-", "_") and identifier.startswith(area)
        assert field in vmcs, identifier
    vmcb = {row[2] for row in rows("vmcb.def", "VMCB_FIELD")} | {"NONE"}
    for name, identifier, _, _, _, field, _, _ in rows("svm_check.def", "SVM_CHECK"):
        assert name == identifier.replace("-", "_")
        assert field in vmcb, identifier


def test_a_rule_is_not_older_than_its_field() -> None:
    """A rule of 2006 is about a field of 2006."""
    since = {f"{group}_{name}": level for group, _, name, level, *_ in rows("vmx_control.def", "VMX_CONTROL")}
    needs = {row[1]: row[4] for row in rows("vmcs.def", "VMCS_FIELD")}
    for _, identifier, _, level, _, field, _, _ in rows("vmx_check.def", "VMX_CHECK"):
        need = needs.get(field, "ALWAYS")
        if level == "VMX_V1":
            assert need == "ALWAYS" or since[need] == "VMX_V1", identifier
        elif level == "VMX_V2":
            assert need == "ALWAYS" or since[need] in ("VMX_V1", "VMX_V2"), identifier


def test_exit_layouts_exist_and_do_not_overlap() -> None:
    layouts: dict[str, list[tuple[int, int]]] = {}
    for layout, high, low, *_ in rows("exit.def", "EXIT_BITS"):
        layouts.setdefault(layout, []).append((int(low), int(high)))
    for layout, spans in layouts.items():
        spans.sort()
        assert all(low <= high < 64 for low, high in spans), layout
        assert all(a[1] < b[0] for a, b in itertools.pairwise(spans)), layout
    for macro in ("VMX_EXIT", "SVM_EXIT"):
        for _, name, _, kind, layout, what, why in rows("exit.def", macro):
            assert layout == "NONE" or layout in layouts, name
            assert kind in ("FAULT", "TRAP", "EVENT", "ENTRY"), name
            assert what and why


def test_both_vendors_share_names_for_the_same_exit() -> None:
    vmx = {row[2] for row in rows("exit.def", "VMX_EXIT")}
    svm = {row[2] for row in rows("exit.def", "SVM_EXIT")}
    shared = "io cpuid hlt msr cr_access dr_access exception interrupt interrupt_window npf task_switch invlpg"
    for name in shared.split():
        assert name in vmx and name in svm, name


def test_vmcb_fields_do_not_overlap() -> None:
    end = 0
    for offset, size, name, *_ in rows("vmcb.def", "VMCB_FIELD"):
        assert int(offset, 16) >= end, name
        end = int(offset, 16) + int(size)
    assert end <= 4096


@needs_facts
def test_vmcs_fields_match_the_facts() -> None:
    want = {
        (int(f["encoding"], 16), f["name"], WIDTHS[f["width"]], GROUPS[f["group"]])
        for f in facts("vmcs_fields")["fields"]
    }
    got = {(int(e, 16), n, w, g) for e, n, w, g, *_ in rows("vmcs.def", "VMCS_FIELD")}
    assert got == want
    optional = {f["name"] for f in facts("vmcs_fields")["fields"] if f.get("exists_only_with")}
    assert optional == {row[1] for row in rows("vmcs.def", "VMCS_FIELD") if row[4] != "ALWAYS"}


@needs_facts
def test_vmx_controls_match_the_facts() -> None:
    groups = {row[0]: row[1:] for row in rows("vmx_control.def", "VMX_CONTROL_GROUP")}
    fields = {row[1]: int(row[0], 16) for row in rows("vmcs.def", "VMCS_FIELD")}
    controls = rows("vmx_control.def", "VMX_CONTROL")
    for fact_name, group in CONTROL_GROUPS.items():
        fact = facts("vmx_controls")["groups"][fact_name]
        field, msr, true_msr, default1 = groups[group]
        assert fields[field] == int(fact["vmcs_field"], 16)
        assert int(msr, 16) == int(fact["capability_msr"].split()[0], 16)
        assert int(true_msr, 16) == int(fact["true_capability_msr"] or "0", 16)
        assert int(default1, 16) == int(fact["default1_mask"], 16)
        want = {(c["bit"], c["name"], int(c["default1"])) for c in fact["controls"]}
        assert {(int(r[1]), r[5], int(r[4])) for r in controls if r[0] == group} == want


@needs_facts
def test_vmx_checks_match_the_facts() -> None:
    want = [rule["id"] for rule in facts("vmx_entry_checks")["rules"]]
    got = rows("vmx_check.def", "VMX_CHECK")
    assert [row[1] for row in got] == want
    failures = {row[1]: row[4] for row in got}
    for rule in facts("vmx_entry_checks")["rules"]:
        failure = failures[rule["id"]]
        if rule["area"] == "INS":
            assert failure == "INSTRUCTION"
        elif "error" in rule["failure"]:
            assert failure == "ERROR_" + rule["failure"][-1], rule["id"]
        else:
            reason = re.search(r"reason (\d+)", rule["failure"])
            assert reason and failure.startswith(f"EXIT_{reason.group(1)}"), rule["id"]
            qualification = {"_PDPTE": "2", "_NMI": "3", "_LINK": "4"}.get(failure.removeprefix("EXIT_33"), "0")
            assert failure == "EXIT_34" or rule["failure"].endswith(f"qualification {qualification}"), rule["id"]


@needs_facts
def test_exits_match_the_facts() -> None:
    want = {(r["number"], r["name"]) for r in facts("vmx_exit_reasons")["reasons"]}
    assert {(int(r[0]), r[1]) for r in rows("exit.def", "VMX_EXIT")} == want
    codes = {e["code"] % 2**64 for e in facts("svm_exits")["exits"]}
    assert {int(r[0], 16) for r in rows("exit.def", "SVM_EXIT")} == codes


@needs_facts
def test_vmx_errors_match_the_facts() -> None:
    want = {(e["number"], e["name"]) for e in facts("vmx_instruction_errors")["errors"]}
    assert {(int(r[0]), r[1]) for r in rows("vmx_error.def", "VMX_ERROR")} == want


@needs_facts
def test_vmcb_matches_the_facts() -> None:
    want = {(int(f["offset"], 16), f["size"], f["name"], f["area"].upper()) for f in facts("vmcb_fields")["fields"]}
    assert {(int(o, 16), int(s), n, a) for o, s, n, a, *_ in rows("vmcb.def", "VMCB_FIELD")} == want
    words = {"intercept_misc1 (0x00C)": 0x60, "intercept_misc2 (0x010)": 0x80, "intercept_misc3 (0x014)": 0xA0}
    bits = facts("vmcb_fields")["intercept_bits"]
    intercepts = {(base + b["bit"], b["name"]) for word, base in words.items() for b in bits[word]}
    assert {(int(b, 16), n) for b, n in rows("vmcb.def", "VMCB_INTERCEPT")} == intercepts


@needs_facts
def test_svm_checks_match_the_facts() -> None:
    assert [r[1] for r in rows("svm_check.def", "SVM_CHECK")] == [r["id"] for r in facts("svm_entry_checks")["rules"]]
