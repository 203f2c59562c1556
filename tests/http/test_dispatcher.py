"""What the server takes up by itself, and what it leaves alone."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest

from kitaru_nb import checkpoint, flow, wait
from kitaru_nb.client import KitaruClient
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.journal.base import this_process
from kitaru_nb.model import Event, ExecutionStatus, Owner
from kitaru_nb.stacks.process import ProcessRunner, _children, reap
from kitaru_nb.surfaces.http.dispatcher import GRACE, TRIES, Dispatcher
from tests.http import flows
from tests.http.httpkit import Ran, until

HERE = Path(__file__)


@flow
def patient() -> str:
    return "nobody objected" if wait("veto", until=timedelta(seconds=0), timeout=0) is None else "stopped"


@checkpoint
def die_once(flag: str) -> str:
    """Kills its own process the first time."""
    if not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "lived"


@flow
def mortal(flag: str) -> str:
    return die_once(flag)


@pytest.fixture
def clock() -> list[float]:
    """The dispatcher's clock: how far it is ahead."""
    return [0.0]


@pytest.fixture
def dispatcher(runtime: Runtime, clock: list[float]) -> Dispatcher:
    """One that is told when to look."""
    return Dispatcher(KitaruClient(runtime), clock=lambda: time.time() + clock[0])


def dead() -> Owner:
    """An owner that certainly doesn't live any more."""
    mine = this_process()
    return Owner(mine.host, mine.pid, mine.started + 1, "gone")


def ended(runtime: Runtime, exec_id: str) -> ExecutionStatus:
    """How an execution ended, once it did."""
    until(lambda: runtime.journal.execution(exec_id).status.ended, f"the end of {exec_id}")
    return runtime.journal.execution(exec_id).status


def started(exec_id: str) -> int:
    """How many workers this process started for it."""
    return len(_children.get(exec_id, ()))


def test_a_due_timer_rings_without_anybody(runtime: Runtime, ran: Ran, dispatcher: Dispatcher) -> None:
    exec_id = ran(patient)
    dispatcher.ring()
    assert ended(runtime, exec_id) is ExecutionStatus.COMPLETED
    (event,) = [e for e in runtime.journal.history(exec_id) if e.kind == "wait.resolved"]
    assert event.body["by"] == "clock"


def test_an_answer_whose_worker_never_started_is_taken_up(
    runtime: Runtime, ran: Ran, dispatcher: Dispatcher, clock: list[float]
) -> None:
    exec_id, other = ran(flows.brief), ran(flows.brief)
    dispatcher.take_up_answered()
    (asked,) = runtime.journal.waits(exec_id=exec_id)
    body = {"value": False, "by": "ana", "via": "http"}
    runtime.journal.append(exec_id, [Event(exec_id, "wait.resolved", asked.wait_id, time.time(), body)])
    dispatcher.take_up_answered()
    assert started(exec_id) == 0  # whoever answered has a moment to start one
    clock[0] = GRACE + 1
    dispatcher.take_up_answered()
    assert ended(runtime, exec_id) is ExecutionStatus.COMPLETED
    dispatcher.take_up_answered()
    assert (started(exec_id), started(other)) == (1, 0)


def test_what_was_answered_before_the_server_began_is_found(
    runtime: Runtime, ran: Ran, dispatcher: Dispatcher, clock: list[float]
) -> None:
    exec_id = ran(flows.brief)
    (asked,) = runtime.journal.waits(exec_id=exec_id)
    body = {"value": False, "by": "ana", "via": "http"}
    runtime.journal.append(exec_id, [Event(exec_id, "wait.resolved", asked.wait_id, time.time(), body)])
    dispatcher.take_up_answered()
    clock[0] = GRACE + 1
    dispatcher.take_up_answered()
    assert ended(runtime, exec_id) is ExecutionStatus.COMPLETED


def test_a_worker_that_died_is_replaced(
    runtime: Runtime, dispatcher: Dispatcher, clock: list[float], tmp_path: Path
) -> None:
    exec_id = create_execution(runtime, mortal, {"flag": str(tmp_path / "flag")}).exec_id
    ProcessRunner().submit(runtime, exec_id)
    until(lambda: runtime.journal.execution(exec_id).status is ExecutionStatus.INTERRUPTED, "the death")
    clock[0] = GRACE + 1
    dispatcher.take_up_orphans()
    assert ended(runtime, exec_id) is ExecutionStatus.COMPLETED


def test_a_worker_that_keeps_dying_is_tried_later_each_time_and_then_left_alone(
    runtime: Runtime, dispatcher: Dispatcher, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    exec_id = create_execution(runtime, flows.brief, {"topic": "x"}).exec_id
    monkeypatch.setattr("kitaru_nb.core.control.start", lambda *_: runtime.journal.claim(exec_id, dead()))
    claims = []
    runtime.journal.claim(exec_id, dead())
    for second in range(200):
        clock[0] = float(second)
        dispatcher.take_up_orphans()
        claims.append(runtime.journal.execution(exec_id).epoch)
    assert max(claims) == TRIES + 1
    gaps = [claims.index(epoch) for epoch in range(2, TRIES + 2)]
    assert gaps == sorted(gaps)
    assert gaps[0] >= GRACE - 1
    runtime.journal.append(exec_id, [Event(exec_id, "execution.resume", "", time.time(), {"by": "ana"})])
    assert Dispatcher(KitaruClient(runtime), clock=lambda: time.time() + 500)._is_orphan(
        runtime.journal.execution(exec_id), time.time() + 500
    )


def test_what_somebody_paused_stays_paused(runtime: Runtime, dispatcher: Dispatcher, clock: list[float]) -> None:
    exec_id = create_execution(runtime, flows.brief, {"topic": "x"}).exec_id
    lease = runtime.journal.claim(exec_id, this_process())
    pause = Event(exec_id, "execution.paused", "", time.time(), {"reason": "it was interrupted"})
    runtime.journal.release(lease, [pause])
    clock[0] = 1000
    dispatcher.take_up_orphans()
    assert runtime.journal.execution(exec_id).status is ExecutionStatus.INTERRUPTED
    assert started(exec_id) == 0


@pytest.mark.parametrize(("signal", "workers"), [("SIGTERM", 1), ("SIGINT", 0)], ids=["eviction", "a person"])
def test_what_a_machine_ended_goes_on_and_what_a_person_ended_does_not(
    runtime: Runtime, dispatcher: Dispatcher, clock: list[float], signal: str, workers: int
) -> None:
    exec_id = create_execution(runtime, flows.brief, {"topic": "x"}).exec_id
    lease = runtime.journal.claim(exec_id, this_process())
    body = {"reason": f"the worker got {signal}", "signal": signal}
    runtime.journal.release(lease, [Event(exec_id, "execution.paused", "", time.time(), body)])
    clock[0] = time.time() + 1000
    dispatcher.take_up_orphans()
    assert started(exec_id) == workers


def test_a_notebook_that_a_person_runs_is_theirs(runtime: Runtime, dispatcher: Dispatcher, clock: list[float]) -> None:
    from kitaru_nb.core.create import write_created

    body = {"ref": {"kind": "notebook", "path": "x.ipynb", "interactive": True}, "inputs": {}}
    exec_id = write_created(runtime, "x", "local", body, bytearray()).exec_id
    runtime.journal.claim(exec_id, dead())
    clock[0] = 1000
    dispatcher.take_up_orphans()
    dispatcher.take_up_orphans()
    assert started(exec_id) == 0


def test_an_execution_whose_worker_never_came_is_started(
    runtime: Runtime, dispatcher: Dispatcher, clock: list[float]
) -> None:
    exec_id = create_execution(runtime, flows.many, {"count": 1}).exec_id
    dispatcher.take_up_orphans()
    assert started(exec_id) == 0
    clock[0] = 100
    dispatcher.take_up_orphans()
    assert ended(runtime, exec_id) is ExecutionStatus.COMPLETED


def test_a_live_execution_is_left_to_its_worker(runtime: Runtime, dispatcher: Dispatcher, clock: list[float]) -> None:
    exec_id = create_execution(runtime, flows.brief, {"topic": "x"}).exec_id
    runtime.journal.claim(exec_id, this_process(), ttl=10_000)
    clock[0] = 1000
    dispatcher.take_up_orphans()
    assert started(exec_id) == 0


def test_the_thread_does_all_of_it_and_outlives_a_failing_duty(
    runtime: Runtime, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher = Dispatcher(KitaruClient(runtime), every=0.02)
    monkeypatch.setattr(dispatcher, "take_up_answered", lambda: 1 / 0)
    exec_id = ran(patient)
    dispatcher.start()
    try:
        assert ended(runtime, exec_id) is ExecutionStatus.COMPLETED
    finally:
        dispatcher.stop()


def test_ended_workers_are_reaped_and_old_ones_forgotten(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kitaru_nb.stacks.process.KEPT", 1)
    ids = [create_execution(runtime, flows.many, {"count": 1}).exec_id for _ in range(2)]
    for exec_id in ids:
        ProcessRunner().submit(runtime, exec_id)
    processes = [_children[exec_id][-1][0] for exec_id in ids]
    until(lambda: reap() or all(p.returncode is not None for p in processes), "the ends")
    reap()
    assert ids[0] not in _children
    assert ids[1] in _children
