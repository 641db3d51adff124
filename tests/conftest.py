"""For all tests: which kvmlab is under test, the seed of what is random, and how much of the long tests is run."""

import importlib.util
import os
import secrets
from collections.abc import Callable

import pytest

# A program started in the clone would otherwise find the sources there before the kvmlab that is installed.
os.environ["PYTHONSAFEPATH"] = "1"
if "PYTHONPATH" in os.environ:
    os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, os.environ["PYTHONPATH"].split(":"))))

# A fresh one for each run, printed, and inherited by the C tests: KVMLAB_SEED=… make test has the same cases again.
SEED = int(os.environ.setdefault("KVMLAB_SEED", str(secrets.randbelow(1 << 31))), 0)
SOAK = "KVMLAB_SOAK" in os.environ


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cases: takes the fixture cases, so make soak runs it at its full count")


def pytest_report_header() -> list[str]:
    found = importlib.util.find_spec("kvmlab")
    return [f"kvmlab: {found.origin if found else 'not installed'}", f"KVMLAB_SEED={SEED}"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The browser last: it takes longest to start, and the rest tells sooner what is wrong."""
    items.sort(key=lambda item: "/browser/" in str(item.path))
    for item in items:
        if "cases" in getattr(item, "fixturenames", ()):
            item.add_marker("cases")


@pytest.fixture
def seed() -> int:
    """The run's seed, for what is random."""
    return SEED


@pytest.fixture
def cases(record_property: Callable[[str, object], None]) -> Callable[[int, int], int]:
    """``cases(short, full)``: how many cases a random test tries: ``short`` in make test, ``full`` in make soak.

    Call it once; the number is in make soak's report.
    """

    def choose(short: int, full: int) -> int:
        number = full if SOAK else short
        record_property("cases", number)
        record_property("cases_full", full)
        return number

    return choose
