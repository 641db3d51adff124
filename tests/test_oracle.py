"""One instruction at a time against the host's own CPU: 64-bit, and 32 and 16-bit protected mode, in user mode.

tests/oracle/skip.def names the rows that cannot be asked there, tests/oracle/differences.def what is explained.
"""

import re
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import oracle_engine
import pytest

from running import ROOT

ROW = re.compile(r'row \d+ (\S+) "(.*?)" "(.*?)" (\d+) (\d+) (\d+) (\S+)')
CANNOT = 77


class Row(NamedTuple):
    """A row of insn.def, and what the oracle found."""

    mnemonic: str
    encoding: str
    flags: str
    cases: int
    plain: int  # without a fault
    differences: int
    undefined: str


def rows_of(output: str) -> list[Row]:
    found = (match.groups() for match in ROW.finditer(output))
    return [Row(m, e, f, int(c), int(p), int(d), u) for m, e, f, c, p, d, u in found]


def host_profile() -> str:
    """The profile of the host's vendor: undefined flags and named behaviours differ."""
    cpuinfo = Path("/proc/cpuinfo")
    amd = cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text()
    return "amd" if amd else "intel"


def test_against_the_host(
    seed: int, cases: Callable[[int, int], int], record_property: Callable[[str, object], None]
) -> None:
    oracle_engine.build()
    number = cases(500_000, 50_000_000)
    command = [str(oracle_engine.BUILD / "oracle"), str(number), str(seed), host_profile()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600)
    if done.returncode == CANNOT:
        pytest.skip(f"no native oracle here: {done.stderr.strip()}")
    differences = done.stdout.split("\nrow 0 ")[0]
    assert done.returncode == 0, f"seed {seed}:\n{differences}\n{done.stderr}"
    rows = rows_of(done.stdout)
    not_asked = [row for row in rows if not row.cases]
    never_plain = [row for row in rows if row.cases and not row.plain]
    print(f"{number:,} cases, seed {seed}; rows: {len(rows)}, of these without an oracle here {len(not_asked)}")
    for row in not_asked:
        print(f"  not asked: {row.mnemonic} {row.encoding}")
    for row in never_plain:
        print(f"  only ever faulted: {row.mnemonic} {row.encoding}")
    record_property("rows", len(rows) - len(not_asked))
    unexplained = {row.mnemonic for row in not_asked} - set(oracle_engine.skips()) - FAR
    assert not unexplained, f"rows that were never tried, without a reason in skip.def: {unexplained}"


# Rows that oracle.c leaves out by their operands: far pointers and segment registers.
FAR = {"jmp", "call", "mov", "push", "pop"}


def test_undefined_flags_are_in_the_table() -> None:
    """Each small letter of the column flags of insn.def has its row in flags_undefined.def, and the other way round."""
    oracle_engine.build()
    bare = oracle_engine.Bare("intel")
    wanted: dict[str, set[str]] = defaultdict(set)
    for row in range(bare.nr_rows):
        if small := {letter for letter in bare.flags(row) if letter.islower()}:
            wanted[bare.mnemonic(row)] |= small
    text = (ROOT / "kvmlab/engine/cpu/flags_undefined.def").read_text()
    said = {name: set(flags) for name, flags in re.findall(r'^UNDEFINED\("(\w+)",\s*"(\w+)"', text, re.M)}
    assert said == wanted
    profiles = (ROOT / "kvmlab/engine/cpu/profile.def").read_text()
    for behaviour in re.findall(r'^UNDEFINED\("\w+",\s*"\w+",\s*(\w+)', text, re.M):
        assert behaviour == "NONE" or f"BEHAVIOUR({behaviour}," in profiles
