"""What a Pydantic AI agent does, as operations: model requests, tool calls, discovery and whole runs.

Inputs are what the provider or the tool sees, without what differs from run to run by itself (timestamps, run ids,
ids that the SDK draws for its own retry prompts): a resumed run asks again with other ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_ai.agent import AbstractAgent
from pydantic_ai.durable_exec import (
    JSON_CODEC,
    CapabilityOperationParams,
    DynamicToolsetCallToolParams,
    ModelCompactMessagesParams,
    ModelRequestParams,
    ToolsetCallToolId,
    ToolsetCallToolParams,
    ToolsetGetInstructionsId,
    ToolsetGetToolsId,
    ToolsetValidateToolArgumentsId,
)
from pydantic_ai.durable_exec import DurableOperation as SdkOperation
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    ToolCallPart,
    ToolReturn,
    ToolReturnPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.run import AgentRunResult
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import DeferredToolResults, RunContext
from pydantic_ai.toolsets import AbstractToolset, FunctionToolset
from pydantic_ai.toolsets.function import FunctionToolsetTool
from pydantic_core import to_jsonable_python

from kitaru_nb.core.checkpoint import checkpoint
from kitaru_nb.core.engine import digest
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.surfaces.adapters.base import Operation, Part, Recorded, output_only
from kitaru_nb.surfaces.adapters.plain import has_set, in_short, is_json
from kitaru_nb.surfaces.adapters.prices import metered

__all__ = [
    "RecordedRun",
    "RunCalls",
    "ToolSignal",
    "agent_code",
    "approved_scope",
    "asking",
    "describe",
    "run_operation",
    "settled",
    "with_arguments",
]

_OWN_OF_MESSAGE = ("timestamp", "run_id", "conversation_id", "instructions", "usage", "metadata")
_OWN_OF_RESPONSE = ("history_digest", "workspace_ref", "failed_attempts")
_SECRET_OR_LOCAL = ("extra_headers", "timeout")
_PREVIEW = 200

ToolParams = ToolsetCallToolParams | DynamicToolsetCallToolParams


@dataclass(frozen=True)
class RecordedRun:
    """What an ``agent_run`` checkpoint keeps.

    Attributes:
        output: the run's output, typed.
        run: JSON of the rest of Pydantic AI's ``AgentRunResult``: messages, usage, ids.
        typed: results of tools among the messages that JSON would change, by number of message and of part.
    """

    output: Any
    run: Mapping[str, Any]
    typed: Mapping[tuple[int, int], Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ToolSignal:
    """How a tool call ended, when not with a value: a retry for the model, an approval asked for, a deferral.

    Attributes:
        outcome: JSON of Pydantic AI's ``CallToolResult``.
    """

    outcome: Mapping[str, Any]


@dataclass(slots=True)
class RunCalls:
    """The calls of one agent run, for their places and for the edges of lineage.

    Attributes:
        models: how many model requests were made.
        made: ids of finished calls in their order.
    """

    models: int = 0
    made: list[str] = field(default_factory=list)

    def next_place(self) -> int:
        """The place of the model request that is made now."""
        self.models += 1
        return self.models - 1


def describe(agent: str, operation: SdkOperation[Any, Any, Any], params: Any, calls: RunCalls) -> Operation[Any]:
    """The operation for what the SDK wants to do now.

    Args:
        agent: name of the agent; its model requests are called ``<agent>.model``.
        calls: the calls of this run so far.
    """
    kind = operation.operation_id
    if isinstance(params, ModelRequestParams):
        return _model_request(agent, params, getattr(kind, "model_name", None), calls)
    if isinstance(params, ToolsetCallToolParams | DynamicToolsetCallToolParams):
        if isinstance(kind, ToolsetValidateToolArgumentsId):
            return Operation(f"{params.name}.validate", "tool_call", {"arguments": params.tool_args})
        mcp = isinstance(kind, ToolsetCallToolId) and kind.toolset_kind == "mcp"
        return _tool_call(params, "mcp_call" if mcp else "tool_call")
    if isinstance(kind, ToolsetGetToolsId):
        return Operation(f"{kind.toolset_id or agent}.list_tools", "mcp_call", {})
    if isinstance(kind, ToolsetGetInstructionsId):
        return Operation(f"{kind.toolset_id or agent}.instructions", "mcp_call", {})
    if isinstance(params, ModelCompactMessagesParams):
        messages = projected(params.request_context.messages)
        return Operation(f"{agent}.compact", "model_call", {"messages": messages, "instructions": params.instructions})
    if isinstance(params, CapabilityOperationParams):
        arguments = {k: v for k, v in params.arguments.items() if not isinstance(v, RunContext)}
        return Operation(_generic_name(agent, kind), "capability_call", {"arguments": arguments})
    return Operation(_generic_name(agent, kind), "capability_call", {})


def _generic_name(agent: str, kind: Any) -> str:
    """``<agent>.<operation>`` for kinds that this version of the SDK adds to those known here."""
    owner = getattr(kind, "capability_id", None) or agent
    return f"{owner}.{getattr(kind, 'operation', None) or type(kind).__name__.removesuffix('Id')}"


def _model_request(agent: str, params: ModelRequestParams, model: str | None, calls: RunCalls) -> Operation[Any]:
    inputs = {
        "instructions": _instructions(params.messages),
        "messages": projected(params.messages),
        **_offered(params.model_request_parameters),
        "settings": {k: v for k, v in (params.model_settings or {}).items() if k not in _SECRET_OR_LOCAL},
        "model": model,
    }

    def encode(payload: Mapping[str, Any]) -> Recorded:
        response = JSON_CODEC.load(ModelResponse, payload)
        prompt = {name: made.inputs[name] for name in ("instructions", "messages")}
        said = Part("response", payload, "response", preview=_preview(response))
        return Recorded((said, Part("prompt", prompt, "prompt")), _response_metadata(response))

    made = Operation[Any](
        f"{agent}.model",
        "model_call",
        inputs,
        encode=encode,
        decode=_response_payload,
        place=calls.next_place(),
        reads={"messages": list(calls.made)},
        takes=("instructions", "messages", "settings"),
    )
    return made


def asking(params: ModelRequestParams, described: Operation[Any], values: Mapping[str, Any]) -> ModelRequestParams:
    """The same model request with other instructions, messages or settings; ``described`` has them then.

    Raises:
        KitaruUsageError: these can't be.
    """
    described.inputs = inputs = {**described.inputs, **values}
    try:
        messages = ModelMessagesTypeAdapter.validate_python(inputs["messages"]) if "messages" in values else None
        settings = TypeAdapter(dict[str, Any]).validate_python(inputs["settings"], strict=True)
        said = TypeAdapter(str | None).validate_python(inputs["instructions"], strict=True)
    except ValidationError as error:
        raise KitaruUsageError(
            f"{described.name!r} can't be asked with {dict(values)!r}: {error}",
            fix=f"overrides={{'arguments.{described.name}': {{'instructions': 'Be brief.'}}}}",
        ) from error
    found = list(params.messages if messages is None else messages)
    for n, message in reversed(list(enumerate(found))):
        if isinstance(message, ModelRequest):
            found[n] = replace(message, instructions=said)  # the last one's are sent
            break
    local = {k: v for k, v in (params.model_settings or {}).items() if k in _SECRET_OR_LOCAL}
    return replace(params, messages=found, model_settings=cast(ModelSettings, settings | local))


def _response_payload(value: Any) -> Any:
    """A recorded response; a plain text, given as an override, as a response of one text part."""
    if isinstance(value, str):
        return {"kind": "response", "parts": [{"part_kind": "text", "content": value}]}
    if not isinstance(value, Mapping) or not isinstance(value.get("parts"), list):
        raise KitaruUsageError(
            f"The answer of a model can't be {str(value)[:100]}; expected its text, or Pydantic AI's JSON of a "
            "response: an object with 'parts'.",
            fix="overrides={'checkpoint.NAME': 'the answer'}",
        )
    return value


def _instructions(messages: Sequence[ModelMessage]) -> str | None:
    """What the system says in this request: only the last one's instructions are sent."""
    for message in reversed(messages):
        if isinstance(message, ModelRequest):
            return message.instructions
    return None


def projected(messages: Sequence[ModelMessage]) -> list[dict[str, Any]]:
    """Messages as JSON, without what is drawn anew when the same run is made again."""
    dumped: list[dict[str, Any]] = ModelMessagesTypeAdapter.dump_python(list(messages), mode="json")
    return [_projected(message) for message in dumped]


def _projected(message: Mapping[str, Any]) -> dict[str, Any]:
    own = {*_OWN_OF_MESSAGE, *_OWN_OF_RESPONSE}
    parts = []
    for part in message["parts"]:
        drop = {"timestamp", "metadata"}
        if part["part_kind"] == "retry-prompt" and not part.get("tool_name"):
            drop.add("tool_call_id")
        parts.append({k: v for k, v in part.items() if k not in drop and v is not None})
    kept = {k: v for k, v in message.items() if k not in own and k != "parts" and v is not None}
    return kept | {"parts": parts}


def _offered(parameters: ModelRequestParameters) -> dict[str, Any]:
    """The tools and the kind of output that the model may answer with."""

    def listed(tools: Sequence[Any]) -> list[list[Any]]:
        return [[tool.name, tool.description, tool.parameters_json_schema] for tool in tools]

    return {
        "tools": [*listed(parameters.function_tools), *(tool.kind for tool in parameters.native_tools)],
        "output": [parameters.output_mode, parameters.allow_text_output, *listed(parameters.output_tools)],
    }


def _response_metadata(response: ModelResponse) -> dict[str, Any]:
    usage = response.usage
    metadata = metered(
        response.model_name,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        provider=response.provider_name,
    )
    return metadata | ({} if response.finish_reason is None else {"finish_reason": response.finish_reason})


def _preview(response: ModelResponse) -> str:
    calls = [(part.tool_name, part.args_as_dict()) for part in response.parts if isinstance(part, ToolCallPart)]
    return in_short(response.text or "", calls)


def _tool_call(params: ToolParams, kind: str) -> Operation[Any]:
    inputs: dict[str, Any] = {"arguments": params.tool_args}
    if params.ctx.tool_call_approved:
        inputs["approved"] = True

    def encode(value: Any) -> Recorded:
        if isinstance(value, ToolSignal):
            return Recorded((Part("output", value, preview=value.outcome["kind"].replace("_", " ")),))
        return output_only(value)

    return Operation(
        params.name, kind, inputs, encode=encode, identity=params.ctx.tool_call_id, code=_tool_code(params)
    )


def with_arguments(params: ToolParams, arguments: Any) -> ToolParams:
    """The same call with other arguments, as the model might have given them.

    Raises:
        KitaruUsageError: the tool can't take these.
    """
    if isinstance(params, ToolsetCallToolParams) and params.tool is not None:
        try:
            arguments = params.tool.args_validator.validate_python(arguments, context=params.ctx.validation_context)
        except ValidationError as error:
            raise KitaruUsageError(
                f"The tool {params.name!r} can't take the arguments {arguments!r}: {error}",
                fix=f"overrides={{'arguments.{params.name}': {params.tool_args!r}}}",
            ) from error
    return replace(params, tool_args=arguments)


def settled(value: Any) -> Any:
    """A tool's result whose text for the model is the same in every process: sets, which have no order, as lists."""
    if isinstance(value, ToolReturn):
        return replace(value, return_value=settled(value.return_value))
    return to_jsonable_python(value) if has_set(value) else value


def approved_scope(params: ToolParams) -> str:
    """Scope of an approved call: wherever a run goes on with this approval, it is one and the same action."""
    call_id = params.ctx.tool_call_id
    for message in reversed(params.ctx.messages):
        if isinstance(message, ModelResponse) and any(call.tool_call_id == call_id for call in message.tool_calls):
            return digest("approved", message.run_id or "", call_id or "")
    return digest("approved", params.ctx.run_id or "", call_id or "")


def _tool_code(params: ToolParams) -> str | None:
    """Digest of a function tool's code."""
    tool = params.tool if isinstance(params, ToolsetCallToolParams) else None
    if not isinstance(tool, FunctionToolsetTool):
        return None
    found = getattr(tool.toolset, "tools", {}).get(tool.original_name or params.name)
    return None if found is None else checkpoint(found.function).code


def agent_code(agent: AbstractAgent[Any, Any] | None) -> str:
    """Digest of what an agent is made of: its instructions, output type and function tools."""
    parts: list[str] = []

    def add(value: Any) -> None:
        parts.append(checkpoint(value).code if callable(value) else repr(value))

    def add_tools(leaf: AbstractToolset[Any]) -> None:
        for tool in leaf.tools.values() if isinstance(leaf, FunctionToolset) else ():
            parts.append(tool.name)
            add(tool.function)

    if agent is not None:
        # No public name for these two; the first model request shows them anyway.
        for source in ("_instructions", "_system_prompts"):
            for value in getattr(agent, source, ()):
                add(value)
        parts.append(repr(agent.output_json_schema()))
        for toolset in agent.toolsets:
            toolset.apply(add_tools)
    return digest(*parts)


def run_operation(
    agent: str,
    ctx: RunContext[Any],
    *,
    deferred: DeferredToolResults | None,
    decided_by: Sequence[str],
    place: int | None,
    history_calls: Sequence[str],
    code: str,
) -> Operation[AgentRunResult[Any]]:
    """A whole run of an agent.

    Args:
        deferred: the results of deferred tool calls that the run goes on with.
        decided_by: the waits that gave them.
        history_calls: ids of the runs whose messages it goes on with.
        code: digest of the agent, so that a replay notices that it has changed.
    """
    inputs: dict[str, Any] = {"prompt": ctx.prompt}
    if ctx.messages:
        inputs["history"] = projected(ctx.messages)
    if deferred is not None:
        inputs["deferred_tool_results"] = JSON_CODEC.dump(DeferredToolResults, deferred)

    def encode(result: AgentRunResult[Any]) -> Recorded:
        run = JSON_CODEC.dump(AgentRunResult[Any], replace(result, output=None))
        run.pop("output")
        typed = _typed_results(result.all_messages())
        preview = str(result.output)[:_PREVIEW]
        return Recorded((Part("output", RecordedRun(result.output, run, typed), preview=preview),))

    return Operation(
        agent,
        "agent_run",
        inputs,
        encode=encode,
        decode=restored_run,
        place=place,
        reads={"history": history_calls, "deferred_tool_results": decided_by},
        code=code,
    )


def restored_run(value: Any) -> AgentRunResult[Any]:
    """A recorded run as the SDK's result; any other value, given as an override, as the output of one."""
    if not isinstance(value, RecordedRun):
        return AgentRunResult(output=value)
    result: AgentRunResult[Any] = JSON_CODEC.load(AgentRunResult[Any], {**value.run, "output": None})
    messages = result.all_messages()
    for (message, part), content in value.typed.items():
        returned: Any = messages[message].parts[part]
        returned.content = content
    return replace(result, output=value.output)


def _typed_results(messages: Sequence[ModelMessage]) -> dict[tuple[int, int], Any]:
    return {
        (m, p): part.content
        for m, message in enumerate(messages)
        for p, part in enumerate(message.parts)
        if isinstance(part, ToolReturnPart) and not is_json(part.content)
    }
