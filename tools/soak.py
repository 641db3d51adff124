"""make soak: the long tests at their full counts, and a report of what was reached in docs/reports/.

Two kinds. Programs under the sanitizers, listed in PROGRAMS, which print "N of M …" as they go. And every Python test
that takes the fixture ``cases`` (tests/conftest.py): it gets its full count here and a short one in ``make test``.
A count that was not reached, because something failed or the time was up, is reported as not reached.

    tools/soak.sh [--minutes M] [--seed S] [--only WORD]
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "docs" / "reports"

SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


@dataclass(frozen=True)
class Program:
    """A long-running program of build-asan/: called with a count and a seed."""

    name: str
    path: str
    full: int


PROGRAMS = (
    Program("random code in every mode, under ASan and UBSan", "build-asan/tests/c/fuzz_random_code", 1_000_000),
)


@dataclass(frozen=True)
class Row:
    """What became of one long test."""

    name: str
    wanted: int
    reached: int
    seconds: float
    failure: str = ""

    @property
    def verdict(self) -> str:
        if self.failure:
            return "FAILED"
        return "reached" if self.reached >= self.wanted else "NOT REACHED"


def run_program(program: Program, seed: int, seconds: float) -> Row:
    """Run it to its count or until the time is up."""
    start = time.monotonic()
    process = subprocess.Popen(
        [ROOT / program.path, str(program.full), str(seed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **SANITIZERS},
        cwd=ROOT,
    )
    assert process.stdout
    reached, said, stopped = 0, [], False
    for line in process.stdout:
        said.append(line)
        if counted := re.match(r"(\d+) of \d+", line):
            reached = int(counted[1])
        if time.monotonic() - start > seconds:
            stopped = True
            process.terminate()
    code = process.wait()
    failure = "".join(said[-30:]) if code and not stopped else ""
    return Row(program.name, program.full, reached, time.monotonic() - start, failure)


def run_python(seed: int, seconds: float, only: str, junit: Path) -> list[Row]:
    """Run the tests that take ``cases``; each one's count is a property of its result."""
    environment = {**os.environ, "KVMLAB_SOAK": "1", "KVMLAB_SEED": str(seed)}
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-q",
        "-m",
        "cases",
        f"--junitxml={junit}",
        *(["-k", only] if only else []),
    ]
    try:
        subprocess.run(command, cwd=ROOT, env=environment, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return [Row("Python's long tests", 1, 0, seconds)]
    return python_rows(junit)


def python_rows(junit: Path) -> list[Row]:
    rows = []
    for case in ElementTree.parse(junit).iter("testcase"):
        properties = {entry.get("name"): entry.get("value") for entry in case.iter("property")}
        problem = case.find("failure") if case.find("failure") is not None else case.find("error")
        skipped = case.find("skipped")
        wanted = int(properties.get("cases_full") or 1)
        reached = 0 if problem is not None or skipped is not None else int(properties.get("cases") or 0)
        name = f"{case.get('classname')}.{case.get('name')}".removeprefix("tests.")
        failure = problem.get("message") or "failed" if problem is not None else ""
        rows.append(Row(name, wanted, reached, float(case.get("time") or 0), failure))
    return rows


def report(rows: list[Row], seed: int, commit: str) -> str:
    """The report, as Markdown."""
    width = max([len(row.name) for row in rows] + [4])
    lines = [
        f"# Long tests, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "",
        f"Commit {commit}, seed {seed}, {platform.machine()}, {os.cpu_count()} cores.",
        "",
        f"| {'test':{width}} | wanted | reached | seconds | |",
        f"|{'-' * (width + 2)}|---:|---:|---:|---|",
    ]
    lines += [f"| {r.name:{width}} | {r.wanted:,} | {r.reached:,} | {r.seconds:.0f} | {r.verdict} |" for r in rows]
    for row in rows:
        if row.failure:
            lines += ["", f"## {row.name}", "", "```", row.failure.strip(), "```"]
    return "\n".join(lines) + "\n"


def commit() -> str:
    name = subprocess.check_output(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, text=True).strip()
    dirty = subprocess.check_output(["git", "status", "--porcelain", "--untracked-files=no"], cwd=ROOT, text=True)
    return f"{name} with changes" if dirty else name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=120.0, help="for each program, and for all Python tests together"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", default="", help="what a test's name has to contain")
    given = parser.parse_args()
    seconds = given.minutes * 60

    scratch = REPORTS / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    name = f"soak-{datetime.now(UTC):%Y-%m-%d-%H%M}-{commit().split()[0]}.md"
    rows = [run_program(p, given.seed, seconds) for p in PROGRAMS if given.only in p.name]
    rows += run_python(given.seed, seconds, given.only, scratch / "soak.xml")
    (REPORTS / name).write_text(report(rows, given.seed, commit()), encoding="utf-8")
    print((REPORTS / name).read_text(encoding="utf-8"))
    print(f"written to docs/reports/{name}")
    return int(any(row.verdict != "reached" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
