"""Interrupted runs: how they are kept, and what is checked before they go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents import Agent, RunState, Usage
from agents.exceptions import UserError
from agents.run_context import RunContextWrapper

from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.surfaces.adapters.openai_agents import sdk
from kitaru_nb.surfaces.adapters.openai_agents.codec import parsed
from kitaru_nb.surfaces.adapters.openai_agents.graph import reachable, tool_digests
from kitaru_nb.surfaces.adapters.openai_agents.requests import (
    OpenAIApprovalDecision,
    OpenAIInterruptionSummary,
    OpenAIRunStateEnvelope,
    OpenAIUsageSummary,
    PendingTool,
    shown_arguments,
)


@dataclass(frozen=True, slots=True)
class ContextCodec:
    """How a context of the user's gets into a snapshot and out of it.

    Attributes:
        strict: refuse contexts that would come back as something else.
    """

    serialize: Callable[[Any], Mapping[str, Any]] | None = None
    deserialize: Callable[[Mapping[str, Any]], Any] | None = None
    strict: bool = False


def interruptions_of(result: Any) -> tuple[OpenAIInterruptionSummary, ...]:
    """The pending tool calls of a result, as plain values."""
    found = []
    for index, item in enumerate(result.interruptions):
        raw = item.raw_item
        arguments = parsed(str(_field(raw, "arguments") or ""))
        tool = str(getattr(item, "tool_name", None) or _field(raw, "name"))
        agent = str(item.agent.name)
        message = f"{agent} wants to call {tool}({shown_arguments(arguments)})"
        found.append(OpenAIInterruptionSummary(index, tool, _call_id(item), agent, arguments, message))
    return tuple(found)


def _call_id(item: Any) -> str:
    raw = item.raw_item
    return str(_field(raw, "call_id") or _field(raw, "id") or "")


def _field(raw: Any, name: str) -> Any:
    return raw.get(name) if isinstance(raw, Mapping) else getattr(raw, name, None)


def usage_of(usage: Usage) -> OpenAIUsageSummary:
    """The SDK's sums as a plain value."""
    return OpenAIUsageSummary(
        requests=usage.requests,
        input_tokens=usage.input_tokens,
        cached_input_tokens=getattr(usage.input_tokens_details, "cached_tokens", 0) or 0,
        output_tokens=usage.output_tokens,
        reasoning_tokens=getattr(usage.output_tokens_details, "reasoning_tokens", 0) or 0,
        total_tokens=usage.total_tokens,
    )


async def packed(
    result: Any,
    agent: Agent[Any],
    pending: Sequence[OpenAIInterruptionSummary],
    codec: ContextCodec,
    *,
    call_id: str | None,
    segment: int,
    cost_before: float | None,
) -> OpenAIRunStateEnvelope:
    """The envelope of an interrupted run.

    Raises:
        KitaruUsageError: the context can't be kept and ``strict_context`` says that it must.
    """
    context = result.context_wrapper
    try:
        state = result.to_state().to_json(context_serializer=codec.serialize, strict_context=codec.strict)
    except UserError as error:
        raise KitaruUsageError(
            f"The interrupted run of {agent.name!r} can't be kept: {error}",
            fix="KitaruRunner(agent, context_serializer=to_dict, context_deserializer=from_dict)",
        ) from error
    digests = await tool_digests(agent, {one.agent for one in pending}, context)
    return OpenAIRunStateEnvelope(
        state=json.dumps(state, separators=(",", ":")),
        run_state_schema=sdk.schema_version(state),
        agents_sdk_version=sdk.VERSION,
        agents=tuple(dict.fromkeys(one.name for one in reachable(agent))),
        pending=tuple(
            PendingTool(one.agent, one.tool_name, one.call_id, digests.get((one.agent, one.tool_name)))
            for one in pending
        ),
        has_context=context.context is not None,
        call_id=call_id,
        segment=segment,
        usage_before=usage_of(context.usage),
        cost_before=cost_before,
    )


async def restored(
    envelope: OpenAIRunStateEnvelope,
    agent: Agent[Any],
    decisions: Sequence[OpenAIApprovalDecision],
    codec: ContextCodec,
    context: Any,
    *,
    strict_version: bool,
) -> RunState[Any, Any]:
    """The SDK's state again, with the decisions in it.

    Raises:
        KitaruUsageError: it was written by a newer SDK, or the agents or the tools of the pending calls have changed.
    """
    _check_version(envelope, strict_version)
    await _check_agents(envelope, agent, context)
    more: dict[str, Any] = {"context_deserializer": codec.deserialize, "strict_context": codec.strict}
    if context is not None:
        more["context_override"] = context if isinstance(context, RunContextWrapper) else RunContextWrapper(context)
    try:
        state = await RunState.from_json(agent, json.loads(envelope.state), **more)
    except UserError as error:
        raise KitaruUsageError(
            f"The interrupted run can't be restored with agent {agent.name!r}: {error}",
            fix="resume it with the agents, and the context, that it was begun with",
        ) from error
    _decide(state, decisions)
    return state


def _check_version(envelope: OpenAIRunStateEnvelope, strict: bool) -> None:
    written, here = envelope.agents_sdk_version, sdk.VERSION
    if envelope.run_state_schema not in sdk.readable_schemas():
        raise KitaruUsageError(
            f"The interrupted run was written by openai-agents {written} (state {envelope.run_state_schema}); this "
            f"process has {here}, which can't read that.",
            fix=f"pip install 'openai-agents>={written}'",
        )
    if strict and written != here:
        raise KitaruUsageError(
            f"The interrupted run was written by openai-agents {written}, this process has {here}, and the runner was "
            "told strict_sdk_version=True.",
            fix=f"pip install openai-agents=={written}  # or strict_sdk_version=False",
        )


async def _check_agents(envelope: OpenAIRunStateEnvelope, agent: Agent[Any], context: Any) -> None:
    names = {one.name for one in reachable(agent)}
    if gone := [name for name in envelope.agents if name not in names]:
        raise KitaruUsageError(
            f"The interrupted run knows an agent {gone[0]!r} that {agent.name!r} no longer reaches (it reaches: "
            f"{', '.join(sorted(names))}). A pending call must not end up with another agent.",
            fix=f"name the agent {gone[0]!r} again, or start a new run",
        )
    digests = await tool_digests(agent, {tool.agent for tool in envelope.pending}, context)
    for tool in envelope.pending:
        if (tool.agent, tool.tool) not in digests:
            there = ", ".join(sorted(name for owner, name in digests if owner == tool.agent)) or "none"
            raise KitaruUsageError(
                f"Call {tool.call_id} waits for tool {tool.tool!r} of agent {tool.agent!r}, which has no such tool any "
                f"more (it has: {there}). Nothing was run.",
                fix=f"give {tool.agent!r} the tool {tool.tool!r} again, or start a new run",
            )
        if tool.schema is not None and digests[tool.agent, tool.tool] != tool.schema:
            raise KitaruUsageError(
                f"Call {tool.call_id} waits for tool {tool.tool!r}, whose parameters have changed since somebody was "
                "asked to approve it. Nothing was run: what was approved must be what happens.",
                fix=f"restore the parameters of {tool.tool!r}, or start a new run",
            )


def _decide(state: RunState[Any, Any], decisions: Sequence[OpenAIApprovalDecision]) -> None:
    pending = {_call_id(item): item for item in state.get_interruptions()}
    for decision in decisions:
        item = pending.get(str(decision.call_id))
        if item is None:
            raise KitaruUsageError(
                f"Tool call {decision.call_id!r} isn't pending any more. Pending: {', '.join(pending) or 'none'}."
            )
        if decision.approve:
            state.approve(item)
        elif decision.rejection_message is None:
            state.reject(item)
        else:
            state.reject(item, rejection_message=decision.rejection_message)
