"""The process of one isolated checkpoint: it reads its order from the journal, and writes there what came of it.

It writes under the lease of the worker that waits for it. When another worker takes the execution over, or nobody waits
any more, it ends: what it would write is refused.
"""

from __future__ import annotations

from collections.abc import Callable

from kitaru_nb.core.away import AwayRun, perform
from kitaru_nb.core.orders import RETURNED, SENT
from kitaru_nb.core.replay import load_plan
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruNotFoundError, KitaruStateError
from kitaru_nb.model import Event, Lease


class JobRun(AwayRun):
    """An `AwayRun` that stops when the worker that waits for it has let go or lost its lease."""

    def look(self) -> None:
        """Take up cancel requests, and whether somebody still waits."""
        super().look()
        lease = self.journal.execution(self.exec_id).lease
        if lease is None or lease.epoch != self.lease.epoch:
            self.interrupt("fenced", f"the worker of {self.exec_id} that asked for this no longer waits for it")


def perform_job(runtime: Runtime, exec_id: str, name: str, on_run: Callable[[JobRun], None], where: str) -> Event:
    """Carry out the order of a job; its outcome.

    Raises:
        KitaruNotFoundError: there is no such order.
        KitaruStateError: nobody waits for it any more, or it has its outcome already.
        Paused: it was interrupted.
    """
    history = runtime.journal.history(exec_id)
    order = find_order(history, exec_id, name)
    lease = waiting_lease(runtime, order)
    if any(e.kind == RETURNED and e.key == order.key and _same(e, order) for e in history):
        raise KitaruStateError(f"{name} of {exec_id} has its outcome already.")
    run = JobRun(runtime, exec_id, lease, history, plan=load_plan(runtime, history[0]), poll_seconds=0.0)
    run.options = history[0].body.get("options", {})
    run.cache = run.options.get("cache")
    on_run(run)
    returned: Event = perform(run, order, where)
    return returned


def find_order(history: list[Event], exec_id: str, name: str) -> Event:
    """The newest order of this name. Raises `KitaruNotFoundError`."""
    found = [
        event
        for event in history
        if event.kind == SENT and f"{event.key}-{event.body['epoch']}-{event.body['attempt']}" == name
    ]
    if not found:
        raise KitaruNotFoundError(f"{exec_id} has no order for a job {name!r}.", fix=f"kitaru executions get {exec_id}")
    return found[-1]


def waiting_lease(runtime: Runtime, order: Event) -> Lease:
    """The lease of the worker that waits for the outcome. Raises `KitaruStateError` when none does."""
    lease = runtime.journal.execution(order.exec_id).lease
    if lease is None or lease.epoch != order.body["epoch"]:
        raise KitaruStateError(f"The worker of {order.exec_id} that asked for this no longer waits for it.")
    return lease


def _same(returned: Event, order: Event) -> bool:
    return all(returned.body[field] == order.body[field] for field in ("epoch", "attempt"))
