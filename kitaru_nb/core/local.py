"""The executions that threads of this process advance, and the failures that nobody was told of yet."""

from __future__ import annotations

import atexit
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kitaru_nb.core.advance import Outcome
    from kitaru_nb.core.flow import Flow
    from kitaru_nb.core.run import Run


@dataclass(slots=True)
class LocalRun:
    """A thread of this process that advances an execution."""

    exec_id: str
    flow: Flow[..., Any]
    thread: threading.Thread | None = None
    run: Run | None = None
    outcome: Outcome | None = None


#: Execution id → the thread of this process that advances it, or did so last.
threads: dict[str, LocalRun] = {}


class Reports:
    """Failures that nobody waited for; printed when the process ends."""

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}
        self._lock = threading.Lock()
        self._registered = False

    def add(self, exec_id: str, line: str) -> None:
        """Print ``line`` at exit unless somebody is told before."""
        with self._lock:
            self._lines[exec_id] = line
            if not self._registered:
                self._registered = True
                atexit.register(self._print)

    def told(self, exec_id: str) -> None:
        """Somebody was told of the failure."""
        with self._lock:
            self._lines.pop(exec_id, None)

    def _print(self) -> None:
        for exec_id, line in self._lines.items():
            print(f"{line}\n  fix: kitaru executions retry {exec_id}", file=sys.stderr)


reports = Reports()
