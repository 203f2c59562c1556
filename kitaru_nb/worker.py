"""``python -m kitaru_nb.worker EXECUTION``: the process that a runner starts to advance one execution.

``--job NAME``: only the order of this name, an isolated checkpoint; 0 when its outcome, good or bad, is recorded.

Exit codes: 0 completed (or nothing to do), 1 failed, 75 it let go and waits (EX_TEMPFAIL of sysexits.h). With
``--supervised``, for a supervisor that starts again what ends with another code: 0 when the journal says what became of
the execution, be it a failure or a wait; and it waits for the lease of a worker that died elsewhere.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any

from kitaru_nb.core.advance import Outcome, advance, refuse
from kitaru_nb.core.create import created_event
from kitaru_nb.core.flow import load_flow
from kitaru_nb.core.run import Run
from kitaru_nb.core.runtime import Runtime, default_runtime
from kitaru_nb.errors import KitaruBackendError, KitaruError, KitaruNotFoundError, KitaruStateError, Paused
from kitaru_nb.model import ExecutionStatus, Lease
from kitaru_nb.promote.workplace import enter, leave, localised, with_json_inputs

EXIT_WAITING = 75
SUPERVISED = "--supervised"
JOB = "--job"


class Signals:
    """SIGTERM and SIGINT are durable pauses: of the run that is told, or of the one that begins next."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._signal = ""

    def listen(self) -> None:
        """Handle the signals from now on. To be called in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pause)

    def watch(self, run: Run) -> None:
        """This run is the one to pause."""
        self._run = run
        if self._signal:
            run.signal = self._signal
            run.interrupt("paused", self._reason)

    @property
    def _reason(self) -> str:
        return f"the worker got {self._signal}"

    def _pause(self, signum: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(signum).name
        run = self._run
        if run is None:
            return
        run.signal = self._signal
        # On a thread: this one may hold, at this very bytecode, a lock that interrupting takes.
        threading.Thread(target=run.interrupt, args=("paused", self._reason)).start()
        if run.user_code.leave():
            raise Paused(self._reason)  # out of a blocking call too, such as a sleep


def work(runtime: Runtime, exec_id: str) -> Outcome:
    """Advance an execution in this process until it ends or lets go. SIGTERM and SIGINT are durable pauses.

    Raises:
        KitaruNotFoundError: its flow can't be found here; the execution has failed with this.
        KitaruStateError: it has ended, or another live worker advances it.
    """
    signals = Signals()
    signals.listen()
    created = created_event(runtime, exec_id)
    try:
        flow = load_flow(localised(runtime, created), runtime)
        if created.body["ref"]["kind"] == "snapshot":
            flow = with_json_inputs(flow)
    except Exception as error:
        refuse(runtime, exec_id, error)
        if isinstance(error, KitaruError):
            raise
        where = created.body["ref"].get("path") or created.body["ref"].get("module")
        raise KitaruNotFoundError(
            f"{where} can't be loaded: {type(error).__name__}: {error}",
            fix=f"mend {where}, then: kitaru executions retry {exec_id}",
        ) from error
    return advance(runtime, exec_id, flow, poll_seconds=0.0, on_run=signals.watch)


def is_notebook(runtime: Runtime, exec_id: str) -> bool:
    """Whether the execution runs a notebook. For one of a deployment this process first becomes its environment's.

    Raises:
        KitaruStateError: it has ended, or another live worker advances it.
        KitaruError: the deployment can't run here; the execution has failed with this.
    """
    created = created_event(runtime, exec_id)
    try:
        enter(runtime, created)
        kind = localised(runtime, created).body["ref"]["kind"]
    except KitaruError as error:
        refuse(runtime, exec_id, error)
        raise
    return bool(kind == "notebook")


def exit_code(status: ExecutionStatus) -> int:
    """The process's exit code for an outcome."""
    if status is ExecutionStatus.COMPLETED:
        return 0
    return 1 if status in (ExecutionStatus.FAILED, ExecutionStatus.CANCELLED) else EXIT_WAITING


def print_progress(progress: Any) -> None:
    """One line for each cell of a notebook that ends."""
    if progress.status != "running":
        print(f"[{progress.index}/{progress.total}] {progress.status}: {progress.name}", flush=True)


def turn(runtime: Runtime, exec_id: str) -> int:
    """Advance an execution until it ends or lets go, say so, and return the exit code."""
    code = _turn(runtime, exec_id)
    with suppress(KitaruBackendError):  # the journal can't say whether it has ended; its folder stays
        leave(runtime, exec_id)
    return code


def _turn(runtime: Runtime, exec_id: str) -> int:
    try:
        if is_notebook(runtime, exec_id):
            from kitaru_nb.headless import go_on  # loads Jupyter, which functions don't need

            notebook = go_on(runtime, exec_id, on_progress=print_progress)
            status, reason = notebook.status, notebook.reason
        else:
            outcome = work(runtime, exec_id)
            status, reason = outcome.status, outcome.reason
    except KitaruStateError as error:
        print(error)  # another worker was faster: nothing to do
        return 0
    except KitaruError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{exec_id} {status}{': ' + reason if reason else ''}")
    return exit_code(status)


def wait_for_lease(runtime: Runtime, exec_id: str) -> bool:
    """Wait until nobody holds the execution: its last worker may have died with its machine. False: that one lives."""
    seen: Lease | None = None
    while True:
        execution = runtime.journal.execution(exec_id)
        lease = execution.lease
        if execution.status is not ExecutionStatus.RUNNING or lease is None:
            return True
        if seen is not None and (lease.epoch != seen.epoch or lease.expires_at > seen.expires_at):
            return False
        seen = lease
        time.sleep(1.0)


def is_recorded(runtime: Runtime, exec_id: str) -> bool:
    """Whether the journal says what became of the execution, so that nothing is left to do for now."""
    status = runtime.journal.execution(exec_id).status
    return status.ended or status is ExecutionStatus.WAITING


def job(runtime: Runtime, exec_id: str, name: str) -> int:
    """Carry out the order of one isolated checkpoint, say so, and return the exit code."""
    from kitaru_nb.core.jobs import perform_job  # loads what checkpoints need; notebooks load it in their kernel

    signals = Signals()
    signals.listen()
    try:
        enter(runtime, created_event(runtime, exec_id))
        where = f"the job {name} of {exec_id}, process {os.getpid()} on {socket.gethostname()}"
        returned = perform_job(runtime, exec_id, name, signals.watch, where)
    except KitaruStateError as error:
        print(error)
        return 0
    except Paused as pause:
        print(f"{name} of {exec_id} was interrupted: {pause.reason}")
        return EXIT_WAITING
    except KitaruError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{name} of {exec_id} {'failed' if 'failure' in returned.body else 'completed'}")
    return 0


def main(arguments: list[str]) -> int:
    """The command."""
    names = list(arguments)
    supervised = SUPERVISED in names
    if supervised:
        names.remove(SUPERVISED)
    task = names[1] if names[:1] == [JOB] and len(names) > 1 else None
    names = names if task is None else names[2:]
    if len(names) != 1:
        print(f"usage: python -m kitaru_nb.worker [{SUPERVISED}] [{JOB} NAME] EXECUTION", file=sys.stderr)
        return 2
    (exec_id,) = names
    runtime = default_runtime()
    if task is not None:
        return job(runtime, exec_id, task)
    if not supervised:
        return turn(runtime, exec_id)
    if not wait_for_lease(runtime, exec_id):
        print(f"{exec_id} is advanced by another worker; there is nothing to do.")
        return 0
    code = turn(runtime, exec_id)
    return 0 if is_recorded(runtime, exec_id) else code or 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
