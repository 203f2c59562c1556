"""Start executions: on a thread of this process, or through a runner of their stack."""

from __future__ import annotations

import dataclasses
import pickle
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from kitaru_nb.core.advance import Outcome, advance
from kitaru_nb.core.context import current
from kitaru_nb.core.create import created_event
from kitaru_nb.core.failures import pickled
from kitaru_nb.core.handle import FlowHandle
from kitaru_nb.core.local import LocalRun, process_end, threads
from kitaru_nb.core.run import Run
from kitaru_nb.core.runners import runner_of
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruStateError
from kitaru_nb.model import Execution, ExecutionStatus

if TYPE_CHECKING:
    from kitaru_nb.core.flow import Flow

THREAD_POLL_SECONDS = 600.0

#: How many executions a process remembers the flow of.
KEPT = 1000


def launch(runtime: Runtime, execution: Execution, flow: Flow[..., Any]) -> FlowHandle[Any]:
    """Advance an execution whose flow is at hand, unless it has ended or somebody advances it already."""
    runner = runner_of(execution.stack)
    handle: FlowHandle[Any] = FlowHandle(runtime, execution.exec_id)
    if execution.status in (ExecutionStatus.COMPLETED, ExecutionStatus.CANCELLED, ExecutionStatus.RUNNING):
        return handle
    if execution.stack == "local":
        handle.local = run_on_thread(runtime, execution.exec_id, flow)
    else:
        runner.submit(runtime, execution.exec_id)
    return handle


def run_on_thread(runtime: Runtime, exec_id: str, flow: Flow[..., Any]) -> LocalRun:
    """Advance an execution on a thread of its own, unless one does. A script lives until its flows end."""
    process_end.register()
    with _starting:
        known = threads.get(exec_id)
        if known is not None and not known.ended.is_set() and known.thread is not threading.current_thread():
            return known
        local = threads[exec_id] = LocalRun(exec_id, flow)
        for old in list(threads)[:-KEPT]:
            if threads[old].ended.is_set():
                del threads[old]
    local.thread = threading.Thread(
        target=copy_context().run, args=(_advance_on_thread, runtime, local), name=f"kitaru-{exec_id}"
    )
    process_end.told(exec_id)  # of a failure before this try
    local.thread.start()
    return local


_starting = threading.Lock()
_OVER = (ExecutionStatus.COMPLETED, ExecutionStatus.CANCELLED, ExecutionStatus.FAILED)


def _advance_on_thread(runtime: Runtime, local: LocalRun) -> None:
    current.set(None)
    try:
        local.outcome = outcome = _outcome(runtime, local)
        what = f"{type(outcome.error).__name__}: {outcome.reason}"
        if outcome.status is ExecutionStatus.FAILED:
            fix = f"kitaru executions retry {local.exec_id}"
            process_end.report(local.exec_id, f"kitaru: {local.exec_id} failed: {what}\n  fix: {fix}")
        elif _is_stranded(outcome):
            fix = f"kitaru executions resume {local.exec_id}"
            process_end.report(local.exec_id, f"kitaru: {local.exec_id} was interrupted: {what}\n  fix: {fix}")
        if outcome.status in _OVER and not _is_stranded(outcome) and threads.get(local.exec_id) is local:
            # The flow is of use for retries and replays, the error for handles of earlier turns. The value may be
            # large, and so may what the frames of an error hold; the handle of this turn has both.
            light = dataclasses.replace(outcome, value=None, error=_without_frames(outcome.error))
            kept = light if outcome.status is ExecutionStatus.FAILED else None
            threads[local.exec_id] = LocalRun(local.exec_id, local.flow, outcome=kept, ended=local.ended)
    finally:
        local.run = None
        local.ended.set()


def _without_frames(error: BaseException | None) -> Exception | None:
    """An equal exception that keeps nothing else alive; None where there can't be one."""
    data = pickled(error) if isinstance(error, Exception) else None
    return None if data is None else pickle.loads(data)


def _is_stranded(outcome: Outcome) -> bool:
    """Whether storage was gone when it ended; where that was the journal, it doesn't know."""
    return isinstance(outcome.error, KitaruBackendError)


def _outcome(runtime: Runtime, local: LocalRun) -> Outcome:
    def remember(run: Run) -> None:
        local.run = run

    try:
        return advance(runtime, local.exec_id, local.flow, poll_seconds=THREAD_POLL_SECONDS, on_run=remember)
    except KitaruStateError as error:
        # Another worker was faster: it holds the lease, or has brought the execution to its end. The journal knows.
        return Outcome(ExecutionStatus.RUNNING, reason=str(error))
    except BaseException as error:
        return Outcome(ExecutionStatus.FAILED, error=error, reason=str(error))


def start(runtime: Runtime, execution: Execution) -> str | None:
    """Make somebody go on with an execution that nobody advances; where its worker's output goes.

    In the process where its flow (or that of the execution that it replays) is at hand a thread, whose output is this
    process's (None); else a worker through the stack's runner.

    Raises:
        KitaruStateError: it has ended, or its flow lives in another process only.
    """
    exec_id = execution.exec_id
    if execution.status.ended and execution.status is not ExecutionStatus.FAILED:
        raise KitaruStateError(f"{exec_id} is {execution.status}; there is nothing to go on with.")
    local = threads.get(exec_id) or threads.get(execution.original_exec_id or "")
    if local is not None and execution.stack == "local":
        if local.exec_id == exec_id and local.thread is not threading.current_thread():
            local.ended.wait(5.0)
        run_on_thread(runtime, exec_id, local.flow)
        return None
    ref = created_event(runtime, exec_id).body["ref"]
    if ref["kind"] == "here":
        raise KitaruStateError(
            f"The flow of {exec_id} exists only in the process that started it: {ref['why']}",
            fix=f"there, type: KitaruClient().executions.resume({exec_id!r})",
        )
    return runner_of(execution.stack).submit(runtime, exec_id)
