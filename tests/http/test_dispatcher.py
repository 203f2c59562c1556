"""What the server takes up by itself, and what it leaves alone."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import nbformat
import pytest

from kitaru_nb import checkpoint, flow, wait
from kitaru_nb.client import KitaruClient
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.runners import Job
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError
from kitaru_nb.headless import begin
from kitaru_nb.journal.base import this_process
from kitaru_nb.model import Event, Execution, ExecutionStatus, Owner
from kitaru_nb.stacks.definition import parse_stack, save_stack
from kitaru_nb.stacks.process import ProcessRunner, _children, reap
from kitaru_nb.surfaces.http.dispatcher import GRACE, RETRY_AFTER, TRIES, Dispatcher, of_every_stack
from kitaru_nb.surfaces.http.turns import PATIENCE, Turns
from kitaru_nb.testing.faults import FaultyJournal
from tests.http import flows
from tests.http.deploying import Deployer
from tests.http.httpkit import SECONDS, Ran, until

HERE = Path(__file__)


@flow
def patient() -> str:
    return "nobody objected" if wait("veto", until=timedelta(seconds=30), timeout=0) is None else "stopped"


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


class Troubled(FaultyJournal):
    """One of its methods fails for a while."""

    trouble: str | None = None

    def _check(self, name: str) -> None:
        if name == self.trouble:
            raise KitaruBackendError("The journal can't be reached.")

    def execution(self, exec_id: str) -> Execution:
        self._check("execution")
        return super().execution(exec_id)

    def executions(self, **wanted: Any) -> list[Execution]:
        self._check("executions")
        return super().executions(**wanted)

    def history(self, exec_id: str, *, after: int = 0) -> list[Event]:
        self._check("history")
        return super().history(exec_id, after=after)


class Counted(Dispatcher):
    """One that knows how often it looked."""

    looks = 0

    def _look(self) -> None:
        super()._look()
        self.looks += 1


@pytest.fixture
def clock() -> list[float]:
    """The dispatcher's clock: how far it is ahead."""
    return [0.0]


@pytest.fixture
def dispatcher(runtime: Runtime, clock: list[float]) -> Dispatcher:
    """One that is told when to look."""
    return Dispatcher(KitaruClient(runtime), clock=lambda: time.time() + clock[0])


@pytest.fixture
def deploy(runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployer:
    return Deployer(runtime, tmp_path, monkeypatch)


def dead() -> Owner:
    """An owner that certainly doesn't live any more."""
    mine = this_process()
    return Owner(mine.host, mine.pid, mine.started + 1, "gone")


def ended(runtime: Runtime, exec_id: str) -> ExecutionStatus:
    """How an execution ended, once it did."""
    until(lambda: runtime.journal.execution(exec_id).status.ended, f"the end of {exec_id}")
    status = runtime.journal.execution(exec_id).status
    assert status is not ExecutionStatus.FAILED, runtime.journal.history(exec_id)[-1].body
    return status


def started(exec_id: str) -> int:
    """How many workers this process started for it."""
    return len(_children.get(exec_id, ()))


def test_a_due_timer_rings_without_anybody(
    runtime: Runtime, ran: Ran, dispatcher: Dispatcher, clock: list[float]
) -> None:
    exec_id = ran(patient)
    dispatcher.ring()
    assert runtime.journal.execution(exec_id).status is ExecutionStatus.WAITING
    clock[0] = 31
    dispatcher.ring()
    dispatcher.ring()
    assert started(exec_id) == 1
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


@pytest.mark.parametrize("trouble", ["executions", "history", "execution"])
def test_an_answer_is_not_forgotten_when_the_journal_can_not_be_read_for_a_moment(
    runtime: Runtime, ran: Ran, clock: list[float], trouble: str
) -> None:
    exec_id = ran(flows.brief)
    (asked,) = runtime.journal.waits(exec_id=exec_id)
    body = {"value": False, "by": "ana", "via": "http"}
    runtime.journal.append(exec_id, [Event(exec_id, "wait.resolved", asked.wait_id, time.time(), body)])
    journal = Troubled(runtime.journal)
    dispatcher = Dispatcher(
        KitaruClient(Runtime(runtime.settings, journal=journal)), clock=lambda: time.time() + clock[0]
    )
    journal.trouble = trouble
    for _ in range(2):  # its first look, and the one at which it would start a worker
        with contextlib.suppress(KitaruBackendError):
            dispatcher.take_up_answered()
        clock[0] += GRACE + 1
    assert started(exec_id) == 0
    journal.trouble = None
    for _ in range(2):
        dispatcher.take_up_answered()
        clock[0] += GRACE + 1
    assert ended(runtime, exec_id) is ExecutionStatus.COMPLETED
    assert started(exec_id) == 1


def test_a_worker_that_died_is_replaced(
    runtime: Runtime, dispatcher: Dispatcher, clock: list[float], tmp_path: Path
) -> None:
    exec_id = create_execution(runtime, mortal, {"flag": str(tmp_path / "flag")}).exec_id
    ProcessRunner().submit(runtime, exec_id)
    until(lambda: runtime.journal.execution(exec_id).status is ExecutionStatus.INTERRUPTED, "the death")
    clock[0] = GRACE + 1
    # A process whose threads still end is dead for the journal, and not yet for whoever started it.
    until(lambda: dispatcher.take_up_orphans() or started(exec_id) == 2, "the second worker")
    assert ended(runtime, exec_id) is ExecutionStatus.COMPLETED


def test_a_worker_that_keeps_dying_is_tried_later_each_time_and_then_left_alone(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    exec_id = create_execution(runtime, flows.brief, {"topic": "x"}).exec_id
    monkeypatch.setattr("kitaru_nb.core.control.start", lambda *_: runtime.journal.claim(exec_id, dead()))
    claims = []
    now = begun = time.time()
    dispatcher = Dispatcher(KitaruClient(runtime), clock=lambda: now)
    runtime.journal.claim(exec_id, dead())
    for second in range(200):
        now = begun + second
        dispatcher.take_up_orphans()
        claims.append(runtime.journal.execution(exec_id).epoch)
    assert max(claims) == TRIES + 1
    # All claims are of the beginning, so the pauses don't add up: each is twice as long as the one before.
    tried = [claims.index(epoch) for epoch in range(2, TRIES + 2)]
    assert all(second >= GRACE * 2**before for before, second in enumerate(tried))
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


def test_an_evicted_notebook_goes_on_in_a_fresh_worker(
    runtime: Runtime, dispatcher: Dispatcher, clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an evicted flow does: the record of its pause names the signal."""
    cells = [
        "%%checkpoint first\nnumber = 1\nopen('first.txt', 'a').write('ran ')",
        "%%checkpoint second\nimport os, time\nopen('came.txt', 'w').close()\n"
        "while not os.path.exists('go.txt'):\n    time.sleep(0.02)",
    ]
    path = tmp_path / "long.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    exec_id = begin(runtime, path, {}).exec_id
    ProcessRunner().submit(runtime, exec_id)
    until((tmp_path / "came.txt").exists, "the second cell")
    monkeypatch.setattr("kitaru_nb.stacks.process.GRACE", SECONDS)  # however slow the machine: it isn't killed
    ProcessRunner().cancel(exec_id)
    assert runtime.journal.execution(exec_id).status is ExecutionStatus.INTERRUPTED
    assert [e.body["signal"] for e in runtime.journal.history(exec_id) if e.kind == "execution.paused"] == ["SIGTERM"]
    (tmp_path / "go.txt").touch()
    clock[0] = 1000
    dispatcher.take_up_orphans()
    assert ended(runtime, exec_id) is ExecutionStatus.COMPLETED
    assert (tmp_path / "first.txt").read_text() == "ran "


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


def test_a_place_that_takes_no_worker_now_is_asked_again_later(
    runtime: Runtime, dispatcher: Dispatcher, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def full(self: ProcessRunner, runtime: Runtime, exec_id: str, job: Job | None = None) -> str:
        asked.append(exec_id)
        raise KitaruBackendError("There is no room.")

    exec_id = create_execution(runtime, flows.many, {"count": 1}).exec_id
    clock[0] = 100
    with monkeypatch.context() as patch:
        patch.setattr(ProcessRunner, "submit", full)
        for _ in range(TRIES + 1):
            dispatcher.take_up_orphans()
            dispatcher.take_up_orphans()
            clock[0] += RETRY_AFTER + 1
    assert asked == [exec_id] * (TRIES + 1)  # once each time, however often it looks
    dispatcher.take_up_orphans()
    assert ended(runtime, exec_id) is ExecutionStatus.COMPLETED


def test_two_servers_side_by_side_start_nothing_twice(
    runtime: Runtime, ran: Ran, deploy: Deployer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every kind of leftover and of several stacks one, all found by both at the same moment, again and again."""
    monkeypatch.setenv("KITARU_HOME", str(runtime.home))
    save_stack(parse_stack("team", {"environment": {"WHO": "team"}}, "test"), runtime.home)
    deploy("letter")
    timer, answered = ran(patient), ran(flows.brief)
    (asked,) = runtime.journal.waits(exec_id=answered)
    body = {"value": False, "by": "ana", "via": "http"}
    runtime.journal.append(answered, [Event(answered, "wait.resolved", asked.wait_id, time.time(), body)])
    never_came, dead_one, evicted = (
        create_execution(runtime, flows.many.with_options(stack=stack), {"count": 1}).exec_id
        for stack in ("team", "process", "team")
    )
    runtime.journal.claim(dead_one, dead())
    lease = runtime.journal.claim(evicted, this_process())
    pause = {"reason": "the worker got SIGTERM", "signal": "SIGTERM"}
    runtime.journal.release(lease, [Event(evicted, "execution.paused", "", time.time(), pause)])
    KitaruClient(runtime).schedules.create("letter", cron="* * * * *", inputs={"topic": "tides"}, catch_up="one")
    handles = [Runtime(runtime.settings) for _ in range(2)]
    ahead = time.time() + 100
    servers = [Counted(KitaruClient(each), every=0.02, clock=lambda: ahead) for each in handles]
    for server in servers:
        server._answered[answered] = 0.0
        server.start()
    try:
        for exec_id in (timer, answered, never_came, dead_one, evicted):
            assert ended(runtime, exec_id) is ExecutionStatus.COMPLETED
        (scheduled,) = until(lambda: runtime.journal.executions(flow="letter"), "the scheduled execution")
        assert ended(runtime, scheduled.exec_id) is ExecutionStatus.COMPLETED
        looks = [server.looks + 3 for server in servers]
        until(lambda: all(server.looks >= more for server, more in zip(servers, looks, strict=True)), "more looks")
    finally:
        for server in servers:
            server.stop()
        for each in handles:
            each.journal.close()
    everything = (timer, answered, never_came, dead_one, evicted, scheduled.exec_id)
    assert [started(exec_id) for exec_id in everything] == [1] * 6
    assert runtime.journal.executions(flow="letter") == [runtime.journal.execution(scheduled.exec_id)]


def test_a_server_that_died_after_taking_a_turn_holds_it_only_for_a_while(
    runtime: Runtime, dispatcher: Dispatcher, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    row = create_execution(runtime, flows.brief, {"topic": "x"})
    now = [0.0]
    first, second = (Turns(runtime.journal, lambda: now[0]) for _ in range(2))
    assert first.take(row)
    taken = []
    for _ in range(10):
        now[0] += PATIENCE - 1
        taken.append(second.take(row))
    assert taken == [False, True, False, False, True, False, False, False, False, False]
    assert [record.message for record in caplog.records if record.name == "kitaru_nb.server"] == [
        f"{row.exec_id} is left alone: 3 workers were started, and none came"
    ]
    lease = runtime.journal.claim(row.exec_id, dead())  # one came after all, and died: the next turn is another
    assert lease.epoch == 1
    assert first.take(runtime.journal.execution(row.exec_id))


def test_an_answer_that_another_server_takes_care_of_is_looked_at_again(
    runtime: Runtime, ran: Ran, dispatcher: Dispatcher, clock: list[float]
) -> None:
    exec_id = ran(flows.brief)
    dispatcher.take_up_answered()
    (asked,) = runtime.journal.waits(exec_id=exec_id)
    body = {"value": False, "by": "ana", "via": "http"}
    runtime.journal.append(exec_id, [Event(exec_id, "wait.resolved", asked.wait_id, time.time(), body)])
    dispatcher.take_up_answered()
    clock[0] = GRACE + 1
    assert Turns(runtime.journal, lambda: time.time() + clock[0]).take(runtime.journal.execution(exec_id))
    dispatcher.take_up_answered()
    assert started(exec_id) == 0
    clock[0] += PATIENCE + 1  # that server died
    dispatcher.take_up_answered()
    assert ended(runtime, exec_id) is ExecutionStatus.COMPLETED


def test_a_server_looks_after_the_journals_of_all_stacks(
    runtime: Runtime, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stacks = {
        "same": {},
        "team": {"journal": f"sqlite://{tmp_path}/team.db"},
        "far": {"journal": "https://kitaru.example"},
        "lost": {"journal": "postgresql://ana:${A_VARIABLE_THAT_IS_NOT_SET}@db/x"},
    }
    for name, fields in stacks.items():
        save_stack(parse_stack(name, fields, "test"), runtime.home)
    found = of_every_stack(KitaruClient(runtime))
    urls = [dispatcher._runtime.settings.journal_url for dispatcher in found]
    assert urls == [runtime.settings.journal_url, f"sqlite://{tmp_path}/team.db"]
    assert "Stack lost is left alone: " in caplog.text


def test_a_live_execution_is_left_to_its_worker(runtime: Runtime, dispatcher: Dispatcher, clock: list[float]) -> None:
    exec_id = create_execution(runtime, flows.brief, {"topic": "x"}).exec_id
    runtime.journal.claim(exec_id, this_process(), ttl=10_000)
    clock[0] = 1000
    dispatcher.take_up_orphans()
    assert started(exec_id) == 0


def test_the_thread_does_all_of_it_and_outlives_a_failing_duty(
    runtime: Runtime, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher = Dispatcher(KitaruClient(runtime), every=0.02, clock=lambda: time.time() + 31)
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
