"""Print the files that belong into the package, one a line, relative to the source tree. meson.build asks.

Python, package data and the tables that Python reads; no C, no caches, no extension that ``make inplace`` left behind.
With ``--labs``: the release notebooks, which meson.build installs as ``kvmlab/labs/``.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {".py", ".pyi", ".typed", ".js", ".mjs", ".css", ".json", ".svg", ".html", ".def", ".ld"}
# Headers of guests (kvmguest.h) are data; headers of the engine are not.
GUEST_HEADERS = "kvmlab/guest"


def package_files() -> list[str]:
    found = []
    for path in sorted((ROOT / "kvmlab").rglob("*")):
        name = path.relative_to(ROOT).as_posix()
        if "__pycache__" in path.parts or "node_modules" in path.parts or not path.is_file():
            continue
        guest_header = path.suffix == ".h" and name.startswith(GUEST_HEADERS)
        if path.suffix in SUFFIXES or path.name == "py.typed" or guest_header:
            found.append(name)
    return found


def labs() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "labs").glob("[0-9][0-9]_*.ipynb"))


if __name__ == "__main__":
    names = labs() if "--labs" in sys.argv[1:] else package_files()
    print("\n".join(names))
