"""Executions folded so far: whoever looks again at one pays only for what is new in its history."""

from __future__ import annotations

import gc
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from kitaru_nb.journal.base import Journal
from kitaru_nb.journal.fold import Folding
from kitaru_nb.model import Execution

#: So many calls are kept, of all executions together.
KEPT = 50_000


class Uncollected:
    """Within it no cyclic garbage is looked for: thousands of new objects, none of which is garbage, would each time be
    looked through with all others. Of those who are inside at once the last one out turns the collector on again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._was_on = False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._was_on = gc.isenabled()
                gc.disable()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._was_on:
                gc.enable()


uncollected = Uncollected()


class Folds:
    """Foldings by execution, the least recently asked for forgotten first. Thread-safe."""

    def __init__(self, journal: Journal, *, kept: int = KEPT) -> None:
        self._journal = journal
        self._room = kept
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[threading.Lock, Folding]] = OrderedDict()

    @contextmanager
    def at(self, exec_id: str) -> Iterator[tuple[Execution, Folding]]:
        """The execution's row as it is now, and its folding up to now; both only inside the ``with``.

        Raises:
            KitaruNotFoundError: no such execution.
        """
        # The row first: what it says is then in the history too.
        row = self._journal.execution(exec_id)
        with self._lock:
            lock, folding = self._kept.setdefault(exec_id, (threading.Lock(), Folding(exec_id)))
            self._kept.move_to_end(exec_id)
        with lock, uncollected:
            folding.take(self._journal.history(exec_id, after=folding.seq))
            yield row, folding
        self._forget()

    def _forget(self) -> None:
        with self._lock:
            room = self._room - sum(1 + folding.size for _, folding in self._kept.values())
            while room < 0 and len(self._kept) > 1:
                _, (_, folding) = self._kept.popitem(last=False)
                room += 1 + folding.size
