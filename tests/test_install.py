"""Labs are copied and never overwritten; the kernel starts with the extension loaded."""

import json
import sys
from pathlib import Path

import pytest

from kvmlab import install
from kvmlab.errors import BadArgument


@pytest.fixture
def two_labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("02_two.ipynb", "00_first.ipynb"):
        (source / name).write_text(f"notebook {name}")
    monkeypatch.setattr(install, "labs", lambda: iter(sorted(source.iterdir())))
    return ["00_first.ipynb", "02_two.ipynb"]


def test_copies_into_a_new_folder(two_labs: list[str], tmp_path: Path) -> None:
    assert install.copy_labs(tmp_path / "deep" / "work") == (two_labs, [])
    assert (tmp_path / "deep" / "work" / "02_two.ipynb").read_text() == "notebook 02_two.ipynb"


def test_never_overwrites(two_labs: list[str], tmp_path: Path) -> None:
    work = tmp_path / "work"
    install.copy_labs(work)
    (work / "00_first.ipynb").write_text("an evening's work")
    (work / "02_two.ipynb").unlink()
    assert install.copy_labs(work) == (["02_two.ipynb"], ["00_first.ipynb"])
    assert (work / "00_first.ipynb").read_text() == "an evening's work"


def test_a_file_is_no_folder(two_labs: list[str], tmp_path: Path) -> None:
    (tmp_path / "work").write_text("")
    with pytest.raises(BadArgument, match="is a file"):
        install.copy_labs(tmp_path / "work")


def test_kernel_is_this_python_with_the_extension(tmp_path: Path) -> None:
    folder = install.install_kernel(prefix=tmp_path)
    assert folder == tmp_path / "share" / "jupyter" / "kernels" / "kvmlab"
    said = json.loads((folder / "kernel.json").read_text())
    assert said["argv"][0] == sys.executable
    assert said["argv"][-1] == "--ext=kvmlab"
    assert (folder / "logo-svg.svg").exists()
