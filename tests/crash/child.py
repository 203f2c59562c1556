"""A worker that the tests start and kill: ``python child.py``, with what it shall do as a line of JSON on stdin.

It says ``ready`` once everything is imported, so that a kill hits work and not the start of Python.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import crash.flows
import kitaru_nb.journal.sqlite
from kitaru_nb.config import load_settings
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruError
from kitaru_nb.model import ExecutionStatus
from kitaru_nb.testing.faults import Died, Fate, FaultyJournal
from kitaru_nb.worker import exit_code, work

PRELOADED = (crash.flows, kitaru_nb.journal.sqlite)


class Kill(Fate):
    """Dies for real."""

    def step(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """Perform ``operation``, or end this process by SIGKILL."""
        try:
            return super().step(operation, *args, **kwargs)
        except Died:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """Advance the execution of the order; the exit code of a worker. An error is a line on stderr."""
    print("ready", flush=True)
    order = json.loads(sys.stdin.readline())
    runtime = Runtime(load_settings())
    if "at" in order:
        journal = FaultyJournal(runtime.journal)
        journal.fate = Kill(order["at"], order["when"], order["only"])
        runtime = Runtime(runtime.settings, journal=journal)
    try:
        outcome = work(runtime, order["exec_id"])
        if outcome.status is ExecutionStatus.FAILED:
            print(f"{type(outcome.error).__name__}: {outcome.error}", file=sys.stderr)
        return exit_code(outcome.status)
    except KitaruError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
