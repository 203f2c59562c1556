"""Pydantic AI agents whose runs survive: `KitaruAgent`, `KitaruDurability` and `wait_for_deferred`.

    agent = KitaruAgent(Agent("openai:gpt-5-mini", name="support", tools=[search]))

    @flow
    async def answer(question: str) -> str:
        return (await agent.run(question)).output

A run is a checkpoint of type ``agent_run``; each model request and each call of a function, MCP or dynamic tool inside
it is one too. Pydantic AI's durability interface says where they happen; outside a flow the agent is the plain agent.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal, TypeVar, cast

from kitaru_nb.errors import KitaruFeatureNotAvailableError, KitaruUsageError

try:
    from pydantic_ai.durable_exec import record_durable_unit
except ImportError as error:
    raise KitaruFeatureNotAvailableError(
        f"The Pydantic AI adapter needs pydantic-ai-slim 2.68 or newer, with its durability interface ({error}).",
        fix='pip install --upgrade "kitaru-nb[pydantic-ai]"',
    ) from error

from pydantic_ai.agent import AbstractAgent, EventStreamHandler, WrapperAgent
from pydantic_ai.capabilities import WrapModelRequestHandler, WrapRunHandler
from pydantic_ai.durable_exec import (
    JSON_CODEC,
    BaseDurabilityCapability,
    BoundDurableOperation,
    DurabilityEngineSpec,
    DurableOperationBackend,
    DynamicToolsetCallToolParams,
    ToolsetCallToolParams,
    conversation_id_from_run_id,
    durable_unit_scope,
    replay_scope,
)
from pydantic_ai.durable_exec import DurableOperation as SdkOperation
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.models.instrumented import InstrumentedModel
from pydantic_ai.run import AgentRun, AgentRunResult
from pydantic_ai.tools import DeferredToolResults, RunContext
from pydantic_ai.toolsets import AbstractToolset

from kitaru_nb.core.context import current
from kitaru_nb.core.retry import Retry, as_retry
from kitaru_nb.surfaces.adapters.base import Operation, block_on, in_flow, next_place, perform_async, scoped, within
from kitaru_nb.surfaces.adapters.connections import for_every_loop
from kitaru_nb.surfaces.adapters.pydantic_ai_deferred import (
    Decisions,
    recorded_runs,
    wait_for_deferred,
    wait_for_deferred_async,
)
from kitaru_nb.surfaces.adapters.pydantic_ai_operations import (
    RunCalls,
    ToolSignal,
    agent_code,
    approved_scope,
    asking,
    describe,
    run_operation,
    settled,
    with_arguments,
)
from kitaru_nb.surfaces.adapters.pydantic_ai_streaming import LiveModel, clients_of, told

__all__ = ["KitaruAgent", "KitaruDurability", "wait_for_deferred", "wait_for_deferred_async"]

DepsT = TypeVar("DepsT")
OutputT = TypeVar("OutputT")

_TOOL_OPTIONS = ("retries", "timeout")


@dataclass(frozen=True, slots=True)
class Options:
    """How one kind of call is performed. ``timeout`` in seconds."""

    retry: Retry = field(default_factory=Retry)
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """What a run was given that its hooks aren't told.

    Attributes:
        place: which run of this agent it is on the flow's main line, or None.
        deferred: the results of deferred tool calls; None when they aren't known.
    """

    place: int | None
    deferred: DeferredToolResults | None


_given: ContextVar[Given | None] = ContextVar("kitaru_agent_run", default=None)


class KitaruDurability(BaseDurabilityCapability[DepsT]):
    """Makes an agent durable: ``Agent(..., name="support", capabilities=[KitaruDurability()])``.

    Options of one tool are in its metadata: ``@agent.tool_plain(metadata={"kitaru": {"retries": 2, "timeout": 30}})``;
    ``{"kitaru": False}`` runs a function tool without a checkpoint of its own.

    Args:
        name: what the run's checkpoint is called; default: the agent's name.
        models: further models by name, as of Pydantic AI's own durability capabilities.
        model_retries, tool_retries: how often a failed request or call is tried again, or a `Retry` policy. Streamed
            requests are not tried again: their reader has seen the beginning.
        model_timeout, tool_timeout: seconds that one attempt may take.
    """

    engine_spec = DurabilityEngineSpec(
        engine_name="Kitaru",
        durable_unit_noun="checkpoint",
        durable_container_noun="flow",
        codec=JSON_CODEC,
        toolset_lifecycles={"function": "enter-always", "mcp": "enter-in-durable-unit", "dynamic": "enter-never"},
        # Results of tools are recorded as typed values, not in the SDK's JSON envelope.
        tool_call_result_upgrade_lenient=True,
        tool_config_key="kitaru",
    )

    def __init__(
        self,
        *,
        name: str | None = None,
        models: Mapping[str, Model] | None = None,
        model_retries: int | Retry = 0,
        model_timeout: float | None = None,
        tool_retries: int | Retry = 0,
        tool_timeout: float | None = None,
    ) -> None:
        super().__init__(models=models, name=name)
        self.model_options = Options(as_retry(model_retries), _seconds("model_timeout", model_timeout))
        self.tool_options = Options(as_retry(tool_retries), _seconds("tool_timeout", tool_timeout))
        self.calls = RunCalls()
        self.given: Given | None = None

    @property
    def in_durable_context(self) -> bool:
        """Whether the agent runs inside a flow."""
        return in_flow()

    def get_durable_operation_backend(self) -> DurableOperationBackend[Options]:
        """What performs the SDK's operations."""
        return Backend(self)

    # binding: nothing has to be known before a run, so toolsets are wrapped as they come, with or without an id

    def _bind_to_agent(self, agent: AbstractAgent[DepsT, Any]) -> None:
        pass

    def _bind_models(self, agent: AbstractAgent[DepsT, Any]) -> None:
        if agent.model is None:
            self._models_by_id = dict(self._extra_models)
        else:
            super()._bind_models(agent)

    def _find_model_id(self, model: Model) -> str | None:
        """A request runs in this process, so any model object can be found again by its name and identity."""
        while isinstance(model, InstrumentedModel):
            model = model.wrapped
        registered, model_id = self._registered_model_id(model)
        if registered:
            return model_id
        model_id = f"{model.model_id}@{id(model)}"
        self._models_by_id[model_id] = model
        return model_id

    def get_wrapper_toolset(self, toolset: AbstractToolset[DepsT]) -> AbstractToolset[DepsT] | None:
        """The toolset with a checkpoint around each call."""
        if not self.in_durable_context:
            return None
        return toolset.visit_and_replace(lambda leaf: self._wrap_leaf_toolset(leaf) or leaf)

    def tool_value(self, operation: SdkOperation[Any, Any, Any], outcome: Any) -> Any:
        """What a tool gave back, or a `ToolSignal` when it ended otherwise."""
        try:
            return settled(self._unwrap_tool_result(outcome))
        except Exception:
            return ToolSignal(cast(Mapping[str, Any], operation.result_codec.dump(outcome)))

    # a run

    def get_default_run_id(self) -> str | None:
        """The same id for the same run of a resumed flow."""
        frame = current.get()
        if frame is None:
            return None
        ordinal, _ = frame.run.engine.identify(frame, f"run:{self.name}", ())
        return f"{frame.run.exec_id}:{ordinal}"

    def get_default_conversation_id(self, run_id: str) -> str | None:
        """Derived from the run id."""
        return conversation_id_from_run_id(run_id) if self.in_durable_context else None

    async def get_run_start_time(self, run_id: str) -> datetime | None:
        """When a run with a timeout first began."""
        if not self.in_durable_context:
            return None

        async def now() -> datetime:
            return datetime.now(timezone.utc)

        return await perform_async(Operation(f"{self.name}.started", "agent_clock", {"run": run_id}), now)

    async def for_run(self, ctx: RunContext[DepsT]) -> KitaruDurability[DepsT]:
        """One instance for each run, which counts the run's calls."""
        mine = copy.copy(self)
        mine.calls = RunCalls()
        mine.given = _given.get()
        _given.set(None)  # not for runs that are nested in this one
        return mine

    async def wrap_run(self, ctx: RunContext[DepsT], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        """Record the run, or give back what was recorded."""
        frame = current.get()
        if frame is None:
            return await handler()
        with replay_scope():
            if self.given is None and _goes_on_with_unknown_results(ctx):
                with scoped(self.name):
                    return await super().wrap_run(ctx, handler=handler)
            runs = recorded_runs(frame.run)
            deferred = self.given.deferred if self.given else None
            operation = run_operation(
                self.name,
                ctx,
                deferred=deferred,
                decided_by=deferred.waits if isinstance(deferred, Decisions) else (),
                place=self.given.place if self.given else None,
                history_calls=[runs[m.run_id] for m in ctx.messages if m.run_id in runs],
                code=agent_code(ctx.agent),
            )

            async def body() -> AgentRunResult[Any]:
                result = await super(KitaruDurability, self).wrap_run(ctx, handler=handler)
                return operation.decode(operation.encode(result).parts[0].value)

            result = await perform_async(operation, body)
            if operation.call_id is not None:
                runs[result.run_id] = operation.call_id
            return result

    # model streams

    async def wrap_model_request(
        self, ctx: RunContext[DepsT], *, request_context: ModelRequestContext, handler: WrapModelRequestHandler
    ) -> ModelResponse:
        """Send the request through its checkpoint; a streamed one stays live."""
        if not self.in_durable_context:
            return await handler(request_context)

        async def live(durable: ModelRequestContext) -> ModelResponse:
            for client in clients_of(durable.model):
                for_every_loop(client)
            durable.model = LiveModel(durable.model)
            return await handler(durable)

        return await super().wrap_model_request(ctx, request_context=request_context, handler=live)

    def _model_stream_event_handler(self) -> EventStreamHandler[DepsT] | None:
        return told(super()._model_stream_event_handler())


def _seconds(name: str, value: float | None) -> float | None:
    if value is not None and not (isinstance(value, int | float) and value > 0):
        raise KitaruUsageError(f"{name}={value!r} can't be: expected seconds > 0, or None.", fix=f"{name}=30")
    return value


def _goes_on_with_unknown_results(ctx: RunContext[Any]) -> bool:
    """Whether the history ends with tool calls whose results the run was given, which only `KitaruAgent` sees."""
    return bool(ctx.messages) and isinstance(last := ctx.messages[-1], ModelResponse) and bool(last.tool_calls)


class Backend(DurableOperationBackend[Options]):
    """Performs the operations of one run."""

    def __init__(self, durability: KitaruDurability[Any]) -> None:
        self.durability = durability

    def bind(self, operation: SdkOperation[Any, Any, Any]) -> BoundDurableOperation[Any, Any, Any]:
        """The operation as something to call."""
        return Bound(self.durability, operation)

    def config_for_tool(
        self, operation: SdkOperation[Any, Any, Any], *, tool: Any, tool_name: str
    ) -> Options | Literal[False]:
        """Options of one tool from its metadata. Raises `KitaruUsageError` for what can't be one."""
        metadata = (tool.tool_def.metadata or {}) if tool is not None else {}
        own = metadata.get("kitaru", {})
        if own is False:
            return False
        if not isinstance(own, Mapping) or (unknown := sorted(set(own) - set(_TOOL_OPTIONS))):
            found = repr(own) if not isinstance(own, Mapping) else f"option {unknown[0]!r}"
            raise KitaruUsageError(
                f"Metadata 'kitaru' of tool {tool_name!r} has {found}; expected False, or "
                f"{' and '.join(_TOOL_OPTIONS)}.",
                fix='metadata={"kitaru": {"retries": 2, "timeout": 30}}',
            )
        default = self.durability.tool_options
        retry = as_retry(own["retries"]) if "retries" in own else default.retry
        timeout = _seconds("timeout", own["timeout"]) if "timeout" in own else default.timeout
        return Options(retry, timeout)

    def registrations(self) -> Sequence[Callable[..., object]]:
        """None: nothing is registered before it is called."""
        return ()


class Bound(BoundDurableOperation[Any, Any, Any]):
    """One operation of the SDK, performed as a checkpoint."""

    def __init__(self, durability: KitaruDurability[Any], operation: SdkOperation[Any, Any, Any]) -> None:
        self.durability = durability
        self._operation = operation

    @property
    def operation(self) -> SdkOperation[Any, Any, Any]:
        """The SDK's declaration."""
        return self._operation

    async def __call__(self, params: Any, *, config: object | None = None) -> Any:
        """Perform it, or give back what it recorded."""
        durability, operation = self.durability, self._operation
        is_tool = isinstance(params, ToolsetCallToolParams | DynamicToolsetCallToolParams)
        described = describe(durability.name, operation, params, durability.calls)
        options = config if isinstance(config, Options) else self._options()
        described.retry, described.timeout = options.retry, options.timeout
        ran = False

        def take(values: Mapping[str, Any]) -> None:
            nonlocal params
            params = with_arguments(params, values["arguments"]) if is_tool else asking(params, described, values)

        described.take = take if is_tool or described.takes else None

        async def body() -> Any:
            nonlocal ran
            ran = True
            with durable_unit_scope():
                outcome = await operation.handler(params)
            return durability.tool_value(operation, outcome) if is_tool else operation.result_codec.dump(outcome)

        approved = is_tool and params.ctx.tool_call_approved
        with within(approved_scope(params)) if approved else nullcontext():
            recorded = await perform_async(described, body)
        record_durable_unit(executed=ran)
        if described.call_id is not None:
            durability.calls.made.append(described.call_id)
        if is_tool and not isinstance(recorded, ToolSignal):
            return recorded
        return operation.result_codec.load(recorded.outcome if is_tool else recorded)

    def _options(self) -> Options:
        if self._operation.config_role != "model":
            return self.durability.tool_options
        options = self.durability.model_options
        streamed = getattr(self._operation.operation_id, "streaming", False)
        return Options(timeout=options.timeout) if streamed else options


class KitaruAgent(WrapperAgent[DepsT, OutputT]):
    """A durable agent around any agent, which stays as it is.

    ``run run_sync run_stream run_stream_events iter override`` and all else work as they do on the agent. ``run_sync``
    works while a loop runs, too.

    Args:
        agent: a `pydantic_ai.Agent`.
        name: what the run's checkpoint is called; default: the agent's name.
        options: as of `KitaruDurability`.

    Raises:
        KitaruUsageError: the agent has no name, or ``agent`` is none.
    """

    def __init__(self, agent: AbstractAgent[DepsT, OutputT], *, name: str | None = None, **options: Any) -> None:
        if not isinstance(agent, AbstractAgent):
            raise KitaruUsageError(
                f"KitaruAgent was given {agent!r}; expected a pydantic_ai.Agent.", fix="KitaruAgent(Agent(...))"
            )
        if not (name or agent.name):
            raise KitaruUsageError(
                "The agent has no name, and its checkpoints are found by it.", fix='KitaruAgent(agent, name="support")'
            )
        super().__init__(agent)
        self.durability: KitaruDurability[DepsT] | None = None
        if KitaruDurability.from_agent(agent) is None:
            self.durability = KitaruDurability(name=name or agent.name, **options)
        elif name or options:
            raise KitaruUsageError(
                "The agent has a KitaruDurability already, so options of KitaruAgent would have no effect.",
                fix=f"KitaruDurability({', '.join([*(['name=...'] if name else []), *(f'{o}=...' for o in options)])})",
            )

    @property
    def checkpoint_name(self) -> str:
        """What the run's checkpoint is called."""
        durability = self.durability or KitaruDurability.from_agent(self.wrapped)
        return durability.name if durability is not None else ""

    @asynccontextmanager
    async def iter(self, user_prompt: Any = None, **options: Any) -> AsyncGenerator[AgentRun[DepsT, Any]]:
        """As of the agent."""
        if not in_flow():
            async with self.wrapped.iter(user_prompt, **options) as run:
                yield run
            return
        token = _given.set(Given(next_place(self.checkpoint_name), options.get("deferred_tool_results")))
        capabilities = [*(options.pop("capabilities", None) or ())]
        if self.durability is not None:
            capabilities.append(self.durability)
        try:
            async with self.wrapped.iter(user_prompt, capabilities=capabilities, **options) as run:
                yield run
        finally:
            _given.reset(token)

    def run_sync(self, user_prompt: Any = None, **options: Any) -> AgentRunResult[Any]:
        """As of the agent, whether or not a loop runs in this thread."""
        return block_on(lambda: self.run(user_prompt, **options), instead="await agent.run(...)")
