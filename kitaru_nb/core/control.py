"""What people and clocks do to executions from outside: answer, abort, cancel, resume, retry."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kitaru_nb.core.advance import end_cancelled
from kitaru_nb.core.answers import answered_at, answering, asked, describe_schema, validate
from kitaru_nb.core.create import created_event
from kitaru_nb.core.launch import start
from kitaru_nb.core.local import threads
from kitaru_nb.core.runtime import Runtime, whoami
from kitaru_nb.errors import (
    KitaruConflictError,
    KitaruError,
    KitaruLeaseError,
    KitaruNotFoundError,
    KitaruStateError,
    KitaruUsageError,
)
from kitaru_nb.journal.fold import fold
from kitaru_nb.model import Event, Execution, ExecutionStatus, Wait

__all__ = [
    "Started",
    "abort",
    "answer",
    "cancel",
    "describe_schema",
    "find_wait",
    "go_on",
    "is_interactive",
    "resume",
    "resume_due",
    "retry",
    "validate",
]


@dataclass(frozen=True, slots=True)
class Started:
    """What an action set in motion.

    Attributes:
        worker: where the output of a freshly started worker goes, or None when none was needed: a live worker takes
            the news up, or (``by_notebook``) the open notebook goes on itself.
        elsewhere: nothing goes on yet: only the process that started the execution can, and this is another one.
    """

    exec_id: str
    worker: str | None
    by_notebook: bool = False
    elsewhere: bool = False


def answer(
    runtime: Runtime, exec_id: str, value: Any, *, wait: str | None = None, by: str | None = None, via: str = "client"
) -> Started:
    """Answer a wait; a fresh worker goes on if none is alive.

    Args:
        wait: its name or id; may be left out while only one is pending.

    Raises:
        KitaruNotFoundError: no such execution or wait; lists the pending ones.
        KitaruUsageError: several are pending and none was named.
        KitaruWaitValidationError: the value doesn't fit the schema. The wait stays open.
        KitaruConflictError: it was answered before; the message says by whom, and what.
    """
    pending = find_wait(runtime, exec_id, wait)
    validate(pending, value)
    _resolve(runtime, pending, {"value": value, "by": by or whoami(), "via": via})
    return _taken_up(runtime, exec_id)


def abort(
    runtime: Runtime, exec_id: str, *, wait: str | None = None, by: str | None = None, via: str = "client"
) -> Started:
    """Close a wait without an answer: the flow gets `KitaruStateError` there. Raises as `answer`."""
    pending = find_wait(runtime, exec_id, wait)
    _resolve(runtime, pending, {"aborted": True, "by": by or whoami(), "via": via})
    return _taken_up(runtime, exec_id)


def _taken_up(runtime: Runtime, exec_id: str) -> Started:
    """`go_on` after an answer. An error says that the answer stays: a server, or whoever can, goes on with it."""
    try:
        return go_on(runtime, exec_id)
    except KitaruError as error:
        error.message = f"The answer is recorded, but no worker could be started for {exec_id}: {error.message}"
        resume = f"kitaru executions resume {exec_id}"
        error.fix = resume if error.fix is None else f"{error.fix}  # then: {resume}"
        raise


def _resolve(runtime: Runtime, wait: Wait, body: Mapping[str, Any]) -> None:
    event = Event(wait.exec_id, "wait.resolved", wait.wait_id, time.time(), body)
    try:
        runtime.journal.append(wait.exec_id, [event])
    except KitaruConflictError as conflict:
        raise already_answered(wait, conflict.existing.body) from conflict


def already_answered(wait: Wait, body: Mapping[str, Any]) -> KitaruConflictError:
    """The error that tells the second one who answered first, and what."""
    what = "aborted it" if body.get("aborted") else f"answered {json.dumps(body.get('value'))}"
    error = KitaruConflictError(
        f"Wait {wait.name!r} of {wait.exec_id} is closed: {body['by']} {what} (through {body['via']}).",
        fix=f"kitaru executions get {wait.exec_id}",
    )
    error.existing = body
    return error


def find_wait(runtime: Runtime, exec_id: str, selector: str | None) -> Wait:
    """The pending wait that a selector (name, id, or None for the only one) means. Raises as `answer`."""
    pending = runtime.journal.waits(exec_id=exec_id)
    if selector is None and len(pending) == 1:
        return pending[0]
    matches = [w for w in pending if selector in (w.name, w.wait_id)]
    if len(matches) == 1:
        return matches[0]
    names = ", ".join(w.name if len([v for v in pending if v.name == w.name]) == 1 else w.wait_id for w in pending)
    if matches or (selector is None and pending):
        raise KitaruUsageError(
            f"{exec_id} has {len(matches or pending)} pending waits that this could mean: {names}.",
            fix=f"kitaru executions input {exec_id} --wait {(matches or pending)[0].wait_id} --value VALUE",
        )
    execution = runtime.journal.execution(exec_id)
    details = fold(execution, runtime.journal.history(exec_id))
    for wait in details.waits:
        if selector in (None, wait.name, wait.wait_id) and wait.status != "pending":
            raise already_answered(
                wait,
                {
                    "value": wait.value,
                    "by": wait.resolved_by,
                    "via": wait.via,
                    "aborted": wait.status == "aborted",
                },
            )
    raise KitaruNotFoundError(
        f"{exec_id} ({execution.status}) has no pending wait{f' {selector!r}' if selector else ''}. "
        f"Pending: {names or 'none'}.",
        fix=f"kitaru executions get {exec_id}",
    )


def cancel(runtime: Runtime, exec_id: str, *, by: str | None = None) -> Execution:
    """End an execution. A live worker lets go at its next step; without one it is over at once.

    Raises:
        KitaruNotFoundError: no such execution.
        KitaruStateError: it has ended already.
    """
    execution = runtime.journal.execution(exec_id)
    if execution.status in (ExecutionStatus.COMPLETED, ExecutionStatus.CANCELLED):
        raise KitaruStateError(
            f"{exec_id} is {execution.status}; there is nothing to cancel.", fix=f"kitaru executions get {exec_id}"
        )
    who = by or whoami()
    try:
        if execution.status is not ExecutionStatus.RUNNING:
            end_cancelled(runtime, exec_id, who)
            return runtime.journal.execution(exec_id)
    except KitaruLeaseError:
        pass  # a worker has just taken it up
    runtime.journal.append(exec_id, [Event(exec_id, "execution.cancel", "", time.time(), {"by": who})])
    return runtime.journal.execution(exec_id)


def go_on(runtime: Runtime, exec_id: str) -> Started:
    """Make sure that somebody goes on with an execution: nothing if a worker is alive, else a fresh one."""
    execution = runtime.journal.execution(exec_id)
    # One that has ended had a live worker, which was quicker than this.
    if execution.status is ExecutionStatus.RUNNING or execution.status.ended:
        return Started(exec_id, None)
    ref = created_event(runtime, exec_id).body["ref"]
    if ref["kind"] == "notebook" and ref.get("interactive"):
        return Started(exec_id, None, by_notebook=True)
    if ref["kind"] == "here" and exec_id not in threads:
        return Started(exec_id, None, elsewhere=True)  # `resume` there, or its key, goes on
    return Started(exec_id, start(runtime, execution))


def is_interactive(runtime: Runtime, exec_id: str) -> bool:
    """Whether the execution belongs to a notebook that a person runs cell by cell."""
    ref = created_event(runtime, exec_id).body["ref"]
    return ref["kind"] == "notebook" and bool(ref.get("interactive"))


def resume(runtime: Runtime, exec_id: str) -> Started:
    """Go on with an interrupted execution, or with one whose wait was answered.

    Raises:
        KitaruStateError: it has ended (a failed one is for `retry`), runs, or still waits.
    """
    execution = runtime.journal.execution(exec_id)
    status = execution.status
    if status is ExecutionStatus.RUNNING:
        raise KitaruStateError(f"{exec_id} is running already.", fix=f"kitaru executions logs {exec_id} --follow")
    if status is ExecutionStatus.FAILED:
        raise KitaruStateError(f"{exec_id} failed.", fix=f"kitaru executions retry {exec_id}")
    if status.ended:
        raise KitaruStateError(f"{exec_id} is {status}.", fix=f"kitaru executions replay {exec_id} --from CHECKPOINT")
    pending = runtime.journal.waits(exec_id=exec_id)
    if status is ExecutionStatus.WAITING and pending and answered_at(runtime.journal.history(exec_id)) is None:
        wait = pending[0]
        raise KitaruStateError(f"{exec_id} still waits for {asked(wait)}", fix=answering(wait, exec_id))
    if is_interactive(runtime, exec_id):
        return Started(exec_id, None, by_notebook=True)
    _record(runtime, exec_id, "execution.resume")
    return Started(exec_id, start(runtime, execution))


def _record(runtime: Runtime, exec_id: str, kind: str) -> None:
    runtime.journal.append(exec_id, [Event(exec_id, kind, "", time.time(), {"by": whoami()})])


def retry(runtime: Runtime, exec_id: str) -> Started:
    """Run a failed execution again from where it failed; what completed is kept.

    Raises:
        KitaruStateError: it hasn't failed.
    """
    execution = runtime.journal.execution(exec_id)
    if execution.status is not ExecutionStatus.FAILED:
        fix = "resume" if not execution.status.ended else "replay"
        raise KitaruStateError(
            f"{exec_id} is {execution.status}; only a failed execution is retried.",
            fix=f"kitaru executions {fix} {exec_id}",
        )
    _record(runtime, exec_id, "execution.retry")
    return Started(exec_id, start(runtime, execution))


def resume_due(runtime: Runtime, *, at: float | None = None) -> list[Started]:
    """Let the clock answer every wait whose ``until`` has come, and start workers for their executions.

    Raises what kept the first of them from going on, after all others have been seen to.
    """
    due = runtime.journal.waits(due_before=time.time() if at is None else at)
    started, errors = [], []
    for wait in due:
        try:
            runtime.ring(wait.exec_id, wait.wait_id)
            started.append(go_on(runtime, wait.exec_id))
        except KitaruError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return started
