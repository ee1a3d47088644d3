"""Malformed and unusual input, each case in a process of its own: a crash fails one test and names it."""

import pytest

from helpers import SUPPORT, run_script
from malformed_cases import CASES


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    done = run_script(SUPPORT / "malformed_cases.py", name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "passed"
