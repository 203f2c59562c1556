"""The contract of a journal: append, all or none, fenced, and some things once."""

from __future__ import annotations

import functools

import pytest

from kitaru_nb.errors import (
    KitaruConflictError,
    KitaruFencedError,
    KitaruNotFoundError,
    KitaruUsageError,
)
from kitaru_nb.journal.base import Journal, this_process
from kitaru_nb.model import STATUS_OF, Event, ExecutionStatus, Lease, utc
from kitaru_nb.testing.journal.setup import (
    ELSEWHERE,
    JournalSetup,
    event,
    kinds,
    new_execution,
    together,
)


class AppendContract(JournalSetup):
    """Appending: all or none, fenced, once."""

    def test_append_returns_the_seq_of_the_last_event(self, journal: Journal, other: Journal, exec_id: str) -> None:
        last = journal.append(exec_id, [event(exec_id, n=n) for n in range(3)])
        assert last == other.history(exec_id)[-1].seq
        assert other.append(exec_id, [event(exec_id)]) > last

    def test_an_empty_append_returns_the_last_seq_of_the_execution(self, journal: Journal, exec_id: str) -> None:
        last = journal.append(exec_id, [event(exec_id)])
        stranger = journal.create(new_execution(), []).exec_id
        assert journal.append(stranger, []) == 0
        assert journal.append(exec_id, []) == last

    def test_an_event_comes_back_as_it_was(self, journal: Journal, other: Journal, exec_id: str) -> None:
        body = {
            "text": "ünïcödé \u0000 \ud800 \U0001f600 'quoted' \\",
            "numbers": [0, -1, 2**70, 0.1, 1e300, True, None],
            "nested": {"": [{}, []], "key": {"x": "y"}},
        }
        blob = bytes(range(256))
        sent = Event(exec_id, "checkpoint.completed", "call/ü", 1234.5678, body, blob, cache_key="content")
        seq = journal.append(exec_id, [sent])
        received = other.history(exec_id)[-1]
        assert received == Event(exec_id, "checkpoint.completed", "call/ü", 1234.5678, body, blob, seq, "content")
        assert [type(n) for n in received.body["numbers"]] == [int, int, int, float, float, bool, type(None)]

    def test_a_stored_event_does_not_change_with_the_callers_values(self, journal: Journal, exec_id: str) -> None:
        body = {"values": [1]}
        journal.append(exec_id, [Event(exec_id, "metadata", "", 1.0, body)])
        body["values"].append(2)
        journal.history(exec_id)[-1].body["values"].append(3)
        assert journal.history(exec_id)[-1].body == {"values": [1]}

    @pytest.mark.parametrize("value", [float("nan"), object(), b"bytes", {1, 2}], ids=["nan", "object", "bytes", "set"])
    def test_what_is_no_json_is_refused_and_nothing_is_written(
        self, journal: Journal, exec_id: str, value: object
    ) -> None:
        before = journal.history(exec_id)
        with pytest.raises(KitaruUsageError, match="metadata"):
            journal.append(exec_id, [event(exec_id), event(exec_id, value=value)])
        assert journal.history(exec_id) == before

    def test_text_that_has_no_encoding_is_refused(self, journal: Journal, exec_id: str) -> None:
        with pytest.raises(KitaruUsageError):
            journal.append(exec_id, [event(exec_id, key="\ud800")])
        with pytest.raises(KitaruUsageError):
            journal.create(new_execution("\ud800"), [])
        with pytest.raises(KitaruUsageError):
            journal.set_reference("\ud800", "v", expected=None, by="ann")

    def test_events_and_leases_of_another_execution_are_refused(self, journal: Journal, exec_id: str) -> None:
        stranger = journal.create(new_execution(), []).exec_id
        with pytest.raises(KitaruUsageError, match=stranger):
            journal.append(exec_id, [event(stranger)])
        with pytest.raises(KitaruUsageError, match=stranger):
            journal.append(exec_id, [event(exec_id)], lease=journal.claim(stranger, ELSEWHERE))

    def test_appending_to_an_unknown_execution_is_refused(self, journal: Journal) -> None:
        for events in ([], [event("kr-nothing")]):
            with pytest.raises(KitaruNotFoundError) as caught:
                journal.append("kr-nothing", events)
            assert caught.value.fix == "kitaru executions list"
        assert journal.tail(0) == []

    def test_a_stale_worker_is_refused_and_leaves_nothing(self, journal: Journal, other: Journal, exec_id: str) -> None:
        stale = journal.claim(exec_id, ELSEWHERE, ttl=0)
        lease = other.claim(exec_id, this_process())
        before = journal.history(exec_id)
        with pytest.raises(KitaruFencedError, match="epoch 2"):
            journal.append(exec_id, [event(exec_id), event(exec_id, "execution.completed")], lease=stale)
        assert journal.history(exec_id) == before
        assert journal.execution(exec_id).status is ExecutionStatus.RUNNING
        other.append(exec_id, [event(exec_id)], lease=lease)

    def test_a_lease_that_this_journal_never_gave_is_refused(self, journal: Journal, exec_id: str) -> None:
        lease = journal.claim(exec_id, ELSEWHERE)
        foreign = Lease(exec_id, ELSEWHERE, lease.epoch + 1, lease.expires_at)
        with pytest.raises(KitaruFencedError):
            journal.append(exec_id, [event(exec_id)], lease=foreign)

    def test_an_expired_lease_still_writes_until_somebody_claims(self, journal: Journal, exec_id: str) -> None:
        lease = journal.claim(exec_id, ELSEWHERE, ttl=0)
        journal.append(exec_id, [event(exec_id)], lease=lease)
        assert kinds(journal.history(exec_id))[-1] == "metadata"

    def test_an_outsider_may_append_while_somebody_holds_the_lease(
        self, journal: Journal, other: Journal, exec_id: str
    ) -> None:
        lease = journal.claim(exec_id, ELSEWHERE)
        other.append(exec_id, [event(exec_id, "wait.resolved", "w", value=1)])
        assert journal.execution(exec_id).lease == lease

    @pytest.mark.parametrize("kind", ["checkpoint.completed", "wait.created", "wait.resolved"])
    def test_what_may_happen_once_is_refused_the_second_time(
        self, journal: Journal, other: Journal, exec_id: str, kind: str
    ) -> None:
        journal.append(exec_id, [event(exec_id, kind, "k", value="first", by="ann", via="cli", name="n")])
        first = journal.history(exec_id)[-1]
        before = journal.history(exec_id)
        with pytest.raises(KitaruConflictError) as caught:
            other.append(exec_id, [event(exec_id), event(exec_id, kind, "k", value="second"), event(exec_id)])
        assert caught.value.existing == first
        assert journal.history(exec_id) == before

    def test_the_second_resolver_is_told_who_answered_and_what(
        self, journal: Journal, other: Journal, exec_id: str
    ) -> None:
        journal.append(exec_id, [event(exec_id, "wait.resolved", "approve", value="yes", by="ann", via="cli")])
        with pytest.raises(KitaruConflictError, match=r"'approve'.*ann \(cli\).*'yes'"):
            other.append(exec_id, [event(exec_id, "wait.resolved", "approve", value="no", by="bob", via="http")])

    def test_the_same_thing_twice_in_one_append_is_refused(self, journal: Journal, exec_id: str) -> None:
        before = journal.history(exec_id)
        with pytest.raises(KitaruConflictError) as caught:
            journal.append(exec_id, [event(exec_id, "checkpoint.completed", "c", n=n) for n in range(2)])
        assert caught.value.existing.body == {"n": 0}
        assert journal.history(exec_id) == before

    def test_once_is_for_each_execution_kind_and_key(self, journal: Journal, exec_id: str) -> None:
        stranger = journal.create(new_execution(), []).exec_id
        for owner in (exec_id, stranger):
            journal.append(owner, [event(owner, "wait.created", "k"), event(owner, "wait.resolved", "k")])
            journal.append(owner, [event(owner, "checkpoint.completed", key) for key in ("k", "l")])
        for kind in ("metadata", "checkpoint.started", "checkpoint.failed", "log.lines", "artifact.saved"):
            journal.append(exec_id, [event(exec_id, kind, "k"), event(exec_id, kind, "k")])

    @pytest.mark.parametrize("kind", sorted(STATUS_OF))
    def test_kinds_that_mean_a_status_change_it(self, journal: Journal, exec_id: str, kind: str) -> None:
        journal.append(exec_id, [Event(exec_id, kind, "", 2e9, {})])
        found, status = journal.execution(exec_id), STATUS_OF[kind]
        expected = ExecutionStatus.INTERRUPTED if status is ExecutionStatus.RUNNING else status
        assert (found.status, found.updated_at) == (expected, utc(2e9))
        assert found.ended_at == (utc(2e9) if status.ended else None)

    def test_the_last_status_of_one_append_holds(self, journal: Journal, exec_id: str) -> None:
        journal.append(exec_id, [event(exec_id, "execution.failed"), event(exec_id, "execution.waiting")])
        found = journal.execution(exec_id)
        assert (found.status, found.ended_at) == (ExecutionStatus.WAITING, None)

    def test_threads_that_append_to_one_execution_lose_and_mix_nothing(
        self, journal: Journal, other: Journal, exec_id: str
    ) -> None:
        def work(name: int, handle: Journal) -> list[int]:
            return [
                handle.append(exec_id, [event(exec_id, key=f"{name}", n=n, part=part) for part in range(2)])
                for n in range(25)
            ]

        handles = [journal, other] * 4
        seqs = together([functools.partial(work, name, handle) for name, handle in enumerate(handles)])
        stored = [e for e in journal.history(exec_id) if e.kind == "metadata"]
        assert len({e.seq for e in stored}) == len(stored) == 8 * 25 * 2
        for name, returned in enumerate(seqs):
            mine = [e for e in stored if e.key == str(name)]
            assert [(e.body["n"], e.body["part"]) for e in mine] == [(n, part) for n in range(25) for part in range(2)]
            assert [e.seq for e in mine[1::2]] == returned
            assert all(second.seq == first.seq + 1 for first, second in zip(mine[::2], mine[1::2], strict=True))

    @pytest.mark.parametrize("kind", ["checkpoint.completed", "wait.resolved"])
    def test_one_of_many_at_once_is_recorded_and_the_others_are_told(
        self, journal: Journal, other: Journal, exec_id: str, kind: str
    ) -> None:
        def work(n: int, handle: Journal) -> int:
            return handle.append(exec_id, [event(exec_id), event(exec_id, kind, "k", n=n)])

        works = [functools.partial(work, n, handle) for n, handle in enumerate([journal, other] * 4)]
        results = together(works)
        stored = journal.history(exec_id)
        (winner,) = [e for e in stored if e.kind == kind]
        assert kinds(stored).count("metadata") == 1
        assert [r for r in results if isinstance(r, int)] == [winner.seq] == [results[winner.body["n"]]]
        assert [r.existing for r in results if isinstance(r, KitaruConflictError)] == [winner] * 7
