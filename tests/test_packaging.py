"""What is in the wheel and the sdist, and that a wheel alone is a working kvmlab."""

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from package_files import GUESTS, labs, package_files
from running import ROOT, run

WHEEL_LIMIT_BYTES = 2 << 20


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist of what is committed, and the wheel that builds from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, env=clean_environment())
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def clean_environment() -> dict[str, str]:
    bin_first = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {"PATH": bin_first, "PYTHONPATH": ""}


def committed() -> set[str]:
    return set(subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines())


def test_wheel_is_abi3_and_small(wheel: Path) -> None:
    assert "-cp311-abi3-" in wheel.name
    assert wheel.stat().st_size < WHEEL_LIMIT_BYTES


def test_wheel_has_every_file_of_the_package(names: set[str]) -> None:
    expected = {name for name in package_files() if name in committed()}
    assert expected <= names, expected - names
    assert "kvmlab/py.typed" in names
    assert "kvmlab/engine/_engine.abi3.so" in names


def test_wheel_has_the_joined_widgets_and_all_their_modules(names: set[str]) -> None:
    assert {"kvmlab/widgets/static/kvmlab.js", "kvmlab/widgets/static/kvmlab.css"} <= names
    modules = {name for name in committed() if name.startswith("kvmlab/widgets/js/")}
    assert modules and modules <= names


def test_wheel_has_every_lab(names: set[str]) -> None:
    expected = {f"kvmlab/{name}" for name in labs() if name in committed()}
    assert expected <= names, expected - names


def test_wheel_enables_the_server_extension(wheel: Path, names: set[str]) -> None:
    place = next(name for name in names if name.endswith("etc/jupyter/jupyter_server_config.d/kvmlab.json"))
    assert place.split("/")[1] == "data"
    said = json.loads(zipfile.ZipFile(wheel).read(place))
    assert said == {"ServerApp": {"jpserver_extensions": {"kvmlab.server": True}}}


def test_wheel_has_nothing_else(names: set[str]) -> None:
    stray = {
        name
        for name in names
        if not name.startswith(("kvmlab/", "kvmlab-"))
        or "__pycache__" in name
        or (name.endswith((".c", ".h")) and not name.startswith(GUESTS))
    }
    assert not stray


def test_sdist_has_what_git_has(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert committed() <= packed


def test_wheel_alone_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """Installed with the dependencies it names and no more, away from the sources: command, import, Jupyter's file."""
    home = tmp_path / "environment"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    alone = {"PYTHONPATH": "", "PATH": f"{home / 'bin'}:/usr/bin:/bin"}
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=tmp_path, env=alone)
    assert run("kvmlab", "--version", cwd=tmp_path, env=alone).startswith("kvmlab ")
    where = run(python, "-c", "import kvmlab.engine; print(kvmlab.engine.__file__)", cwd=tmp_path, env=alone)
    assert where.startswith(str(home))
    assert (home / "etc" / "jupyter" / "jupyter_server_config.d" / "kvmlab.json").exists()
    for name in labs():
        assert name.removeprefix("labs/") in run("kvmlab", "labs", tmp_path / "work", cwd=tmp_path, env=alone)
    # Reasons are named where an extra is missing, and nothing falls over.
    assert "pip install 'kvmlab[lab]'" in run("kvmlab", "doctor", cwd=tmp_path, env=alone)
