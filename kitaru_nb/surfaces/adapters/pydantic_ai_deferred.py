"""Deferred tools and approvals of Pydantic AI as waits.

A run whose tools need approval, or are executed elsewhere, ends with ``DeferredToolRequests``. `wait_for_deferred`
asks for all of them at once, and gives what the next run goes on with.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolDenied

from kitaru_nb.core.context import require_frame
from kitaru_nb.core.run import Run
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.surfaces.adapters.approvals import Answer, Question, answered, ask_async
from kitaru_nb.surfaces.adapters.base import block_on

__all__ = ["Decisions", "recorded_runs", "wait_for_deferred", "wait_for_deferred_async"]


@dataclass(kw_only=True)
class Decisions(DeferredToolResults):
    """``DeferredToolResults`` that know the waits which gave them (``wait:ID``)."""

    waits: list[str] = field(default_factory=list)


_recorded: WeakKeyDictionary[Run, dict[str, str]] = WeakKeyDictionary()


def recorded_runs(run: Run) -> dict[str, str]:
    """Of one execution: Pydantic AI's run id → call id of the checkpoint that recorded that run."""
    return _recorded.setdefault(run, {})


def wait_for_deferred(result: Any, *, name: str | None = None, timeout: float | None = None) -> DeferredToolResults:
    """Wait until somebody has decided each deferred tool call of a run. At flow scope.

    One wait for each call, all asked at once. An approval is answered ``{"approve": true}``, ``{"approve": false,
    "message": "too much"}``, or plainly ``true`` or ``false``; a call that is executed elsewhere by its result, any
    JSON.

    Args:
        result: of a run whose output is ``DeferredToolRequests``, or that output.
        name: of the wait; with several calls ``<name>:<tool call id>``. Default: ``<agent>:<tool call id>``.
        timeout: for how many seconds the worker polls before it lets go, as in `kitaru_nb.wait`.

    Returns:
        What the next run takes: ``agent.run_sync(message_history=result.all_messages(), deferred_tool_results=...)``.

    Raises:
        KitaruUsageError: nothing was deferred.
        KitaruContextError: outside a flow, or inside a checkpoint.
    """
    requests, agent = _requests(result)
    return block_on(
        lambda: _decided(requests, agent, name, timeout),
        instead="await wait_for_deferred_async(result)",
        only_waits=True,
    )


async def wait_for_deferred_async(
    result: Any,
    *,
    name: str | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 (it ends the worker's polling, not this call)
) -> DeferredToolResults:
    """`wait_for_deferred` for asynchronous flows."""
    requests, agent = _requests(result)
    return await _decided(requests, agent, name, timeout)


def _requests(result: Any) -> tuple[DeferredToolRequests, str]:
    """What was deferred, and the agent's name."""
    frame = require_frame("wait_for_deferred()")
    output = result if isinstance(result, DeferredToolRequests) else getattr(result, "output", None)
    if not isinstance(output, DeferredToolRequests):
        raise KitaruUsageError(
            f"wait_for_deferred() was given {type(result).__name__} with output {str(output)[:80]!r}; expected the "
            "result of a run that ended with DeferredToolRequests (it must be among the agent's output types).",
            fix="if isinstance(result.output, DeferredToolRequests): decisions = wait_for_deferred(result)",
        )
    if not (output.approvals or output.calls):
        raise KitaruUsageError("The DeferredToolRequests are empty: there is nothing to decide.")
    call_id = recorded_runs(frame.run).get(getattr(result, "run_id", None) or "", "")
    recorded = frame.run.engine.completed.get(call_id)
    return output, recorded.body["name"] if recorded is not None else "agent"


async def _decided(requests: DeferredToolRequests, agent: str, name: str | None, seconds: float | None) -> Decisions:
    alone = len(requests.approvals) + len(requests.calls) == 1

    def named(call: ToolCallPart) -> str:
        return name if name is not None and alone else f"{name or agent}:{call.tool_call_id}"

    def question(call: ToolCallPart, what: str) -> Question:
        arguments = call.args_as_dict()
        shown = ", ".join(f"{key}={json.dumps(value, default=str)}" for key, value in arguments.items())
        metadata = {"agent": agent, "tool": call.tool_name, "call_id": call.tool_call_id, "arguments": arguments}
        if more := requests.metadata.get(call.tool_call_id):
            metadata["metadata"] = more
        return Question(named(call), f"{what} {call.tool_name}({shown})?", metadata)

    approvals = [question(call, f"May {agent} call") for call in requests.approvals]
    calls = [question(call, "What is the result of") for call in requests.calls]
    answers, results = await asyncio.gather(
        ask_async(approvals, timeout=seconds), answered(calls, Any, timeout=seconds)
    )
    return Decisions(
        approvals={
            call.tool_call_id: True if answer.approve else _denied(answer)
            for call, answer in zip(requests.approvals, answers, strict=True)
        },
        calls={call.tool_call_id: value for call, (value, _) in zip(requests.calls, results, strict=True)},
        waits=[*(answer.source for answer in answers), *(source for _, source in results)],
    )


def _denied(answer: Answer) -> ToolDenied:
    return ToolDenied(answer.message) if answer.message else ToolDenied()
