"""Binder's steps, as it takes them: an ordinary user, an empty environment, 2 GB, no /dev/kvm needed; then lab 0."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from running import ROOT, run

BINDER = ROOT / "binder"
USER = 1000
MEMORY_KIB = 2 << 20


def test_one_folder_with_three_files() -> None:
    assert not (ROOT / ".binder").exists()
    assert {path.name for path in BINDER.iterdir()} == {"environment.yml", "apt.txt", "postBuild"}
    assert os.access(BINDER / "postBuild", os.X_OK)
    assert "\nset -euo pipefail\n" in (BINDER / "postBuild").read_text()


def test_python_is_pinned_to_one_that_kvmlab_takes() -> None:
    pinned = re.search(r"- python=3\.(\d+)$", (BINDER / "environment.yml").read_text(), re.M)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert pinned and int(pinned[1]) >= int(project["requires-python"].removeprefix(">=3."))


def ordinary_user() -> list[str]:
    """What to put before a command so that an ordinary user runs it, in 2 GB."""
    limited = ["sh", "-c", f'ulimit -v {MEMORY_KIB} && exec "$@"', "sh"]
    if os.getuid() != 0:
        return limited
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs", *limited]


def python_for(user: list[str]) -> str:
    """A Python that this user can run: root's own may lie where nobody else may look."""
    for candidate in (getattr(sys, "_base_executable", sys.executable), "/usr/bin/python3", shutil.which("python3")):
        if (
            candidate
            and not subprocess.run(
                [*user, candidate, "-c", "import ensurepip, sys; assert sys.version_info >= (3, 11)"],
                stderr=subprocess.DEVNULL,
                cwd="/",
                check=False,
            ).returncode
        ):
            return str(candidate)
    pytest.fail("no Python 3.11 here that an ordinary user can run: apt-get install python3-venv")


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that an ordinary user can reach, which pytest's own temporary ones are not."""
    with tempfile.TemporaryDirectory(prefix="kvmlab-binder-") as name:
        yield Path(name)


def test_postbuild_and_lab_0(home: Path) -> None:
    user = ordinary_user()
    clone = home / "clone"
    run("git", "clone", "--quiet", ROOT, clone)
    if os.getuid() == 0:
        run("chown", "-R", f"{USER}:{USER}", home)

    environment = {
        **{name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "LANG", "TMPDIR"))},
        "HOME": str(home),
        "PATH": f"{home / 'environment' / 'bin'}:/usr/local/bin:/usr/bin:/bin",
    }

    def step(*command: str | Path, cwd: Path = clone) -> str:
        done = subprocess.run(
            [*user, *map(str, command)],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}"
        return done.stdout

    step(python_for(user), "-m", "venv", home / "environment")
    step("binder/postBuild")
    assert "soft engine" in step("kvmlab", "doctor", cwd=home)
    for lab in sorted((clone / "labs").glob("00_*.ipynb")):
        step("jupyter", "nbconvert", "--to", "notebook", "--execute", "--output-dir", home, lab, cwd=home)
