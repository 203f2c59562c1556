"""Group commit, forks, sudden death, and the views of the SQLite journal."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kitaru_nb.errors import KitaruBackendError, KitaruFencedError
from kitaru_nb.journal.commit import GroupCommit, Write
from kitaru_nb.journal.connections import Connections
from kitaru_nb.journal.sqlite import SqliteJournal
from kitaru_nb.model import Event
from kitaru_nb.testing import journal_processes as processes
from kitaru_nb.testing.journal import ELSEWHERE, event, new_execution


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    handle = SqliteJournal(f"sqlite://{tmp_path}/journal.db", durability="process")
    yield handle
    handle.close()


@pytest.fixture
def exec_id(journal: SqliteJournal) -> str:
    return journal.create(new_execution(), []).exec_id


class TestGroupCommit:
    """Writes that share a transaction: what a leader does when others have queued."""

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Iterator[Connections]:
        opened = Connections(tmp_path / "group.db", durable=False)
        yield opened
        opened.close()

    @pytest.fixture
    def group(self, opened: Connections) -> GroupCommit:
        return GroupCommit(opened)

    @staticmethod
    def insert(name: str, then: Callable[[sqlite3.Connection], Any] = lambda _: None) -> Write:
        def work(connection: sqlite3.Connection) -> str:
            connection.execute("insert into refs (name, value) values (?, '')", (name,))
            then(connection)
            return name

        return Write(work)

    @staticmethod
    def stored(opened: Connections) -> list[str]:
        with opened.reader() as connection:
            return [name for (name,) in connection.execute("select name from refs order by name")]

    def test_writes_that_queued_meanwhile_share_one_commit(self, opened: Connections, group: GroupCommit) -> None:
        statements: list[str] = []
        opened.writer().set_trace_callback(statements.append)
        writes = [self.insert(name) for name in "abc"]
        group.commit(writes)
        assert [(write.done, write.result, write.error) for write in writes] == [(True, name, None) for name in "abc"]
        assert statements.count("commit") == 1
        assert self.stored(opened) == ["a", "b", "c"]

    def test_a_refused_write_fails_alone_and_leaves_nothing(self, opened: Connections, group: GroupCommit) -> None:
        def refuse(_: sqlite3.Connection) -> None:
            raise KitaruFencedError("stale")

        writes = [self.insert("a"), self.insert("b", refuse), self.insert("c")]
        group.commit(writes)
        assert [type(write.error) for write in writes] == [type(None), KitaruFencedError, type(None)]
        assert all(write.done for write in writes)
        assert self.stored(opened) == ["a", "c"]

    def test_a_write_that_sqlite_refuses_fails_alone(self, opened: Connections, group: GroupCommit) -> None:
        writes = [self.insert("a"), self.insert("b", lambda c: c.execute("select * from nothing")), self.insert("c")]
        group.commit(writes)
        assert [type(write.error) for write in writes] == [type(None), KitaruBackendError, type(None)]
        assert self.stored(opened) == ["a", "c"]

    def test_an_interrupt_undoes_the_transaction_and_settles_nobody(
        self, opened: Connections, group: GroupCommit
    ) -> None:
        def interrupt(_: sqlite3.Connection) -> None:
            raise KeyboardInterrupt

        writes = [self.insert("a"), self.insert("b", interrupt), self.insert("c")]
        with pytest.raises(KeyboardInterrupt):
            group.commit(writes)
        assert not any(write.done for write in writes)
        assert self.stored(opened) == []
        assert group.run(self.insert("d").work) == "d"

    def test_writes_queued_behind_an_interrupted_leader_are_done_by_their_own_threads(
        self, opened: Connections, group: GroupCommit
    ) -> None:
        inside, queued = threading.Event(), threading.Event()

        def slow(_: sqlite3.Connection) -> None:
            inside.set()
            queued.wait(30)
            raise KeyboardInterrupt

        def lead() -> None:
            with pytest.raises(KeyboardInterrupt):
                group.run(self.insert("leader", slow).work)

        threads = [threading.Thread(target=lead)]
        threads[0].start()
        inside.wait(30)
        for name in "abc":
            threads.append(threading.Thread(target=group.run, args=(self.insert(name).work,)))
            threads[-1].start()
        queued.set()
        for thread in threads:
            thread.join(30)
        assert self.stored(opened) == ["a", "b", "c"]

    def test_a_stale_worker_in_a_shared_commit_is_refused_alone(self, journal: SqliteJournal, exec_id: str) -> None:
        # Another connection holds the write lock, so that all of these queue behind the first.
        stale = journal.claim(exec_id, ELSEWHERE, ttl=0)
        lease = journal.claim(exec_id, ELSEWHERE)
        blocker = sqlite3.connect(journal.path, isolation_level=None, check_same_thread=False)
        blocker.execute("begin immediate")
        outcomes: dict[int, object] = {}

        def append(n: int) -> None:
            try:
                outcomes[n] = journal.append(exec_id, [event(exec_id, n=n)] * 2, lease=stale if n % 3 == 0 else lease)
            except KitaruFencedError as error:
                outcomes[n] = error

        threads = [threading.Thread(target=append, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        blocker.execute("rollback")
        blocker.close()
        for thread in threads:
            thread.join(30)
        refused = {n for n, outcome in outcomes.items() if isinstance(outcome, KitaruFencedError)}
        assert refused == {0, 3, 6, 9}
        stored = [e.body["n"] for e in journal.history(exec_id) if e.kind == "metadata"]
        assert sorted(stored) == sorted([n for n in range(12) if n % 3] * 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
class TestFork:
    def child(self, work: Callable[[], object]) -> int:
        """Run ``work`` in a forked child; return its process id. It ends with 0 when nothing was raised."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        return pid

    def succeeded(self, pid: int) -> bool:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    def test_parent_and_child_both_go_on_after_a_fork(self, journal: SqliteJournal, exec_id: str) -> None:
        journal.append(exec_id, [event(exec_id, n=0)])

        def work() -> None:
            for n in range(1, 20):
                journal.append(exec_id, [event(exec_id, n=n)])
            journal.close()

        pid = self.child(work)
        for n in range(20, 40):
            journal.append(exec_id, [event(exec_id, n=n)])
        assert self.succeeded(pid)
        assert sorted(e.body["n"] for e in journal.history(exec_id)) == list(range(40))

    def test_a_child_that_outlives_its_parents_handle_loses_nothing(self, journal: SqliteJournal, exec_id: str) -> None:
        read, write = os.pipe()

        def work() -> None:
            journal.append(exec_id, [event(exec_id, n="before")])
            os.write(write, b".")
            os.read(read_go, 1)
            journal.append(exec_id, [event(exec_id, n="after")])

        read_go, write_go = os.pipe()
        journal.history(exec_id)
        pid = self.child(work)
        os.read(read, 1)
        journal.close()
        os.write(write_go, b".")
        assert self.succeeded(pid)
        for end in (read, write, read_go, write_go):
            os.close(end)
        with closing(SqliteJournal(journal.url)) as again:
            assert [e.body["n"] for e in again.history(exec_id)] == ["before", "after"]

    def test_a_fork_while_other_threads_append_and_read_harms_neither(
        self, journal: SqliteJournal, exec_id: str
    ) -> None:
        stop = threading.Event()
        counts = [0] * 4

        def busy(name: int) -> None:
            while not stop.is_set():
                journal.append(exec_id, [event(exec_id, key=f"parent-{name}")])
                journal.history(exec_id, after=10_000)
                counts[name] += 1

        threads = [threading.Thread(target=busy, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        pids = [
            self.child(lambda n=n: journal.append(exec_id, [event(exec_id, key=f"child-{n}")]))  # type: ignore[misc]
            for n in range(10)
        ]
        assert all(self.succeeded(pid) for pid in pids)
        stop.set()
        for thread in threads:
            thread.join()
        keys = [e.key for e in journal.history(exec_id)]
        assert [keys.count(f"child-{n}") for n in range(10)] == [1] * 10
        assert [keys.count(f"parent-{name}") for name in range(4)] == counts


def test_what_was_acknowledged_before_kill_9_is_there_whole(journal: SqliteJournal, exec_id: str) -> None:
    with processes.start(processes.append_until_killed, journal.url, exec_id) as worker:
        acknowledged = [worker.recv() for _ in range(30)]
        os.kill(worker_pid(journal, exec_id), signal.SIGKILL)
        while worker.poll(1):
            try:
                acknowledged.append(worker.recv())
            except EOFError:
                break
    stored = journal.history(exec_id)
    assert {e.seq for e in stored} >= set(acknowledged)
    assert len(stored) % 2 == 0
    assert [e.body["n"] for e in stored] == [n // 2 for n in range(len(stored))]
    assert journal.append(exec_id, [event(exec_id)]) == stored[-1].seq + 1


def worker_pid(journal: SqliteJournal, exec_id: str) -> int:
    """The process id that the worker wrote into its events."""
    return int(journal.history(exec_id)[0].body["pid"])


class TestViews:
    def test_checkpoints_show_how_each_call_stands(self, journal: SqliteJournal, exec_id: str) -> None:
        body = {"name": "research", "type": "cell", "attempt": 1, "parent": "p"}
        failure = {"message": "no network"}
        events: list[tuple[str, str, dict[str, Any]]] = [
            ("checkpoint.completed", "done", {"started_at": 10.0, "duration": 2.5}),
            ("checkpoint.started", "done", {}),  # flushed a moment too late
            ("checkpoint.completed", "reused", {"started_at": 10.0, "duration": 0.0, "reused": {"exec_id": "kr-old"}}),
            ("checkpoint.started", "runs", {}),
            ("checkpoint.failed", "again", {"started_at": 10.0, "final": False, "failure": failure}),
            ("checkpoint.failed", "lost", {"started_at": 10.0, "final": True, "failure": failure}),
        ]
        journal.append(exec_id, [Event(exec_id, kind, key, 20.0, {**body, **more}) for kind, key, more in events])
        with closing(journal.database()) as database:
            rows = {row["call_id"]: row for row in database["checkpoints"].rows}
        assert {call: row["status"] for call, row in rows.items()} == {
            "done": "completed",
            "reused": "reused",
            "runs": "running",
            "again": "retrying",
            "lost": "failed",
        }
        done = rows["done"]
        assert (done["name"], done["type"], done["attempt"], done["parent"]) == ("research", "cell", 1, "p")
        assert (done["started_at"], done["ended_at"]) == ("1970-01-01T00:00:10.000Z", "1970-01-01T00:00:12.500Z")
        assert (done["seconds"], rows["lost"]["error"], rows["reused"]["reused_from"]) == (2.5, "no network", "kr-old")
        assert (rows["runs"]["started_at"], rows["runs"]["ended_at"]) == ("1970-01-01T00:00:20.000Z", None)

    def test_artifacts_of_calls_inputs_saves_and_results_are_listed(self, journal: SqliteJournal, exec_id: str) -> None:
        def artifact(name: str, **more: object) -> dict[str, object]:
            return {"artifact_id": name, "name": name, "kind": "output", "size": 3, "preview": {"text": "abc"}, **more}

        bodies: dict[str, dict[str, Any]] = {
            "execution.created": {"inputs": {"topic": artifact("topic", kind="input")}},
            "checkpoint.completed": {"outputs": [artifact("x", inline=[0, 3]), artifact("y")]},
            "artifact.saved": {"artifact": artifact("draft"), "call": "c"},
            "execution.completed": {"result": artifact("result")},
        }
        journal.append(exec_id, [Event(exec_id, kind, "c", 0.0, body) for kind, body in bodies.items()])
        journal.append(exec_id, [Event(exec_id, "execution.completed", "", 0.0, {"result": None})])
        with closing(journal.database()) as database:
            rows = {row["name"]: row for row in database["artifacts"].rows}
        assert {name: row["call_id"] for name, row in rows.items()} == {
            "topic": None,
            "x": "c",
            "y": "c",
            "draft": "c",
            "result": None,
        }
        assert [rows[name]["stored_in"] for name in "xy"] == ["journal", "store"]
        assert (rows["x"]["size"], rows["x"]["preview"], rows["topic"]["kind"]) == (3, "abc", "input")

    def test_waits_show_question_and_answer(self, journal: SqliteJournal, exec_id: str) -> None:
        for name in ("open", "yes", "gone"):
            journal.append(exec_id, [Event(exec_id, "wait.created", name, 10.0, {"name": name, "question": "Go?"})])
        answer = {"value": True, "by": "ann", "via": "cli"}
        journal.append(exec_id, [Event(exec_id, "wait.resolved", "yes", 15.0, answer)])
        journal.append(exec_id, [Event(exec_id, "wait.resolved", "gone", 15.0, {**answer, "aborted": True})])
        with closing(journal.database()) as database:
            rows = {row["wait_id"]: row for row in database["waits"].rows}
        assert {name: row["status"] for name, row in rows.items()} == {
            "open": "pending",
            "yes": "resolved",
            "gone": "aborted",
        }
        yes = rows["yes"]
        assert (yes["question"], yes["value"], yes["resolved_by"], yes["via"]) == ("Go?", "true", "ann", "cli")
        assert (yes["created_at"], yes["seconds"]) == ("1970-01-01T00:00:10.000Z", 5.0)

    def test_the_database_for_people_is_read_only(self, journal: SqliteJournal, exec_id: str) -> None:
        with closing(journal.database()) as database, pytest.raises(sqlite3.OperationalError):
            database.execute("delete from journal")
