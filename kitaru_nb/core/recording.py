"""A task of an executor: its worker needn't reach the journal, so what happens is recorded and handed back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NoReturn

from kitaru_nb.artifacts.store import ArtifactStore
from kitaru_nb.config import Settings
from kitaru_nb.core.away import AwayRun, perform
from kitaru_nb.core.executors import Task
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruContextError
from kitaru_nb.journal.base import this_process
from kitaru_nb.model import Event, Lease


class Recording:
    """What an `AwayRun` needs of a journal: the history of its own execution, and a place to append to."""

    url = "recording:"

    def __init__(self, exec_id: str, history: Sequence[Event]) -> None:
        self.exec_id = exec_id
        self._lock = threading.Lock()
        self._known = len(history)
        self._events = [event._replace(seq=seq) for seq, event in enumerate(history, 1)]

    @property
    def caused(self) -> list[Event]:
        """What was appended here."""
        return [event._replace(seq=0) for event in self._events[self._known :]]

    def append(self, exec_id: str, events: Sequence[Event], *, lease: Lease | None = None) -> int:
        """Keep events."""
        with self._lock:
            self._events += [event._replace(seq=len(self._events) + n) for n, event in enumerate(events, 1)]
            return len(self._events)

    def history(self, exec_id: str, *, after: int = 0) -> list[Event]:
        """What is known of the own execution. Raises `KitaruContextError` for another one."""
        if exec_id != self.exec_id:
            self._unreachable()
        with self._lock:
            return self._events[after:]

    def find(self, cache_key: str) -> None:
        """Nothing: what other executions recorded is in the journal."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self._unreachable()

    def _unreachable(self) -> NoReturn:
        raise KitaruContextError(
            "A checkpoint on a worker of an executor asked the journal, which such workers don't reach.",
            fix="look it up in the flow, and hand it to the checkpoint",
        )


def perform_task(task: Task, where: str, on_run: Callable[[AwayRun], None]) -> list[Event]:
    """Carry out a task; all that it caused, its outcome last. Raises `Paused` when it was interrupted."""
    exec_id = task.order.exec_id
    journal: Any = Recording(exec_id, task.children)
    runtime = Runtime(task.settings, journal=journal, store=store_of(task.settings))
    lease = Lease(exec_id, this_process(), task.order.body["epoch"], float("inf"))
    run = AwayRun(runtime, exec_id, lease, task.children, plan=task.plan, poll_seconds=0.0)
    run.cache = task.cache
    on_run(run)
    perform(run, task.order, where)
    caused: list[Event] = journal.caused
    return caused


@lru_cache(maxsize=8)
def store_of(settings: Settings) -> ArtifactStore:
    """The artifact store of some settings, with the connections that it has."""
    return Runtime(settings).store
