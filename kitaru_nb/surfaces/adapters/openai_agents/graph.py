"""The agents that a run can reach, and what identifies them: for the check before a resume, and for replays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from agents import Agent
from agents.run_context import RunContextWrapper

from kitaru_nb.core.checkpoint import Checkpoint
from kitaru_nb.core.engine import digest
from kitaru_nb.surfaces.adapters.openai_agents import sdk
from kitaru_nb.surfaces.adapters.openai_agents.describe import model_name, schema_digest

_codes: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def reachable(agent: Agent[Any]) -> Iterator[Agent[Any]]:
    """The agent, those that it hands over to, and those that it uses as tools; each once."""
    seen: set[int] = set()
    todo: list[Any] = [agent]
    while todo:
        found = todo.pop(0)
        if id(found) in seen or not isinstance(found, Agent):
            continue
        seen.add(id(found))
        yield found
        todo += [item if isinstance(item, Agent) else sdk.target_of(item) for item in found.handoffs]
        todo += [sdk.agent_of(tool) for tool in found.tools]


async def tool_digests(agent: Agent[Any], names: set[str], context: Any) -> dict[tuple[str, str], str | None]:
    """(agent, tool) → digest of the tool's parameters, for the agents of these names; MCP servers are asked."""
    found: dict[tuple[str, str], str | None] = {}
    wrapper = context if isinstance(context, RunContextWrapper) else RunContextWrapper(context)
    for one in reachable(agent):
        if one.name in names:
            for tool in await one.get_all_tools(wrapper):
                found[one.name, str(getattr(tool, "name", ""))] = schema_digest(tool)
    return found


def code_of(agent: Agent[Any]) -> str:
    """Identifies what an agent does: a replay runs it again when this has changed."""
    parts: list[str] = []
    for one in reachable(agent):
        instructions = one.instructions if isinstance(one.instructions, str) else function_code(one.instructions)
        model = one.model if isinstance(one.model, str) or one.model is None else model_name(one.model)
        parts += [one.name, instructions or "", model or "", str(getattr(one.output_type, "__name__", one.output_type))]
        for tool in one.tools:
            parts += [str(getattr(tool, "name", "")), schema_digest(tool) or "", tool_code(tool) or ""]
    return digest(*parts)


def tool_code(tool: Any) -> str | None:
    """Identifies the function behind a tool, where the SDK tells it."""
    return function_code(sdk.function_of(tool))


def function_code(function: Callable[..., Any] | None) -> str | None:
    """Identifies a function, together with what it refers to."""
    if function is None or not callable(function):
        return None
    try:
        if function not in _codes:
            _codes[function] = Checkpoint(function).code
        return _codes[function]
    except TypeError:  # neither hashable nor weakly referable, or without a signature
        return None
