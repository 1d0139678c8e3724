"""Bounds on the processor time of reading long or hostile input, which other jobs on the machine do not add to."""

import time
from collections.abc import Callable

import pytest

MAX_SECONDS = 0.05
ATTEMPTS = 5  # a garbage collection may fall into one of them


def seconds_of(call: Callable[[], object]) -> float:
    """Processor seconds of this process in ``call``."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def assert_quick(call: Callable[[], object], limit: float = MAX_SECONDS) -> None:
    """``call`` needs less than ``limit`` seconds of this process' time."""
    assert_within(limit, lambda: seconds_of(call))


def assert_within(limit: float, attempt: Callable[[], float]) -> None:
    """One of `ATTEMPTS` calls of ``attempt`` returns less than ``limit`` seconds."""
    found = []
    for _ in range(ATTEMPTS):
        found.append(attempt())
        if found[-1] < limit:
            return
    pytest.fail(f"it took {min(found):.2f} s")
