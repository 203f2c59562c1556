"""What is done to executions: answer, abort, replay, resume, retry, cancel, run. Each records who did it."""

from __future__ import annotations

from typing import Any

from kitaru_nb.core.control import Started
from kitaru_nb.core.replay import ReplayPreview
from kitaru_nb.core.runtime import acting_as
from kitaru_nb.model import Execution
from kitaru_nb.surfaces import starting
from kitaru_nb.surfaces.operations import arguments as a
from kitaru_nb.surfaces.operations.base import Caller, Desk
from kitaru_nb.surfaces.operations.reads import resolved, summary


def resolve(desk: Desk, caller: Caller, given: a.Resolve) -> Started:
    """Answer a wait. A fresh worker goes on where none is alive."""
    return desk.client.executions.input(
        resolved(desk, given), wait=given.wait_id, value=given.value, by=caller.name, via=caller.via
    )


def abort(desk: Desk, caller: Caller, given: a.OneWait) -> Started:
    """Close a wait without an answer: the flow gets an error there."""
    return desk.client.executions.abort_wait(resolved(desk, given), wait=given.wait_id, by=caller.name, via=caller.via)


def replay_plan(desk: Desk, caller: Caller, given: a.Replay) -> ReplayPreview:
    """What a replay would run again, reuse and ask; nothing is started."""
    return desk.client.executions.replay_plan(resolved(desk, given), **_options(given))


def replay(desk: Desk, caller: Caller, given: a.Replay) -> Started:
    """Make a new execution from an old one: chosen checkpoints and what depends on them run again."""
    with acting_as(caller.name):
        handle = desk.client.executions.replay(resolved(desk, given), **_options(given))
    return Started(handle.exec_id, None)


def _options(given: a.Replay) -> dict[str, Any]:
    return {
        "from_": given.from_ or None,
        "overrides": given.overrides,
        "scope": given.scope,
        "inputs": given.inputs,
    }


def resume(desk: Desk, caller: Caller, given: a.OneExecution) -> Started:
    """Go on with an interrupted execution, or one whose wait was answered."""
    with acting_as(caller.name):
        return desk.client.executions.resume(resolved(desk, given))


def retry(desk: Desk, caller: Caller, given: a.OneExecution) -> Started:
    """Run a failed execution again from where it failed."""
    with acting_as(caller.name):
        return desk.client.executions.retry(resolved(desk, given))


def cancel(desk: Desk, caller: Caller, given: a.OneExecution) -> Execution:
    """End an execution. A live worker lets go at its next step."""
    exec_id = resolved(desk, given)
    desk.client.executions.cancel(exec_id, by=caller.name)
    return summary(desk, exec_id)


def run(desk: Desk, caller: Caller, given: a.Run) -> Started:
    """Start a notebook or a flow of a Python file as a new execution, in a process of its own."""
    return starting.run(desk.client.runtime, desk.root, given.target, given.inputs, key=given.key, by=caller.name)
