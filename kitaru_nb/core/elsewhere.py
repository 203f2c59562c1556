"""What one run has running outside its process: on the workers of an executor, and as jobs of its runner."""

from __future__ import annotations

import functools
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from kitaru_nb.core.executors import THREADS, Executor, Task, executor_of, parse_executor
from kitaru_nb.core.orders import RETURNED, Orders, children_of
from kitaru_nb.core.runners import Runner, runner_of
from kitaru_nb.model import Event

if TYPE_CHECKING:
    from kitaru_nb.core.run import Run

#: Seconds between two looks for what came back.
LOOK_EVERY = 0.1


class Elsewhere:
    """The connections of one run to the outside. Thread-safe."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.orders = Orders(run)
        self._lock = threading.Lock()
        self._returned: dict[str, Event] = {}
        self._seq = 0
        self._looked = 0.0
        self._nested_before = any("parent" in event.body for event in run.engine.completed.values())

    @property
    def address(self) -> str:
        """Where submitted checkpoints run."""
        run = self._run
        return str(run.options.get("executor") or run.runtime.settings.executor)

    @functools.cached_property
    def on_executor(self) -> bool:
        """Whether submitted checkpoints run on workers elsewhere, rather than on threads of this process."""
        return parse_executor(self.address).kind != THREADS

    @functools.cached_property
    def executor(self) -> Executor:
        """The run's executor. Raises as `executor_of`."""
        return executor_of(self.address)

    @functools.cached_property
    def runner(self) -> Runner:
        """Who starts jobs of this execution."""
        return runner_of(self._run.journal.execution(self._run.exec_id).stack)

    def task(self, order: Event) -> Task:
        """An order with all that a worker needs who can't ask the journal."""
        run = self._run
        settings = run.runtime.settings
        # Only what the store needs: the journal's address may hold a password.
        settings = replace(settings, journal=None, store=settings.store_url, executor=THREADS)
        children: list[Event] = []
        if self._nested_before or order.body["attempt"] > 1:
            children = children_of(order.key, list(run.engine.completed.values()))
        plan = run.engine.plan
        if plan is not None:
            plan = replace(plan, donors={e.key: e for e in plan.donors.values() if e.body.get("parent")})
        return Task(order, settings, children, plan, run.cache)

    def take(self, events: list[Event]) -> Event:
        """Keep what a task caused for the commit of its outcome, which is returned."""
        *inside, returned = events
        for event in inside:
            if event.kind != "checkpoint.completed" or event.key not in self._run.engine.completed:
                self._run.hold(event)
                self._run.engine.take(event)
        return returned

    def returned(self, call_id: str, attempt: int, *, now: bool = False) -> Event | None:
        """What a job brought back for this attempt, or None. ``now``: look, however short ago the last look was."""
        with self._lock:
            at = time.monotonic()
            if now or at - self._looked > LOOK_EVERY:
                self._looked = at
                for event in self._run.journal.history(self._run.exec_id, after=self._seq):
                    self._seq = event.seq
                    if event.kind == RETURNED and not self._is_over(event):
                        self._returned[event.key] = event
            found = self._returned.get(call_id)
            return found if found is not None and found.body["attempt"] == attempt else None

    def _is_over(self, returned: Event) -> bool:
        """Whether an outcome tells only of an outage that ended the turn of an earlier worker."""
        return "outage" in returned.body and returned.body["epoch"] != self._run.lease.epoch
