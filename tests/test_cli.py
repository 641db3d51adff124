"""The command line as a shell sees it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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


HELLO = """
_start:
    mov si, offset text
    mov dx, 0x3f8
next:
    lodsb
    test al, al
    jz done
    out dx, al
    jmp next
done:
    in al, 0x60
    hlt
text: .asciz "Hello\\n"
"""


@pytest.fixture
def guest(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str | bytes, name: str = "guest.S") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_run_prints_what_the_guest_prints(guest: Callable[..., Path]) -> None:
    done = cli("run", guest(HELLO), "--bare")
    assert (done.returncode, done.stdout) == (0, "Hello\n"), done.stderr
    assert "HLT" in done.stderr and "rax    00000000000000ff" in done.stderr
    assert "port 0x60: asked 1 times" in done.stderr


def test_run_takes_c(guest: Callable[..., Path]) -> None:
    text = '#include <kvmguest.h>\nint main(void) { puts("from C"); return 42; }\n'
    done = cli("run", guest(text, "guest.c"), "--bare")
    assert (done.returncode, done.stdout) == (0, "from C\n"), done.stderr
    assert "rax    000000000000002a" in done.stderr


def test_run_takes_a_flat_image(guest: Callable[..., Path]) -> None:
    flat = guest(bytes([0xB0, 0x41, 0xE6, 0xE9, 0xF4]), "guest.bin")  # mov al, 'A'; out 0xe9, al; hlt
    assert cli("run", flat, "--bare").stdout == "A"
    assert cli("run", flat, "--bare", "--org", "0x8000").stdout == "A"


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("start: jmp start", ["--max-instructions", "1000"], "1,000"),
        ("ud2", ["--bits", "32"], "Triple fault"),
    ],
)
def test_run_that_does_not_end_well(text: str, options: list[str], said: str, guest: Callable[..., Path]) -> None:
    done = cli("run", guest(text), "--bare", *options)
    assert done.returncode == 1 and said in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "/nowhere/guest.S"], "cannot be read"),
        (["run", "GUEST", "--bare", "--cpu", "z80"], "z80"),
        (["run", "GUEST", "--org", "here"], "no number"),
        (["run", "GUEST", "--memory", "lots"], "lots"),
        (["run", "GUEST", "--engine", "hard"], "hard"),
        (["run", "GUEST", "--bare", "--engine", "kvm"], "no hypervisor"),
        (["labs"], "Missing argument"),
    ],
)
def test_mistakes_are_named(words: list[str], said: str, guest: Callable[..., Path]) -> None:
    done = cli(*(guest("hlt") if word == "GUEST" else word for word in words))
    assert done.returncode in (1, 2) and said in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_ctrl_c_stops_an_endless_guest_and_says_where(guest: Callable[..., Path]) -> None:
    path = guest("mov al, '!'\nout 0xe9, al\nforever: jmp forever")
    running = subprocess.Popen(
        [*KVMLAB, "run", str(path), "--bare"], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert running.stdout and running.stdout.read(1) == "!"
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 130
    # Either in the loop, or still at the OUT whose character was seen.
    assert re.search(r"^stopped at 0x0:0x100(4 \(forever\)|2), after [\d,]+ instructions$", said, re.M), said
    assert "Traceback" not in said
