"""make lint has nothing to say, and the C tests pass under the sanitizers."""

import re
import sys

from running import run

ENVIRONMENT = {"PYTHON": sys.executable}


def test_lint() -> None:
    run("tools/lint.sh", env=ENVIRONMENT)


def test_c_tests_under_the_sanitizers() -> None:
    output = run("tools/asan.sh", env=ENVIRONMENT)
    counted = re.fullmatch(r"(\d+) passed, 0 failed", output.splitlines()[-1])
    assert counted and int(counted[1]) > 0
