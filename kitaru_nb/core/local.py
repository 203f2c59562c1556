"""The executions that threads of this process advance, and the failures that nobody was told of yet."""

from __future__ import annotations

import atexit
import concurrent.futures.thread
import contextlib
import os
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kitaru_nb.core.advance import Outcome
    from kitaru_nb.core.flow import Flow
    from kitaru_nb.core.run import Run


@dataclass(slots=True)
class LocalRun:
    """A thread of this process that advances an execution. ``ended`` is set when it has let go, with ``outcome``."""

    exec_id: str
    flow: Flow[..., Any]
    thread: threading.Thread | None = None
    run: Run | None = None
    outcome: Outcome | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def interrupt(self) -> None:
        """Make it let go at its next step."""
        if self.run is not None:
            self.run.interrupt("paused", f"{self.exec_id} was interrupted")


#: Execution id → the thread of this process that advances it, or did so last and may have to go on.
threads: dict[str, LocalRun] = {}


def wait_for_threads() -> None:
    """Wait until no execution is advanced here any more. Ctrl-C, now or before, lets them go at their next steps."""
    # What ended a script is the last exception that was shown; at a prompt that was one of many lines.
    pressed = isinstance(getattr(sys, "last_value", None), KeyboardInterrupt) and not hasattr(sys, "ps1")
    while alive := [local for local in list(threads.values()) if not local.ended.is_set()]:
        try:
            for local in alive:
                if pressed:
                    local.interrupt()
            for local in alive:
                local.ended.wait()
        except KeyboardInterrupt:
            pressed = True


class ProcessEnd:
    """What happens when the process ends: flows are waited for, then failures that nobody waited for are printed."""

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}
        self._lock = threading.Lock()
        self._registered = False

    def register(self) -> None:
        """Take part in the end of the process."""
        with self._lock:
            if self._registered:
                return
            self._registered = True
        atexit.register(self._print)
        # Flows are waited for before thread pools refuse new work, which asyncio needs: hooks run last in, first out,
        # and that of `concurrent.futures` is registered by its import. Without this (private) function flows are still
        # joined, being no daemons, but can't begin anything new on a pool once the main thread has ended.
        assert concurrent.futures.thread
        with contextlib.suppress(AttributeError, RuntimeError):
            threading._register_atexit(wait_for_threads)  # type: ignore[attr-defined]

    def report(self, exec_id: str, lines: str) -> None:
        """Print ``lines`` at the end unless somebody is told before."""
        with self._lock:
            self._lines[exec_id] = lines

    def told(self, exec_id: str) -> None:
        """Somebody was told of the failure."""
        with self._lock:
            self._lines.pop(exec_id, None)

    def forget(self) -> None:
        """What is to be printed is for another process to print."""
        self._lines, self._lock = {}, threading.Lock()

    def _print(self) -> None:
        for lines in self._lines.values():
            print(lines, file=sys.stderr)


process_end = ProcessEnd()


def _forget_in_child() -> None:
    # The threads are the parent's: a forked process that waited for them at its end would never end.
    threads.clear()
    process_end.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
