"""What the README says is so: its example runs, the files and commands it names exist."""

import re
import sys

from running import ROOT, run

README = (ROOT / "README.md").read_text("utf-8")
ENGINE = ROOT / "kvmlab" / "engine"


def test_the_example_runs() -> None:
    example = re.search(r"^```python\n(.*?)^```", README, re.S | re.M)
    assert example and 8 <= len(example[1].splitlines()) <= 20
    output = run(sys.executable, "-c", example[1])
    assert "0x3f8" in output and "rax" in output


def test_the_files_of_the_map_exist() -> None:
    chapter = README.split("## The map of the house")[1].split("\n## ")[0]
    named = set(re.findall(r"\b((?:kvmlab|cpu|hv|tests|tools|docs)/[\w./]*\w)", chapter)) | {"meson.build"}
    assert len(named) > 15
    # What ends in * (op_*.c) stands for the files that begin so.
    missing = [name for name in named if not any(list(place.glob(f"{name}*")) for place in (ROOT, ENGINE))]
    assert not missing


def test_the_words_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.M))
    named = set(re.findall(r"`make ([a-z]+)", README)) | set(re.findall(r"^    make ([a-z]+)", README, re.M))
    assert {"lab", "test"} <= named
    assert named <= targets, named - targets


def test_ci_runs_the_readmes_test_command() -> None:
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("exec make test")
