"""Releases of labs: made from the sources and equal to them, with no solution left, the same bytes each time."""

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

import labs

SOLUTION = '"grade": false, "solution": true, "locked": false, "schema_version": 3, "task": false'
CHECK = '"grade": true, "solution": false, "locked": true, "points": 2, "schema_version": 3, "task": false'
LAB = f'''# %% [markdown]
# # A lab
# A page of story.

# %%
import kvmlab

# %% nbgrader={{"grade_id": "double", {SOLUTION}}}
def double(x):
    """Twice x."""
    ### BEGIN SOLUTION
    return x + x
    ### END SOLUTION

# %% nbgrader={{"grade_id": "check_double", {CHECK}}}
assert double(2) == 4
### BEGIN HIDDEN TESTS
assert double(21) == 42
### END HIDDEN TESTS
'''


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "07_sample.py"
    path.write_text(LAB)
    return path


def cell(notebook: Any, name: str) -> Any:
    return next(c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == name)


def test_the_solution_has_everything(source: Path) -> None:
    notebook = labs.solution(source)
    assert "return x + x" in cell(notebook, "double").source
    assert "42" in cell(notebook, "check_double").source
    nbformat.validate(notebook)


def test_the_release_has_no_solution_and_no_hidden_test(source: Path) -> None:
    notebook = labs.release(source)
    assert [c.cell_type for c in notebook.cells] == ["markdown", "code", "code", "code"]
    assert "raise NotImplementedError()" in cell(notebook, "double").source
    assert '"""Twice x."""' in cell(notebook, "double").source
    text = labs.text_of(notebook)
    assert "x + x" not in text and "42" not in cell(notebook, "check_double").source and "SOLUTION" not in text
    graded = cell(notebook, "check_double").metadata
    assert graded["editable"] is False and graded["nbgrader"]["points"] == 2 and graded["nbgrader"]["checksum"]


def test_a_release_is_the_same_bytes_each_time(source: Path) -> None:
    assert labs.text_of(labs.release(source)) == labs.text_of(labs.release(source))


def test_cells_keep_their_ids_when_their_text_changes(source: Path) -> None:
    before = [c.id for c in labs.release(source).cells]
    source.write_text(LAB.replace("A page", "Two pages").replace("x + x", "2 * x"))
    assert [c.id for c in labs.release(source).cells] == before


def test_a_release_that_differs_is_named(source: Path) -> None:
    folder = source.parent
    release = source.with_suffix(".ipynb")
    assert labs.differing(folder) == [release]
    release.write_text(labs.text_of(labs.release(source)))
    assert labs.differing(folder) == []
    saved = json.loads(release.read_text())
    saved["cells"][1]["execution_count"] = 5
    release.write_text(json.dumps(saved))
    (folder / "08_orphan.ipynb").write_text("{}")
    assert labs.differing(folder) == [release, folder / "08_orphan.ipynb"]


def test_the_committed_releases_are_what_their_sources_make() -> None:
    assert labs.differing() == []
