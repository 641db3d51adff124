"""The core is freestanding, keeps no state of its own, and compiles for a machine that is not this one."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core_sources import core_sources
from running import ROOT, run

ENGINE = ROOT / "kvmlab" / "engine"
# At -O1 gcc sees some values as uninitialised that it follows at -O2, which the build uses.
WARNINGS = ["-Wall", "-Wextra", "-Wno-maybe-uninitialized", "-Werror"]
FLAGS = ["-std=c11", "-O1", "-ffp-contract=off", *WARNINGS, '-DKVMLAB_VERSION="test"', f"-I{ENGINE}"]
HEADERS = {"stdbool.h", "stddef.h", "stdint.h", "stdlib.h", "string.h", "limits.h", "stdalign.h", "stdarg.h"}
# Written by engine_init() alone, once, while Python holds the import lock: the opcode maps, made from insn.def.
BUILT_ONCE = {"kvmlab/engine/cpu/insn.c"}
# What the core finds instead of a host's /dev/kvm where there is none.
PORT = ["kvmlab/engine/port/devkvm_absent.c"]
LIBC = {"malloc", "calloc", "realloc", "free", "memcpy", "memmove", "memset", "memcmp"}


def core_texts() -> dict[str, str]:
    files = [*ENGINE.glob("cpu/*"), *ENGINE.glob("hv/*"), *(ROOT / name for name in core_sources())]
    return {str(p.relative_to(ENGINE)): p.read_text() for p in files if p.suffix in {".c", ".h", ".def"}}


def compiler_for_aarch64() -> list[str]:
    if shutil.which("aarch64-linux-gnu-gcc"):
        return ["aarch64-linux-gnu-gcc"]
    for clang in ("clang-19", "clang"):
        if shutil.which(clang):
            shims = ENGINE / "port" / "include"
            return [clang, "--target=aarch64-linux-gnu", "-ffreestanding", f"-I{shims}"]
    try:
        import ziglang  # noqa: F401
    except ImportError:
        pytest.fail("no compiler for aarch64 here: make test installs one")
    return [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu"]


@pytest.mark.parametrize("source", [*core_sources(), *PORT])
def test_compiles_for_aarch64(source: str, tmp_path: Path) -> None:
    run(*compiler_for_aarch64(), *FLAGS, "-c", source, "-o", tmp_path / "core.o")


def test_includes_only_freestanding_headers() -> None:
    for name, text in core_texts().items():
        included = set(re.findall(r"^\s*#\s*include\s*<([^>]+)>", text, re.M))
        assert included <= HEADERS, f"{name} includes {included - HEADERS}"


def test_cpu_knows_nothing_of_hv() -> None:
    for name, text in core_texts().items():
        included = re.findall(r'^\s*#\s*include\s*"([^"]+)"', text, re.M)
        if name.startswith("cpu/"):
            assert not [header for header in included if "hv" in Path(header).parts], name
        if name.startswith("hv/"):
            of_cpu = {Path(header).name for header in included if (ENGINE / "cpu" / Path(header).name).exists()}
            headers = {header for header in of_cpu if header.endswith(".h")}
            # emulate.c is a second processor on the guest-physical view, the one named exception.
            assert headers <= {"silicon.h"} or name == "hv/emulate.c", f"{name} includes {headers}"


def test_has_no_global_state_and_needs_eight_functions_of_libc(tmp_path: Path) -> None:
    """Objects of the core define no writable data, and what they leave undefined is each other's or libc's eight."""
    defined, undefined, writable = set(), set(), []
    for source in [*core_sources(), *PORT]:
        target = tmp_path / (source.replace("/", ".") + ".o")
        run("cc", *FLAGS, "-fno-pic", "-fno-stack-protector", "-U_FORTIFY_SOURCE", "-c", source, "-o", target)
        for line in subprocess.check_output(["nm", target], text=True).splitlines():
            kind, name = line.split()[-2:]
            (undefined if kind == "U" else defined).add(name)
            if kind in "bBdDcC" and source not in BUILT_ONCE:
                writable.append(f"{source}: {name}")
    assert not writable
    assert undefined - defined <= LIBC
