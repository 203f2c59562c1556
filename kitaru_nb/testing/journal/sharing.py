"""The contract of a journal between processes."""

from __future__ import annotations

import os
import signal
import time

import pytest

from kitaru_nb.errors import (
    KitaruFencedError,
    KitaruLeaseError,
)
from kitaru_nb.journal.base import Journal, this_process
from kitaru_nb.model import ExecutionStatus, Lease
from kitaru_nb.testing import journal_processes as processes
from kitaru_nb.testing.journal.setup import (
    ELSEWHERE,
    JournalSetup,
    event,
)


class SharingContract(JournalSetup):
    """What holds between processes. They open ``url`` with `open_journal`.

    Attributes:
        one_clock: whether leases are judged by the storage's clock, and not by that of each process.
    """

    one_clock = True

    def test_one_of_two_processes_that_claim_at_once_wins(self, url: str, journal: Journal, exec_id: str) -> None:
        with (
            processes.start(processes.claim_at_once, url, exec_id) as first,
            processes.start(processes.claim_at_once, url, exec_id) as second,
        ):
            for connection in (first, second):
                assert connection.recv() == "ready"
            for connection in (first, second):
                connection.send("go")
            results = [first.recv(), second.recv()]
            winners = [r for r in results if isinstance(r, Lease)]
            assert len(winners) == 1
            assert [type(r) for r in results if r not in winners] == [KitaruLeaseError]
            assert journal.execution(exec_id).lease == winners[0]

    def test_after_kill_9_of_the_holder_a_claim_works_at_once(self, url: str, journal: Journal, exec_id: str) -> None:
        with processes.start(processes.hold, url, exec_id) as holder:
            lease = holder.recv()
            with pytest.raises(KitaruLeaseError, match=f"process {lease.owner.pid} "):
                journal.claim(exec_id, this_process())
            os.kill(lease.owner.pid, signal.SIGKILL)
            # Wait for its end without asking how: what the parent of a crashed worker leaves behind.
            os.waitid(os.P_PID, lease.owner.pid, os.WEXITED | os.WNOWAIT)
            assert journal.execution(exec_id).status is ExecutionStatus.INTERRUPTED
            assert journal.claim(exec_id, this_process()).epoch == lease.epoch + 1
        assert [e.body for e in journal.history(exec_id) if e.kind == "metadata"] == [{"from": "holder"}]

    def test_a_worker_whose_clock_is_wrong_never_writes_beside_another(
        self, url: str, journal: Journal, exec_id: str
    ) -> None:
        leases = [journal.claim(exec_id, ELSEWHERE, ttl=60)]
        with processes.start(processes.claim_by_wrong_clocks, url, exec_id) as worker:
            for skew in (3600.0, -3600.0):
                worker.send(skew)
                outcome = worker.recv()
                assert isinstance(outcome, Lease | KitaruLeaseError)
                leases += [outcome] if isinstance(outcome, Lease) else []
            assert len(leases) == 1 or not self.one_clock, "it took a lease that was alive"
            for stale in leases[:-1]:
                with pytest.raises(KitaruFencedError):
                    journal.append(exec_id, [event(exec_id)], lease=stale)
            journal.append(exec_id, [event(exec_id)], lease=leases[-1])
            for skew in (3600.0, -3600.0) if self.one_clock else ():
                journal.release(leases[-1])
                worker.send(skew)
                leases.append(worker.recv())
                assert 50 < leases[-1].expires_at - time.time() < 70
                with pytest.raises(KitaruLeaseError):
                    journal.claim(exec_id, this_process())
            worker.send(None)

    def test_a_stale_worker_in_another_process_is_refused_and_leaves_nothing(
        self, url: str, journal: Journal, exec_id: str
    ) -> None:
        stale = journal.claim(exec_id, ELSEWHERE, ttl=0)
        journal.claim(exec_id, this_process())
        before = journal.history(exec_id)
        with processes.start(processes.append_with, url, stale) as worker:
            assert type(worker.recv()) is KitaruFencedError
        assert journal.history(exec_id) == before

    def test_processes_that_append_at_once_lose_nothing(self, url: str, journal: Journal, exec_id: str) -> None:
        with (
            processes.start(processes.append_many, url, exec_id, "a", 50) as first,
            processes.start(processes.append_many, url, exec_id, "b", 50) as second,
        ):
            for connection in (first, second):
                assert connection.recv() == "ready"
            for connection in (first, second):
                connection.send("go")
            seqs = [first.recv(), second.recv()]
        stored = journal.history(exec_id)[1:]
        assert [e.seq for e in stored] == sorted(seqs[0] + seqs[1])
        for name, returned in zip("ab", seqs, strict=True):
            assert [(e.seq, e.body["n"]) for e in stored if e.key == name] == list(
                zip(returned, range(50), strict=True)
            )
