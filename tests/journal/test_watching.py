"""News of a journal are a hint: a listener that breaks is replaced, and who hears nothing looks now and then."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection
from pathlib import Path
from queue import Queue

import pytest

from kitaru_nb import flow, wait
from kitaru_nb.config import Settings
from kitaru_nb.core import parking
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError
from kitaru_nb.journal.memory import MemoryJournal
from kitaru_nb.journal.sqlite import SqliteJournal
from kitaru_nb.journal.watching import Watchers
from kitaru_nb.testing.journal import event, new_execution

SECONDS = 60.0


class Scripted:
    """A listener that says what the test puts into its queue; an error is raised."""

    def __init__(self, script: Queue[Collection[str] | Exception | None]) -> None:
        self.script = script
        self.closed = False

    def news(self, timeout: float) -> Collection[str] | None:
        said = self.script.get()
        if isinstance(said, Exception):
            raise said
        return said

    def interrupt(self) -> None:
        self.script.put(())

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def script() -> Queue[Collection[str] | Exception | None]:
    return Queue()


def test_a_listener_that_breaks_is_closed_and_replaced_and_all_look_once(
    script: Queue[Collection[str] | Exception | None],
) -> None:
    made: list[Scripted] = []

    def listen() -> Scripted:
        made.append(Scripted(script))
        return made[-1]

    called: Queue[str] = Queue()
    watchers = Watchers(listen)
    watchers.add(lambda: called.put("one"), "kr-1")
    assert called.get(timeout=SECONDS) == "one"  # for what came before it listened
    script.put({"kr-2"})
    script.put({"kr-1", "kr-2"})
    assert called.get(timeout=SECONDS) == "one"
    script.put(KitaruBackendError("the connection is gone"))
    assert called.get(timeout=SECONDS) == "one"
    assert [listener.closed for listener in made] == [True, False]
    script.put(None)
    assert called.get(timeout=SECONDS) == "one"
    watchers.close()
    assert called.empty()
    assert made[1].closed


def test_a_storage_that_cannot_be_listened_to_at_first_is_tried_again() -> None:
    tries = []

    def listen() -> Scripted:
        tries.append(1)
        if len(tries) == 1:
            raise KitaruBackendError("not yet")
        return Scripted(Queue())

    called = threading.Event()
    watchers = Watchers(listen)
    watchers.add(called.set, None)
    assert called.wait(SECONDS)
    assert len(tries) == 2
    watchers.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_child_after_a_fork_watches_for_itself_and_leaves_the_parent_alone(tmp_path: Path) -> None:
    journal = SqliteJournal(f"sqlite://{tmp_path}/journal.db", durability="process")
    exec_id = journal.create(new_execution(), []).exec_id
    heard = threading.Event()
    journal.watch(heard.set)
    assert heard.wait(SECONDS)
    pid = os.fork()
    if pid == 0:
        told = threading.Event()
        journal.watch(told.set)
        first = told.wait(SECONDS)
        told.clear()
        journal.append(exec_id, [event(exec_id)])
        os._exit(0 if first and told.wait(SECONDS) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    heard.clear()
    journal.append(exec_id, [event(exec_id)])
    assert heard.wait(SECONDS)
    journal.close()


@flow
def asking() -> bool:
    return wait("approve", timeout=SECONDS)


def test_a_polling_wait_that_is_told_nothing_finds_its_answer_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "LOOK", 0.05)
    monkeypatch.setattr(MemoryJournal, "watch", lambda *_, **__: int)
    runtime = Runtime(Settings(tmp_path), journal=MemoryJournal(f"memory://{tmp_path}"))
    handle = asking.with_options(runtime=runtime).run()
    while not (asked := runtime.journal.waits(exec_id=handle.exec_id)):
        pass
    resolved = event(handle.exec_id, "wait.resolved", asked[0].wait_id, value=True, by="ann", via="cli")
    runtime.journal.append(handle.exec_id, [resolved])
    assert handle.wait() is True
