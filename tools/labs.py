"""make labs: the release notebooks of all labs, made from their sources.

A lab's source is ``labs/NN_name.py`` in percent format, with nbgrader's cell metadata and with the solutions::

    # %% nbgrader={"grade_id": "walk", "grade": false, "solution": true, "locked": false, "schema_version": 3}
    def walk(memory, cr3, gva):
        ### BEGIN SOLUTION
        …
        ### END SOLUTION

The release ``labs/NN_name.ipynb`` is what nbgrader's own steps make of it: no solutions, no hidden tests, no outputs.
It is committed; equal sources give equal bytes.

    tools/labs.py                   write the releases that differ
    tools/labs.py --check           write nothing; say which differ
    tools/labs.py --solutions DIR   write the notebooks with solutions and hidden tests into DIR
"""

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearHiddenTests,
    ClearMarkScheme,
    ClearOutput,
    ClearSolutions,
    ComputeChecksums,
    LockCells,
)

ROOT = Path(__file__).resolve().parent.parent
LABS = ROOT / "labs"

# What nbgrader generate_assignment does, in its order, but for the gradebook.
RELEASE_STEPS = (
    LockCells,
    ClearSolutions,
    ClearOutput,
    CheckCellMetadata,
    ClearHiddenTests,
    ClearMarkScheme,
    ComputeChecksums,
    CheckCellMetadata,
)
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def sources(folder: Path = LABS) -> list[Path]:
    return sorted(folder.glob("[0-9][0-9]_*.py"))


def solution(source: Path) -> Any:
    """The notebook with everything in it, as the teacher has it."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        # A cell keeps its name while its text changes, so that two releases can be compared.
        name = cell.metadata.get("nbgrader", {}).get("grade_id") or f"{source.stem}-{number}"
        cell.id = hashlib.sha256(name.encode()).hexdigest()[:12]
    return notebook


def release(source: Path) -> Any:
    """What a student gets."""
    notebook = solution(source)
    resources = {"unique_key": source.stem}
    for step in RELEASE_STEPS:
        notebook, resources = step().preprocess(notebook, resources)
    return notebook


def text_of(notebook: Any) -> str:
    nbformat.validate(notebook)
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def write_if_different(path: Path, text: str) -> bool:
    if path.exists() and path.read_text("utf-8") == text:
        return False
    path.write_text(text, "utf-8")
    return True


def differing(folder: Path = LABS) -> list[Path]:
    """Releases that are not what their sources make, sources without release, and releases without source."""
    wanted = {source.with_suffix(".ipynb"): source for source in sources(folder)}
    found = [
        path
        for path, source in wanted.items()
        if not path.exists() or path.read_text("utf-8") != text_of(release(source))
    ]
    return found + [path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")) if path not in wanted]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--solutions", type=Path, metavar="DIR")
    given = parser.parse_args()
    if given.check:
        for path in differing():
            print(f"{path.relative_to(ROOT)} is not what its source makes: make labs")
        return int(bool(differing()))
    if given.solutions:
        given.solutions.mkdir(parents=True, exist_ok=True)
        for source in sources():
            write_if_different(given.solutions / f"{source.stem}.ipynb", text_of(solution(source)))
        return 0
    for source in sources():
        path = source.with_suffix(".ipynb")
        if write_if_different(path, text_of(release(source))):
            print(f"written: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
