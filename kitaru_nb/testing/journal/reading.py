"""The contract of a journal: history, lists, waits, cache, tail, references, and the end of a handle."""

from __future__ import annotations

import threading
import time

import pytest

from kitaru_nb.errors import (
    KitaruBackendError,
    KitaruConflictError,
    KitaruNotFoundError,
)
from kitaru_nb.journal.base import Journal
from kitaru_nb.model import Event, ExecutionStatus, utc
from kitaru_nb.testing.journal.setup import (
    ELSEWHERE,
    JournalSetup,
    dead_owner,
    event,
    new_execution,
    together,
)

#: How long to wait for news that come within milliseconds where the machine isn't busy.
NEWS_SECONDS = 30.0


class ReadContract(JournalSetup):
    """History, lists, waits, cache, tail, references."""

    def test_history_is_in_order_and_after_a_seq(self, journal: Journal, exec_id: str) -> None:
        journal.append(exec_id, [event(exec_id, n=n) for n in range(5)])
        stored = journal.history(exec_id)
        assert [e.seq for e in stored] == sorted({e.seq for e in stored})
        assert journal.history(exec_id, after=stored[2].seq) == stored[3:]
        assert journal.history(exec_id, after=stored[-1].seq) == []

    def test_a_long_history_comes_back_whole(self, journal: Journal, exec_id: str) -> None:
        journal.append(exec_id, [event(exec_id, n=n) for n in range(1203)])
        assert [e.body["n"] for e in journal.history(exec_id)[1:]] == list(range(1203))

    def test_the_history_of_an_unknown_execution_is_empty(self, journal: Journal, exec_id: str) -> None:
        assert journal.history("kr-nothing") == []

    def test_an_unknown_execution_is_not_found(self, journal: Journal, exec_id: str) -> None:
        with pytest.raises(KitaruNotFoundError, match="kr-nothing") as caught:
            journal.execution("kr-nothing")
        assert caught.value.fix == "kitaru executions list"

    def test_running_without_a_live_lease_is_interrupted(self, journal: Journal, other: Journal, exec_id: str) -> None:
        lease = journal.claim(exec_id, ELSEWHERE)
        assert other.execution(exec_id).status is ExecutionStatus.RUNNING
        journal.release(lease, [event(exec_id, "execution.paused", reason="Ctrl-C")])
        assert other.execution(exec_id).status is ExecutionStatus.INTERRUPTED

    def test_executions_are_listed_newest_first_in_pages(self, journal: Journal, other: Journal) -> None:
        made = [journal.create(new_execution(flow), []) for flow in "abab" * 5]
        newest = made[::-1]
        assert journal.executions() == newest
        first = other.executions(limit=7)
        assert first == newest[:7]
        assert other.executions(limit=100, before=first[-1].exec_id) == newest[7:]
        assert journal.executions(flow="a", limit=3) == [e for e in newest if e.flow_name == "a"][:3]
        assert journal.executions(flow="nothing") == journal.executions(limit=0) == []

    def test_executions_are_listed_by_the_status_that_people_see(self, journal: Journal) -> None:
        expected = dict[ExecutionStatus, list[str]]()
        owners = {ExecutionStatus.RUNNING: ELSEWHERE, ExecutionStatus.INTERRUPTED: dead_owner()}
        for status in [*ExecutionStatus] * 3:
            exec_id = journal.create(new_execution(), []).exec_id
            expected.setdefault(status, []).insert(0, exec_id)
            if status in owners:
                journal.claim(exec_id, owners[status])
            elif status is not ExecutionStatus.PENDING:
                journal.append(exec_id, [event(exec_id, f"execution.{status.value}")])
        for status, ids in expected.items():
            assert [e.exec_id for e in journal.executions(status=status)] == ids
            assert [e.exec_id for e in journal.executions(status=status, flow="brief", limit=1)] == ids[:1]
            assert {e.status for e in journal.executions(status=status, before=ids[0])} == {status}

    def test_a_census_counts_by_flow_and_stored_status(self, journal: Journal, other: Journal) -> None:
        assert journal.census() == {}
        ids = [journal.create(new_execution(flow), []).exec_id for flow in "aaaabb"]
        journal.claim(ids[0], ELSEWHERE)
        journal.claim(ids[1], dead_owner())
        journal.append(ids[2], [event(ids[2], "execution.completed")])
        journal.append(ids[4], [event(ids[4], "execution.waiting")])
        counted = {("a", "running"): 2, ("a", "completed"): 1, ("a", "pending"): 1}
        assert other.census() == counted | {("b", "waiting"): 1, ("b", "pending"): 1}

    def test_a_wait_is_pending_until_it_is_resolved(self, journal: Journal, other: Journal, exec_id: str) -> None:
        schema = {"type": "boolean"}
        created = event(
            exec_id,
            "wait.created",
            "approve/1",
            name="approve",
            question="Publish?",
            schema=schema,
            until=99.0,
            after=["c"],
        )
        journal.append(exec_id, [created])
        (wait,) = other.waits()
        assert (wait.wait_id, wait.exec_id, wait.name, wait.question) == ("approve/1", exec_id, "approve", "Publish?")
        assert (wait.schema, wait.status, wait.until, wait.after) == (schema, "pending", utc(99.0), ("c",))
        assert wait.created_at == utc(created.at)
        journal.append(exec_id, [event(exec_id, "wait.resolved", "approve/1", value=True)])
        assert other.waits() == []

    def test_a_wait_that_was_answered_before_it_was_asked_is_not_pending(self, journal: Journal, exec_id: str) -> None:
        journal.append(exec_id, [event(exec_id, "wait.resolved", "w", value=1)])
        journal.append(exec_id, [event(exec_id, "wait.created", "w", name="w")])
        assert journal.waits() == []

    def test_waits_are_listed_oldest_first_by_execution_and_by_due_time(self, journal: Journal, exec_id: str) -> None:
        stranger = journal.create(new_execution(), []).exec_id
        for n, until in enumerate([None, 50.0, 10.0, 0.0]):
            owner = (exec_id, stranger)[n % 2]
            journal.append(owner, [event(owner, "wait.created", f"w{n}", name="w", until=until)])
        assert [w.wait_id for w in journal.waits()] == ["w0", "w1", "w2", "w3"]
        assert [w.wait_id for w in journal.waits(limit=2)] == ["w0", "w1"]
        assert [w.wait_id for w in journal.waits(exec_id=exec_id)] == ["w0", "w2"]
        assert [w.wait_id for w in journal.waits(due_before=10.0)] == ["w2", "w3"]
        assert [w.wait_id for w in journal.waits(due_before=9.9, exec_id=stranger)] == ["w3"]
        assert journal.waits(limit=0) == []

    @pytest.mark.parametrize("end", ["execution.completed", "execution.failed", "execution.cancelled"])
    def test_waits_of_executions_that_ended_are_not_pending(self, journal: Journal, exec_id: str, end: str) -> None:
        journal.append(exec_id, [event(exec_id, "wait.created", "w", name="w"), event(exec_id, end)])
        assert journal.waits() == journal.waits(exec_id=exec_id) == []

    def test_waits_of_a_failed_execution_are_pending_again_once_it_is_retried(
        self, journal: Journal, exec_id: str
    ) -> None:
        journal.append(exec_id, [event(exec_id, "wait.created", "w", name="w"), event(exec_id, "execution.failed")])
        journal.claim(exec_id, ELSEWHERE)
        assert [w.wait_id for w in journal.waits()] == ["w"]

    def test_find_returns_the_newest_completed_checkpoint_with_the_key(
        self, journal: Journal, other: Journal, exec_id: str
    ) -> None:
        stranger = journal.create(new_execution(), []).exec_id
        for owner, call, kind in [
            (exec_id, "a", "checkpoint.completed"),
            (stranger, "b", "checkpoint.completed"),
            (exec_id, "c", "checkpoint.failed"),
        ]:
            journal.append(owner, [Event(owner, kind, call, 1.0, {}, b"blob", cache_key="content")])
        found = other.find("content")
        assert found is not None
        assert (found.exec_id, found.key, found.blob) == (stranger, "b", b"blob")
        assert journal.find("another") is None

    def test_tail_gives_what_came_after_of_all_executions_or_one(self, journal: Journal, exec_id: str) -> None:
        stranger = journal.create(new_execution(), []).exec_id
        for n in range(6):
            owner = (exec_id, stranger)[n % 2]
            journal.append(owner, [event(owner, n=n)])
        everything = journal.tail(0)
        assert [e.seq for e in everything] == sorted({e.seq for e in everything})
        assert [e.body.get("n") for e in everything] == [None, *range(6)]
        assert journal.tail(everything[2].seq, limit=2) == everything[3:5]
        assert journal.tail(everything[2].seq, exec_id=stranger) == [e for e in everything[3:] if e.exec_id == stranger]
        assert journal.tail(everything[0].seq, exec_id=stranger, limit=1) == everything[2:3]
        assert journal.tail(everything[-1].seq) == journal.tail(0, limit=0) == []

    def test_a_reference_changes_only_from_what_was_expected(self, journal: Journal, other: Journal) -> None:
        assert journal.reference("tag/prod") is None
        journal.set_reference("tag/prod", "v1", expected=None, by="ann")
        for wrong in (None, "v2"):
            with pytest.raises(KitaruConflictError, match="v1") as caught:
                other.set_reference("tag/prod", "v2", expected=wrong, by="bob")
            assert caught.value.existing == "v1"
        assert other.reference("tag/prod") == "v1"
        other.set_reference("tag/prod", "v2", expected="v1", by="bob")
        assert (journal.reference("tag/prod"), journal.reference("tag/other")) == ("v2", None)

    def test_every_change_of_a_reference_is_kept_with_who_and_when(self, journal: Journal, other: Journal) -> None:
        before = time.time()
        for value, expected, by in [("v1", None, "ann"), (None, "v1", "bob"), ("v1", None, "cy")]:
            journal.set_reference("tag", value, expected=expected, by=by)
        with pytest.raises(KitaruConflictError):
            journal.set_reference("tag", "v3", expected="v2", by="dan")
        history = other.reference_history("tag")
        assert [(value, by) for _, value, by in history] == [("v1", "ann"), (None, "bob"), ("v1", "cy")]
        assert before <= history[0][0] <= history[1][0] <= history[2][0] <= time.time()
        assert other.reference_history("nothing") == []

    def test_one_of_many_changes_at_once_wins(self, journal: Journal, other: Journal) -> None:
        works = [
            lambda handle=handle, n=n: handle.set_reference("tag", f"v{n}", expected=None, by="me")
            for n, handle in enumerate([journal, other] * 4)
        ]
        refused = [r for r in together(works) if isinstance(r, KitaruConflictError)]
        assert len(refused) == 7
        assert {r.existing for r in refused} == {journal.reference("tag")}
        assert len(journal.reference_history("tag")) == 1

    def test_who_watches_is_called_soon_after_anybody_appended(
        self, journal: Journal, other: Journal, exec_id: str
    ) -> None:
        stranger = journal.create(new_execution(), []).exec_id
        one, all_of_them = threading.Event(), threading.Event()
        ends = [journal.watch(one.set, exec_id=exec_id), journal.watch(all_of_them.set)]
        for handle, appended, heard in [
            (other, exec_id, [one, all_of_them]),
            (journal, exec_id, [one, all_of_them]),
            (other, stranger, [all_of_them]),
        ]:
            for alarm in heard:
                alarm.clear()
            handle.append(appended, [event(appended)])
            assert all(alarm.wait(NEWS_SECONDS) for alarm in heard)
        for end in ends:
            end()

    def test_who_stopped_watching_is_called_no_more(self, journal: Journal, other: Journal, exec_id: str) -> None:
        stopped, still = threading.Event(), threading.Event()
        end = journal.watch(stopped.set)
        assert stopped.wait(NEWS_SECONDS)  # at once, for what came before
        journal.watch(still.set)
        end()
        end()
        other.append(exec_id, [event(exec_id)])
        assert still.wait(NEWS_SECONDS)
        stopped.clear()
        still.clear()
        other.append(exec_id, [event(exec_id)])
        assert still.wait(NEWS_SECONDS)
        assert not stopped.is_set()

    def test_a_closed_handle_says_so_and_leaves_the_others_alone(
        self, journal: Journal, other: Journal, exec_id: str
    ) -> None:
        journal.close()
        journal.close()
        with pytest.raises(KitaruBackendError, match="closed"):
            journal.history(exec_id)
        with pytest.raises(KitaruBackendError, match="closed"):
            journal.append(exec_id, [event(exec_id)])
        with pytest.raises(KitaruBackendError, match="closed"):
            journal.watch(lambda: None)
        assert other.append(exec_id, [event(exec_id)]) > 0
