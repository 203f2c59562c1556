"""The contract of a journal: claim, renew, release."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from kitaru_nb.errors import (
    KitaruConflictError,
    KitaruFencedError,
    KitaruLeaseError,
    KitaruNotFoundError,
    KitaruStateError,
)
from kitaru_nb.journal.base import Journal, this_process
from kitaru_nb.model import ExecutionStatus, Lease, Owner
from kitaru_nb.testing.journal.setup import (
    ELSEWHERE,
    JournalSetup,
    dead_owner,
    event,
    kinds,
    replaced_owner,
    together,
)


class LeaseContract(JournalSetup):
    """Claim, renew, release."""

    def test_a_claim_raises_the_epoch_and_makes_the_execution_running(self, journal: Journal, exec_id: str) -> None:
        before = time.time()
        lease = journal.claim(exec_id, ELSEWHERE, ttl=1000)
        assert (lease.exec_id, lease.owner, lease.epoch) == (exec_id, ELSEWHERE, 1)
        assert before + 1000 <= lease.expires_at <= time.time() + 1000
        found = journal.execution(exec_id)
        assert (found.status, found.epoch, found.lease) == (ExecutionStatus.RUNNING, 1, lease)

    def test_a_claim_is_recorded_with_owner_and_epoch(self, journal: Journal, other: Journal, exec_id: str) -> None:
        journal.claim(exec_id, ELSEWHERE)
        owner = {"host": "another-host", "pid": 4711, "started": 0, "nonce": "elsewhere"}
        claimed = other.history(exec_id)[-1]
        assert (claimed.kind, claimed.body) == ("execution.claimed", {"owner": owner, "epoch": 1})

    @pytest.mark.parametrize("second", [this_process(), ELSEWHERE], ids=["the-same-owner", "another-owner"])
    def test_a_live_lease_is_refused_to_everybody(
        self, journal: Journal, other: Journal, exec_id: str, second: Owner
    ) -> None:
        owner = second if second != ELSEWHERE else this_process()
        journal.claim(exec_id, owner)
        for handle in (journal, other):
            with pytest.raises(KitaruLeaseError, match=rf"process {owner.pid} on {owner.host}.* \d+ s"):
                handle.claim(exec_id, second)
        assert kinds(journal.history(exec_id)).count("execution.claimed") == 1
        assert journal.execution(exec_id).epoch == 1

    def test_an_expired_lease_is_free(self, journal: Journal, other: Journal, exec_id: str) -> None:
        journal.claim(exec_id, ELSEWHERE, ttl=0)
        assert other.claim(exec_id, this_process()).epoch == 2

    def test_a_released_lease_is_free(self, journal: Journal, other: Journal, exec_id: str) -> None:
        journal.release(journal.claim(exec_id, ELSEWHERE))
        assert other.claim(exec_id, this_process()).epoch == 2

    @pytest.mark.parametrize("owner", [dead_owner, replaced_owner])
    def test_the_lease_of_a_dead_process_is_free_at_once(
        self, journal: Journal, other: Journal, exec_id: str, owner: Callable[[], Owner]
    ) -> None:
        journal.claim(exec_id, owner(), ttl=1000)
        assert journal.execution(exec_id).status is ExecutionStatus.INTERRUPTED
        assert other.claim(exec_id, this_process()).epoch == 2

    def test_claiming_an_unknown_execution_is_refused(self, journal: Journal) -> None:
        with pytest.raises(KitaruNotFoundError) as caught:
            journal.claim("kr-nothing", ELSEWHERE)
        assert caught.value.fix == "kitaru executions list"

    @pytest.mark.parametrize("end", ["execution.completed", "execution.cancelled"])
    def test_an_execution_that_ended_is_refused(self, journal: Journal, exec_id: str, end: str) -> None:
        journal.append(exec_id, [event(exec_id, end)])
        before = journal.history(exec_id)
        with pytest.raises(KitaruStateError, match=end.partition(".")[2]) as caught:
            journal.claim(exec_id, ELSEWHERE)
        assert not isinstance(caught.value, KitaruLeaseError)
        assert journal.history(exec_id) == before

    def test_a_failed_execution_may_be_claimed_again(self, journal: Journal, exec_id: str) -> None:
        journal.release(journal.claim(exec_id, ELSEWHERE), [event(exec_id, "execution.failed")])
        assert journal.execution(exec_id).ended_at is not None
        assert journal.claim(exec_id, ELSEWHERE).epoch == 2
        found = journal.execution(exec_id)
        assert (found.status, found.ended_at) == (ExecutionStatus.RUNNING, None)

    def test_renewing_keeps_a_lease_alive(self, journal: Journal, other: Journal, exec_id: str) -> None:
        lease = journal.claim(exec_id, ELSEWHERE, ttl=0)
        # A handle tells the clock of a server by its own, and that not to the microsecond.
        deadline = time.monotonic() + 5
        while other.execution(exec_id).status is not ExecutionStatus.INTERRUPTED:
            assert time.monotonic() < deadline
        renewed = journal.renew(lease, ttl=1000)
        assert (renewed.epoch, renewed.owner) == (lease.epoch, lease.owner)
        assert renewed.expires_at > lease.expires_at + 900
        assert other.execution(exec_id).lease == renewed
        with pytest.raises(KitaruLeaseError):
            other.claim(exec_id, this_process())

    def test_a_lease_that_another_claimed_since_is_not_renewed(
        self, journal: Journal, other: Journal, exec_id: str
    ) -> None:
        stale = journal.claim(exec_id, ELSEWHERE, ttl=0)
        lease = other.claim(exec_id, this_process())
        with pytest.raises(KitaruFencedError, match="epoch 2"):
            journal.renew(stale)
        assert journal.execution(exec_id).lease == lease

    def test_a_released_lease_is_not_renewed(self, journal: Journal, exec_id: str) -> None:
        lease = journal.claim(exec_id, ELSEWHERE)
        journal.release(lease)
        with pytest.raises(KitaruFencedError):
            journal.renew(lease)
        assert journal.execution(exec_id).lease is None

    def test_renewing_and_releasing_what_does_not_exist_is_refused(self, journal: Journal) -> None:
        nowhere = Lease("kr-nothing", ELSEWHERE, 1, 0.0)
        for operation in (journal.renew, journal.release):
            with pytest.raises(KitaruNotFoundError):
                operation(nowhere)

    def test_release_appends_and_gives_back_in_one_commit(self, journal: Journal, other: Journal, exec_id: str) -> None:
        lease = journal.claim(exec_id, ELSEWHERE)
        journal.release(lease, [event(exec_id, "execution.waiting", waits=["w"])])
        found = other.execution(exec_id)
        assert (found.status, found.lease) == (ExecutionStatus.WAITING, None)
        assert kinds(other.history(exec_id))[-1] == "execution.waiting"

    def test_a_release_that_is_refused_keeps_the_lease_and_writes_nothing(self, journal: Journal, exec_id: str) -> None:
        lease = journal.claim(exec_id, ELSEWHERE)
        done = event(exec_id, "checkpoint.completed", "c")
        journal.append(exec_id, [done], lease=lease)
        before = journal.history(exec_id)
        with pytest.raises(KitaruConflictError):
            journal.release(lease, [event(exec_id, "execution.waiting"), done])
        assert journal.history(exec_id) == before
        assert journal.execution(exec_id).lease == lease

    def test_a_stale_release_is_refused_and_leaves_nothing(
        self, journal: Journal, other: Journal, exec_id: str
    ) -> None:
        stale = journal.claim(exec_id, ELSEWHERE, ttl=0)
        lease = other.claim(exec_id, this_process())
        before = journal.history(exec_id)
        with pytest.raises(KitaruFencedError):
            journal.release(stale, [event(exec_id, "execution.completed")])
        assert journal.history(exec_id) == before
        assert (journal.execution(exec_id).lease, journal.execution(exec_id).status) == (lease, ExecutionStatus.RUNNING)

    def test_one_of_many_claims_at_once_wins(self, journal: Journal, other: Journal, exec_id: str) -> None:
        works = [lambda handle=handle: handle.claim(exec_id, this_process()) for handle in [journal, other] * 4]
        results = together(works)
        winners = [r for r in results if isinstance(r, Lease)]
        assert len(winners) == 1
        assert all(isinstance(r, KitaruLeaseError) for r in results if r not in winners)
        assert journal.execution(exec_id).lease == winners[0]
