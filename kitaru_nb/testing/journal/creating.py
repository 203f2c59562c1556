"""The contract of a journal: creating executions."""

from __future__ import annotations

import pytest

from kitaru_nb.errors import (
    KitaruConflictError,
)
from kitaru_nb.journal.base import Journal
from kitaru_nb.model import Event, Execution, new_exec_id
from kitaru_nb.testing.journal.setup import (
    ELSEWHERE,
    JournalSetup,
    event,
    new_execution,
    together,
)


class CreateContract(JournalSetup):
    """Creating executions."""

    def test_create_stores_the_execution_with_its_events_and_returns_it(self, journal: Journal, other: Journal) -> None:
        execution = new_execution()
        at = execution.created_at.timestamp()
        stored = journal.create(execution, [Event(execution.exec_id, "execution.created", "", at, {"flow": "brief"})])
        assert stored == execution == other.execution(execution.exec_id)
        (created,) = other.history(execution.exec_id)
        assert (created.kind, created.body, created.seq > 0) == ("execution.created", {"flow": "brief"}, True)

    def test_create_with_the_key_of_an_execution_returns_that_one_and_writes_nothing(
        self, journal: Journal, other: Journal
    ) -> None:
        first, second = new_execution(key="today"), new_execution(key="today")
        journal.create(first, [])
        again = other.create(second, [event(second.exec_id, "execution.created")])
        assert again.exec_id == first.exec_id
        assert [e.exec_id for e in journal.executions()] == [first.exec_id]
        assert journal.history(second.exec_id) == journal.tail(0) == []

    def test_a_key_belongs_to_its_flow_and_no_key_matches_nothing(self, journal: Journal) -> None:
        made = [new_execution("a", key="k"), new_execution("b", key="k"), new_execution("a"), new_execution("a")]
        assert [journal.create(e, []).exec_id for e in made] == [e.exec_id for e in made]

    def test_creating_with_one_key_at_once_makes_one_execution(self, journal: Journal, other: Journal) -> None:
        works = [
            lambda handle=handle: handle.create(new_execution(key="once"), []).exec_id
            for handle in [journal, other] * 4
        ]
        assert len(set(together(works))) == len(journal.executions()) == 1

    def test_an_id_that_is_taken_is_refused(self, journal: Journal) -> None:
        execution = journal.create(new_execution(), [])
        with pytest.raises(KitaruConflictError) as caught:
            journal.create(execution, [event(execution.exec_id)])
        assert caught.value.existing == execution
        assert journal.history(execution.exec_id) == []

    def test_a_new_execution_has_epoch_0_and_no_lease_whatever_it_says(self, journal: Journal, exec_id: str) -> None:
        lease = journal.claim(exec_id, ELSEWHERE)
        claimed = journal.execution(exec_id)
        copy = journal.create(
            Execution(
                new_exec_id(), "brief", claimed.status, claimed.created_at, claimed.updated_at, lease=lease, epoch=7
            ),
            [],
        )
        assert (copy.epoch, copy.lease) == (0, None)
