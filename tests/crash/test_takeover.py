"""One worker at a time: of two that resume at once one is refused, and a stale one writes nothing more."""

from __future__ import annotations

import os
import queue
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from crash.flows import guarded
from crash.workshop import SECONDS, Child, Workshop
from kitaru_nb.model import ExecutionStatus
from kitaru_nb.worker import EXIT_WAITING

LEASE = "2"
#: Outlasts the start of a worker that is to be refused.
LONGER_LEASE = "4"


def gate(folder: Path, name: str) -> str:
    """A FIFO that a body waits at until `open_gate`."""
    path = folder / name
    os.mkfifo(path)
    return str(path)


def open_gate(path: str) -> None:
    """Let who waits at the gate go on; blocks until somebody is there."""
    Path(path).write_text("go")


def wait_at(path: str) -> int:
    """Block until somebody waits at the gate; a descriptor that keeps it waiting until it is closed."""
    return os.open(path, os.O_WRONLY)


def put_to_sleep(child: Child, workshop: Workshop, exec_id: str) -> None:
    """SIGSTOP just after the worker has renewed its lease, but not while it keeps the file locked."""
    lease = workshop.runtime.journal.execution(exec_id).lease
    while workshop.runtime.journal.execution(exec_id).lease == lease:
        time.sleep(0.002)
    with closing(sqlite3.connect(workshop.home / "journal.db", timeout=0)) as database:
        while True:
            child.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, child.process.pid, os.WSTOPPED)
            try:
                database.execute("begin immediate")
            except sqlite3.OperationalError:
                child.process.send_signal(signal.SIGCONT)  # it was writing
            else:
                database.rollback()
                return


def outlast_lease(workshop: Workshop, exec_id: str) -> None:
    """Wait until the lease of a sleeping worker is over."""
    lease = workshop.runtime.journal.execution(exec_id).lease
    assert lease is not None
    while workshop.status(exec_id) is not ExecutionStatus.INTERRUPTED:
        assert time.time() < lease.expires_at + SECONDS
        time.sleep(0.01)


def first_to_end(children: list[Child]) -> Child:
    """Whichever of them ends first."""
    ended: queue.Queue[Child] = queue.Queue()
    for child in children:
        threading.Thread(target=lambda c=child: ended.put((c.process.wait(SECONDS), c)[1]), daemon=True).start()
    return ended.get(timeout=SECONDS)


def test_of_two_processes_that_resume_at_once_one_goes_on_and_the_other_is_refused(
    workshops: Callable[..., Workshop], tmp_path: Path
) -> None:
    workshop = workshops()
    journal, witness = workshop.runtime.journal, workshop.witness
    exec_id = workshop.create(guarded, 7)
    victim = workshop.child()
    victim.begin(exec_id, at=1, when="after", only=["append"])
    assert victim.end() == -signal.SIGKILL, victim.errors
    assert workshop.status(exec_id) is ExecutionStatus.INTERRUPTED

    witness.life_begins(journal, exec_id)
    path = gate(tmp_path, "gate")
    rivals = [workshop.child(CRASH_GATE=path).warm() for _ in range(2)]
    for rival in rivals:
        rival.begin(exec_id)
    loser = first_to_end(rivals)  # the winner waits at the gate
    (winner,) = (rival for rival in rivals if rival is not loser)
    assert loser.end() == 1
    assert loser.errors.startswith("KitaruLeaseError:")
    assert f"is held by process {winner.process.pid} " in loser.errors
    open_gate(path)
    assert winner.end() == 0, winner.errors

    witness.life_ended(journal, exec_id)
    assert len(witness.bodies()) == 3
    assert workshop.result(exec_id) == 37
    assert [event.body["epoch"] for event in journal.history(exec_id) if event.kind == "execution.claimed"] == [1, 2]


def test_a_worker_that_slept_through_its_lease_writes_nothing_after_its_successor(
    workshops: Callable[..., Workshop], tmp_path: Path
) -> None:
    workshop = workshops(KITARU_LEASE_SECONDS=LONGER_LEASE)
    journal, witness = workshop.runtime.journal, workshop.witness
    exec_id = workshop.create(guarded, 7)
    path = gate(tmp_path, "gate")
    stale = workshop.child(CRASH_GATE=path)
    stale.begin(exec_id)
    held = wait_at(path)
    early = workshop.child().warm()
    put_to_sleep(stale, workshop, exec_id)
    early.begin(exec_id)
    assert early.end() == 1
    assert early.errors.startswith("KitaruLeaseError:")

    outlast_lease(workshop, exec_id)
    successor = workshop.child()
    witness.life_begins(journal, exec_id)
    successor.begin(exec_id)
    assert successor.end() == 0, successor.errors
    witness.life_ended(journal, exec_id)
    settled = journal.history(exec_id)
    assert workshop.result(exec_id) == 37

    stale.process.send_signal(signal.SIGCONT)
    os.close(held)
    assert stale.end() == EXIT_WAITING, stale.errors
    assert journal.history(exec_id) == settled
    assert workshop.status(exec_id) is ExecutionStatus.COMPLETED
    # Only the body that the stale worker never finished ran twice.
    assert len(witness.bodies()) == 4
    assert len(set(witness.bodies())) == 3


def test_a_stale_worker_that_wakes_while_its_successor_works_is_refused(
    workshops: Callable[..., Workshop], tmp_path: Path
) -> None:
    workshop = workshops(KITARU_LEASE_SECONDS=LEASE)
    journal = workshop.runtime.journal
    exec_id = workshop.create(guarded, 7)
    paths = [gate(tmp_path, name) for name in ("first", "second")]
    stale = workshop.child(CRASH_GATE=paths[0])
    stale.begin(exec_id)
    held = wait_at(paths[0])
    put_to_sleep(stale, workshop, exec_id)
    outlast_lease(workshop, exec_id)
    successor = workshop.child(CRASH_GATE=paths[1])
    successor.begin(exec_id)
    held_successor = wait_at(paths[1])
    epoch = journal.execution(exec_id).epoch
    seq = journal.history(exec_id)[-1].seq

    stale.process.send_signal(signal.SIGCONT)
    os.close(held)
    assert stale.end() == EXIT_WAITING, stale.errors
    news = {(event.kind, event.key) for event in journal.history(exec_id, after=seq)}
    assert {kind for kind, _ in news} <= {"checkpoint.started"}  # the successor's own, of the call at the gate
    assert len(news) <= 1
    assert journal.execution(exec_id).epoch == epoch
    os.close(held_successor)
    assert successor.end() == 0, successor.errors
    assert workshop.result(exec_id) == 37
