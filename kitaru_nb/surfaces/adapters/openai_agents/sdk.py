"""What differs between versions of the SDK, and what of it isn't public. Everything here is tested on each version."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import agents.run_state as run_state
import agents.tool as tool_module
from agents import RunConfig
from agents.exceptions import ToolTimeoutError
from agents.items import ModelResponse
from openai.types.responses import ResponseCompletedEvent

VERSION = version("openai-agents")

#: The invoker of decorated tools, which turns exceptions into what the model is told.
Invoker: Any = tool_module._FailureHandlingFunctionToolInvoker

_trimmed: Callable[[Any, Any], Any] | None = getattr(tool_module, "_get_function_tool_invoke_context", None)


def invoke_context(tool: Any, context: Any) -> Any:
    """The context that the SDK would hand to this tool's own function: less of it, when that is declared so."""
    return context if _trimmed is None else _trimmed(tool, context)


def rebuilt_invoker(kind: type, invoker: Any, implementation: Callable[[Any, str], Any]) -> Any:
    """An invoker around another implementation: failure policy, markers and approval safety stay."""
    inner = invoker._invoke_tool_impl
    vars(implementation).update(vars(inner))
    made = kind(implementation, invoker._on_handled_error, function_tool=invoker._function_tool)
    for name, value in vars(invoker).items():
        if name not in vars(made):
            setattr(made, name, value)
    return made


def implementation_of(invoker: Any) -> Callable[[Any, str], Any]:
    """What a decorated tool's invoker calls."""
    return invoker._invoke_tool_impl  # type: ignore[no-any-return]


def is_agent_tool(tool: Any) -> bool:
    """Whether a tool is an agent."""
    return bool(getattr(tool, "_is_agent_tool", False))


def is_mcp_tool(tool: Any) -> bool:
    """Whether a function tool stands for one of an MCP server."""
    if getattr(tool, "_mcp_tool_binding", None) is not None:
        return True
    origin = getattr(tool, "_tool_origin", None)
    return getattr(getattr(origin, "type", None), "value", None) == "mcp"


def agent_of(tool: Any) -> Any:
    """The agent that a tool is, or None."""
    return getattr(tool, "_agent_instance", None) if is_agent_tool(tool) else None


def target_of(handoff: Any) -> Any:
    """The agent that a handoff leads to, where it tells."""
    reference = getattr(handoff, "_agent_ref", None)
    return reference() if callable(reference) else None


def run_config(given: Any) -> tuple[RunConfig, bool]:
    """A `RunConfig` of one's own, and whether its model provider is to be closed after the run."""
    if given is None:
        return RunConfig(), True
    if isinstance(given, dict):
        return RunConfig(**given), "model_provider" not in given
    return dataclasses.replace(given), False


async def close(provider: Any) -> None:
    """Close a model provider, where it can be."""
    if (aclose := getattr(provider, "aclose", None)) is not None:
        await aclose()


def swap_agents(state: Any, twin: Callable[[Any], Any]) -> None:
    """Make a restored state go on with twins of its agents."""
    for name in ("_current_agent", "_starting_agent"):
        if getattr(state, name, None) is not None:
            setattr(state, name, twin(getattr(state, name)))


def show_last_agent(result: Any, original: Callable[[Any], Any]) -> None:
    """Make a result name the user's own agent as the last one."""
    for name in ("_last_agent", "current_agent"):
        if (agent := vars(result).get(name)) is not None:
            setattr(result, name, original(agent))


def schema_version(state_json: dict[str, Any]) -> str:
    """The version of a state's layout."""
    return str(state_json["$schemaVersion"])


def readable_schemas() -> frozenset[str]:
    """Versions of states that this SDK reads."""
    return frozenset(run_state.SUPPORTED_SCHEMA_VERSIONS)


def final_response(event: Any, items: list[Any]) -> ModelResponse | None:
    """The answer that a stream's last event holds; None for other events.

    ``items`` are those that the stream announced one by one, for back ends whose last event has none.
    """
    if not isinstance(event, ResponseCompletedEvent):
        return None
    response = event.response
    usage = _usage_of(response.usage)
    more = {"request_id": found} if (found := getattr(response, "_request_id", None)) is not None else {}
    return ModelResponse(output=list(response.output or items), usage=usage, response_id=response.id, **more)


def _usage_of(usage: Any) -> Any:
    from agents import Usage

    if usage is None:
        return Usage()
    details = {
        name: value
        for name in ("input_tokens_details", "output_tokens_details")
        if (value := getattr(usage, name, None)) is not None
    }
    return Usage(
        requests=1,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        **details,
    )


def function_of(tool: Any) -> Callable[..., Any] | None:
    """The user's function behind a decorated tool, where the SDK tells it."""
    try:
        function: Callable[..., Any] = tool.__wrapped__
    except AttributeError:
        return None
    return function


def forget_prepared_arguments(context: Any) -> None:
    """The arguments that were checked before an approval aren't those that the tool gets."""
    if getattr(context, "_function_tool_arguments", None) is not None:
        context._function_tool_arguments = None


async def timed_out(tool: Any, context: Any) -> Any:
    """What the model is told when a tool took longer than its own ``timeout_seconds``; or that as an exception."""
    seconds: float = vars(tool)["timeout_seconds"]
    error = ToolTimeoutError(tool_name=tool.name, timeout_seconds=seconds)
    if tool.timeout_behavior == "raise_exception":
        raise error
    if tool.timeout_error_function is None:
        return tool_module.default_tool_timeout_error_message(tool_name=tool.name, timeout_seconds=seconds)
    told = tool.timeout_error_function(context, error)
    return await told if inspect.isawaitable(told) else told
