"""For all tests: which kvmlab is under test, and that programs started by tests take the same one."""

import importlib.util
import os

import pytest

# A program started in the clone would otherwise find the sources there before the kvmlab that is installed.
os.environ["PYTHONSAFEPATH"] = "1"
if "PYTHONPATH" in os.environ:
    os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, os.environ["PYTHONPATH"].split(":"))))


def pytest_report_header() -> str:
    found = importlib.util.find_spec("kvmlab")
    return f"kvmlab: {found.origin if found else 'not installed'}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The browser last: it takes longest to start, and the rest tells sooner what is wrong."""
    items.sort(key=lambda item: "/browser/" in str(item.path))
