"""Dying at a chosen moment: wrappers that turn "crash anywhere" into a parameter.

    rehearsal = FaultyJournal(journal)                          # counts operations and never dies
    FaultyJournal(journal, at=3, when="after")                  # the third is done, but nobody lives to hear of it

After its death a wrapper refuses everything, so that no ``finally`` can tidy up what a crash would have left.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, ParamSpec, TypeVar

from kitaru_nb.journal.base import DEFAULT_TTL, Journal
from kitaru_nb.model import Event, Execution, ExecutionStatus, Lease, Owner, Wait

P = ParamSpec("P")
R = TypeVar("R")

#: Operations of a journal that write.
JOURNAL_WRITES = frozenset({"create", "claim", "renew", "release", "append", "set_reference"})


class Died(BaseException):
    """The process died here. Not an ``Exception``: code under test can't catch it by accident."""


class Fate:
    """Counts operations, and dies before or after the one that was chosen. Safe to share between threads."""

    def __init__(self, at: int | None, when: Literal["before", "after"], only: Collection[str] | None) -> None:
        """Die at operation ``at`` (from 1; None: never). ``only`` names the operations that count (None: all)."""
        self.operations = 0
        self.dead = False
        self._at, self._when, self._only = at, when, only
        self._lock = threading.Lock()

    def step(self, operation: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Perform ``operation``, or die.

        Raises:
            Died: the moment has come, or had come before.
        """
        name = operation.__name__
        with self._lock:
            self._check(name)
            counts = self._only is None or name in self._only
            self.operations += counts
            fatal = counts and self.operations == self._at
            self.dead = self.dead or (fatal and self._when == "before")
            self._check(name)
        result = operation(*args, **kwargs)
        if fatal:
            self.dead = True
        self._check(name)
        return result

    def _check(self, name: str) -> None:
        if self.dead:
            raise Died(f"died {self._when} operation {self._at}, at {name}")


class FaultyJournal(Journal):
    """``journal``, until the process "dies" at its ``at``-th operation. `close` always works and never counts."""

    def __init__(
        self,
        journal: Journal,
        *,
        at: int | None = None,
        when: Literal["before", "after"] = "before",
        only: Collection[str] | None = None,
    ) -> None:
        self.url = journal.url
        self.fate = Fate(at, when, only)
        self._journal = journal

    def create(self, execution: Execution, events: Sequence[Event]) -> Execution:
        return self.fate.step(self._journal.create, execution, events)

    def claim(self, exec_id: str, owner: Owner, *, ttl: float = DEFAULT_TTL) -> Lease:
        return self.fate.step(self._journal.claim, exec_id, owner, ttl=ttl)

    def renew(self, lease: Lease, *, ttl: float = DEFAULT_TTL) -> Lease:
        return self.fate.step(self._journal.renew, lease, ttl=ttl)

    def release(self, lease: Lease, events: Sequence[Event] = ()) -> None:
        self.fate.step(self._journal.release, lease, events)

    def append(self, exec_id: str, events: Sequence[Event], *, lease: Lease | None = None) -> int:
        return self.fate.step(self._journal.append, exec_id, events, lease=lease)

    def history(self, exec_id: str, *, after: int = 0) -> list[Event]:
        return self.fate.step(self._journal.history, exec_id, after=after)

    def execution(self, exec_id: str) -> Execution:
        return self.fate.step(self._journal.execution, exec_id)

    def executions(
        self,
        *,
        flow: str | None = None,
        status: ExecutionStatus | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[Execution]:
        return self.fate.step(self._journal.executions, flow=flow, status=status, before=before, limit=limit)

    def waits(self, *, exec_id: str | None = None, due_before: float | None = None, limit: int = 1000) -> list[Wait]:
        return self.fate.step(self._journal.waits, exec_id=exec_id, due_before=due_before, limit=limit)

    def find(self, cache_key: str) -> Event | None:
        return self.fate.step(self._journal.find, cache_key)

    def tail(self, after: int, *, exec_id: str | None = None, limit: int = 1000) -> list[Event]:
        return self.fate.step(self._journal.tail, after, exec_id=exec_id, limit=limit)

    def reference(self, name: str) -> str | None:
        return self.fate.step(self._journal.reference, name)

    def set_reference(self, name: str, value: str | None, *, expected: str | None, by: str) -> None:
        self.fate.step(self._journal.set_reference, name, value, expected=expected, by=by)

    def reference_history(self, name: str) -> list[tuple[float, str | None, str]]:
        return self.fate.step(self._journal.reference_history, name)

    def watch(self, on_news: Callable[[], None], *, exec_id: str | None = None) -> Callable[[], None]:
        return self._journal.watch(on_news, exec_id=exec_id)

    def close(self) -> None:
        self._journal.close()


class FaultyStore:
    """Any object, until the process "dies" at the ``at``-th call of its methods (by default ``write`` and ``read``)."""

    def __init__(
        self,
        store: object,
        *,
        at: int | None = None,
        when: Literal["before", "after"] = "before",
        only: Collection[str] | None = ("write", "read"),
    ) -> None:
        self.fate = Fate(at, when, only)
        self._store = store

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def operation(*args: Any, **kwargs: Any) -> Any:
            return found(*args, **kwargs)

        operation.__name__ = name
        return lambda *args, **kwargs: self.fate.step(operation, *args, **kwargs)
