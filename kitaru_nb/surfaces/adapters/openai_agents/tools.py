"""Durable tools: each call is a checkpoint with its arguments and its result."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agents import FunctionTool

from kitaru_nb.core.context import current
from kitaru_nb.errors import KitaruContextError, KitaruTimeoutError
from kitaru_nb.surfaces.adapters.base import Operation, Part, Recorded, in_flow, perform_async, scoped, within
from kitaru_nb.surfaces.adapters.openai_agents import sdk
from kitaru_nb.surfaces.adapters.openai_agents.codec import parsed, settled
from kitaru_nb.surfaces.adapters.openai_agents.contexts import Watch, gets_context
from kitaru_nb.surfaces.adapters.openai_agents.graph import tool_code
from kitaru_nb.surfaces.adapters.openai_agents.line import Line, line
from kitaru_nb.surfaces.adapters.openai_agents.policy import CallConfig
from kitaru_nb.surfaces.adapters.openai_agents.tracing import Link, linked
from kitaru_nb.surfaces.adapters.openai_agents.twins import Seen, Twins

_DURABLE = "kitaru_durable"


class TimedOut(BaseException):
    """A tool took longer than it says of itself. No `Exception`: its own text for the model isn't that of a failure."""


class DurableInvoker(sdk.Invoker):  # type: ignore[misc]
    """The SDK's invoker of a decorated tool; what the model is told of a timeout comes from the record, too."""

    async def __call__(self, ctx, arguments):  # type: ignore[no-untyped-def]
        """Call the tool."""
        try:
            return await super().__call__(ctx, arguments)
        except TimedOut:
            return await sdk.timed_out(self._function_tool, ctx)


def _durable_invoker(tool: Any, invoker: Any) -> Any:
    """The function that the SDK calls, with a checkpoint in the right place.

    Inside what turns exceptions into text for the model: so a failure is a failure, is tried again by the engine, and
    is never taken for a result.
    """
    if isinstance(invoker, sdk.Invoker):
        implementation = sdk.implementation_of(invoker)
        if getattr(implementation, _DURABLE, False):
            return invoker

        async def inside(ctx, arguments):  # type: ignore[no-untyped-def]
            return await _called(tool, ctx, arguments, lambda given: implementation(ctx, given))

        made = sdk.rebuilt_invoker(DurableInvoker, invoker, inside)
        setattr(inside, _DURABLE, True)
        return made
    if getattr(invoker, _DURABLE, False):
        return invoker
    original = tools.original(tool)

    # Without annotations: the SDK hands less of the context to functions that declare less.
    async def around(ctx, arguments):  # type: ignore[no-untyped-def]
        try:
            return await _called(tool, ctx, arguments, lambda given: invoker(sdk.invoke_context(original, ctx), given))
        except TimedOut:
            return await sdk.timed_out(original, ctx)

    setattr(around, _DURABLE, True)
    return around


def _own_timeout(tool: Any, seconds: float | None) -> float | None:
    """The seconds that the SDK watches over: none where the checkpoint does, so that a timeout is on record."""
    return None if _config(tool) is not None else seconds


def _config(tool: Any) -> CallConfig | None:
    """How a call made now is recorded; None when it isn't."""
    at = line.get()
    if at is None or not in_flow() or not at.policy.records or sdk.is_agent_tool(tool):
        return None
    config = at.policy.of_tool(tool.name, mcp=sdk.is_mcp_tool(tool))
    return config if config.checkpoint else None


class DurableTool:
    """What the twin of a function tool does otherwise."""

    __slots__ = ("kitaru_original", "kitaru_seen")

    on_invoke_tool = Seen("on_invoke_tool", _durable_invoker, once=True)
    timeout_seconds = Seen("timeout_seconds", _own_timeout)


tools: Twins[FunctionTool] = Twins(DurableTool)


async def _called(tool: Any, ctx: Any, arguments: str, live: Callable[[str], Awaitable[Any]]) -> Any:
    at = line.get()
    if at is None or not in_flow():
        return await live(arguments)
    call_id = str(getattr(ctx, "tool_call_id", ""))
    if sdk.is_agent_tool(tool):
        # Its result may be "nothing yet", while something inside it needs approval: so it's a scope, and no checkpoint.
        with scoped(f"tool:{tool.name}:{call_id}"):
            return await live(arguments)
    config = _config(tool)
    if config is None and at.awaits(call_id):
        config = CallConfig()  # what somebody has approved is recorded in any case: it must happen once
    if config is None:
        return await live(arguments)
    return await ToolCall(at, tool, ctx, arguments, config, live).perform()


class ToolCall:
    """One call of a tool in a run."""

    def __init__(
        self,
        at: Line,
        tool: Any,
        ctx: Any,
        arguments: str,
        config: CallConfig,
        live: Callable[[str], Awaitable[Any]],
    ) -> None:
        self.at = at
        self.ctx = ctx
        self.call_id = str(ctx.tool_call_id)
        self.given = arguments
        self.arguments = parsed(arguments)
        self.live = live
        self.link = Link()
        self.own_timeout: float | None = vars(tool).get("timeout_seconds")
        self.context = ctx.context if gets_context(tools.original(tool)) else None
        self.watch: Watch | None = None
        maker = at.makers.get(f"asked:{self.call_id}")
        self.operation: Operation[Any] = Operation(
            tool.name,
            "mcp_call" if sdk.is_mcp_tool(tool) else "tool_call",
            {"arguments": self.arguments},
            encode=self._keep,
            identity=self.call_id,
            code=tool_code(tools.original(tool)),
            take=self._take,
            shown=self._shown(),
            reads={"arguments": [maker]} if maker is not None else {},
            recall={} if self.context is None else {"context": self._recall},
            retry=config.retry,
            timeout=min((s for s in (config.timeout, self.own_timeout) if s is not None), default=None),
        )

    async def perform(self) -> Any:
        """The tool's result; from the record, when it was called before."""
        with linked(self.operation.name, around=self.operation.type != "mcp_call") as self.link:
            try:
                if self._claims():
                    assert self.at.approved is not None
                    with within(self.at.approved.scope):
                        result = await perform_async(self.operation, self._body)
                else:
                    result = await perform_async(self.operation, self._body)
            except KitaruTimeoutError as error:
                if self.operation.timeout == self.own_timeout:
                    raise TimedOut from error
                raise
            except KitaruContextError as error:
                self.at.broken = error  # the SDK would tell it to the model
                raise
            finally:
                self.link.close(self.operation.call_id)
                self._note()
        return result

    def _claims(self) -> bool:
        """Whether this is the call that somebody has approved: it happens once in however many resumed runs."""
        if not self.at.awaits(self.call_id):
            return False
        self.at.claimed.add(self.call_id)
        return True

    def _take(self, values: Mapping[str, Any]) -> None:
        """A replay wants other arguments."""
        self.arguments = values["arguments"]
        self.given = self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)
        sdk.forget_prepared_arguments(self.ctx)
        self.operation.shown = self._shown()

    def _shown(self) -> dict[str, Any]:
        capture = self.at.policy.capture
        return {} if capture.redact is None else {"arguments": capture.shown("arguments", self.arguments)}

    async def _body(self) -> Any:
        self.link.live = True
        frame = current.get()
        assert frame is not None
        if self.context is not None and self.watch is None:  # before the first of several attempts
            self.watch = Watch(self.context, frame.run.store)
        return settled(await self.live(self.given), frame.run.store)

    def _recall(self, kept: Mapping[str, Any]) -> None:
        self.at.changes.again(self.context, kept)

    def _keep(self, result: Any) -> Recorded:
        capture = self.at.policy.capture
        shown = capture.shown("result", result)
        if capture.redact is None:
            parts = [Part("result", result, "output")]
        else:
            preview = " ".join(str(shown).split())[:200]
            parts = [Part("record", result, "blob", preview), Part("result", shown, "output")]
        if capture.arguments:
            parts.append(Part("arguments", capture.shown("arguments", self.arguments), "input"))
        if self.watch is not None:
            parts += self.watch.part(self.at.changes)
        return Recorded(parts, self.link.ids())

    def _note(self) -> None:
        call = self.operation.call_id
        frame = current.get()
        if call is None or frame is None:
            return
        self.at.makers[f"result:{self.call_id}"] = call
        if call in frame.run.engine.forgiven:
            self.at.loose = True
