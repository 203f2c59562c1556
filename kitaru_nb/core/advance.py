"""Advance an execution in the calling thread until it ends or lets go."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kitaru_nb.core.context import current
from kitaru_nb.core.create import created_event, read_inputs
from kitaru_nb.core.failures import is_pause, last_word, outage_in
from kitaru_nb.core.leases import give_back, take
from kitaru_nb.core.logs import captured
from kitaru_nb.core.replay import load_plan, unused
from kitaru_nb.core.run import Ending, Run
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import (
    KitaruArtifactError,
    KitaruBackendError,
    KitaruError,
    KitaruFencedError,
    KitaruStateError,
    KitaruStorageError,
    Paused,
)
from kitaru_nb.journal.fold import pack_artifact, unpack_artifact
from kitaru_nb.model import Event, ExecutionStatus

if TYPE_CHECKING:
    from kitaru_nb.core.flow import Flow


@dataclass(frozen=True, slots=True)
class Outcome:
    """How advancing ended: ``completed`` with a value, ``failed`` with an error, ``waiting``, ``cancelled``, or
    ``interrupted`` (the lease was lost, the journal or the artifact store can't be reached, or somebody asked for a
    pause)."""

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
    tries, delay = 0, 0.0
    while True:
        run = claim(runtime, exec_id, poll_seconds=poll_seconds)
        if flow.executor is not None:  # what the execution was started with comes before it
            run.options = {"executor": flow.executor, **run.options}
        if on_run is not None:
            on_run(run)
        # With the lease held: nobody takes it for failed, and what comes meanwhile (a signal, a request to cancel, the
        # death of this process) finds a running execution.
        run.wake.wait(delay)
        outcome = _advance_once(run, flow)
        if outcome.status is ExecutionStatus.FAILED:
            tries += 1
            retry_in = _retry_in(run, flow, outcome.error, tries)
            if retry_in is None:
                return outcome
            delay = retry_in
            continue
        delay = 0.0
        if outcome.status in (ExecutionStatus.WAITING, ExecutionStatus.INTERRUPTED):
            outcome = _after_letting_go(run, outcome)
        if outcome.status is not ExecutionStatus.RUNNING:
            return outcome


def _retry_in(run: Run, flow: Flow[..., Any], error: BaseException | None, tries: int) -> float | None:
    if not isinstance(error, Exception):
        return None
    # The number of retries that the execution was started with; a fresh process finds only the flow's own.
    attempts = run.options.get("retries", flow.retry.attempts)
    return dataclasses.replace(flow.retry, attempts=attempts).delay_after(error, tries)


def claim(runtime: Runtime, exec_id: str, *, poll_seconds: float, strict: bool = True) -> Run:
    """Take the lease of an execution; its `Run`, with history and plan loaded. Raises as `Journal.claim`.

    What keeps the run from beginning (a replay's original is gone) fails the execution, and is raised. An outage of the
    artifact store only interrupts it, and one of the journal can't be recorded.
    """
    lease = take(runtime.journal, exec_id, ttl=runtime.settings.lease_seconds)
    try:
        history = runtime.journal.history(exec_id)
        created = history[0]
        plan = load_plan(runtime, created)
        run = Run(runtime, exec_id, lease, history, plan=plan, poll_seconds=poll_seconds, strict=strict)
    except KitaruError as error:
        away = isinstance(error, KitaruBackendError) and not isinstance(error, KitaruArtifactError | KitaruStorageError)
        give_back(runtime.journal, lease, [] if away else [last_word(exec_id, error)])
        raise
    run.options = created.body.get("options", {})
    run.cache = run.options.get("cache")
    for name, body in created.body.get("inputs", {}).items():
        run.engine.produced(unpack_artifact(body, created.blob, exec_id).token, f"input:{name}")
    return run


def refuse(runtime: Runtime, exec_id: str, error: Exception) -> None:
    """Record that an execution can't go on here (its flow can't be found), so that nobody waits for it in vain.

    Raises as `Journal.claim`.
    """
    lease = take(runtime.journal, exec_id)
    give_back(runtime.journal, lease, [last_word(exec_id, error)])


def end_cancelled(runtime: Runtime, exec_id: str, by: str) -> None:
    """Record that an execution that nobody advances was cancelled by ``by``.

    Claimed first: a worker that slept through its lease can't go on with it, and what ended in this moment stays as it
    ended. Raises as `Journal.claim`.
    """
    lease = take(runtime.journal, exec_id)
    give_back(runtime.journal, lease, [Event(exec_id, "execution.cancelled", "", time.time(), {"by": by})])


#: What makes other libraries' calls durable. By name, because it lives above the core and must not be loaded with it.
INSTRUMENTS = "kitaru_nb.surfaces.adapters.automatic"


def _advance_once(run: Run, flow: Flow[..., Any]) -> Outcome:
    try:
        importlib.import_module(INSTRUMENTS).install_imported()
        with captured():
            inputs = read_inputs(run.runtime, created_event(run.runtime, run.exec_id))
            value = _call(run, flow, inputs)
            run.submitted.finish()
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
    try:
        run.begin()
        run.back_to_user_code()
        return flow.func(*args, **kwargs)
    finally:
        run.user_code.leave()
        current.reset(token)
        asyncio.set_event_loop(None)
        loop.close()


async def _call_async(run: Run, flow: Flow[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    current.set(run.frame)
    return await as_task(run, lambda: flow.func(*args, **kwargs))


async def as_task(run: Run, start: Callable[[], Awaitable[Any]]) -> Any:
    """Await what ``start`` gives, and all that it submits, in the task that an interrupt of the run cancels."""
    task = asyncio.current_task()
    assert task is not None
    run.task = (asyncio.get_running_loop(), task)
    try:
        run.begin()
        value = await start()
        await run.submitted.finish_tasks()
        return value
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
    if (plan := run.engine.plan) is not None and (missed := unused(run, plan)):
        told = (
            f"kitaru: {run.exec_id} was given {', '.join(missed)}, but nothing asked for that: the replay went another "
            f"way than {plan.original}.\n  see: kitaru executions diff {plan.original} {run.exec_id}"
        )
        run.log_text("", "stderr", "WARNING", f"{told}\n")
        print(told, file=sys.stderr)
    blob = bytearray()
    artifact = run.store.write(value, name="result", artifact_id=f"{run.exec_id}//result", exec_id=run.exec_id)
    body = {"result": pack_artifact(artifact, blob)}
    run.let_go([Event(run.exec_id, "execution.completed", "", time.time(), body, bytes(blob) or None)])
    return Outcome(ExecutionStatus.COMPLETED, value)


def end_run(run: Run, error: BaseException) -> Outcome:
    """Give the lease back after ``error`` ended the flow's body; what is recorded says why."""
    run.submitted.stop()
    ending = run.ending
    if isinstance(error, KitaruFencedError) or (ending is not None and ending.kind == "fenced"):
        run.abandon()
        return Outcome(ExecutionStatus.INTERRUPTED, error=error, reason=str(error))
    if any(error is met for met in run.outages):
        _let_go(run)  # for whoever takes it up when the journal is back: no failure, and no pause that somebody wanted
        return Outcome(ExecutionStatus.INTERRUPTED, error=error, reason=str(error))
    if ending is None and not is_pause(error):
        return _ended_by(run, error)
    if ending is None:
        reason = run.parking.reason if run.waiting_for else str(error) or type(error).__name__
        ending = Ending("waiting" if run.waiting_for else "paused", reason)
    kind, body, status = _LAST_WORDS[ending.kind](run, ending.reason)
    _let_go(run, Event(run.exec_id, kind, "", time.time(), body))
    return Outcome(status, error=error, reason=ending.reason)


#: How a run ended → (kind and body of its last event, status).
_LAST_WORDS: dict[str, Callable[[Run, str], tuple[str, dict[str, Any], ExecutionStatus]]] = {
    "waiting": lambda run, _: ("execution.waiting", {"waits": run.waiting_for}, ExecutionStatus.WAITING),
    "paused": lambda run, reason: ("execution.paused", _pause_body(run, reason), ExecutionStatus.INTERRUPTED),
    "cancelled": lambda run, reason: ("execution.cancelled", {"by": _canceller(run)}, ExecutionStatus.CANCELLED),
}


def _pause_body(run: Run, reason: str) -> dict[str, Any]:
    return {"reason": reason} | ({"signal": run.signal} if run.signal else {})


def _canceller(run: Run) -> str:
    request = run.engine.cancel
    return "somebody" if request is None else str(request.body.get("by", "somebody"))


def _ended_by(run: Run, error: BaseException) -> Outcome:
    outage = outage_in(error)
    if outage is not None:
        run.log_text("", "stderr", "ERROR", f"kitaru: {outage}\n")
    _let_go(run, last_word(run.exec_id, error))
    if outage is not None:
        return Outcome(ExecutionStatus.INTERRUPTED, error=outage, reason=str(outage))
    return Outcome(ExecutionStatus.FAILED, error=error, reason=str(error))


def _let_go(run: Run, *events: Event) -> None:
    try:
        run.let_go(events)
    except (KitaruFencedError, KitaruBackendError):
        # A successor holds it, or storage is gone: the lease expires, and the error that led here is what is told.
        run.abandon()


def _after_letting_go(run: Run, outcome: Outcome) -> Outcome:
    """What came between the last look and giving the lease back: its sender saw a live worker and left it to us.

    Status ``running``: a wait was answered, so the run goes on.
    """
    if run.ending is not None and run.ending.kind == "fenced":
        return outcome
    try:
        run.look()
    except KitaruBackendError:
        return outcome  # storage is gone for the moment; what came is seen by the next worker
    if (request := run.engine.cancel) is not None:
        by = request.body.get("by", "somebody")
        if request.kind == "execution.cancel":
            with suppress(KitaruStateError):  # who took it up in this moment finds the request, or has ended it
                end_cancelled(run.runtime, run.exec_id, by)
        return Outcome(ExecutionStatus.CANCELLED, reason=f"{run.exec_id} was cancelled by {by}")
    if outcome.status is ExecutionStatus.WAITING and any(w in run.engine.resolved for w in run.waiting_for):
        return Outcome(ExecutionStatus.RUNNING)
    return outcome


__all__ = ["Outcome", "Paused", "advance", "as_task", "claim", "end_cancelled", "end_run", "refuse"]
