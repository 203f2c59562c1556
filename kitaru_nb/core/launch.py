"""Start executions: on a thread of this process, or through a runner of their stack."""

from __future__ import annotations

import importlib
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol

from kitaru_nb.core.advance import Outcome, advance
from kitaru_nb.core.context import current
from kitaru_nb.core.handle import FlowHandle
from kitaru_nb.core.local import LocalRun, reports, threads
from kitaru_nb.core.run import Run
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruFeatureNotAvailableError, KitaruLeaseError, KitaruStateError
from kitaru_nb.model import Execution, ExecutionStatus

if TYPE_CHECKING:
    from kitaru_nb.core.flow import Flow

THREAD_POLL_SECONDS = 600.0

#: Stack name → "module:Class" of its runner, resolved on use. ``local`` is a thread here, else as ``process``.
RUNNERS = {
    "local": "kitaru_nb.stacks.process:ProcessRunner",
    "process": "kitaru_nb.stacks.process:ProcessRunner",
}

class Runner(Protocol):
    """Starts a worker somewhere."""

    def submit(self, runtime: Runtime, exec_id: str) -> str:
        """Start a worker for the execution; where to look for its output."""


def runner_of(stack: str) -> Runner:
    """The runner of a stack. Raises `KitaruFeatureNotAvailableError` for an unknown one."""
    if stack not in RUNNERS:
        raise KitaruFeatureNotAvailableError(
            f"There is no stack {stack!r}. Stacks are: {', '.join(RUNNERS)}.", fix="run(..., stack='local')"
        )
    module, _, name = RUNNERS[stack].partition(":")
    runner: Runner = getattr(importlib.import_module(module), name)()
    return runner


def launch(runtime: Runtime, execution: Execution, flow: Flow[..., Any]) -> FlowHandle[Any]:
    """Advance an execution whose flow is at hand, unless it has ended or somebody advances it already."""
    runner = runner_of(execution.stack)
    handle: FlowHandle[Any] = FlowHandle(runtime, execution.exec_id)
    completed = execution.status in (ExecutionStatus.COMPLETED, ExecutionStatus.CANCELLED)
    if completed or execution.status is ExecutionStatus.RUNNING:
        return handle
    if execution.stack == "local":
        handle.local = run_on_thread(runtime, execution.exec_id, flow)
    else:
        runner.submit(runtime, execution.exec_id)
    return handle


def run_on_thread(runtime: Runtime, exec_id: str, flow: Flow[..., Any]) -> LocalRun:
    """Advance an execution on a thread of its own. The thread isn't a daemon: a script lives until its flows end."""
    local = LocalRun(exec_id, flow)
    thread = threading.Thread(
        target=copy_context().run, args=(_advance_on_thread, runtime, local), name=f"kitaru-{exec_id}"
    )
    local.thread = thread
    threads[exec_id] = local
    thread.start()
    return local


def _advance_on_thread(runtime: Runtime, local: LocalRun) -> None:
    current.set(None)

    def remember(run: Run) -> None:
        local.run = run

    try:
        local.outcome = advance(
            runtime, local.exec_id, local.flow, poll_seconds=THREAD_POLL_SECONDS, on_run=remember
        )
    except KitaruLeaseError as error:
        local.outcome = Outcome(ExecutionStatus.RUNNING, reason=str(error))  # another worker was faster
    except BaseException as error:
        local.outcome = Outcome(ExecutionStatus.FAILED, error=error, reason=str(error))
    if local.outcome.status is ExecutionStatus.FAILED:
        error = local.outcome.error
        reports.add(local.exec_id, f"kitaru: {local.exec_id} failed: {type(error).__name__}: {local.outcome.reason}")


def start(runtime: Runtime, execution: Execution) -> str | None:
    """Make somebody go on with an execution that nobody advances; where its worker's output goes.

    In the process where its flow is at hand a thread, else a worker through the stack's runner. None when the thread is
    here, or when the execution belongs to an open notebook, which goes on by itself.
    """
    if execution.status.ended and execution.status is not ExecutionStatus.FAILED:
        raise KitaruStateError(f"{execution.exec_id} is {execution.status}; there is nothing to go on with.")
    local = threads.get(execution.exec_id)
    if local is not None and execution.stack == "local":
        if local.thread is not None and local.thread.is_alive() and local.thread is not threading.current_thread():
            local.thread.join(5.0)
        run_on_thread(runtime, execution.exec_id, local.flow)
        return None
    return runner_of(execution.stack).submit(runtime, execution.exec_id)
