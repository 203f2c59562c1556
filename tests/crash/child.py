"""A worker that the tests start and kill: ``python child.py``, with what it shall do as a line of JSON on stdin.

It says ``ready`` once everything is imported, so that a kill hits work and not the start of Python. ``python child.py
FD`` is a nursery: it forks such a worker for each order that comes through the pipe, and tells its id and exit code.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

import crash.flows
import kitaru_nb.core.run
import kitaru_nb.journal.http
import kitaru_nb.journal.postgres
import kitaru_nb.journal.sqlite
from kitaru_nb.config import load_settings
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruError
from kitaru_nb.model import ExecutionStatus
from kitaru_nb.testing.faults import Died, Fate, FaultyJournal
from kitaru_nb.worker import exit_code, work

PRELOADED = (crash.flows, kitaru_nb.journal.http, kitaru_nb.journal.postgres, kitaru_nb.journal.sqlite)


class Kill(Fate):
    """Dies for real."""

    def step(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """Perform ``operation``, or end this process by SIGKILL."""
        try:
            return super().step(operation, *args, **kwargs)
        except Died:
            os.kill(os.getpid(), signal.SIGKILL)


def work_on(order: dict[str, Any]) -> int:
    """Advance the execution of an order; the exit code of a worker. An error is a line on stderr."""
    runtime = Runtime(load_settings())
    if "at" in order:
        kitaru_nb.core.run.STARTED_AFTER = math.inf  # what a slow machine appends too would be counted
        journal = FaultyJournal(runtime.journal)
        journal.fate = Kill(order["at"], order["when"], order["only"])
        runtime = Runtime(runtime.settings, journal=journal)
    try:
        outcome = work(runtime, order["exec_id"])
        if outcome.status is ExecutionStatus.FAILED or isinstance(outcome.error, KitaruBackendError):
            print(f"{type(outcome.error).__name__}: {outcome.error}", file=sys.stderr)
        return exit_code(outcome.status)
    except KitaruError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


def nurse(pipe: Connection) -> int:
    """Fork a worker for each order, one after another, until the pipe ends. In a worker: its exit code."""
    while True:
        try:
            order = pipe.recv()
        except EOFError:
            return 0
        pid = os.fork()
        if pid == 0:
            pipe.close()
            errors = os.open(order["errors"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(errors, 2)
            os.close(errors)
            return work_on(order)
        pipe.send(pid)
        pipe.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def main() -> int:
    """A worker with one order from stdin, or a nursery."""
    if len(sys.argv) > 1:
        return nurse(Connection(int(sys.argv[1])))
    print("ready", flush=True)
    return work_on(json.loads(sys.stdin.readline()))


if __name__ == "__main__":
    sys.exit(main())
