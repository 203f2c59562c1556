"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes, or is made, says how busy the machine is, and nothing about the code.
settings.register_profile("any machine", settings(deadline=None, suppress_health_check=[HealthCheck.too_slow]))
settings.load_profile("any machine")

#: Files that take minutes, mostly by waiting for other processes. They come first: of tests that run side by side, the
#: last to begin decides how long all take.
LONGEST = (
    "stacks/test_kubernetes_end_to_end.py",
    "crash/test_kill.py",
    "crash/test_interrupt.py",
    "crash/test_faults.py",
    "http/test_fuzz.py",
    "main_job/test_quickstart.py",
    "promote/test_tutorial.py",
    "docs/test_pages.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first; with pytest-xdist that needs ``--no-loadscope-reorder``."""
    here = Path(__file__).parent
    ranks = {here / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(autouse=True)
def interrupts_are_heard() -> Iterator[None]:
    """Each test begins with Python's own handler of SIGINT.

    A run that a shell put into the background ignores the signal, and so would the processes that it starts.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if before is not None:  # None: set by other than Python
        signal.signal(signal.SIGINT, before)
