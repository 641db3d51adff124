"""Which files belong into the package; meson.build and tools/environment.sh ask. Names are relative to the source tree.

(nothing)       Python, package data and the tables that Python reads: no C, no caches, no extension of ``make inplace``
--labs          the release notebooks, which meson.build installs as ``kvmlab/labs/``
--fingerprint   one hash over everything a wheel is made from, to know whether the installed one is this tree's
"""

import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = {"py.typed", ".py", ".pyi", ".js", ".mjs", ".css", ".json", ".svg", ".html", ".def", ".ld"}
C = {".c", ".h"}
# What guests are made from is data; the engine's own C is not.
GUESTS = ("kvmlab/include/", "kvmlab/bench_guests/")
GUEST_DATA = C | {".S", ".inc"}
NOT_OURS = {"__pycache__", "node_modules", ".mypy_cache", ".ruff_cache"}


def sources(suffixes: set[str]) -> list[str]:
    return sorted(
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "kvmlab").rglob("*")
        if path.is_file() and NOT_OURS.isdisjoint(path.parts) and (path.suffix in suffixes or path.name in suffixes)
    )


def package_files() -> list[str]:
    return sorted({*sources(DATA), *(name for name in sources(GUEST_DATA) if name.startswith(GUESTS))})


def labs() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "labs").glob("[0-9][0-9]_*.ipynb"))


def fingerprint() -> str:
    names = {*package_files(), *labs(), *sources(C | {"meson.build"})}
    names |= {"meson.build", "meson.options", "pyproject.toml", "README.md", "LICENSE"}
    names |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "etc").rglob("*") if path.is_file()}
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(name.encode() + b"\0" + hashlib.sha256((ROOT / name).read_bytes()).digest())
    return digest.hexdigest()


if __name__ == "__main__":
    if "--fingerprint" in sys.argv[1:]:
        print(fingerprint())
    else:
        print("\n".join(labs() if "--labs" in sys.argv[1:] else package_files()))
