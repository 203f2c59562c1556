"""A call of a checkpoint whose body runs in another process: on a worker of the executor, or in a job of its own.

The engine treats it as any call: attempts, retries and the commit of its outcome are the flow's process's, under the
flow's lease. So an outcome is recorded once, whoever else may have tried.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from kitaru_nb.core.engine import Call
from kitaru_nb.core.failures import recorded_failure
from kitaru_nb.core.function_work import FunctionWork
from kitaru_nb.core.places import give_way
from kitaru_nb.core.runners import Job
from kitaru_nb.errors import KitaruBackendError, KitaruUsageError, KitaruWorkerLostError
from kitaru_nb.journal.fold import Outputs
from kitaru_nb.model import Artifact, Event

if TYPE_CHECKING:
    from kitaru_nb.core.run import Run

#: Seconds between two questions to a runner, whether a job is still there.
ASK_EVERY = 2.0
POLL = 0.1
#: How much of a lost job's last words an error repeats.
LAST_WORDS = 2_000


class ElsewhereWork(FunctionWork):
    """What the two kinds share: the outcome is what came back."""

    __slots__ = ("_returned",)

    def outputs(self, run: Run, call: Call, value: Any) -> tuple[list[Artifact], Mapping[str, Any]]:
        """The artifact that was written where the body ran."""
        body = self._returned.body
        return list(self._outputs(call)), {name: body[name] for name in ("metadata",) if name in body}

    def _outputs(self, call: Call) -> Outputs:
        event = self._returned
        return Outputs(event._replace(body={**event.body, "name": call.name}))

    def _value(self, call: Call, returned: Event) -> Any:
        """The value that came back. Raises the exception that did."""
        self._returned = returned
        if (failure := returned.body.get("failure")) is None:
            outputs = self._outputs(call)
            return self.restore(self.run, call, outputs, outputs.event)
        error = recorded_failure(returned, trusted=self.run.runtime.settings.trust_pickle)
        if not getattr(error, "__notes__", ()):
            error.add_note(failure["traceback"])
        raise error


class ExecutorWork(ElsewhereWork):
    """A submitted call on a worker of the run's executor."""

    __slots__ = ()

    async def invoke_async(self, call: Call, attempt: int) -> Any:
        """Send the call off and await what comes back."""
        future = await asyncio.to_thread(self._start, call, attempt)
        try:
            events = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise KitaruWorkerLostError(
                f"Checkpoint {call.name!r} was dropped by its executor, {self.run.submitted.elsewhere.address}: the "
                "cluster was restarted, or somebody cancelled its work.",
            ) from None
        return self._value(call, self.run.submitted.elsewhere.take(events))

    def _start(self, call: Call, attempt: int) -> Future[list[Event]]:
        elsewhere = self.run.submitted.elsewhere
        executor = elsewhere.executor
        order = elsewhere.orders.order(self.checkpoint, call, attempt, executor.where)
        return executor.start(elsewhere.task(order))


class IsolatedWork(ElsewhereWork):
    """A call in a job of its own, started by the execution's runner."""

    __slots__ = ()

    def invoke(self, call: Call, attempt: int) -> Any:
        """Start a job, unless its outcome is here already, and wait for what it brings back."""
        run = self.run
        with run.runtime_code():
            watch = _Watch(self, call, attempt)
            with watch:
                while (returned := watch.look()) is None:
                    run.wake.wait(POLL)
                    run.check()
        return self._value(call, returned)

    async def invoke_async(self, call: Call, attempt: int) -> Any:
        """As `invoke`, in this task."""
        watch = await asyncio.to_thread(_Watch, self, call, attempt)
        try:
            while (returned := await asyncio.to_thread(watch.look)) is None:
                await asyncio.sleep(POLL)
                self.run.check()
        except BaseException:
            await asyncio.shield(asyncio.to_thread(watch.cancel))
            raise
        return self._value(call, returned)


class _Watch:
    """One job: it is started, looked after, and cancelled when nobody waits for it any more."""

    def __init__(self, work: IsolatedWork, call: Call, attempt: int) -> None:
        run = self._run = work.run
        self._elsewhere = run.submitted.elsewhere
        self._call_id, self._attempt, self._name = call.call_id, attempt, call.name
        self._job = Job(call.call_id, run.lease.epoch, attempt, work.checkpoint.resources)
        self._asked = time.monotonic()
        # A job of the worker before this one may have ended after that had died.
        self._found = self._elsewhere.returned(call.call_id, attempt, now=True)
        if self._found is not None:
            return
        if run.runtime.settings.journal_url.startswith("memory:"):
            raise KitaruUsageError(
                f"Checkpoint {call.name!r} is isolated, but the journal is in this process's memory, where its job "
                "can't reach it.",
                fix="leave KITARU_JOURNAL=memory://... out, or the option runtime='isolated'",
            )
        give_way()  # the job may need this worker's place to begin
        run.commit([self._elsewhere.orders.order(work.checkpoint, call, attempt, "a job of its own")])
        self._elsewhere.runner.submit(run.runtime, run.exec_id, self._job)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is not None:
            self.cancel()

    def look(self) -> Event | None:
        """What the job brought back, if it has. Raises `KitaruWorkerLostError` when it ended with nothing."""
        found = self._found or self._elsewhere.returned(self._call_id, self._attempt)
        if found is not None or time.monotonic() - self._asked < ASK_EVERY:
            return found
        self._asked = time.monotonic()
        runner, exec_id = self._elsewhere.runner, self._run.exec_id
        try:
            status = runner.status(exec_id, self._job)
            if status.alive:
                return None
            found = self._elsewhere.returned(self._call_id, self._attempt, now=True)
            words = runner.logs(exec_id, self._job)[-LAST_WORDS:].strip() if found is None else ""
        except KitaruBackendError:
            return None  # the runner can't be reached for the moment
        if found is None:
            code = "" if status.code is None else f" with code {status.code}"
            why = f": {status.reason}" if status.reason else ""
            raise KitaruWorkerLostError(
                f"The job of checkpoint {self._name!r} ended{code} and brought nothing back{why}."
                + (f" Its last words:\n{words}" if words else "")
            )
        return found

    def cancel(self) -> None:
        """End the job. One that can't be reached ends by itself: what it would write is refused."""
        try:
            self._elsewhere.runner.cancel(self._run.exec_id, self._job)
        except KitaruBackendError as error:
            self._run.log_text(self._call_id, "logging", "WARNING", f"the job couldn't be ended: {error}\n")
