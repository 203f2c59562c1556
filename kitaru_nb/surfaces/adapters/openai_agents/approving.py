"""From an interrupted run to the request that goes on with it: somebody is asked, or code decides."""

from __future__ import annotations

from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.surfaces.adapters.approvals import Answer, Question, ask, ask_async
from kitaru_nb.surfaces.adapters.openai_agents.requests import (
    OpenAIApprovalDecision,
    OpenAIInterruptionSummary,
    OpenAIRunRequest,
    OpenAIRunResult,
)


def wait_for_approval(
    result: OpenAIRunResult,
    *,
    name: str | None = None,
    call_id: str | None = None,
    interruption_index: int | None = None,
    timeout: float | None = None,
    denial_message: str | None = None,
) -> OpenAIRunRequest:
    """Ask whether one pending tool call may happen; the request that goes on with the run.

    Other pending calls stay pending. The answer is ``{"approve": true, "message": null}``, or plainly true or false.

    Args:
        name: of the wait; default: the runner's name and the call's id.
        call_id, interruption_index: which call; default: the first.
        timeout: for how many seconds the worker polls before it lets go, as in `kitaru_nb.wait`.
        denial_message: what the model is told of a rejection whose giver wrote nothing.

    Raises:
        KitaruUsageError: the result isn't interrupted, or has no such call.
        KitaruContextError: outside a flow, or inside a checkpoint.
    """
    chosen = [_chosen(result, call_id, interruption_index)]
    return _request(result, chosen, ask(_questions(result, chosen, name), timeout=timeout), denial_message)


def wait_for_approvals(
    result: OpenAIRunResult,
    *,
    name: str | None = None,
    timeout: float | None = None,
    denial_message: str | None = None,
) -> OpenAIRunRequest:
    """Ask for all pending tool calls at once, each in a wait of its own; the request that goes on with the run.

    Args, Raises: as `wait_for_approval`; with several calls each wait is called ``name:CALL_ID``.
    """
    pending = _pending(result)
    return _request(result, pending, ask(_questions(result, pending, name), timeout=timeout), denial_message)


async def wait_for_approval_async(
    result: OpenAIRunResult,
    *,
    name: str | None = None,
    call_id: str | None = None,
    interruption_index: int | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 (it ends the worker's polling, not this call)
    denial_message: str | None = None,
) -> OpenAIRunRequest:
    """`wait_for_approval` for asynchronous flows: other tasks of the flow go on meanwhile."""
    chosen = [_chosen(result, call_id, interruption_index)]
    answers = await ask_async(_questions(result, chosen, name), timeout=timeout)
    return _request(result, chosen, answers, denial_message)


async def wait_for_approvals_async(
    result: OpenAIRunResult,
    *,
    name: str | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 (it ends the worker's polling, not this call)
    denial_message: str | None = None,
) -> OpenAIRunRequest:
    """`wait_for_approvals` for asynchronous flows: other tasks of the flow go on meanwhile."""
    pending = _pending(result)
    answers = await ask_async(_questions(result, pending, name), timeout=timeout)
    return _request(result, pending, answers, denial_message)


def build_resume_request(
    result: OpenAIRunResult,
    *,
    approve: bool,
    call_id: str | None = None,
    interruption_index: int | None = None,
    rejection_message: str | None = None,
) -> OpenAIRunRequest:
    """The request that goes on with an interrupted run, where code decides instead of a person.

    Raises:
        KitaruUsageError: the result isn't interrupted, or has no such call.
    """
    chosen = _chosen(result, call_id, interruption_index)
    decision = OpenAIApprovalDecision(None, approve, rejection_message, chosen.call_id)
    return OpenAIRunRequest.resume(result.pending_state, decision)


def _pending(result: OpenAIRunResult) -> list[OpenAIInterruptionSummary]:
    if not isinstance(result, OpenAIRunResult):
        raise KitaruUsageError(
            f"An approval was asked for with a {type(result).__name__}; expected the result of KitaruRunner.run.",
            fix="wait_for_approval(await runner.run(request))",
        )
    if result.status != "interrupted":
        raise KitaruUsageError(
            f"The run of {result.runner!r} is completed; there is nothing to approve.",
            fix="if result.status == 'interrupted': request = wait_for_approval(result)",
        )
    return list(result.interruptions)


def _chosen(result: OpenAIRunResult, call_id: str | None, index: int | None) -> OpenAIInterruptionSummary:
    pending = _pending(result)
    there = ", ".join(f"{one.index}: {one.call_id} ({one.tool_name})" for one in pending)
    if call_id is not None:
        for one in pending:
            if one.call_id == call_id:
                return one
        raise KitaruUsageError(
            f"Tool call {call_id!r} isn't pending. Pending: {there}.", fix=f"call_id={pending[0].call_id!r}"
        )
    if index is not None and not 0 <= index < len(pending):
        raise KitaruUsageError(f"interruption_index={index} means no pending call. Pending: {there}.", fix="0")
    return pending[index or 0]


def _questions(result: OpenAIRunResult, chosen: list[OpenAIInterruptionSummary], name: str | None) -> list[Question]:
    questions = []
    for one in chosen:
        own = name or f"{result.runner}:{one.call_id}"
        if name is not None and len(chosen) > 1:
            own = f"{name}:{one.call_id}"
        metadata = {"agent": one.agent, "tool": one.tool_name, "call_id": one.call_id, "arguments": one.arguments}
        questions.append(Question(own, f"{one.message}. Allow it?", metadata))
    return questions


def _request(
    result: OpenAIRunResult,
    chosen: list[OpenAIInterruptionSummary],
    answers: list[Answer],
    denial_message: str | None,
) -> OpenAIRunRequest:
    decisions = [
        OpenAIApprovalDecision(
            None,
            answer.approve,
            None if answer.approve else answer.message or denial_message,
            one.call_id,
            answer.source,
        )
        for one, answer in zip(chosen, answers, strict=True)
    ]
    return OpenAIRunRequest.resume(result.pending_state, decisions)
