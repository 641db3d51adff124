"""Dependencies point down only: what the sources of the engine may include, and what Python may import."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ENGINE = Path(__file__).resolve().parent.parent / "kvmlab" / "engine"
INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


def _sources(folder: str) -> list[Path]:
    return sorted([*(ENGINE / folder).glob("*.c"), *(ENGINE / folder).glob("*.h")])


def _included(path: Path) -> set[str]:
    return set(INCLUDE.findall(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", _sources("hv"), ids=lambda path: path.name)
def test_the_hypervisor_sees_one_header_of_the_processor(path: Path) -> None:
    """The named exception is emulate.c, which is a second processor on guest-physical memory."""
    of_the_processor = {name for name in _included(path) if name.startswith("../cpu/")}
    allowed = {"../cpu/access.h", "../cpu/flags.h"} if path.name == "emulate.c" else {"../cpu/silicon.h"}
    assert of_the_processor <= allowed


@pytest.mark.parametrize("path", _sources("cpu"), ids=lambda path: path.name)
def test_the_processor_knows_no_hypervisor_and_no_engine(path: Path) -> None:
    for name in _included(path):
        assert "hv/" not in name
        assert name not in ("../engine.h", "../kvmlab.h", "../soft.h")


def test_no_file_name_stands_on_both_sides() -> None:
    assert not {path.name for path in _sources("hv")} & {path.name for path in _sources("cpu")}


@pytest.mark.parametrize("path", _sources("hv") + _sources("cpu"), ids=lambda path: path.name)
def test_the_core_is_freestanding(path: Path) -> None:
    system = set(re.findall(r"^#include <([^>]+)>", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert system <= {"stdbool.h", "stddef.h", "stdint.h", "stdlib.h", "string.h"}
