"""Runs of agents inside a flow, made durable where the SDK itself starts them: `Runner.run` needs no wrapping."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agents import Agent, FunctionTool, Handoff, Model, RunResult, RunResultStreaming, RunState
from agents.models.openai_provider import shared_http_client
from agents.run import AgentRunner, get_default_agent_runner, set_default_agent_runner

from kitaru_nb.core.context import current
from kitaru_nb.core.engine import digest
from kitaru_nb.surfaces.adapters.base import block_on, in_flow, scoped
from kitaru_nb.surfaces.adapters.connections import for_every_loop
from kitaru_nb.surfaces.adapters.openai_agents import errors, sdk
from kitaru_nb.surfaces.adapters.openai_agents.graph import reachable
from kitaru_nb.surfaces.adapters.openai_agents.line import Bill, Line, line
from kitaru_nb.surfaces.adapters.openai_agents.models import models, providers
from kitaru_nb.surfaces.adapters.openai_agents.policy import PLAIN
from kitaru_nb.surfaces.adapters.openai_agents.sessions import Pages, buffered
from kitaru_nb.surfaces.adapters.openai_agents.tools import DurableTool, tools
from kitaru_nb.surfaces.adapters.openai_agents.twins import Mirror, Seen, Twins


class DurableAgent:
    """What the twin of an agent does otherwise: its model, its tools and the agents that it hands over to are twins."""

    __slots__ = ("kitaru_original",)

    model = Seen("model", lambda _, model: models.of(model) if isinstance(model, Model) else model)
    tools = Seen("tools", lambda _, found: Mirror(found or [], durable_tool))
    handoffs = Seen("handoffs", lambda _, found: Mirror(found or [], _handoff))

    # Approvals belong to the agent that the SDK takes for the user's own, whichever of the two asked for them.
    _agents_public_agent = Seen("_agents_public_agent", lambda twin, public: public or agents.original(twin))

    async def get_all_tools(self, *args: Any, **kwargs: Any) -> list[Any]:
        """The tools of the turn that begins; those of MCP servers too."""
        parent: Any = super()
        found = await parent.get_all_tools(*args, **kwargs)
        if (at := line.get()) is not None:
            at.agent = self.name  # type: ignore[attr-defined]
        return [durable_tool(tool) for tool in found]


def durable_tool(tool: Any) -> Any:
    """The twin of a function tool; tools that the provider runs are part of the model's answer."""
    if not isinstance(tool, FunctionTool):
        return tool
    return agent_tools.of(tool) if sdk.is_agent_tool(tool) else tools.of(tool)


class DurableAgentTool(DurableTool):
    """What the twin of an agent used as a tool does otherwise: the agent is a twin."""

    __slots__ = ()

    _agent_instance = Seen("_agent_instance", lambda _, agent: _twin(agent))


def _invoker(_: Any, invoke: Callable[..., Any]) -> Any:
    async def invoked(*args: Any, **kwargs: Any) -> Any:
        return agents.of(await invoke(*args, **kwargs))

    return invoked


class DurableHandoff:
    """What the twin of a handoff does otherwise: it leads to the agent's twin."""

    __slots__ = ("kitaru_original", "kitaru_seen")

    on_invoke_handoff = Seen("on_invoke_handoff", _invoker, once=True)
    _agent_ref = Seen("_agent_ref", lambda _, reference: None if reference is None else lambda: _twin(reference()))


def _twin(agent: Any) -> Any:
    return None if agent is None else agents.of(agent)


def _handoff(item: Any) -> Any:
    if isinstance(item, Agent):
        return agents.of(item)
    return handoffs.of(item) if isinstance(item, Handoff) else item


agents: Twins[Agent[Any]] = Twins(DurableAgent)
agent_tools: Twins[FunctionTool] = Twins(DurableAgentTool)
handoffs: Twins[Handoff[Any, Any]] = Twins(DurableHandoff)


@dataclass(slots=True)
class Prepared:
    """One run, ready to start: what the SDK's own runner is given, and what is done after it."""

    agent: Any
    input: Any
    options: dict[str, Any]
    pages: Pages | None
    owned_provider: Any

    async def finish(self, result: Any) -> None:
        """After a run that ended well, or let go for approvals."""
        at = line.get()
        assert at is not None
        at.check()
        if self.pages is not None:
            await self.pages.commit()
        sdk.show_last_agent(result, agents.original)

    async def close(self) -> None:
        """After any run."""
        if self.owned_provider is not None:
            await sdk.close(self.owned_provider)


class DurableRunner(AgentRunner):
    """Runs agents through ``inner``; inside a flow their model and tool calls are checkpoints."""

    def __init__(self, inner: AgentRunner) -> None:
        self.inner = inner

    async def run(self, starting_agent: Any, input: Any, **options: Any) -> RunResult:
        """`Runner.run`."""
        if not in_flow():
            return await self.inner.run(starting_agent, input, **options)
        with _begun(starting_agent, input):
            run = _prepared(starting_agent, input, options)
            try:
                result = await self.inner.run(run.agent, run.input, **run.options)
                await run.finish(result)
            finally:
                await run.close()
        return result

    def run_sync(self, starting_agent: Any, input: Any, **options: Any) -> RunResult:
        """`Runner.run_sync`; inside a flow also while a loop runs in this thread."""
        if not in_flow():
            return self.inner.run_sync(starting_agent, input, **options)
        return block_on(lambda: self.run(starting_agent, input, **options), instead="await Runner.run(agent, input)")

    def run_streamed(self, starting_agent: Any, input: Any, **options: Any) -> RunResultStreaming:
        """`Runner.run_streamed`."""
        if not in_flow():
            return self.inner.run_streamed(starting_agent, input, **options)
        with _begun(starting_agent, input) as at:
            run = _prepared(starting_agent, input, options)
            result = self.inner.run_streamed(run.agent, run.input, **run.options)
            frame = current.get()
        events = result.stream_events

        async def stream_events() -> AsyncIterator[Any]:
            try:
                async for event in events():
                    yield event
                outer, outer_line = current.set(frame), line.set(at)
                try:
                    await run.finish(result)
                finally:
                    line.reset(outer_line)
                    current.reset(outer)
            finally:
                await run.close()

        result.stream_events = stream_events  # type: ignore[method-assign]
        return result


@contextmanager
def _begun(agent: Any, input: Any) -> Iterator[Line]:
    """A scope of its own for one run, and its line."""
    frame = current.get()
    assert frame is not None
    outer = line.get()
    at = Line(PLAIN, Bill())
    if outer is not None:
        at = Line(outer.policy, outer.bill, outer.approved, changes=outer.changes)
    at.agent = str(agent.name)
    key = f"agent:{agent.name}"
    if not (frame.strict and frame.on_main_line()):
        # Runs side by side, and cells that a person edits, have no order: they are told apart by what they were asked.
        key += f":{_digest(input, frame.run.store.token)}"
    with scoped(key):
        token = line.set(at)
        try:
            yield at
        finally:
            line.reset(token)


def _digest(input: Any, token: Callable[[Any], str | None]) -> str:
    if isinstance(input, RunState):
        return digest(
            "state", *sorted(str(getattr(item.raw_item, "call_id", "")) for item in input.get_interruptions())
        )
    return token(input) or type(input).__name__


def _prepared(agent: Any, input: Any, options: dict[str, Any]) -> Prepared:
    config, owned = sdk.run_config(options.get("run_config"))
    provider = config.model_provider if owned else None
    config.model_provider = providers.of(config.model_provider)
    if isinstance(config.model, Model):
        config.model = models.of(config.model)
    options = {**options, "run_config": config}
    pages = None
    if options.get("session") is not None:
        options["session"], pages = buffered(options["session"])
    if isinstance(input, RunState):
        sdk.swap_agents(input, agents.of)
    return Prepared(agents.of(agent), input, options, pages, provider)


def share_clients(agent: Agent[Any]) -> None:
    """Let an agent that runs outside a flow share its clients with other loops; inside a flow its models see to it."""
    for_every_loop(shared_http_client())
    for one in reachable(agent):
        for_every_loop(getattr(one.model, "_client", None))


def install() -> None:
    """Make runs of agents inside flows durable from now on. Outside flows nothing changes."""
    errors.register()
    if not isinstance(get_default_agent_runner(), DurableRunner):
        set_default_agent_runner(DurableRunner(get_default_agent_runner()))
