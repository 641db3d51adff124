"""The oracle's programs, built from the sources on this host, and the bare processor from Python.

``build()`` makes two things in ``build-oracle/``: the program ``oracle`` (the host's CPU against the engine) and
``liboracle.so`` (the engine's half alone), which ``Bare`` wraps.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from pathlib import Path

import pytest

from running import ROOT, run

ENGINE = ROOT / "kvmlab" / "engine"
SOURCES = ROOT / "tests" / "oracle"
BUILD = ROOT / "build-oracle"
FLAGS = ["-std=c11", "-Wall", "-Wextra", "-O2", "-fPIC", f"-I{ENGINE}"]
NO_FAULT = 255


class Bits(IntEnum):
    """enum bitness of oracle.h."""

    BITS_64 = 0
    BITS_32 = 1
    BITS_16 = 2
    REAL = 3
    FLAT32 = 4


class State(ctypes.Structure):
    """struct oracle_state: registers in the encoding's order."""

    _fields_ = [("r", ctypes.c_uint64 * 16), ("rip", ctypes.c_uint64), ("rflags", ctypes.c_uint64)]


class Case(ctypes.Structure):
    """struct oracle_case."""

    _fields_ = [
        ("bits", ctypes.c_uint32),
        ("row", ctypes.c_uint32),
        ("len", ctypes.c_uint32),
        ("step", ctypes.c_uint32),
        ("bytes", ctypes.c_uint8 * 16),
        ("before", State),
    ]


class Result(ctypes.Structure):
    """struct oracle_result."""

    _fields_ = [
        ("after", State),
        ("vector", ctypes.c_uint32),
        ("error", ctypes.c_uint32),
        ("address", ctypes.c_uint64),
        ("selector", ctypes.c_uint16 * 6),
    ]


def _compile(source: Path) -> Path:
    target = BUILD / f"{source.stem}.o"
    newest = max(path.stat().st_mtime for path in [source, *ENGINE.glob("**/*.h"), *ENGINE.glob("**/*.def"),
                                                   *SOURCES.glob("*.h"), *SOURCES.glob("*.def")])
    if not target.exists() or target.stat().st_mtime < newest:
        done = subprocess.run(["cc", *FLAGS, "-fno-stack-protector", "-c", str(source), "-o", str(target)],
                              capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(done.stderr, pytrace=False)
    return target


def build() -> None:
    """Compile what is newer than its object file, and link both."""
    BUILD.mkdir(exist_ok=True)
    core = [*sorted((ENGINE / "cpu").glob("*.c")), ENGINE / "space.c", ENGINE / "trace.c"]
    ours = [SOURCES / "bare.c", SOURCES / "generate.c"]
    program = [SOURCES / "oracle.c", SOURCES / "native.c"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(_compile, core + ours))
        mains = list(pool.map(_compile, program))
    run("cc", *mains, *objects, "-o", BUILD / "oracle")
    run("cc", "-shared", *objects, "-o", BUILD / "liboracle.so")


def skips() -> dict[str, str]:
    """skip.def: mnemonics that the host's CPU is not asked about, and why."""
    return dict(re.findall(r'^SKIP\("(\w+)",\s*"(.*)"\)', (SOURCES / "skip.def").read_text(), re.M))


class Bare:
    """The engine's processor alone, one instruction at a time. One at a time per process."""

    data_size = 0x2000

    def __init__(self, profile: str) -> None:
        self._lib = ctypes.CDLL(str(BUILD / "liboracle.so"))
        for name in ("bare_mnemonic", "bare_encoding", "bare_flags"):
            getattr(self._lib, name).restype = ctypes.c_char_p
        self._lib.bare_data.restype = ctypes.POINTER(ctypes.c_uint8)
        self._lib.random64.restype = ctypes.c_uint64
        assert self._lib.bare_init(profile.encode())
        self._data = ctypes.cast(self._lib.bare_data(), ctypes.POINTER(ctypes.c_uint8 * self.data_size)).contents
        self.nr_rows: int = self._lib.bare_nr_rows()

    def seed(self, seed: int) -> None:
        self._lib.random_seed(ctypes.c_uint64(seed))

    def random(self, below: int) -> int:
        return int(self._lib.random64() % below)

    def generate(self, row: int, bits: Bits) -> Case | None:
        case = Case()
        return case if self._lib.generate(ctypes.byref(case), row, int(bits)) & 255 else None

    def run(self, case: Case) -> Result:
        result = Result()
        self._lib.bare_run(ctypes.byref(case), ctypes.byref(result))
        return result

    def length(self, bits: Bits, code: bytes) -> int:
        """Bytes of the instruction; 0 if there is none, -1 if more bytes are wanted, -2 over 15."""
        return int(self._lib.bare_length(int(bits), code, len(code)))

    def row_of(self, bits: Bits, code: bytes) -> int:
        return int(self._lib.bare_row(int(bits), code, len(code)))

    def mnemonic(self, row: int) -> str:
        return str(self._lib.bare_mnemonic(row).decode())

    def encoding(self, row: int) -> str:
        return str(self._lib.bare_encoding(row).decode())

    def flags(self, row: int) -> str:
        return str(self._lib.bare_flags(row).decode())

    @property
    def data(self) -> bytes:
        return bytes(self._data)

    @data.setter
    def data(self, value: bytes) -> None:
        ctypes.memmove(self._data, value, self.data_size)
