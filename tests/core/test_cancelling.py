"""Cancelling what nobody advances: it stays cancelled, and what ended in that moment stays as it ended."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from core.bench import Bench, let_go, until
from kitaru_nb import KitaruFencedError, KitaruStateError, checkpoint, flow, wait
from kitaru_nb.core.local import threads
from kitaru_nb.journal.base import this_process
from kitaru_nb.journal.memory import MemoryJournal
from kitaru_nb.model import Event, Execution, Lease


@flow
def asking() -> bool:
    return wait("approve", timeout=0)


class Interposed(MemoryJournal):
    """Something happens just after a status was read."""

    after_reading: Callable[[], None] | None = None

    def execution(self, exec_id: str) -> Execution:
        found = super().execution(exec_id)
        after, self.after_reading = self.after_reading, None
        if after is not None:
            after()
        return found


@pytest.fixture
def interposed(tmp_path: Path) -> tuple[Bench, Interposed]:
    journal = Interposed(f"memory://{tmp_path.name}")
    return Bench(tmp_path, journal=journal), journal


def test_a_worker_that_slept_through_its_lease_can_not_go_on_with_what_was_cancelled_meanwhile(bench: Bench) -> None:
    exec_id = bench.create(asking)
    journal = bench.runtime.journal
    stale = journal.claim(exec_id, this_process(), ttl=0)
    assert bench.executions.cancel(exec_id, by="ann").status == "cancelled"
    for kind in ("checkpoint.completed", "execution.waiting", "execution.completed"):
        with pytest.raises(KitaruFencedError):
            journal.append(exec_id, [Event(exec_id, kind, "k", 0.0, {})], lease=stale)
    assert bench.get(exec_id).status == "cancelled"


def test_what_ended_while_it_was_being_cancelled_stays_as_it_ended(interposed: tuple[Bench, Interposed]) -> None:
    bench, journal = interposed
    exec_id = bench.create(asking)
    lease = journal.claim(exec_id, this_process(), ttl=0)
    journal.after_reading = lambda: journal.release(lease, [Event(exec_id, "execution.completed", "", 0.0, {})])
    with pytest.raises(KitaruStateError, match="is completed"):
        bench.executions.cancel(exec_id)
    assert bench.get(exec_id).status == "completed"


def test_what_a_worker_takes_up_while_it_is_being_cancelled_is_asked_to_end(
    interposed: tuple[Bench, Interposed],
) -> None:
    bench, journal = interposed
    exec_id = bench.create(asking)
    leases: list[Lease] = []
    journal.after_reading = lambda: leases.append(journal.claim(exec_id, this_process()))
    bench.executions.cancel(exec_id, by="ann")
    assert bench.kinds(exec_id)[-2:] == ["execution.claimed", "execution.cancel"]
    journal.release(leases[0])
    assert bench.advance(exec_id, asking).status == "cancelled"


def test_a_task_that_begins_when_its_flow_was_cancelled_is_no_complaint(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    going, gate = threading.Event(), threading.Event()

    @checkpoint
    async def step() -> None:
        raise AssertionError("never run")

    @flow
    async def submitting() -> None:
        going.set()
        gate.wait()
        step.submit()
        await asyncio.sleep(60)

    handle = bench.run(submitting)
    assert going.wait(60)
    bench.executions.cancel(handle.exec_id)
    until(lambda: (run := threads[handle.exec_id].run) and run.ending)
    gate.set()
    let_go(handle)
    gc.collect()
    assert handle.status == "cancelled"
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
