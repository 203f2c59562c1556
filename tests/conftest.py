"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def interrupts_are_heard() -> Iterator[None]:
    """Each test begins with Python's own handler of SIGINT.

    A run that a shell put into the background ignores the signal, and so would the processes that it starts.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if before is not None:  # None: set by other than Python
        signal.signal(signal.SIGINT, before)
