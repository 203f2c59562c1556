"""Workers that died before they began, and those that an outage ended."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kitaru_nb.client import KitaruClient
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.journal.base import this_process
from kitaru_nb.model import Event, ExecutionStatus
from kitaru_nb.stacks.process import ProcessRunner, lost
from kitaru_nb.surfaces.http.dispatcher import TRIES_IN_AN_OUTAGE, Dispatcher
from kitaru_nb.surfaces.http.turns import PATIENCE_WITH_THE_DEAD
from tests.http import flows
from tests.http.httpkit import Ran, until
from tests.http.test_dispatcher import dead, ended, started


@pytest.fixture
def clock() -> list[float]:
    """What the dispatcher's clock says; it stands still."""
    return [time.time()]


@pytest.fixture
def dispatcher(runtime: Runtime, clock: list[float]) -> Dispatcher:
    """One that is told when to look."""
    return Dispatcher(KitaruClient(runtime), clock=lambda: clock[0])


def dying(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The next workers of this process die before they have claimed anything."""
    begin = subprocess.Popen
    left = [times]

    def stillborn(command: Sequence[str], **options: Any) -> Any:
        left[0] -= 1
        return begin(
            [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"] if left[0] >= 0 else command, **options
        )

    monkeypatch.setattr("kitaru_nb.stacks.queueing.subprocess.Popen", stillborn)


def it_is_replaced_in_a_moment(exec_id: str, look: Callable[[], object], clock: list[float]) -> None:
    """The newest worker is dead: the next begins, but not at once, as what kills workers may need a moment to pass."""
    before = started(exec_id)
    until(lambda: lost(exec_id), "its end")
    look()
    assert started(exec_id) == before
    clock[0] += PATIENCE_WITH_THE_DEAD
    look()
    assert started(exec_id) == before + 1


def test_a_worker_that_died_before_it_began_is_replaced_at_once(
    runtime: Runtime, dispatcher: Dispatcher, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    dying(monkeypatch, 2)
    exec_id = create_execution(runtime, flows.many, {"count": 1}).exec_id
    ProcessRunner().submit(runtime, exec_id)
    until(lambda: dispatcher.take_up_orphans() or started(exec_id) == 2, "the second worker")
    it_is_replaced_in_a_moment(exec_id, dispatcher.take_up_orphans, clock)
    assert started(exec_id) == 3
    assert ended(runtime, exec_id) is ExecutionStatus.COMPLETED


def test_an_answer_whose_worker_died_before_it_began_is_taken_up_again(
    runtime: Runtime, ran: Ran, dispatcher: Dispatcher, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kitaru_nb.surfaces.http.dispatcher.GRACE", 0.0)
    exec_id = ran(flows.brief)
    (asked,) = runtime.journal.waits(exec_id=exec_id)
    body = {"value": False, "by": "ana", "via": "http"}
    runtime.journal.append(exec_id, [Event(exec_id, "wait.resolved", asked.wait_id, time.time(), body)])
    dying(monkeypatch, 2)
    dispatcher.take_up_answered()
    assert started(exec_id) == 1
    it_is_replaced_in_a_moment(exec_id, dispatcher.take_up_answered, clock)
    assert started(exec_id) == 2


def test_what_ended_while_the_server_looked_is_not_begun_again(
    runtime: Runtime, dispatcher: Dispatcher, clock: list[float]
) -> None:
    row = create_execution(runtime, flows.many, {"count": 1})
    failed = Event(row.exec_id, "execution.failed", "", time.time(), {"failure": {"message": "it is broken"}})
    runtime.journal.release(runtime.journal.claim(row.exec_id, this_process()), [failed])
    assert not dispatcher._go_on(row, "no worker came")
    assert started(row.exec_id) == 0


def test_what_an_outage_ended_is_tried_for_longer(
    runtime: Runtime, dispatcher: Dispatcher, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    exec_id = create_execution(runtime, flows.brief, {"topic": "x"}).exec_id
    outage = Event(exec_id, "execution.paused", "", time.time(), {"reason": "The store is away.", "outage": True})

    def still_away(*_: Any) -> None:
        runtime.journal.release(runtime.journal.claim(exec_id, this_process()), [outage])

    monkeypatch.setattr("kitaru_nb.core.control.start", still_away)
    still_away()
    tried, began = [], clock[0]
    for second in range(0, 7200, 5):
        clock[0] = began + second
        before = runtime.journal.execution(exec_id).epoch
        dispatcher.take_up_orphans()
        if runtime.journal.execution(exec_id).epoch > before:
            tried.append(second)
    assert len(tried) == TRIES_IN_AN_OUTAGE
    assert 600 < tried[-1] < 3600
    runtime.journal.claim(exec_id, dead())  # the store is back, but now the worker dies
    assert not dispatcher._is_orphan(runtime.journal.execution(exec_id), time.time() + 7200)
