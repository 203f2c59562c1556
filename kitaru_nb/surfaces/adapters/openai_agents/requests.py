"""What goes into a run of an agent and what comes out, as plain values: no agent, no client, no run item inside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kitaru_nb.errors import KitaruUsageError

SCHEMA = 1


@dataclass(frozen=True)
class OpenAIUsageSummary:
    """Tokens and requests, of one segment of a run or of all."""

    requests: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0

    def minus(self, other: OpenAIUsageSummary) -> OpenAIUsageSummary:
        """What came after ``other``, of which this is the continuation."""
        return OpenAIUsageSummary(**{name: value - getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True)
class OpenAIInterruptionSummary:
    """A tool call that needs approval.

    Attributes:
        index: its number among those of one result.
        kind: ``tool_approval``.
        call_id: the provider's id of the call, by which it is decided.
        agent: name of the agent that asked for it; with agents as tools not the outer one.
        arguments: parsed, where they are JSON; else the text.
        message: one line for people.
    """

    index: int
    tool_name: str
    call_id: str
    agent: str
    arguments: Any
    message: str
    kind: str = "tool_approval"

    @property
    def arguments_preview(self) -> str:
        """The arguments, as in ``refund(order='A-17', amount=500)``, in at most 200 characters."""
        return shown_arguments(self.arguments)


def shown_arguments(arguments: Any) -> str:
    """Arguments of a tool call in short."""
    text = ", ".join(f"{k}={v!r}" for k, v in arguments.items()) if isinstance(arguments, Mapping) else str(arguments)
    return text if len(text) <= 200 else f"{text[:199]}…"


@dataclass(frozen=True)
class PendingTool:
    """The tool that a pending call means, as it was when the run was interrupted."""

    agent: str
    tool: str
    call_id: str
    schema: str | None


@dataclass(frozen=True)
class OpenAIRunStateEnvelope:
    """An interrupted run, to be resumed by another process. It holds prompts and outputs: keep it where you trust.

    Attributes:
        state: the SDK's own snapshot, JSON.
        run_state_schema, agents_sdk_version: who wrote it. Newer versions of the SDK read older snapshots.
        agents: names of the agents that could be reached.
        pending: the tools of the pending calls, with digests of their parameters.
        has_context: whether the snapshot holds a context, and was written by the runner's ``context_serializer``.
        call_id: id of the checkpoint that was interrupted.
        segment: how many segments the run had so far.
        usage_before: what all of them used.
    """

    state: str
    run_state_schema: str
    agents_sdk_version: str
    agents: tuple[str, ...]
    pending: tuple[PendingTool, ...]
    has_context: bool = False
    call_id: str | None = None
    segment: int = 1
    usage_before: OpenAIUsageSummary = field(default_factory=OpenAIUsageSummary)
    cost_before: float | None = None
    schema: int = SCHEMA


@dataclass(frozen=True)
class OpenAIApprovalDecision:
    """Whether a pending tool call may happen. Name it by ``call_id``, or by its index in the result.

    Attributes:
        rejection_message: what the model is told instead of the tool's result.
        source: the wait in which it was decided.
    """

    interruption_index: int | None = None
    approve: bool = True
    rejection_message: str | None = None
    call_id: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class OpenAIRunRequest:
    """What to run: a new input, or an interrupted run with decisions. Made by `start` or `resume`."""

    input: str | list[Any] | None = None
    pending_state: OpenAIRunStateEnvelope | None = None
    decisions: tuple[OpenAIApprovalDecision, ...] = ()
    max_turns: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        input: str | Sequence[Any],
        *,
        max_turns: int | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> OpenAIRunRequest:
        """Begin with this input: a text, or items as `Runner.run` takes them.

        Args:
            max_turns: how many times the model may be asked; None: the SDK's default.
            metadata: JSON that is kept with the checkpoint.

        Raises:
            KitaruUsageError: an input of another kind.
        """
        if isinstance(input, OpenAIRunResult):
            raise KitaruUsageError(
                "OpenAIRunRequest.start() was given the result of a run; expected a text or a list of input items.",
                fix="wait_for_approval(result)  # or OpenAIRunRequest.resume(result.pending_state, decisions)",
            )
        if not isinstance(input, str) and (not isinstance(input, Sequence) or isinstance(input, bytes)):
            raise KitaruUsageError(
                f"OpenAIRunRequest.start() was given a {type(input).__name__}; expected a text or a list of items.",
                fix="OpenAIRunRequest.start('What is the weather in Rome?')",
            )
        if max_turns is not None and (type(max_turns) is not int or max_turns < 1):
            raise KitaruUsageError(f"max_turns={max_turns!r} can't be: expected a number >= 1.", fix="max_turns=10")
        items: str | list[Any] = input if isinstance(input, str) else list(input)
        return cls(input=items, max_turns=max_turns, metadata=_metadata(metadata))

    @classmethod
    def resume(
        cls,
        pending_state: OpenAIRunStateEnvelope | None,
        decisions: OpenAIApprovalDecision
        | Sequence[OpenAIApprovalDecision]
        | Mapping[str, bool | OpenAIApprovalDecision],
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> OpenAIRunRequest:
        """Go on with an interrupted run.

        Args:
            decisions: one, several, or a mapping from call id to true, false or a decision. Calls that aren't
                mentioned stay pending.

        Raises:
            KitaruUsageError: nothing is pending, no decision, a decision twice, or one for a call that isn't pending.
        """
        if not isinstance(pending_state, OpenAIRunStateEnvelope):
            raise KitaruUsageError(
                f"There is nothing to resume: pending_state is {type(pending_state).__name__}; expected that of an "
                "interrupted result.",
                fix="if result.status == 'interrupted': OpenAIRunRequest.resume(result.pending_state, …)",
            )
        return cls(
            pending_state=pending_state,
            decisions=_by_call_id(pending_state, decisions),
            metadata=_metadata(metadata),
        )


def _metadata(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Checked before anything is paid for: it is written when the run has ended."""
    try:
        if given is not None and not isinstance(given, Mapping):
            raise TypeError
        json.dumps(found := dict(given or {}))
    except (TypeError, ValueError) as error:
        raise KitaruUsageError(
            f"metadata={given!r} can't be kept; expected a mapping of JSON values.", fix="metadata={'case': 7}"
        ) from error
    return found


def _by_call_id(
    state: OpenAIRunStateEnvelope,
    decisions: OpenAIApprovalDecision | Sequence[OpenAIApprovalDecision] | Mapping[str, bool | OpenAIApprovalDecision],
) -> tuple[OpenAIApprovalDecision, ...]:
    """Decisions, each with the call id that it means."""
    if isinstance(decisions, Mapping):
        given = [
            OpenAIApprovalDecision(
                None,
                value.approve if isinstance(value, OpenAIApprovalDecision) else _boolean(value),
                value.rejection_message if isinstance(value, OpenAIApprovalDecision) else None,
                call_id,
                value.source if isinstance(value, OpenAIApprovalDecision) else None,
            )
            for call_id, value in decisions.items()
        ]
    else:
        given = [decisions] if isinstance(decisions, OpenAIApprovalDecision) else list(decisions)
    found: dict[str, OpenAIApprovalDecision] = {}
    for decision in given:
        call_id = _meant(state, decision)
        if call_id in found:
            raise KitaruUsageError(f"Tool call {call_id} was decided twice; expected one decision for each call.")
        _boolean(decision.approve)
        found[call_id] = OpenAIApprovalDecision(
            None, decision.approve, decision.rejection_message, call_id, decision.source
        )
    if not found:
        raise KitaruUsageError(
            f"No decision was given; expected at least one of the pending calls: {_pending(state)}.",
            fix=f"OpenAIRunRequest.resume(result.pending_state, {{{state.pending[0].call_id!r}: True}})",
        )
    return tuple(found.values())


def _meant(state: OpenAIRunStateEnvelope, decision: OpenAIApprovalDecision) -> str:
    if not isinstance(decision, OpenAIApprovalDecision):
        raise KitaruUsageError(
            f"{decision!r} is no decision; expected an OpenAIApprovalDecision.",
            fix=f"OpenAIApprovalDecision(call_id={state.pending[0].call_id!r}, approve=True)",
        )
    pending = [tool.call_id for tool in state.pending]
    if decision.call_id is not None:
        if decision.call_id not in pending:
            raise KitaruUsageError(
                f"Tool call {decision.call_id!r} isn't pending, so it can't be decided. Pending: {_pending(state)}.",
                fix=f"OpenAIApprovalDecision(call_id={pending[0]!r}, approve=True)",
            )
        return decision.call_id
    index = decision.interruption_index
    if index is None and len(pending) == 1:
        return pending[0]
    if index is None or isinstance(index, bool) or not 0 <= index < len(pending):
        raise KitaruUsageError(
            f"interruption_index={index!r} means none of the {len(pending)} pending calls: {_pending(state)}.",
            fix=f"OpenAIApprovalDecision(call_id={pending[0]!r}, approve=True)",
        )
    return pending[index]


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise KitaruUsageError(f"approve={value!r} is no decision; expected True or False.", fix="approve=True")
    return value


def _pending(state: OpenAIRunStateEnvelope) -> str:
    return ", ".join(f"{tool.call_id} ({tool.tool})" for tool in state.pending)


@dataclass(frozen=True)
class OpenAIRunResult:
    """How a run, or a segment of it, ended.

    Attributes:
        status: ``interrupted`` when tool calls need approval; then ``pending_state`` and ``interruptions`` say which.
        final_output: the text, or the value of the agent's ``output_type``.
        usage: of this segment. ``usage_total``: of all segments of the run.
        estimated_cost_usd: of this segment; None when the price of a model isn't known.
        cost_total_usd: of all segments.
        last_agent: name of the agent that answered.
        last_response_id: the provider's id of the last answer.
        runner: name of the runner.
    """

    status: Literal["completed", "interrupted"]
    runner: str
    final_output: Any = None
    pending_state: OpenAIRunStateEnvelope | None = None
    interruptions: tuple[OpenAIInterruptionSummary, ...] = ()
    usage: OpenAIUsageSummary = field(default_factory=OpenAIUsageSummary)
    usage_total: OpenAIUsageSummary = field(default_factory=OpenAIUsageSummary)
    estimated_cost_usd: float | None = None
    cost_total_usd: float | None = None
    last_agent: str | None = None
    last_response_id: str | None = None
    warnings: tuple[str, ...] = ()
