"""What `.run(...)` returns: the execution, and its result once it is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import Generic, TypeVar

from kitaru_nb.core.local import LocalRun, reports, threads
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import (
    KitaruExecutionError,
    KitaruStateError,
    KitaruTimeoutError,
    KitaruUserCodeError,
    KitaruWaitingError,
)
from kitaru_nb.journal.fold import fold
from kitaru_nb.model import Execution, ExecutionStatus

R = TypeVar("R")
POLL = 0.1


class FlowHandle(Generic[R]):
    """One execution, seen from where it was started."""

    def __init__(self, runtime: Runtime, exec_id: str, local: LocalRun | None = None) -> None:
        self.runtime = runtime
        self.exec_id = exec_id
        self.local = local

    def __repr__(self) -> str:
        return f"<execution {self.exec_id} {self.status}>"

    @property
    def status(self) -> ExecutionStatus:
        """Where the execution stands now."""
        return self.runtime.journal.execution(self.exec_id).status

    def wait(self, timeout: float | None = None) -> R:
        """Block until the execution ends; what the flow returned.

        Interrupting (Ctrl-C, ■) pauses an execution that runs on a thread here: nothing finished is lost.

        Raises:
            KitaruUserCodeError: the flow failed; its exception is ``__cause__``.
            KitaruWaitingError: it let go and waits for an answer; the message has the line that answers.
            KitaruExecutionError: it was cancelled or interrupted.
            KitaruTimeoutError: it goes on, but took longer than ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while not self._settled():
                if deadline is not None and time.monotonic() > deadline:
                    raise KitaruTimeoutError(f"{self.exec_id} has not ended after {timeout:g} s; it goes on.")
                self._pause()
        except KeyboardInterrupt:
            self._interrupt()
            raise
        return self.get()

    def get(self) -> R:
        """What the flow returned, without blocking. Raises as `wait`, and `KitaruStateError` while it runs."""
        local = self._local()
        if local is not None and local.outcome is not None and local.outcome.status is ExecutionStatus.COMPLETED:
            return local.outcome.value  # type: ignore[no-any-return]
        execution = fold(self.runtime.journal.execution(self.exec_id), self.runtime.journal.history(self.exec_id))
        if execution.status is ExecutionStatus.COMPLETED:
            assert execution.result is not None
            return self.runtime.store.read(execution.result)  # type: ignore[no-any-return]
        error = self._error(execution)
        if local is not None and local.outcome is not None and local.outcome.error is not None:
            reports.told(self.exec_id)
            if isinstance(local.outcome.error, Exception):
                raise error from local.outcome.error
        raise error

    def __await__(self) -> Generator[Any, None, R]:
        return asyncio.to_thread(self.wait).__await__()

    def _error(self, execution: Execution) -> Exception:
        exec_id, status = self.exec_id, execution.status
        if status is ExecutionStatus.FAILED and execution.failure is not None:
            failure = execution.failure
            return KitaruUserCodeError(
                f"{exec_id} failed: {failure.exception_type.rpartition('.')[2]}: {failure.message}",
                fix=f"kitaru executions retry {exec_id}",
            )
        if (wait := execution.pending_wait) is not None and status is not ExecutionStatus.CANCELLED:
            return KitaruWaitingError(
                f"{exec_id} waits for {wait.name!r}" + (f": {wait.question}" if wait.question else "."),
                fix=f"kitaru executions input {exec_id} --wait {wait.name} --value VALUE",
            )
        if status is ExecutionStatus.CANCELLED:
            return KitaruExecutionError(f"{exec_id} was cancelled.", fix=f"kitaru executions replay {exec_id}")
        if status is ExecutionStatus.INTERRUPTED:
            return KitaruExecutionError(
                f"{exec_id} was interrupted; nothing finished is lost.", fix=f"kitaru executions resume {exec_id}"
            )
        return KitaruStateError(f"{exec_id} is {status}; it has no result yet.", fix="handle.wait()")

    def _local(self) -> LocalRun | None:
        return threads.get(self.exec_id) or self.local

    def _settled(self) -> bool:
        local = self._local()
        if local is not None and local.thread is not None:
            if local.thread.is_alive():
                return False
            if local.outcome is not None and local.outcome.status is not ExecutionStatus.RUNNING:
                return True
        return self.status not in (ExecutionStatus.RUNNING, ExecutionStatus.PENDING)

    def _pause(self) -> None:
        local = self._local()
        if local is not None and local.thread is not None and local.thread.is_alive():
            local.thread.join(POLL)
        else:
            time.sleep(POLL)

    def _interrupt(self) -> None:
        local = self._local()
        if local is not None and local.run is not None and local.thread is not None:
            local.run.interrupt("paused", f"{self.exec_id} was interrupted")
            local.thread.join(5.0)
