"""Workers on a stack whose journal is a server's: they reach nothing else of it, and all state is there."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kitaru_nb import checkpoint, flow
from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError
from kitaru_nb.journal.base import Journal, is_dead
from kitaru_nb.journal.http import HttpJournal
from kitaru_nb.model import ExecutionStatus, Owner
from kitaru_nb.stacks.definition import parse_stack, save_stack, use_stack
from kitaru_nb.stacks.process import reap
from tests.http import flows
from tests.journal.http_server import JournalServer, serving

SECONDS = 120.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JournalServer]:
    with serving(tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture
def stack(server: JournalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A stack in a home of its own, whose journal is on the server and whose token is in the environment."""
    url = server.url()
    token = url.partition("//:")[2].partition("@")[0]
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TEAM_TOKEN", token)
    fields = {
        "runner": "process",
        "journal": url.replace(token, "${TEAM_TOKEN}"),
        "store": str(tmp_path / "blobs"),
    }
    save_stack(parse_stack("team", fields, "the test"), tmp_path / "home")
    return "team"


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    ends = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < ends, f"{what} didn't come to be in {SECONDS:g} s"
        time.sleep(0.02)


def owners(journal: Journal, exec_id: str) -> list[Owner]:
    """Who claimed the execution, in order."""
    return [Owner(**e.body["owner"]) for e in journal.history(exec_id) if e.kind == "execution.claimed"]


def test_a_flow_runs_waits_and_goes_on_in_workers_that_reach_only_the_server(stack: str, tmp_path: Path) -> None:
    handle = flows.brief.run("snow", stack=stack)
    until(lambda: handle.status is ExecutionStatus.WAITING, "the wait")
    client = KitaruClient(stack=stack)
    journal = client.runtime.journal
    assert isinstance(journal, HttpJournal)
    until(lambda: all(map(is_dead, owners(journal, handle.exec_id))), "the end of its worker")
    client.executions.input(handle.exec_id, wait="approve", value=True)
    until(lambda: handle.status is ExecutionStatus.COMPLETED, "the end")
    assert handle.get() == "published: notes on snow"
    workers = owners(journal, handle.exec_id)
    assert len({owner.pid for owner in workers}) == 2
    until(lambda: all(map(is_dead, workers)), "the end of both workers")
    reap()
    assert not (tmp_path / "home" / "journal.db").exists()
    # Told to use the stack, the command asks the server too, and shows no token.
    use_stack(stack)
    command = [sys.executable, "-m", "kitaru_nb", "executions", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert handle.exec_id in listed.stdout
    assert "kt_" not in listed.stdout + listed.stderr
    journal.close()


class Halfway:
    """Where a flow of twenty steps stands until the server has gone."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

        @checkpoint
        def step(number: int) -> int:
            if number == 10:
                self.reached.set()
                assert self.go_on.wait(SECONDS)
            return number

        @flow
        def steps() -> int:
            return sum(step(number) for number in range(20))

        self.steps = steps


def test_a_server_that_is_away_for_a_moment_holds_a_flow_up_and_no_more(server: JournalServer, tmp_path: Path) -> None:
    halfway = Halfway()
    runtime = Runtime(Settings(tmp_path / "home"), journal=HttpJournal(server.url(), patience=SECONDS))
    handle = halfway.steps.with_options(runtime=runtime).run()
    assert halfway.reached.wait(SECONDS)
    server.stop()
    halfway.go_on.set()
    server.start()
    assert handle.wait() == 190
    completed = [e.key for e in runtime.journal.history(handle.exec_id) if e.kind == "checkpoint.completed"]
    assert len(completed) == len(set(completed)) == 20
    runtime.journal.close()


def test_a_server_that_stays_away_ends_a_flow_with_the_reason_and_it_is_resumed_later(
    server: JournalServer, tmp_path: Path
) -> None:
    runtime = Runtime(Settings(tmp_path / "home", lease_seconds=1), journal=HttpJournal(server.url(), patience=0.3))
    halfway = Halfway()
    handle = halfway.steps.with_options(runtime=runtime).run()
    assert halfway.reached.wait(SECONDS)
    local = handle.local
    assert local is not None
    server.stop()
    halfway.go_on.set()
    try:
        assert local.ended.wait(SECONDS)
    finally:
        server.start()
    with pytest.raises(KitaruBackendError, match="can't be reached"):
        handle.wait()
    done = len([e for e in runtime.journal.history(handle.exec_id) if e.kind == "checkpoint.completed"])
    assert done == 10
    until(lambda: handle.status is ExecutionStatus.INTERRUPTED, "the end of its lease")
    assert advance(runtime, handle.exec_id, halfway.steps, poll_seconds=0).value == 190
    runtime.journal.close()
