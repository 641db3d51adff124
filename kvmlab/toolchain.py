"""Find an assembler, a linker and a C compiler, and run them.

Order of preference: binutils and gcc where they make x86 code; LLVM (clang, ld.lld); the ``ziglang`` wheel, which is
LLVM too and comes with pip. ``KVMLAB_TOOLS`` names one ("gnu", "llvm", "zig") and so does the argument ``tools=``.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import BadArgument, ToolUnavailable

__all__ = ["FAMILIES", "Tools", "find", "run"]

FAMILIES = ("gnu", "llvm", "zig")
TIMEOUT_S = 60

_INSTALL = (
    "Install one: `apt-get install binutils gcc` (Debian, Ubuntu), `brew install llvm lld` (macOS), or on any "
    "system without rights `pip install kvmlab[guest]`, which brings ziglang (a download of about 100 MB)."
)


@dataclass(frozen=True)
class Tools:
    """One family's commands. An empty tuple: it has no such tool here."""

    family: str
    assembler: tuple[str, ...] = ()
    linker: tuple[str, ...] = ()
    compiler: tuple[str, ...] = ()

    @property
    def llvm(self) -> bool:
        """True where LLVM reads the assembler text."""
        return self.family != "gnu"

    def __str__(self) -> str:
        if self.family == "zig":
            return "zig (the ziglang wheel)"
        named = [Path(t[0]).name for t in (self.assembler, self.linker, self.compiler) if t]
        return f"{self.family} ({', '.join(dict.fromkeys(named))})"


def run(command: Sequence[str], cwd: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a tool with the C locale, no stdin, a time limit."""
    environment = dict(os.environ, LC_ALL="C", LANG="C")
    if "ziglang" in command:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvmlab" / "zig"
        if not os.access(_existing_parent(cache), os.W_OK):
            cache = Path(tempfile.gettempdir()) / f"kvmlab-zig-{os.getuid() if hasattr(os, 'getuid') else 0}"
        environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(cache))
        environment.setdefault("ZIG_LOCAL_CACHE_DIR", str(cache))
    try:
        return subprocess.run(
            list(command),
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise ToolUnavailable(f"{command[0]} was found before but is gone now.", _INSTALL) from error
    except subprocess.TimeoutExpired as error:
        raise ToolUnavailable(
            f"{command[0]} did not finish within {TIMEOUT_S} s.", "Is the text endless (.rept)?"
        ) from error


def _existing_parent(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _output(*command: str) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout + done.stderr


def _versioned(name: str) -> Iterator[str]:
    """A command by its name, else with the highest version at its end: clang, clang-19, …"""
    path = shutil.which(name)
    if path:
        yield path
    found: dict[int, str] = {}
    for folder in os.get_exec_path():
        try:
            entries = os.listdir(folder)
        except OSError:
            continue
        for entry in entries:
            match = re.fullmatch(rf"{re.escape(name)}-(\d+)", entry)
            if match:
                found.setdefault(int(match.group(1)), os.path.join(folder, entry))
    for version in sorted(found, reverse=True):
        yield found[version]


def _gnu() -> Tools | None:
    prefixes = ["", "x86_64-linux-gnu-", "x86_64-elf-", "x86_64-unknown-linux-gnu-"]
    for prefix in prefixes:
        assembler, linker = shutil.which(f"{prefix}as"), shutil.which(f"{prefix}ld")
        if not assembler or not linker:
            continue
        version = _output(assembler, "--version")
        if "GNU assembler" not in version or "x86_64" not in version:
            continue
        if "GNU ld" not in _output(linker, "--version") or "elf_x86_64" not in _output(linker, "-V"):
            continue
        compiler: tuple[str, ...] = ()
        gcc = shutil.which(f"{prefix}gcc")
        if gcc and re.match(r"x86_64|i\d86", _output(gcc, "-dumpmachine")) and "clang" not in _output(gcc, "--version"):
            compiler = (gcc,)
        return Tools("gnu", (assembler,), (linker,), compiler)
    return None


def _lld() -> str | None:
    for path in _versioned("ld.lld"):
        if "LLD" in _output(path, "--version"):
            return path
    return None


def _llvm() -> Tools | None:
    linker = _lld()
    if not linker:
        return None
    for clang in _versioned("clang"):
        if "x86-64" in _output(clang, "--print-targets"):
            return Tools("llvm", (clang,), (linker,), (clang,))
    return None


def _zig() -> Tools | None:
    spec = importlib.util.find_spec("ziglang")
    if spec is None or not spec.origin:
        return None
    # Its clang is the plain one (`zig cc` has targets of its own and no 16-bit mode); it must be told where its
    # headers are.
    zig = (sys.executable, "-m", "ziglang")
    clang = (*zig, "clang", "-nostdlibinc", "-isystem", str(Path(spec.origin).parent / "lib" / "include"))
    return Tools("zig", (*zig, "clang"), (*zig, "ld.lld"), clang)


_FINDERS = {"gnu": _gnu, "llvm": _llvm, "zig": _zig}


@functools.cache
def _family(name: str, _path: str) -> Tools | None:
    return _FINDERS[name]()


def find(tools: str = "auto", need: str = "assembler") -> Tools:
    """The first family that has what is needed ("assembler" or "compiler"; a linker always).

    Raises
    ------
    ToolUnavailable
        Nothing was found; the message says what brings one.
    BadArgument
        ``tools`` names no family.
    """
    wanted = os.environ.get("KVMLAB_TOOLS", "auto") if tools == "auto" else tools
    if wanted not in ("auto", *FAMILIES):
        raise BadArgument(
            f"tools={wanted!r} names no family of tools.", f"It is one of 'auto', {', '.join(map(repr, FAMILIES))}."
        )
    path = os.environ.get("PATH", "")
    for name in FAMILIES if wanted == "auto" else (wanted,):
        found = _family(name, path)
        if found and found.linker and getattr(found, need):
            return found
    what = {"assembler": "assembler and linker for x86", "compiler": "C compiler for x86"}[need]
    if wanted == "auto":
        raise ToolUnavailable(f"No {what} was found on this {platform.machine()} machine.", _INSTALL)
    raise ToolUnavailable(f"No {what} of the family {wanted!r} was found.", f"Leave tools='auto', or: {_INSTALL}")
