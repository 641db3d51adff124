"""The command line as a shell sees it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from running import run

KVMLAB = [sys.executable, "-m", "kvmlab.cli"]


def cli(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KVMLAB, *map(str, words)], text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False
    )


def test_version() -> None:
    assert run(*KVMLAB, "--version").startswith("kvmlab 0.")


def test_without_a_command_it_helps() -> None:
    output = cli()
    assert "doctor" in output.stdout + output.stderr


def test_doctor_prints_what_the_host_can_do() -> None:
    assert "engine" in cli("doctor").stdout


def test_an_error_is_words_not_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("")
    done = cli("labs", tmp_path / "work")
    assert done.returncode == 1
    assert done.stderr.startswith("kvmlab: ") and "is a file" in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_stops_early_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run([*KVMLAB, "doctor"], stdout=closed, stderr=subprocess.PIPE, timeout=60, check=False)
    assert b"Traceback" not in done.stderr


def test_help_loads_no_engine() -> None:
    code = "import sys; import kvmlab.cli; print({'kvmlab.engine', 'numpy', 'IPython'} & {*sys.modules})"
    assert run(sys.executable, "-c", code).strip() == "set()"


def test_static_says_how_many_views_it_replaced(tmp_path: Path) -> None:
    output = {
        "output_type": "display_data",
        "metadata": {},
        "data": {"application/vnd.jupyter.widget-view+json": {"model_id": "m"}, "text/html": "<table></table>"},
    }
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": "", "execution_count": 1, "outputs": [output]}
    saved = tmp_path / "saved.ipynb"
    saved.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}))
    done = cli("static", saved, "-o", tmp_path / "static.ipynb")
    assert done.returncode == 0 and "1 widget view" in done.stdout
    assert "widget-view" not in (tmp_path / "static.ipynb").read_text()
    assert "widget-view" in saved.read_text()
