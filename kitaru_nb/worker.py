"""``python -m kitaru_nb.worker EXECUTION``: the process that a runner starts to advance one execution.

Exit codes: 0 completed (or nothing to do), 1 failed, 75 it let go and waits (EX_TEMPFAIL of sysexits.h).
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from kitaru_nb.core.advance import Outcome, advance
from kitaru_nb.core.create import created_event
from kitaru_nb.core.flow import load_flow
from kitaru_nb.core.run import Run
from kitaru_nb.core.runtime import Runtime, default_runtime
from kitaru_nb.errors import KitaruError, KitaruLeaseError
from kitaru_nb.model import ExecutionStatus

EXIT_WAITING = 75


def work(runtime: Runtime, exec_id: str) -> Outcome:
    """Advance an execution in this process until it ends or lets go. SIGTERM and SIGINT are durable pauses."""
    flow = load_flow(created_event(runtime, exec_id), runtime)
    runs: list[Run] = []

    def pause(signum: int, frame: Any) -> None:
        if runs:
            runs[-1].interrupt("paused", f"the worker got {signal.Signals(signum).name}")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pause)
    return advance(runtime, exec_id, flow, poll_seconds=0.0, on_run=runs.append)


def exit_code(status: ExecutionStatus) -> int:
    """The process's exit code for an outcome."""
    if status is ExecutionStatus.COMPLETED:
        return 0
    return 1 if status in (ExecutionStatus.FAILED, ExecutionStatus.CANCELLED) else EXIT_WAITING


def print_progress(progress: Any) -> None:
    """One line for each cell of a notebook that ends."""
    if progress.status != "running":
        print(f"[{progress.index}/{progress.total}] {progress.status}: {progress.name}", flush=True)


def main(arguments: list[str]) -> int:
    """The command."""
    if len(arguments) != 1:
        print("usage: python -m kitaru_nb.worker EXECUTION", file=sys.stderr)
        return 2
    exec_id = arguments[0]
    runtime = default_runtime()
    try:
        if created_event(runtime, exec_id).body["ref"]["kind"] == "notebook":
            from kitaru_nb.headless import go_on  # loads Jupyter, which functions don't need

            status = go_on(runtime, exec_id, on_progress=print_progress).status
        else:
            outcome = work(runtime, exec_id)
            status = outcome.status
            print(f"{exec_id} {status}{': ' + outcome.reason if outcome.reason else ''}")
    except KitaruLeaseError as error:
        print(error)  # another worker was faster: nothing to do
        return 0
    except KitaruError as error:
        print(error, file=sys.stderr)
        return 1
    return exit_code(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
