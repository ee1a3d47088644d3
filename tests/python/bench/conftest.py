from collections.abc import Iterator

import pytest

import leancore
from leancore.bench.timing import set_threads


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Commands set the number of threads of the process; other tests get theirs back."""
    before = leancore.max_threads()
    yield
    set_threads(before)
