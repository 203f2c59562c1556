"""LangGraph graphs whose runs survive: `KitaruGraphRunner`.

    runner = KitaruGraphRunner(graph, name="support")

    @flow
    def answer(question: str) -> str:
        result = runner.invoke(LangGraphRunRequest.start({"question": question}))
        while result.status == "interrupted":
            result = runner.invoke(wait_for_interrupts(result))
        return result.output["answer"]

A run is a checkpoint of type ``agent_run``, each node inside it one of type ``graph_node``. The graph stays as it is
and needs no checkpointer: between interrupt and answer the thread's state is part of the run's result.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from kitaru_nb.errors import KitaruFeatureNotAvailableError, KitaruUsageError

try:
    import langgraph.pregel  # noqa: F401
except ImportError as error:
    raise KitaruFeatureNotAvailableError(
        f"The LangGraph adapter needs langgraph ({error}).", fix='pip install "kitaru-nb[langgraph]"'
    ) from error

from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel
from langgraph.types import Command, StateSnapshot

from kitaru_nb.core.context import Frame, current, require_frame
from kitaru_nb.core.engine import digest
from kitaru_nb.surfaces.adapters.approvals import Question, answered
from kitaru_nb.surfaces.adapters.base import (
    Operation,
    Part,
    Recorded,
    block_on,
    perform_async,
    perform_stream,
    within,
)
from kitaru_nb.surfaces.adapters.langgraph_nodes import (
    Thread,
    ThreadSaver,
    Visit,
    durable_graph,
    graph_code,
    projected,
    with_ids,
)

__all__ = [
    "GraphStream",
    "KitaruGraphRunner",
    "LangGraphInterrupt",
    "LangGraphRunRequest",
    "LangGraphRunResult",
    "wait_for_interrupts",
    "wait_for_interrupts_async",
]


@dataclass(frozen=True)
class LangGraphInterrupt:
    """A question that a node has asked with ``interrupt(value)``."""

    id: str
    value: Any


@dataclass(frozen=True)
class LangGraphRunResult:
    """What a run came to.

    Attributes:
        status: ``completed``, or ``interrupted``: it goes on after an answer.
        output: the graph's output; when interrupted, its values so far.
        interrupts: the questions that are open. None at a breakpoint (``interrupt_before``, ``interrupt_after``).
        next: the nodes that come next.
        thread: the state to go on from.
        runner: name of the runner.
    """

    status: Literal["completed", "interrupted"]
    output: Any
    interrupts: Sequence[LangGraphInterrupt]
    next: Sequence[str]
    thread: Thread
    runner: str


@dataclass(frozen=True)
class LangGraphRunRequest:
    """What to run: `start` or `resume`.

    Attributes:
        input: the graph's input.
        answers: interrupt id → answer.
        thread: the state to go on from.
        waits: the waits (``wait:ID``) that gave the answers.
    """

    input: Any = None
    answers: Mapping[str, Any] = field(default_factory=dict)
    thread: Thread | None = None
    waits: Sequence[str] = ()

    @classmethod
    def start(cls, input: Any, *, thread: Thread | None = None) -> LangGraphRunRequest:
        """Begin with this input; with ``thread`` of an earlier result, in the conversation that it left."""
        return cls(input, {}, thread)

    @classmethod
    def resume(cls, result: LangGraphRunResult, answers: Any = None) -> LangGraphRunRequest:
        """Go on after an interrupt.

        Args:
            answers: interrupt id → answer, for each open one; where only one is open, simply its answer.

        Raises:
            KitaruUsageError: the run isn't interrupted, or an answer belongs to no open question.
        """
        _check_interrupted(result, "LangGraphRunRequest.resume()")
        open_ids = [interrupt.id for interrupt in result.interrupts]
        if len(open_ids) == 1 and not (isinstance(answers, Mapping) and set(answers) == set(open_ids)):
            answers = {open_ids[0]: answers}
        given = dict(answers or {})
        if set(given) != set(open_ids):
            raise KitaruUsageError(
                f"Answers were given for {sorted(given) or 'nothing'}; open are {sorted(open_ids)}.",
                fix="LangGraphRunRequest.resume(result, {interrupt.id: ... for interrupt in result.interrupts})",
            )
        return cls(None, given, result.thread)


class KitaruGraphRunner:
    """Runs a compiled graph durably.

    Args:
        graph: a compiled LangGraph graph. Its own checkpointer isn't used inside a flow.
        name: what the run's checkpoint is called; nodes are ``<name>.<node>``. Default: the graph's name.

    Raises:
        KitaruUsageError: ``graph`` is no compiled graph.
    """

    def __init__(self, graph: Any, *, name: str | None = None) -> None:
        if not isinstance(graph, Pregel):
            fix = "KitaruGraphRunner(builder.compile())" if hasattr(graph, "compile") else "KitaruGraphRunner(graph)"
            raise KitaruUsageError(
                f"KitaruGraphRunner was given a {type(graph).__name__}; expected a compiled graph.", fix=fix
            )
        self.graph = graph
        self.name = name or graph.get_name()

    def invoke(self, request: Any, *, config: RunnableConfig | None = None, context: Any = None) -> LangGraphRunResult:
        """Run the graph, whether or not a loop runs in this thread.

        Args:
            request: a `LangGraphRunRequest`, or simply the graph's input.
            config, context: as of the graph's ``invoke``.
        """
        return block_on(
            lambda: self.ainvoke(request, config=config, context=context), instead="await runner.ainvoke(...)"
        )

    async def ainvoke(
        self, request: Any, *, config: RunnableConfig | None = None, context: Any = None
    ) -> LangGraphRunResult:
        """`invoke` for asynchronous code."""
        run = GraphRun(self, _request(request), config, context)

        async def body() -> LangGraphRunResult:
            with run.scope():
                output = await run.graph.ainvoke(run.input, run.config, context=context, durability="exit")
                return await run.result(output)

        return await perform_async(run.operation(), body)

    def astream(
        self,
        request: Any,
        *,
        stream_mode: Any = "updates",
        config: RunnableConfig | None = None,
        context: Any = None,
        **options: Any,
    ) -> GraphStream:
        """Run the graph and read its chunks as they come: ``async for chunk in stream``, then ``stream.result``.

        Of a run that was recorded before only the result comes, without chunks.

        Args:
            stream_mode, options: as of the graph's ``astream``.
        """
        return GraphStream(GraphRun(self, _request(request), config, context), {"stream_mode": stream_mode, **options})


class GraphRun:
    """One run of a graph."""

    def __init__(
        self, runner: KitaruGraphRunner, request: LangGraphRunRequest, config: RunnableConfig | None, context: Any
    ) -> None:
        self.runner = runner
        self.request = request
        self.context = context
        self._given: Any = config or {}

    def _take(self, values: Mapping[str, Any]) -> None:
        """A replay wants another input."""
        self.request = replace(self.request, input=values["input"])

    def operation(self) -> Operation[LangGraphRunResult]:
        """The run as a checkpoint."""
        request, thread = self.request, self.request.thread
        inputs: dict[str, Any] = {}
        reads: dict[str, Sequence[str]] = {}
        if thread is None or request.input is not None:
            inputs["input"] = projected(request.input)
        if request.answers:
            inputs["answers"] = list(request.answers.values())
            reads["answers"] = request.waits
        if thread is not None:
            inputs["thread"] = [projected(step.checkpoint["channel_values"]) for step in thread.steps]
            reads["thread"] = [thread.run] if thread.run else []
        if self._given or self.context is not None:
            inputs["config"] = [_plain(self._given), projected(self.context)]
        return Operation(
            self.runner.name,
            "agent_run",
            inputs,
            encode=lambda result: Recorded((Part("output", result, preview=str(result.output)[:200]),)),
            decode=self._decoded,
            reads=reads,
            take=self._take,
            takes=("input",) if "input" in inputs else (),
            code=graph_code(self.runner.graph),
        )

    def _decoded(self, value: Any) -> LangGraphRunResult:
        """A recorded result; any other value, given as an override, as the output of one."""
        if isinstance(value, LangGraphRunResult):
            return value
        return LangGraphRunResult("completed", value, (), (), Thread("", ""), self.runner.name)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Prepares the run, and lets its calls belong to its thread: equal answers to one question are one action."""
        request, thread, frame = self.request, self.request.thread, current.get()
        own = frame.scope if frame is not None else uuid.uuid4().hex
        scope = self._scope(frame, own)
        configurable = dict(self._given.get("configurable") or {})
        configurable.pop("checkpoint_id", None)
        thread_id = thread.thread_id if thread is not None else configurable.get("thread_id") or own
        self.config: Any = {**self._given, "configurable": {**configurable, "thread_id": thread_id}}
        steps, finished = (thread.steps, [thread.run, *request.waits]) if thread is not None else ((), [])
        self.visit = Visit(scope, [call for call in finished if call])
        if self.goes_on and thread is not None:
            self.visit.resumed.extend(thread.interrupted)
            self.input: Any = Command(resume=dict(request.answers)) if request.answers else None
        else:
            self.input = with_ids(request.input, self.runner.graph, lambda n: digest(own, "message", str(n)))
        self.saver = ThreadSaver(Thread(thread_id, scope, steps, frame.call_id if frame is not None else ""))
        durable = durable_graph(self.runner.graph, self.runner.name, self.visit)
        self.graph: Any = durable.copy({"checkpointer": self.saver})
        with within(scope) if scope != own else nullcontext():
            yield

    @property
    def goes_on(self) -> bool:
        """Whether the run takes up an earlier one where it stopped."""
        return self.request.thread is not None and self.request.input is None

    def _scope(self, frame: Frame | None, own: str) -> str:
        thread = self.request.thread
        if frame is None or thread is None or not self.goes_on:
            return own
        token = frame.run.store.token(list(self.request.answers.values()))
        return digest(thread.scope, *(step.checkpoint["id"] for step in thread.steps), token or "?")

    async def result(self, output: Any) -> LangGraphRunResult:
        """What the run came to."""
        state: StateSnapshot = await self.graph.aget_state(self.config)
        if isinstance(output, Mapping):
            output = {key: value for key, value in output.items() if key != "__interrupt__"}
        interrupts = [LangGraphInterrupt(found.id, found.value) for found in state.interrupts]
        status: Literal["completed", "interrupted"] = "interrupted" if state.next else "completed"
        thread = replace(self.saver.saved(), interrupted=tuple(self.visit.interrupted))
        return LangGraphRunResult(status, output, interrupts, list(state.next), thread, self.runner.name)


@dataclass(frozen=True, slots=True)
class End:
    """The last event of a streamed run."""

    result: LangGraphRunResult


class GraphStream:
    """The chunks of a streamed run, and then its result."""

    def __init__(self, run: GraphRun, options: Mapping[str, Any]) -> None:
        self._run = run
        self._options = options
        self._result: LangGraphRunResult | None = None

    @property
    def result(self) -> LangGraphRunResult:
        """What the run came to. Raises `KitaruUsageError` before the chunks have been read to their end."""
        if self._result is None:
            raise KitaruUsageError(
                "The result of a stream was asked for before its end; expected after all chunks were read.",
                fix="async for chunk in stream: ...",
            )
        return self._result

    async def __aiter__(self) -> AsyncIterator[Any]:
        events = perform_stream(
            self._run.operation(),
            self._events,
            outcome=lambda events: events[-1].result,
            again=lambda result: [End(result)],
            last=lambda event: isinstance(event, End),
        )
        async for event in events:
            if isinstance(event, End):
                self._result = event.result
            else:
                yield event

    async def _events(self) -> AsyncIterator[Any]:
        run = self._run
        with run.scope():
            async for chunk in run.graph.astream(
                run.input, run.config, context=run.context, durability="exit", **self._options
            ):
                yield chunk
            state = await run.graph.aget_state(run.config)
            yield End(await run.result(state.values))


def wait_for_interrupts(
    result: LangGraphRunResult, *, schema: Any = Any, name: str | None = None, timeout: float | None = None
) -> LangGraphRunRequest:
    """Wait until somebody has answered each open question of a run; what to run next. At flow scope.

    One wait for each question, all asked at once.

    Args:
        schema: type of the answers; default: any JSON.
        name: of the wait; with several questions ``<name>:1``, ``<name>:2`` … Default: the runner's name.
        timeout: for how many seconds the worker polls before it lets go, as in `kitaru_nb.wait`.

    Raises:
        KitaruUsageError: the run isn't interrupted by a question.
        KitaruContextError: outside a flow, or inside a checkpoint.
    """
    return block_on(
        lambda: wait_for_interrupts_async(result, schema=schema, name=name, timeout=timeout),
        instead="await wait_for_interrupts_async(result)",
        only_waits=True,
    )


async def wait_for_interrupts_async(
    result: LangGraphRunResult,
    *,
    schema: Any = Any,
    name: str | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 (it ends the worker's polling, not this call)
) -> LangGraphRunRequest:
    """`wait_for_interrupts` for asynchronous flows."""
    require_frame("wait_for_interrupts()")
    _check_interrupted(result, "wait_for_interrupts()")
    if not result.interrupts:
        raise KitaruUsageError(
            f"The run stopped at a breakpoint before {', '.join(result.next)}; no question is open.",
            fix="runner.invoke(LangGraphRunRequest.resume(result))",
        )
    name = name or result.runner

    def question(number: int, interrupt: LangGraphInterrupt) -> Question:
        own = name if len(result.interrupts) == 1 else f"{name}:{number}"
        value = interrupt.value
        text = value if isinstance(value, str) else json.dumps(_plain(value), ensure_ascii=False)
        return Question(own, text, {"runner": result.runner, "next": list(result.next), "value": _plain(value)})

    questions = [question(number, interrupt) for number, interrupt in enumerate(result.interrupts, 1)]
    answers = await answered(questions, schema, timeout=timeout)
    given = {i.id: value for i, (value, _) in zip(result.interrupts, answers, strict=True)}
    return LangGraphRunRequest(None, given, result.thread, [source for _, source in answers])


def _check_interrupted(result: Any, what: str) -> None:
    if not isinstance(result, LangGraphRunResult):
        raise KitaruUsageError(
            f"{what} was given {type(result).__name__}; expected a LangGraphRunResult.",
            fix="result = runner.invoke(...)",
        )
    if result.status != "interrupted":
        raise KitaruUsageError(
            f"{what} was given a run that is {result.status}; expected an interrupted one.",
            fix='while result.status == "interrupted": ...',
        )


def _request(request: Any) -> LangGraphRunRequest:
    if isinstance(request, LangGraphRunRequest):
        return request
    if isinstance(request, LangGraphRunResult | Command):
        raise KitaruUsageError(
            f"invoke() was given a {type(request).__name__}; expected a LangGraphRunRequest, or the graph's input.",
            fix="runner.invoke(wait_for_interrupts(result))",
        )
    return LangGraphRunRequest.start(request)


def _plain(value: Any) -> Any:
    """Any value as JSON that people can read."""
    return json.loads(json.dumps(value, default=str))
