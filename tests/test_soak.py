"""The long tests: a slice of each, with a fresh seed; and the report says plainly what was not reached."""

import sys
from pathlib import Path

import pytest

import soak
from running import ROOT, run

SLICE_S = 15.0


@pytest.mark.parametrize("program", soak.PROGRAMS, ids=lambda program: program.name)
def test_a_slice_of_each_program(program: soak.Program, seed: int) -> None:
    run("tools/fuzz.sh", env={"PYTHON": sys.executable, "RUNS": "1"})  # builds them
    row = soak.run_program(program, seed, SLICE_S)
    assert not row.failure, f"seed {seed}: {row.failure}"
    assert row.reached > 0
    print(f"{program.name}: {row.reached:,} of {row.wanted:,}, seed {seed}")


def script(tmp_path: Path, text: str) -> soak.Program:
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)
    return soak.Program("x", str(path), 100)


def test_reached_not_reached_and_failed_are_told_apart(tmp_path: Path) -> None:
    done = soak.run_program(script(tmp_path, "echo 100 of $1 runs"), 1, 10)
    slow = soak.run_program(script(tmp_path, "while echo 5 of $1 runs; do sleep 0.02; done"), 1, 0.1)
    bad = soak.run_program(script(tmp_path, "echo 7 of $1 runs; echo wrong at seed $2; exit 1"), 9, 10)
    assert [row.verdict for row in (done, slow, bad)] == ["reached", "NOT REACHED", "FAILED"]
    assert (done.reached, slow.reached, bad.reached) == (100, 5, 7)
    text = soak.report([done, slow, bad], 9, "abc")
    assert "wrong at seed 9" in text and "NOT REACHED" in text and "Commit abc, seed 9" in text


def test_python_tests_report_their_counts(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(
        "def test_good(cases): assert cases(5, 50)\n"
        "def test_bad(cases): assert cases(5, 60) == 0\n"
        "def test_short(): pass\n"
    )
    junit = tmp_path / "out.xml"
    command = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]) != 1)"
    run(
        sys.executable,
        "-c",
        command,
        "-q",
        "-m",
        "cases",
        f"--junitxml={junit}",
        cwd=tmp_path,
        env={"KVMLAB_SOAK": "1"},
    )
    rows = {row.name.split(".")[-1]: row for row in soak.python_rows(junit)}
    assert {name: (row.wanted, row.reached, row.verdict) for name, row in rows.items()} == {
        "test_good": (50, 50, "reached"),
        "test_bad": (60, 0, "FAILED"),
    }
