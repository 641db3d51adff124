"""The public names: loaded when asked for, known to type checkers, and nothing heavy comes with the package itself."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import kvmlab


def test_type_checkers_see_the_names_that_are_loaded() -> None:
    text = Path(kvmlab.__file__).read_text("utf-8")
    block = re.search(r"^if TYPE_CHECKING:\n((?:    .*\n)+)", text, re.M)
    assert block
    declared = re.findall(r"import (\w+) as (\w+)", block[1])
    assert {name for name, _ in declared} == {name for _, name in declared} == set(kvmlab.__all__)


@pytest.mark.parametrize("name", kvmlab.__all__)
def test_every_name_loads(name: str) -> None:
    assert getattr(kvmlab, name) is not None
    assert name in dir(kvmlab)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Vm'"):
        _ = kvmlab.Vm  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import kvmlab", {"kvmlab.engine", "numpy", "IPython", "ipywidgets", "matplotlib"}),
        ("import kvmlab; kvmlab.VM", {"numpy", "IPython", "ipywidgets", "anywidget", "matplotlib", "jupyter_server"}),
    ],
)
def test_what_is_not_needed_is_not_loaded(statement: str, unwanted: set[str]) -> None:
    code = f"import sys; {statement}; print(sorted({unwanted!r} & {{*sys.modules}}))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
