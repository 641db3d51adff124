"""Which engine can run here, and why; what else is missing, and how to get it."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import importlib.util
import os
import platform
import sys
import types
from collections.abc import Iterator
from pathlib import Path

from . import html
from .errors import Error

__all__ = ["Check", "Diagnosis", "doctor"]

KVM_DEVICE = "/dev/kvm"
KVM_GET_API_VERSION = 0xAE00
KVM_API_VERSION = 12

SEE_LOG = "see: sudo dmesg | grep kvm"


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that this host has or lacks.

    Attributes
    ----------
    name
        What was looked for.
    ok
        True or False; None where it is missing and nothing but comfort is lost.
    found
        What is there, in a sentence.
    remedy
        How to get it, where it is missing: a command or a sentence. Empty where it is there.
    """

    name: str
    ok: bool | None
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What :func:`doctor` found. Prints itself.

    Attributes
    ----------
    kvm_available
        Whether ``VM(engine="kvm")`` works here.
    engine
        The engine that ``VM()`` takes here if nothing more is asked of it: "soft" or "kvm".
    reason
        Why, in one line.
    checks
        What was looked at.
    """

    kvm_available: bool
    engine: str
    reason: str
    checks: tuple[Check, ...]

    def __getitem__(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)

    def __str__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        lines = [f"kvmlab here runs guests on the {self.engine} engine: {self.reason}", ""]
        for check in self.checks:
            mark = {True: "yes", False: "no", None: "-"}[check.ok]
            lines.append(f"  {mark:3}  {check.name:{width}}  {check.found}")
            if check.remedy:
                lines.append(f"       {'':{width}}  → {check.remedy}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        rows = [(html.mark(check.ok), check.name, check.found, check.remedy) for check in self.checks]
        table = html.table(
            f"kvmlab here runs guests on the {self.engine} engine: {self.reason}", ("", "", "here", "to get it"), rows
        )
        return html.bundle(table, str(self))


def kvm_check() -> Check:
    """Whether /dev/kvm can be opened and speaks the interface we know; nothing is run on it."""
    name = "hardware virtualization"
    if sys.platform != "linux":
        return Check(
            name, None, f"/dev/kvm is Linux's; this is {platform.system()}", "nothing: the soft engine runs here"
        )
    if not os.path.exists(KVM_DEVICE):
        return Check(
            name,
            None,
            f"there is no {KVM_DEVICE}",
            "on a PC: sudo modprobe kvm_intel or kvm_amd, after switching virtualization on in the firmware; "
            "in a virtual machine: its host must offer nested virtualization; in a container: --device /dev/kvm",
        )
    import fcntl

    try:
        fd = os.open(KVM_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        return Check(
            name,
            None,
            f"{KVM_DEVICE} is there, but {_user()} may not open it",
            "sudo usermod -aG kvm $USER, then log in again",
        )
    except OSError as error:
        return Check(name, None, f"{KVM_DEVICE} is there, but opening it says: {error.strerror}", SEE_LOG)
    try:
        version = fcntl.ioctl(fd, KVM_GET_API_VERSION, 0)
    except OSError as error:
        return Check(name, None, f"{KVM_DEVICE} does not answer as KVM does: {error.strerror}", SEE_LOG)
    finally:
        os.close(fd)
    if version != KVM_API_VERSION:
        return Check(name, None, f"{KVM_DEVICE} speaks version {version}; 12 is known", "a kernel newer than 2.6.22")
    return Check(name, True, f"{KVM_DEVICE} opens, version {version}")


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def engine_check() -> Check:
    try:
        from . import engine
    except ImportError as error:
        return Check("engine", False, f"the extension does not load: {error}", "pip install --force-reinstall kvmlab")
    return Check(
        "engine", True, f"kvmlab {engine.__version__}, Python {platform.python_version()}, {platform.machine()}"
    )


def tools_checks() -> Iterator[Check]:
    from . import toolchain

    for name, need in (("assembler", "assembler"), ("C compiler for guests", "compiler")):
        try:
            tools = toolchain.find(need=need)
        except Error as error:
            yield Check(
                name, False, str(error).splitlines()[0], "apt-get install binutils gcc, or pip install 'kvmlab[guest]'"
            )
        else:
            yield Check(name, True, f"{tools.family}: {' '.join(getattr(tools, need))}")


def package_checks() -> Iterator[Check]:
    wanted = (
        ("disassembler", ("capstone",)),
        ("bench and panels", ("anywidget", "ipywidgets")),
        ("plots", ("matplotlib",)),
        ("JupyterLab", ("jupyterlab",)),
    )
    for name, packages in wanted:
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            yield Check(name, None, f"no {' and no '.join(missing)}", "pip install 'kvmlab[lab]'")
        else:
            yield Check(name, True, ", ".join(f"{package} {_version(package)}" for package in packages))


def server_check() -> Check:
    """Whether Jupyter's server here loads kvmlab.server: its configuration names it."""
    import json

    name = "fast websocket"
    if importlib.util.find_spec("jupyter_core") is None:
        return Check(name, None, "no Jupyter server here", "pip install 'kvmlab[lab]'")
    from jupyter_core.paths import jupyter_config_path

    enabled: bool | None = None
    # From the weakest to the strongest place, as Jupyter reads them.
    for folder in reversed(jupyter_config_path()):
        files = sorted(Path(folder).glob("jupyter_server_config.d/*.json")) + [
            Path(folder) / "jupyter_server_config.json"
        ]
        for file in files:
            try:
                said = json.loads(file.read_text("utf-8"))["ServerApp"]["jpserver_extensions"]["kvmlab.server"]
            except (OSError, ValueError, KeyError, TypeError):
                continue
            enabled = bool(said)
    if enabled:
        return Check(name, True, "Jupyter's server loads kvmlab.server: a click is drawn in about 15 ms")
    found = "no configuration names kvmlab.server" if enabled is None else "kvmlab.server is switched off"
    return Check(
        name, None, f"{found}: clicks take about 45 ms", "jupyter server extension enable --sys-prefix kvmlab.server"
    )


@functools.cache
def self_test() -> tuple[bool, str]:
    """Whether /dev/kvm runs the small guests of :mod:`kvmlab.selftest`, and which it does not. Once for a process."""
    from . import selftest

    return selftest.passes()


def self_test_check() -> Check:
    name = "its self-test"
    works, failed = self_test()
    if works:
        return Check(name, True, "paging, INT n, ring 3, single steps, ports and devices work")
    return Check(
        name, None, failed, "nothing: such a host's KVM has gaps; VM() takes the soft engine, engine='kvm' still works"
    )


def host_engine() -> tuple[str, str]:
    """The engine that ``VM()`` takes on this host if nothing more is asked of it, and why."""
    kvm = kvm_check()
    if not kvm.ok:
        return "soft", kvm.found
    works, failed = self_test()
    if works:
        return "kvm", f"{KVM_DEVICE} opens and passes the self-test"
    return "soft", f"{KVM_DEVICE} opens, but fails the self-test: {failed}"


def doctor() -> Diagnosis:
    """Look at this host and say which engine runs guests here, why, and what else is missing.

    Nothing is changed. In a notebook the result is a table; ``print(kvmlab.doctor())`` is the same as text.
    """
    kvm = kvm_check()
    tested = (self_test_check(),) if kvm.ok else ()
    checks = (engine_check(), kvm, *tested, *tools_checks(), *package_checks(), server_check())
    engine, reason = host_engine()
    return Diagnosis(bool(kvm.ok), engine, reason, checks)


class _Callable(types.ModuleType):
    """``kvmlab.doctor()`` also where the submodule of that name was imported first and took the attribute's place."""

    def __call__(self) -> Diagnosis:
        return doctor()


sys.modules[__name__].__class__ = _Callable
