"""A server that goes away for a moment, and what must hold for the journal behind it."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from kitaru_nb.journal.base import Journal, this_process
from kitaru_nb.model import Lease
from kitaru_nb.testing.journal import event, new_execution

EVENTS = 60


class Server(Protocol):
    """What can be interrupted."""

    def stop(self) -> None: ...

    def start(self) -> None: ...


def append_through_restarts(journal: Journal, server: Server) -> Lease:
    """Append while the server is restarted twice: every event is there once, under the number that was told.

    The lease under which it was done.
    """
    execution = journal.create(new_execution(), [])
    lease = journal.claim(execution.exec_id, this_process())
    appended = []

    def append() -> None:
        for n in range(EVENTS):
            appended.append(journal.append(execution.exec_id, [event(execution.exec_id, n=n)], lease=lease))
            time.sleep(0.01)

    thread = threading.Thread(target=append)
    thread.start()
    for _ in range(2):
        time.sleep(0.1)
        server.stop()
        server.start()
    thread.join()
    found = [e for e in journal.history(execution.exec_id) if e.kind == "metadata"]
    assert [e.body["n"] for e in found] == list(range(EVENTS))
    assert [e.seq for e in found] == appended
    return lease
