"""Deployments that are started by the clock: once each time, whoever looks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from kitaru_nb.config import Settings
from kitaru_nb.core.create import created_event, read_inputs
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import (
    KitaruBackendError,
    KitaruConflictError,
    KitaruFeatureNotAvailableError,
    KitaruNotFoundError,
    KitaruUsageError,
)
from kitaru_nb.model import Execution, ExecutionStatus
from kitaru_nb.promote.schedules import BATCH, Schedules
from kitaru_nb.testing.faults import Died, FaultyJournal
from tests.http.deploying import Deployer

EVERY_MINUTE = "* * * * *"


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    found = Runtime(Settings(tmp_path / "home", journal="memory://" + tmp_path.name))
    yield found
    found.journal.close()


@pytest.fixture
def deploy(runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployer:
    deployer = Deployer(runtime, tmp_path, monkeypatch)
    deployer("brief", tags="prod")
    return deployer


class Clock:
    """A clock that is ahead of the real one by what a test says."""

    def __init__(self) -> None:
        self.now = datetime.now(timezone.utc).replace(second=30) + timedelta(minutes=1)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **passed: float) -> None:
        self.now += timedelta(**passed)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def schedules(runtime: Runtime, deploy: Deployer, clock: Clock) -> Schedules:
    return Schedules(runtime, clock=clock)


def every_minute(schedules: Schedules, **options: object) -> None:
    """A schedule that was seen to once, so that its next time is the next minute."""
    schedules.create("brief", cron=EVERY_MINUTE, inputs={"topic": "tides"}, by="ana", **options)  # type: ignore[arg-type]
    schedules.fire()


def minutes(executions: list[Execution]) -> list[str]:
    assert all(execution.key is not None for execution in executions)
    return [str(execution.key)[-14:-9] for execution in executions]


def test_an_occurrence_is_started_once_with_its_inputs_on_the_version_of_the_tag(
    runtime: Runtime, schedules: Schedules, deploy: Deployer, clock: Clock
) -> None:
    every_minute(schedules, tag="prod", catch_up="skip")
    clock.forward(minutes=1)
    deploy("brief", tags="prod")
    (execution,) = schedules.fire()
    assert (execution.deployment, execution.status) == ("brief@v2", ExecutionStatus.PENDING)
    at = clock.now.replace(second=0, microsecond=0)
    assert execution.key == f"sched:brief:{at.isoformat()}"
    created = created_event(runtime, execution.exec_id)
    assert (created.body["by"], read_inputs(runtime, created)) == (
        "schedule brief",
        {"topic": "tides", "polite": False},
    )
    assert schedules.fire() == []
    found = schedules.get("brief")
    assert (found.last_at, found.last_exec_id, found.problem) == (at, execution.exec_id, None)
    assert found.next_at == at + timedelta(minutes=1)
    assert (found.tag, found.version, found.created_by) == ("prod", None, "ana")


def test_of_many_servers_one_starts_it(runtime: Runtime, schedules: Schedules, clock: Clock) -> None:
    every_minute(schedules)
    before = len(runtime.journal.executions())
    clock.forward(minutes=1)
    gate, started = threading.Barrier(8), []

    def serve() -> None:
        gate.wait()
        started.extend(Schedules(runtime, clock=clock).fire())

    servers = [threading.Thread(target=serve) for _ in range(8)]
    for server in servers:
        server.start()
    for server in servers:
        server.join()
    assert len(started) == 1
    assert len(runtime.journal.executions()) == before + 1


def test_a_server_that_dies_anywhere_loses_no_occurrence_and_doubles_none(runtime: Runtime, deploy: Deployer) -> None:
    for at in range(1, 10):
        clock = Clock()
        schedules = Schedules(runtime, clock=clock)
        schedules.create("brief", cron=EVERY_MINUTE, name=f"s{at}", inputs={"topic": "x"}, catch_up="all")
        schedules.fire()
        before = len(runtime.journal.executions(limit=100))
        clock.forward(minutes=1)
        dying = Runtime(runtime.settings, journal=FaultyJournal(runtime.journal, at=at, when="after"))
        try:
            Schedules(dying, clock=clock).fire()
        except Died:
            Schedules(runtime, clock=clock).fire()
        made = runtime.journal.executions(limit=100)
        assert len(made) == before + 1
        schedules.delete(f"s{at}")


@pytest.mark.parametrize(("catch_up", "times"), [("skip", 1), ("one", 1), ("all", 10)])
def test_of_what_was_missed_as_much_is_made_up_for_as_was_said(
    schedules: Schedules, clock: Clock, catch_up: str, times: int
) -> None:
    every_minute(schedules, catch_up=catch_up)
    clock.forward(minutes=10)
    made = schedules.fire()
    newest = clock.now.strftime("%H:%M")
    assert len(made) == times
    assert minutes(made)[-1] == newest
    assert schedules.fire() == []


def test_what_is_too_late_is_skipped_or_made_up_for(schedules: Schedules, clock: Clock) -> None:
    soon = clock.now + timedelta(minutes=2)
    for catch_up in ("skip", "one"):
        schedules.create(
            "brief",
            cron=f"{soon.minute} {soon.hour} * * *",
            name=catch_up,
            catch_up=catch_up,  # type: ignore[arg-type]
            inputs={"topic": catch_up},
        )
    clock.forward(hours=5)
    (made,) = schedules.fire()
    assert str(made.key).startswith("sched:one:")
    assert schedules.get("skip").last_at is None


def test_a_great_many_missed_ones_come_in_batches(schedules: Schedules, clock: Clock) -> None:
    every_minute(schedules, catch_up="all")
    clock.forward(minutes=BATCH + 20)
    assert [len(schedules.fire()) for _ in range(3)] == [BATCH, 20, 0]


def test_what_cannot_be_started_is_told_and_the_next_time_is_tried_again(
    schedules: Schedules, deploy: Deployer, clock: Clock
) -> None:
    every_minute(schedules, tag="prod")
    deploy.deployments.untag("brief", "prod")
    clock.forward(minutes=1)
    assert schedules.fire() == []
    assert schedules.fire() == []
    found = schedules.get("brief")
    assert (found.last_exec_id, found.problem) == (None, "Flow 'brief' has no tag 'prod'. Tags are: default.")
    deploy.deployments.tag("brief", 1, "prod")
    clock.forward(minutes=1)
    (execution,) = schedules.fire()
    history = [(c.what, c.exec_ids, c.problem is None) for c in schedules.history("brief")]
    assert history[0] == ("created", (), True)
    assert history[-2:] == [("failed", (), False), ("started", (execution.exec_id,), True)]


def test_a_store_that_is_away_makes_it_late_and_not_lost(
    runtime: Runtime, schedules: Schedules, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    every_minute(schedules)
    clock.forward(minutes=1)

    def away(*_: object, **__: object) -> None:
        raise KitaruBackendError("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(type(runtime.store), "write", away)
        with pytest.raises(KitaruBackendError):
            schedules.fire()
    assert len(schedules.fire()) == 1


def test_a_deleted_schedule_starts_nothing_and_its_name_is_free(schedules: Schedules, clock: Clock) -> None:
    every_minute(schedules)
    assert schedules.delete("brief", by="bob").cron == EVERY_MINUTE
    clock.forward(minutes=5)
    assert schedules.fire() == []
    assert schedules.list() == []
    with pytest.raises(KitaruNotFoundError, match=r"no schedule 'brief'. Schedules are: none"):
        schedules.delete("brief")
    again = schedules.create("brief", cron="0 7 * * 1-5", timezone="Europe/Berlin", inputs={"topic": "x"}, by="eve")
    assert (again.created_by, again.last_at) == ("eve", None)
    changes = [(c.by, c.what) for c in schedules.history("brief") if c.occurrence is None]
    assert changes == [("ana", "created"), ("bob", "deleted"), ("eve", "created")]


def test_several_schedules_start_one_flow(schedules: Schedules, deploy: Deployer) -> None:
    deploy("letter")
    for name, flow in (("morning", "brief@prod"), ("evening", "brief"), ("letter", "letter")):
        schedules.create(flow, cron="0 7 * * *", name=name, inputs={"topic": name})
    assert [s.name for s in schedules.list()] == ["evening", "letter", "morning"]
    assert [(s.name, s.tag) for s in schedules.list(flow="brief")] == [("evening", None), ("morning", "prod")]


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"cron": "0 25 * * *"}, KitaruUsageError, "its hour can't be"),
        ({"timezone": "Berlin"}, KitaruUsageError, "Expected a name such as Europe/Berlin"),
        ({"flow": "letter"}, KitaruNotFoundError, "no deployment of a flow 'letter'. Flows are: brief"),
        ({"tag": "live"}, KitaruNotFoundError, "no tag 'live'. Tags are: default, prod"),
        ({"version": 9}, KitaruNotFoundError, "does not exist. Versions are: v1"),
        ({"inputs": {}}, KitaruUsageError, "needs the input 'topic'"),
        ({"inputs": {"topic": 1}}, KitaruUsageError, "Input 'topic' of brief@v1 is 1; expected"),
        ({"stack": "moon"}, KitaruFeatureNotAvailableError, "no stack 'moon'"),
        ({"catch_up": "some"}, KitaruUsageError, "expected skip, one, all"),
        ({"name": "a b"}, KitaruUsageError, "can't be a schedule's name"),
        ({"name": "there"}, KitaruConflictError, "a schedule 'there' already: brief at 0 7 .* by ana"),
    ],
    ids=["cron", "zone", "flow", "tag", "version", "missing", "type", "stack", "catch up", "name", "taken"],
)
def test_what_cannot_be_scheduled_is_refused(
    runtime: Runtime, schedules: Schedules, options: dict[str, object], error: type[Exception], told: str
) -> None:
    schedules.create("brief", cron="0 7 * * *", name="there", inputs={"topic": "x"}, by="ana")
    wanted = {"flow": "brief", "cron": "0 7 * * *", "inputs": {"topic": "x"}} | options
    with pytest.raises(error, match=told) as caught:
        schedules.create(**wanted)  # type: ignore[arg-type]
    assert caught.value.fix  # type: ignore[attr-defined]
    assert [s.name for s in schedules.list()] == ["there"]
