"""`KitaruRunner`: runs of an agent as checkpoints, with approvals as waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Literal

from agents import Agent, Runner, RunResult

from kitaru_nb.core.context import current
from kitaru_nb.core.engine import digest
from kitaru_nb.core.retry import Retry
from kitaru_nb.errors import KitaruStateError, KitaruUsageError
from kitaru_nb.surfaces.adapters.base import Operation, Part, Recorded, block_on, in_flow, perform_async, perform_stream
from kitaru_nb.surfaces.adapters.openai_agents import agent_runner, state
from kitaru_nb.surfaces.adapters.openai_agents.contexts import Changes, Watch
from kitaru_nb.surfaces.adapters.openai_agents.graph import code_of, reachable
from kitaru_nb.surfaces.adapters.openai_agents.line import Approved, Bill, Line, line
from kitaru_nb.surfaces.adapters.openai_agents.policy import OpenAICapturePolicy, Policy, call_config, check_function
from kitaru_nb.surfaces.adapters.openai_agents.requests import OpenAIRunRequest, OpenAIRunResult, OpenAIUsageSummary

Strategy = Literal["calls", "runner_call"]
_STRATEGIES = ("calls", "runner_call")

Config = Mapping[str, Any] | bool | None


class KitaruRunner:
    """Runs one agent. Inside a flow or a checkpoint cell each run is a checkpoint; outside it simply runs.

    Args:
        agent: an agent of the OpenAI Agents SDK. It is never modified.
        name: of the checkpoint; default: the agent's name.
        checkpoint_strategy: ``calls`` (default): each model call and each tool call is a checkpoint inside that of the
            run, so that an interrupted run goes on after the last of them. ``runner_call``: the run as a whole is the
            only one; after a crash inside it all of it happens again.
        run_config: of every run, as the SDK takes it.
        run_config_factory: makes it anew for every run, instead.
        capture: what people see of prompts, answers, arguments and results.
        run_checkpoint_config: ``{"retries": 2, "timeout": 60}`` for whole runs.
        model_checkpoint_config, tool_checkpoint_config, mcp_checkpoint_config: ``{"checkpoint": False, "retries": 2,
            "timeout": 30}`` for model calls, tools, and tools of MCP servers.
        tool_checkpoint_config_by_name: the same for single tools.
        context_serializer, context_deserializer: the context of an interrupted run to a mapping and back.
        strict_context: refuse to keep a context that would come back as something else.
        strict_sdk_version: resume only with the version of the SDK that wrote the state.
        cost_calculator: (model, usage) → USD or None, instead of the price table.

    Raises:
        KitaruUsageError: an agent without a name, another strategy, or a setting that can't be.
    """

    def __init__(
        self,
        agent: Agent[Any],
        *,
        name: str | None = None,
        checkpoint_strategy: Strategy = "calls",
        run_config: Any = None,
        run_config_factory: Callable[[], Any] | None = None,
        capture: OpenAICapturePolicy | None = None,
        run_checkpoint_config: Config = None,
        model_checkpoint_config: Config = None,
        tool_checkpoint_config: Config = None,
        mcp_checkpoint_config: Config = None,
        tool_checkpoint_config_by_name: Mapping[str, Config] | None = None,
        context_serializer: Callable[[Any], Mapping[str, Any]] | None = None,
        context_deserializer: Callable[[Mapping[str, Any]], Any] | None = None,
        strict_context: bool = False,
        strict_sdk_version: bool = False,
        cost_calculator: Callable[[str, Any], float | None] | None = None,
    ) -> None:
        _check(agent, name, checkpoint_strategy)
        if run_config is not None and run_config_factory is not None:
            raise KitaruUsageError("Both run_config= and run_config_factory= were given; expected one of them.")
        if capture is not None and not isinstance(capture, OpenAICapturePolicy):
            raise KitaruUsageError(
                f"capture={capture!r} is a {type(capture).__name__}; expected an OpenAICapturePolicy.",
                fix="capture=OpenAICapturePolicy(prompts=False)",
            )
        check_function(run_config_factory, "run_config_factory", "lambda: RunConfig(...)")
        check_function(cost_calculator, "cost_calculator", "lambda model, usage: 0.01")
        check_function(context_serializer, "context_serializer", "lambda context: {...}")
        check_function(context_deserializer, "context_deserializer", "lambda data: Context(**data)")
        agent_runner.install()
        self.agent = agent
        self.name = name or agent.name
        self.checkpoint_strategy = checkpoint_strategy
        self._run_config = run_config_factory or (lambda: run_config)
        self._run = call_config(run_checkpoint_config, "run_checkpoint_config")
        tool = call_config(tool_checkpoint_config, "tool_checkpoint_config")
        mcp = call_config(mcp_checkpoint_config, "mcp_checkpoint_config", tool)
        by_name = dict(tool_checkpoint_config_by_name or {})
        _check_names(agent, by_name)
        self._policy = Policy(
            checkpoint_strategy == "calls",
            capture or OpenAICapturePolicy(),
            call_config(model_checkpoint_config, "model_checkpoint_config"),
            tool,
            mcp,
            {n: call_config(c, f"tool_checkpoint_config_by_name[{n!r}]", tool) for n, c in by_name.items()},
            cost_calculator,
        )
        self._codec = state.ContextCodec(context_serializer, context_deserializer, strict_context)
        self._strict_version = strict_sdk_version

    def __repr__(self) -> str:
        return f"<KitaruRunner {self.name}: {self.checkpoint_strategy}>"

    async def run(self, request: OpenAIRunRequest | str | Sequence[Any], **options: Any) -> OpenAIRunResult:
        """Run the agent, or go on with an interrupted run.

        Args:
            request: from `OpenAIRunRequest`, `wait_for_approval`, or simply the input.
            options: ``context session hooks error_handlers conversation_id previous_response_id
                auto_previous_response_id run_config``, as `Runner.run` takes them.

        Raises:
            KitaruUsageError: a request that can't be, or an interrupted run that must not go on with this agent.
            KitaruDivergenceError: a resumed run asked a model for something else than before.
        """
        segment = Segment(self, _request(request), options)
        if not self._run.checkpoint:
            return await segment.body()
        return await perform_async(segment.operation(), segment.body)

    def run_sync(self, request: OpenAIRunRequest | str | Sequence[Any], **options: Any) -> OpenAIRunResult:
        """`run` for synchronous code, also where a loop runs in this thread (notebooks, servers)."""
        return block_on(lambda: self.run(request, **options), instead="result = await runner.run(request)")

    def run_streamed(self, request: OpenAIRunRequest | str | Sequence[Any], **options: Any) -> OpenAIRunStream:
        """Run the agent and hand on the SDK's events as they come: ``async for event in stream``, then ``.result()``.

        A run that has completed before gives its result without events.
        """
        return OpenAIRunStream(Segment(self, _request(request), options))


class Segment:
    """One call of a runner: a run up to its end, or up to the approvals that it needs."""

    def __init__(self, runner: KitaruRunner, request: OpenAIRunRequest, options: Mapping[str, Any]) -> None:
        self.runner = runner
        self.request = request
        self.options = _options(options)
        self.context = self.options.pop("context", None)
        self.bill = Bill()
        self.changes = Changes()
        self.watch: Watch | None = None
        self.call_id: str | None = None

    def operation(self, *, streamed: bool = False) -> Operation[OpenAIRunResult]:
        """The checkpoint around it."""
        request, runner = self.request, self.runner
        envelope = request.pending_state
        reads: dict[str, list[str]] = {}
        inputs: dict[str, Any]
        if envelope is None:
            inputs = {"input": request.input}
        else:
            decisions = [[d.call_id, d.approve, d.rejection_message] for d in request.decisions]
            inputs = {"pending_state": envelope, "decisions": decisions}
            reads["decisions"] = [d.source for d in request.decisions if d.source is not None]
            reads["pending_state"] = [envelope.call_id] if envelope.call_id is not None else []
        if request.max_turns is not None:
            inputs["max_turns"] = request.max_turns
        if self.context is not None:
            inputs["context"] = self.context
        capture = runner._policy.capture
        shown = {} if capture.redact is None else {name: capture.shown("prompt", v) for name, v in inputs.items()}
        return Operation(
            runner.name,
            "agent_run",
            inputs,
            encode=self._keep,
            decode=self._decoded,
            code=code_of(runner.agent),
            shown=shown,
            reads=reads,
            recall={} if self.context is None else {"context": self._recall},
            retry=Retry() if streamed else runner._run.retry,
            timeout=runner._run.timeout,
        )

    def _decoded(self, value: Any) -> OpenAIRunResult:
        """A recorded result; any other value, given as an override, as the output of one."""
        if isinstance(value, OpenAIRunResult):
            return value
        return OpenAIRunResult("completed", self.runner.name, final_output=value)

    def _recall(self, kept: Mapping[str, Any]) -> None:
        self.changes.again(self.context, kept)

    async def body(self) -> OpenAIRunResult:
        """Run it."""
        with self._line():
            result = await Runner.run(self.runner.agent, await self._input(), **self._keywords())
        return await self._outcome(result)

    async def events(self, done: Callable[[OpenAIRunResult], None]) -> AsyncIterator[Any]:
        """Run it, event by event."""
        with self._line():
            result = Runner.run_streamed(self.runner.agent, await self._input(), **self._keywords())
        finished = False
        try:
            async for event in result.stream_events():
                yield event
            if (error := getattr(result, "run_loop_exception", None)) is not None:
                raise error
            finished = True
        finally:
            if not finished:
                result.cancel()
        done(await self._outcome(result))

    def _line(self) -> _Entered:
        frame = current.get()
        self.call_id = frame.call_id if frame is not None and frame.call_id else None
        if frame is not None and self.context is not None:
            self.watch = Watch(self.context, frame.run.store)
        if frame is None:
            agent_runner.share_clients(self.runner.agent)
        envelope = self.request.pending_state
        approved = None
        if envelope is not None:
            scope = digest("resumed", envelope.state)
            approved = Approved(scope, frozenset(tool.call_id for tool in envelope.pending))
        return _Entered(Line(self.runner._policy, self.bill, approved, changes=self.changes))

    async def _input(self) -> Any:
        request, runner = self.request, self.runner
        if request.pending_state is None:
            return request.input
        return await state.restored(
            request.pending_state,
            agent_runner.agents.of(runner.agent) if in_flow() else runner.agent,
            request.decisions,
            runner._codec,
            self.context,
            strict_version=runner._strict_version,
        )

    def _keywords(self) -> dict[str, Any]:
        keywords = {"run_config": self.runner._run_config()} | self.options
        if self.request.pending_state is None:
            # A resumed state has its context in it: given once more, the SDK would lose the decisions.
            keywords["context"] = self.context
        if self.request.max_turns is not None:
            keywords["max_turns"] = self.request.max_turns
        return keywords

    async def _outcome(self, result: Any) -> OpenAIRunResult:
        runner, envelope = self.runner, self.request.pending_state
        before = envelope.usage_before if envelope is not None else OpenAIUsageSummary()
        total = state.usage_of(result.context_wrapper.usage)
        cost = self.bill.known if in_flow() else None
        earlier = envelope.cost_before if envelope is not None else 0.0
        cost_total = None if cost is None or earlier is None else cost + earlier
        pending = state.interruptions_of(result)
        kept = None
        if pending:
            kept = await state.packed(
                result,
                runner.agent,
                pending,
                runner._codec,
                call_id=self.call_id,
                segment=1 + (envelope.segment if envelope is not None else 0),
                cost_before=cost_total,
            )
        return OpenAIRunResult(
            status="interrupted" if pending else "completed",
            runner=runner.name,
            final_output=None if pending else result.final_output,
            pending_state=kept,
            interruptions=pending,
            usage=total.minus(before),
            usage_total=total,
            estimated_cost_usd=cost,
            cost_total_usd=cost_total,
            last_agent=_last_agent(result),
            last_response_id=result.last_response_id,
            warnings=tuple(f"No price is known for model {model!r}." for model in sorted(self.bill.unknown)),
        )

    def _keep(self, result: OpenAIRunResult) -> Recorded:
        capture = self.runner._policy.capture
        if result.status == "interrupted":
            preview = "needs approval: " + "; ".join(item.message for item in result.interruptions)
        else:
            preview = str(capture.shown("response", result.final_output))
        metadata: dict[str, Any] = {"status": result.status, "segment": 1}
        if self.request.pending_state is not None:
            metadata["segment"] = self.request.pending_state.segment + 1
        if self.request.metadata:
            metadata["request"] = dict(self.request.metadata)
        if not self.runner._policy.records:
            # Otherwise the calls inside say it, and sums would count it twice.
            used = result.usage
            metadata |= {"input_tokens": used.input_tokens, "output_tokens": used.output_tokens}
            if result.estimated_cost_usd is not None:
                metadata["cost"] = result.estimated_cost_usd
        parts = [Part("result", result, "output", " ".join(preview.split())[:200])]
        if self.watch is not None:
            parts += self.watch.part(self.changes)
        return Recorded(parts, metadata)


class _Entered:
    """A line as a context manager that yields nothing and nests."""

    def __init__(self, at: Line) -> None:
        self.at = at

    def __enter__(self) -> None:
        self.token = line.set(self.at)

    def __exit__(self, *_: object) -> None:
        line.reset(self.token)


class OpenAIRunStream:
    """The events of a run, as the SDK makes them, and its result. Iterate once."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._result: OpenAIRunResult | None = None

    async def __aiter__(self) -> AsyncIterator[Any]:
        stream = perform_stream(
            self._segment.operation(streamed=True),
            lambda: self._segment.events(self._done),
            outcome=lambda _: self.result(),
            again=self._again,
            last=lambda _: False,
        )
        try:
            async for event in stream:
                yield event
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    def _done(self, result: OpenAIRunResult) -> None:
        self._result = result

    def _again(self, result: OpenAIRunResult) -> list[Any]:
        self._result = result
        return []

    def result(self) -> OpenAIRunResult:
        """How the run ended.

        Raises:
            KitaruStateError: its events haven't been read to the end.
        """
        if self._result is None:
            raise KitaruStateError(
                "The run has no result yet: its events have not been read to the end.",
                fix="async for event in stream: ...  # then stream.result()",
            )
        return self._result


def _last_agent(result: RunResult) -> str:
    return str(result.last_agent.name)


_OPTIONS = (
    "context",
    "session",
    "hooks",
    "error_handlers",
    "conversation_id",
    "previous_response_id",
    "auto_previous_response_id",
    "run_config",
)


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise KitaruUsageError(
            f"{unknown[0]!r} is no option of a run. Options are: {', '.join(_OPTIONS)}.",
            fix="runner.run(OpenAIRunRequest.start(input, max_turns=20), context=...)",
        )
    session = options.get("session")
    if session is not None and not hasattr(session, "get_items"):
        raise KitaruUsageError(
            f"session={session!r} is a {type(session).__name__}; expected a session of the OpenAI Agents SDK.",
            fix="session=SQLiteSession('name', 'sessions.db')",
        )
    return {name: value for name, value in options.items() if value is not None}


def _request(request: Any) -> OpenAIRunRequest:
    if isinstance(request, OpenAIRunRequest):
        if (request.input is None) == (request.pending_state is None):
            raise KitaruUsageError(
                "This OpenAIRunRequest has neither an input nor a pending state, or both; expected one made by start "
                "or resume.",
                fix="OpenAIRunRequest.start('…')",
            )
        return request
    return OpenAIRunRequest.start(request)


def _check(agent: Any, name: str | None, strategy: str) -> None:
    if not isinstance(agent, Agent):
        raise KitaruUsageError(
            f"KitaruRunner was given a {type(agent).__name__}; expected an agent of the OpenAI Agents SDK.",
            fix="KitaruRunner(Agent(name='support', instructions='…'))",
        )
    if name is not None and not isinstance(name, str):
        raise KitaruUsageError(f"name={name!r} is a {type(name).__name__}; expected a text.", fix="name='support'")
    if not agent.name.strip() and not name:
        raise KitaruUsageError(
            "KitaruRunner was given an agent without a name; its checkpoints need one.",
            fix="Agent(name='support', …), or KitaruRunner(agent, name='support')",
        )
    if strategy not in _STRATEGIES:
        raise KitaruUsageError(
            f"checkpoint_strategy={strategy!r} is none; expected one of: {', '.join(_STRATEGIES)}.",
            fix="KitaruRunner(agent, checkpoint_strategy='calls')",
        )


def _check_names(agent: Agent[Any], by_name: Mapping[str, Any]) -> None:
    """Settings for tools that there are: checked where all tools are known beforehand."""
    known = list(reachable(agent))
    if any(one.mcp_servers or type(one).get_all_tools is not Agent.get_all_tools for one in known):
        return
    names = {str(getattr(tool, "name", "")) for one in known for tool in one.tools}
    if unknown := sorted(set(by_name) - names):
        raise KitaruUsageError(
            f"tool_checkpoint_config_by_name has {unknown[0]!r}, but no agent here has such a tool. Tools: "
            f"{', '.join(sorted(names)) or 'none'}.",
            fix=f"tool_checkpoint_config_by_name={{{min(names)!r}: {{'retries': 2}}}}" if names else None,
        )
