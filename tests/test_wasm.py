"""The portable core as engine.wasm, built by tools/wasm.sh and run in node: see test_wasm.mjs."""

import re
import sys
from pathlib import Path

import pytest

from running import ROOT, node, run


@pytest.fixture(scope="module")
def engine_wasm() -> Path:
    run("tools/wasm.sh", env={"PYTHON": sys.executable})
    return ROOT / "build-wasm" / "engine.wasm"


def test_engine_runs_in_node(engine_wasm: Path) -> None:
    output = run(node(), ROOT / "tests" / "test_wasm.mjs", engine_wasm)
    source = (ROOT / "tests" / "test_wasm.mjs").read_text()
    cases = re.findall(r'^  "(.+)": async', source, re.M)
    assert output.splitlines() == [f"ok {name}" for name in cases]
