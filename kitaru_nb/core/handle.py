"""What `.run(...)` returns: the execution, and its result once it is there."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Generator
from typing import Any, Generic, TypeVar

from kitaru_nb.core.answers import answered_at, answering, asked
from kitaru_nb.core.local import LocalRun, process_end, threads
from kitaru_nb.core.places import give_way
from kitaru_nb.core.runners import runner_of
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import (
    KitaruBackendError,
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

#: Seconds within which somebody takes up a new or an answered execution, unless something went wrong.
TAKEN_UP_WITHIN = 60.0


class FlowHandle(Generic[R]):
    """One execution, seen from where it was started."""

    def __init__(self, runtime: Runtime, exec_id: str, local: LocalRun | None = None) -> None:
        self.runtime = runtime
        self.exec_id = exec_id
        self.local = local
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return f"<execution {self.exec_id} {self.status}>"

    @property
    def status(self) -> ExecutionStatus:
        """Where the execution stands now."""
        return self.runtime.journal.execution(self.exec_id).status

    def wait(self, timeout: float | None = None) -> R:
        """Block until the execution ends; what the flow returned.

        While a thread here polls for an answer, the question is printed once, with the line that answers it.
        Interrupting (Ctrl-C, ■) pauses an execution that runs on a thread here: nothing finished is lost.

        Raises:
            KitaruUserCodeError: the flow failed; its exception is ``__cause__`` where it is still at hand.
            KitaruWaitingError: it let go and waits for an answer; the message has the line that answers.
            KitaruExecutionError: it was cancelled or interrupted.
            KitaruTimeoutError: it goes on, but took longer than ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while not self._settled():
                give_way()
                self._check_deadline(deadline, timeout)
                local = self._running_here()
                if local is not None:
                    local.ended.wait(POLL)
                else:
                    time.sleep(POLL)
        except KeyboardInterrupt:
            self._interrupt()
            raise
        return self.get()

    def get(self) -> R:
        """What the flow returned, without blocking. Raises as `wait`, and `KitaruStateError` while it runs."""
        local = self._newest()
        outcome = local.outcome if local is not None else None
        if outcome is not None and outcome.status is ExecutionStatus.COMPLETED:
            return outcome.value  # type: ignore[no-any-return]
        if (stranded := self._stranded()) is not None and self._running_here() is None:
            process_end.told(self.exec_id)
            raise stranded
        journal = self.runtime.journal
        execution = fold(journal.execution(self.exec_id), journal.history(self.exec_id))
        if execution.status is ExecutionStatus.COMPLETED:
            result = execution.result
            return None if result is None else self.runtime.store.read(result)  # type: ignore[return-value]
        error = self._error(execution)
        process_end.told(self.exec_id)
        if execution.status is ExecutionStatus.FAILED and outcome is not None and isinstance(outcome.error, Exception):
            raise error from outcome.error
        raise error

    def __await__(self) -> Generator[Any, None, R]:
        return self._wait_async().__await__()

    async def _wait_async(self) -> R:
        while not await asyncio.to_thread(self._settled):
            give_way()
            await asyncio.sleep(POLL / 4)
        return await asyncio.to_thread(self.get)

    def _error(self, execution: Execution) -> Exception:
        exec_id, status = self.exec_id, execution.status
        if status is ExecutionStatus.FAILED and execution.failure is not None:
            failure = execution.failure
            return KitaruUserCodeError(
                f"{exec_id} failed: {failure.exception_type.rpartition('.')[2]}: {failure.message}",
                fix=f"kitaru executions retry {exec_id}",
            )
        if status is ExecutionStatus.WAITING and (wait := execution.pending_wait) is not None:
            return KitaruWaitingError(f"{exec_id} waits for {asked(wait)}", fix=answering(wait, exec_id))
        if status is ExecutionStatus.CANCELLED:
            return KitaruExecutionError(
                f"{exec_id} was cancelled.", fix=f"kitaru executions replay {exec_id} --from CHECKPOINT"
            )
        resume = f"kitaru executions resume {exec_id}"
        if status is ExecutionStatus.INTERRUPTED:
            return KitaruExecutionError(f"{exec_id} was interrupted; nothing finished is lost.", fix=resume)
        if status is ExecutionStatus.RUNNING or self._running_here() is not None:
            return KitaruStateError(f"{exec_id} is running; it has no result yet.", fix="handle.wait()")
        return KitaruStateError(f"{exec_id} is {status}, and no worker has taken it up yet.", fix=resume)

    def _newest(self) -> LocalRun | None:
        """The last turn on a thread here: the one that this handle came with, or one of a resume or a retry."""
        last = threads.get(self.exec_id)
        if last is None or (self.local is not None and last.ended is self.local.ended):
            return self.local
        return last

    def _running_here(self) -> LocalRun | None:
        local = self._newest()
        return local if local is not None and not local.ended.is_set() else None

    def _stranded(self) -> KitaruBackendError | None:
        """The storage error that kept a thread here from recording how it ended; its lease expires by itself."""
        local = self._newest()
        error = local.outcome.error if local is not None and local.outcome is not None else None
        return error if isinstance(error, KitaruBackendError) else None

    def _settled(self) -> bool:
        """Whether the execution goes no further by itself."""
        local = self._running_here()
        if local is not None:
            self._tell_questions(local)
            return False
        if self._stranded() is not None:
            return True
        execution = self.runtime.journal.execution(self.exec_id)
        if execution.status in (ExecutionStatus.COMPLETED, ExecutionStatus.CANCELLED):
            return True
        if execution.status is ExecutionStatus.RUNNING or runner_of(execution.stack).status(self.exec_id).alive:
            return False
        since = None
        if execution.status is ExecutionStatus.PENDING:
            since = execution.created_at.timestamp()
        elif execution.status is ExecutionStatus.WAITING:
            since = answered_at(self.runtime.journal.history(self.exec_id))
        return since is None or self._is_left_lying(execution, since)

    def _is_left_lying(self, execution: Execution, since: float) -> bool:
        """Whether nobody takes up what could go on since then: its worker died, or it took too long to come."""
        worker = runner_of(execution.stack).status(self.exec_id)
        return (worker.state == "ended" and worker.begun_at >= since) or time.time() - since > TAKEN_UP_WITHIN

    def _tell_questions(self, local: LocalRun) -> None:
        run = local.run
        if run is None:
            return
        for wait_id, (wait, _) in list(run.parking.parked.items()):
            if wait_id in self._told:
                continue
            run.look()  # somebody may have been quicker
            self._told.add(wait_id)
            if wait_id not in run.engine.resolved:
                print(
                    f"{self.exec_id} waits for {asked(wait)}\n  fix: {answering(wait, self.exec_id)}", file=sys.stderr
                )

    def _check_deadline(self, deadline: float | None, timeout: float | None) -> None:
        if deadline is not None and time.monotonic() > deadline:
            raise KitaruTimeoutError(
                f"{self.exec_id} has not ended after {timeout:g} s; it goes on.", fix="handle.wait()"
            )

    def _interrupt(self) -> None:
        local = self._running_here()
        if local is not None:
            local.interrupt()
            local.ended.wait(5.0)
