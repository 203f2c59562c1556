"""Fixtures: a journal in memory, one in a file, and a folder for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.bench import Bench, Shop, until
from kitaru_nb.core.local import process_end, threads, wait_for_threads
from kitaru_nb.stacks.process import _children


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A journal in memory."""
    return Bench(tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Bench]:
    """A journal in a SQLite file."""
    bench = Bench(tmp_path, memory=False, durability="process")
    yield bench
    bench.runtime.journal.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A folder with scripts, and a home that their processes share."""
    shop = Shop(tmp_path)
    yield shop
    # A worker still has to exit when its execution has already ended.
    until(lambda: all(process.poll() is not None for of_one in _children.values() for process, _, _ in of_one))
    shop.bench.runtime.journal.close()


@pytest.fixture(autouse=True)
def no_flow_is_left_running() -> Iterator[None]:
    """Flows that a test leaves behind let go before the next one begins."""
    yield
    for local in list(threads.values()):
        local.interrupt()
    wait_for_threads()
    for exec_id in threads:
        process_end.told(exec_id)
    threads.clear()
