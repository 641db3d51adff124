"""Put things of the package where people work: lab notebooks into a folder, a Jupyter kernel into an environment."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from .errors import BadArgument, ToolUnavailable

__all__ = ["copy_labs", "install_kernel", "labs"]

KERNEL = "kvmlab"


def labs() -> Iterator[Traversable]:
    """The lab notebooks as released, in their order: the package's, or a source tree's where it runs from one."""
    package = resources.files("kvmlab")
    for folder in (package / "labs", package / ".." / "labs"):
        found = [entry for entry in folder.iterdir() if entry.name.endswith(".ipynb")] if folder.is_dir() else []
        if found:
            yield from sorted(found, key=lambda entry: entry.name)
            return


def copy_labs(target: Path) -> tuple[list[str], list[str]]:
    """Copy every lab that is not in ``target`` yet; what is there is somebody's work and stays as it is.

    Returns
    -------
    tuple of list of str
        The names of the notebooks that were copied, and of those that were there.

    Raises
    ------
    BadArgument
        ``target`` is a file.
    """
    if target.exists() and not target.is_dir():
        raise BadArgument(f"{target} is a file.", "Name a folder; it is made if it does not exist.")
    target.mkdir(parents=True, exist_ok=True)
    new, kept = [], []
    for lab in labs():
        place = target / lab.name
        try:
            # "x": never overwrite, not even a notebook that appears in between.
            with place.open("xb") as file:
                file.write(lab.read_bytes())
        except FileExistsError:
            kept.append(lab.name)
        else:
            new.append(lab.name)
    return new, kept


def install_kernel(user: bool | None = None, prefix: Path | None = None) -> Path:
    """Install the Jupyter kernel ``kvmlab``: this Python's ipykernel with ``%load_ext kvmlab`` already done.

    Parameters
    ----------
    user
        For this user, outside the environment. By default only where Python runs in no environment.
    prefix
        An environment's root to install into instead.

    Returns
    -------
    Path
        The folder of the kernel's specification.
    """
    try:
        from ipykernel.kernelspec import RESOURCES, make_ipkernel_cmd
        from jupyter_client.kernelspec import KernelSpecManager
    except ImportError as error:
        raise ToolUnavailable(
            f"{sys.executable} has no ipykernel, which the kernel is made of.", "pip install 'kvmlab[lab]'"
        ) from error
    specification: dict[str, Any] = {
        "argv": make_ipkernel_cmd(extra_arguments=["--ext=kvmlab"]),
        "display_name": "kvmlab",
        "language": "python",
        "metadata": {"debugger": True},
    }
    if user is None:
        user = prefix is None and sys.prefix == sys.base_prefix
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / KERNEL
        shutil.copytree(RESOURCES, folder)
        (folder / "kernel.json").write_text(json.dumps(specification, indent=1) + "\n", encoding="utf-8")
        where = None if user else str(prefix or sys.prefix)
        installed = KernelSpecManager().install_kernel_spec(str(folder), KERNEL, user=user, prefix=where)
    return Path(installed)
