"""What the tests of the journal's contract start from."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kitaru_nb.errors import (
    KitaruError,
)
from kitaru_nb.journal.base import Journal, process_start, this_host
from kitaru_nb.journal.open import open_journal
from kitaru_nb.model import Event, Execution, ExecutionStatus, Owner, new_exec_id, utc

#: An owner on another host: nobody here can tell whether it lives.
ELSEWHERE = Owner("another-host", 4711, 0, "elsewhere")


def dead_owner() -> Owner:
    """An owner on this host whose process is gone: no process id is that high."""
    return Owner(this_host(), 2**30, 1, "dead")


def replaced_owner() -> Owner:
    """An owner on this host whose process id belongs to another process by now."""
    return Owner(this_host(), os.getpid(), process_start(os.getpid()) + 1, "replaced")


def new_execution(flow: str = "brief", *, key: str | None = None, status: str = "pending") -> Execution:
    """A new execution of ``flow``, as a caller of `Journal.create` makes it."""
    now = utc(time.time())
    return Execution(new_exec_id(), flow, ExecutionStatus(status), now, now, key=key)


def event(exec_id: str, kind: str = "metadata", key: str = "", **body: Any) -> Event:
    """An event that happens now."""
    return Event(exec_id, kind, key, time.time(), body)


def kinds(history: Sequence[Event]) -> list[str]:
    """The kinds of events, in order."""
    return [e.kind for e in history]


def together(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run all at the same time, each on its thread; return results, or the `KitaruError` that was raised instead."""
    barrier = threading.Barrier(len(works))

    def one(work: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return work()
        except KitaruError as error:
            return error

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(one, works))


class JournalSetup:
    """Fixtures: ``journal`` and ``other`` are two handles on the same, empty data."""

    def open(self, url: str) -> Journal:
        """A new handle; a back end that isn't opened by URL overrides this."""
        return open_journal(url, durability="process")

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError("a subclass says where its data is")

    @pytest.fixture
    def journal(self, url: str) -> Iterator[Journal]:
        handle = self.open(url)
        yield handle
        handle.close()

    @pytest.fixture
    def other(self, url: str, journal: Journal) -> Iterator[Journal]:
        handle = self.open(url)
        yield handle
        handle.close()

    @pytest.fixture
    def exec_id(self, journal: Journal) -> str:
        execution = new_execution()
        return journal.create(execution, [event(execution.exec_id, "execution.created")]).exec_id
