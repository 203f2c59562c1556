"""Advance an execution in the calling thread until it ends or lets go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kitaru_nb.core.context import current
from kitaru_nb.core.create import created_event, read_inputs
from kitaru_nb.core.logs import captured
from kitaru_nb.core.replay import load_plan
from kitaru_nb.core.run import Ending, Run, failure_body
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruFencedError, Paused
from kitaru_nb.journal.base import this_process
from kitaru_nb.journal.fold import pack_artifact, unpack_artifact
from kitaru_nb.model import Event, ExecutionStatus

if TYPE_CHECKING:
    from kitaru_nb.core.flow import Flow


@dataclass(frozen=True, slots=True)
class Outcome:
    """How advancing ended: ``completed`` with a value, ``failed`` with an error, ``waiting``, ``cancelled``, or
    ``interrupted`` (the lease was lost, or somebody asked for a pause)."""

    status: ExecutionStatus
    value: Any = None
    error: BaseException | None = None
    reason: str = ""


def advance(
    runtime: Runtime,
    exec_id: str,
    flow: Flow[..., Any],
    *,
    poll_seconds: float,
    on_run: Callable[[Run], None] | None = None,
) -> Outcome:
    """Claim the execution and run its flow. ``on_run`` is told of each `Run`, so that it can be interrupted.

    Raises:
        KitaruLeaseError: another live worker advances it.
        KitaruStateError: it has ended.
    """
    tries = 0
    while True:
        run = claim(runtime, exec_id, poll_seconds=poll_seconds)
        if on_run is not None:
            on_run(run)
        outcome = _advance_once(run, flow)
        if outcome.status is ExecutionStatus.WAITING and _answered_meanwhile(run):
            continue
        if outcome.status is ExecutionStatus.FAILED and tries < flow.retry.attempts and isinstance(outcome.error, Exception):
            tries += 1
            delay = flow.retry.delay_after(outcome.error, tries)
            if delay is not None:
                time.sleep(delay)
                continue
        return outcome


def claim(runtime: Runtime, exec_id: str, *, poll_seconds: float, strict: bool = True) -> Run:
    """Take the lease of an execution; its `Run`, with history and plan loaded. Raises as `Journal.claim`."""
    lease = runtime.journal.claim(exec_id, this_process(), ttl=runtime.settings.lease_seconds)
    history = runtime.journal.history(exec_id)
    created = history[0]
    run = Run(
        runtime, exec_id, lease, history, plan=load_plan(runtime, created), poll_seconds=poll_seconds, strict=strict
    )
    run.cache = created.body.get("options", {}).get("cache")
    for name, body in created.body.get("inputs", {}).items():
        run.engine.produced(unpack_artifact(body, created.blob, exec_id).token, f"input:{name}")
    return run


def _advance_once(run: Run, flow: Flow[..., Any]) -> Outcome:
    try:
        with captured():
            inputs = read_inputs(run.runtime, created_event(run.runtime, run.exec_id))
            value = _call(run, flow, inputs)
            run.close_executor()
            run.check()
            return _completed(run, value)
    except BaseException as error:
        return end_run(run, error)


def _call(run: Run, flow: Flow[..., Any], inputs: Mapping[str, Any]) -> Any:
    args, kwargs = _arguments(flow, inputs)
    if flow.is_async:
        return asyncio.run(_call_async(run, flow, args, kwargs))
    # Synchronous flows get a loop that doesn't run: libraries may run their own coroutines on it.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    token = current.set(run.frame)
    run.begin()
    try:
        return flow.func(*args, **kwargs)
    finally:
        current.reset(token)
        asyncio.set_event_loop(None)
        loop.close()


async def _call_async(run: Run, flow: Flow[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    current.set(run.frame)
    run.begin()
    task = asyncio.current_task()
    assert task is not None
    run.task = (asyncio.get_running_loop(), task)
    try:
        return await flow.func(*args, **kwargs)
    except asyncio.CancelledError:
        run.check()  # our own cancellation is a pause
        raise
    finally:
        run.task = None


def _arguments(flow: Flow[..., Any], inputs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    bound = flow.signature.bind_partial()
    bound.arguments.update({n: inputs[n] for n in flow.signature.parameters if n in inputs})
    return bound.args, bound.kwargs


def _completed(run: Run, value: Any) -> Outcome:
    blob = bytearray()
    artifact = run.store.write(
        value, name="result", artifact_id=f"{run.exec_id}//result", exec_id=run.exec_id
    )
    body = {"result": pack_artifact(artifact, blob)}
    run.let_go([Event(run.exec_id, "execution.completed", "", time.time(), body, bytes(blob) or None)])
    return Outcome(ExecutionStatus.COMPLETED, value)


def end_run(run: Run, error: BaseException) -> Outcome:
    """Give the lease back after ``error`` ended the flow's body; what is recorded says why."""
    ending = run.ending
    if isinstance(error, KitaruFencedError) or (ending is not None and ending.kind == "fenced"):
        run.abandon()
        return Outcome(ExecutionStatus.INTERRUPTED, error=error, reason=str(error))
    if isinstance(error, Exception) and ending is None:
        return _failed(run, error)
    if ending is None:
        ending = Ending("waiting" if run.waiting_for else "paused", str(error) or type(error).__name__)
    kind, body, status = {
        "waiting": ("execution.waiting", {"waits": run.waiting_for}, ExecutionStatus.WAITING),
        "paused": ("execution.paused", {"reason": ending.reason}, ExecutionStatus.INTERRUPTED),
        "cancelled": ("execution.cancelled", {"by": ending.reason}, ExecutionStatus.CANCELLED),
    }[ending.kind]
    run.close_executor()
    _let_go(run, Event(run.exec_id, kind, "", time.time(), body))
    return Outcome(status, error=error, reason=ending.reason)


def _failed(run: Run, error: Exception) -> Outcome:
    run.close_executor()
    _let_go(run, Event(run.exec_id, "execution.failed", "", time.time(), {"failure": failure_body(error)}))
    return Outcome(ExecutionStatus.FAILED, error=error, reason=str(error))


def _let_go(run: Run, event: Event) -> None:
    try:
        run.let_go([event])
    except (KitaruFencedError, KitaruBackendError):
        # A successor holds it, or storage is gone: the lease expires, and the error that led here is what is told.
        run.abandon()


def _answered_meanwhile(run: Run) -> bool:
    """Whether an answer came between the last look and giving the lease back (its giver saw a live worker)."""
    later = run.journal.history(run.exec_id, after=run.engine.last_seq)
    waited = set(run.waiting_for)
    return any(event.kind == "wait.resolved" and event.key in waited for event in later) or any(
        wait_id in run.engine.resolved for wait_id in waited
    )


__all__ = ["Outcome", "Paused", "advance", "claim", "end_run"]
