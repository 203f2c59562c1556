"""What all adapters share: a model call, a tool call or a whole agent run as a checkpoint of the running flow.

An adapter describes one `Operation` and performs it; outside a flow the body simply runs::

    answer = await perform_async(
        Operation("support.model", "model_call", {"messages": messages}, encode=pack, decode=unpack),
        lambda: client.create(messages=messages),
    )

Identity is the engine's: enclosing scope + name + ``identity`` + digests of the inputs + how many times that same call
came before. ``place`` says which one of its name it is on its agent's own line, so that a resumed run that asks for
something else there stops (`KitaruDivergenceError`) instead of paying or acting twice.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from kitaru_nb.core.context import Frame, current
from kitaru_nb.core.engine import Call, Input
from kitaru_nb.core.failures import recorded_failure
from kitaru_nb.core.function_work import parts_of, replace_inputs
from kitaru_nb.core.futures import background_loop, running_loop
from kitaru_nb.core.retry import Retry
from kitaru_nb.core.run import Run
from kitaru_nb.errors import KitaruTimeoutError, KitaruUsageError, KitaruUserCodeError, Paused
from kitaru_nb.model import Artifact, ArtifactKind, Event

T = TypeVar("T")
E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Part:
    """One value that an operation keeps, as an artifact of its checkpoint.

    ``preview`` is what lists show instead of the value's own beginning.
    """

    name: str
    value: Any
    kind: ArtifactKind = "output"
    preview: str | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What an operation keeps.

    Attributes:
        parts: the first is what a replay gets back, what ``load()`` reads and what an override replaces.
        metadata: JSON; ``model input_tokens output_tokens cost`` are summed up in reports.
    """

    parts: Sequence[Part]
    metadata: Mapping[str, Any] = field(default_factory=dict)


def output_only(value: Any) -> Recorded:
    """Keep the value itself and nothing else."""
    return Recorded((Part("output", value),))


@dataclass(slots=True)
class Operation(Generic[T]):
    """One unit of an agent's work.

    Attributes:
        name: how people select it: ``support.model``, ``search``.
        type: ``model_call``, ``tool_call``, ``mcp_call`` or ``agent_run``.
        inputs: what it depends on, readable, one entry for each thing that may differ (``instructions``, ``messages``,
            ``tools`` …). Never random or secret values.
        encode: outcome → what is kept. Runs where the operation ran, before its commit.
        decode: value of the first part, or of an override → outcome. What the live call returns must be equal to what
            this gives back, or a replay goes another way than the run that it repeats.
        identity: more identity, e.g. the SDK's id of a tool call.
        code: digest of the code behind it; a replay runs it again when that has changed, a resume doesn't ask.
        place: which call of ``name`` this is in the enclosing scope, counted from 0 in program order; None where calls
            have no order of their own (parallel tools). Asking twice for one place is one call.
        held: whether a resumed run that asks for something else at this place stops.
        shown: input name → what people see instead of that input; identity doesn't change.
        reads: input name → call ids whose outputs are in it, where they were built into a larger value.
        take: makes the body use other inputs, by name, as a replay may want; None: it can't. Where ``shown`` has one of
            these inputs, it brings that up to date.
        takes: the inputs that ``take`` takes, where they are others than a tool's ``arguments``. Kept with the call, so
            that a replay which wants anything else is refused before it begins.
        recall: part name → what takes that part's value when the operation isn't run, but found again.
        retry, timeout: as of `kitaru_nb.checkpoint`; ``timeout`` in seconds, for awaited operations.
    """

    name: str
    type: str
    inputs: Mapping[str, Any]
    encode: Callable[[T], Recorded] = output_only
    decode: Callable[[Any], T] = lambda value: value
    identity: str | None = None
    code: str | None = None
    place: int | None = None
    held: bool = True
    shown: Mapping[str, Any] = field(default_factory=dict)
    reads: Mapping[str, Sequence[str]] = field(default_factory=dict)
    take: Callable[[Mapping[str, Any]], None] | None = None
    takes: Sequence[str] = ()
    recall: Mapping[str, Callable[[Any], None]] = field(default_factory=dict)
    retry: Retry = field(default_factory=Retry)
    timeout: float | None = None
    call_id: str | None = None


def in_flow() -> bool:
    """Whether the calling code runs inside an execution, so that operations are recorded."""
    return current.get() is not None


def perform(operation: Operation[T], body: Callable[[], T]) -> T:
    """Run ``body`` once in the life of the execution; afterwards give back what it recorded."""
    frame = current.get()
    if frame is None:
        return body()
    value: T = frame.run.call(_call(frame, operation, _OperationWork(operation, body=body)))
    return value


async def perform_async(operation: Operation[T], body: Callable[[], Awaitable[T]]) -> T:
    """`perform` for an awaited body."""
    frame = current.get()
    if frame is None:
        return await body()
    value: T = await frame.run.call_async(_call(frame, operation, _OperationWork(operation, body_async=body)))
    return value


async def perform_stream(
    operation: Operation[T],
    source: Callable[[], AsyncIterator[E]],
    *,
    outcome: Callable[[Sequence[E]], T],
    again: Callable[[T], Sequence[E]],
    last: Callable[[E], bool],
) -> AsyncIterator[E]:
    """Events of a streamed operation as they come; from the record when it has completed before.

    The operation is committed before the event for which ``last`` is true is handed on. Whoever stops reading earlier
    closes the iterator; then nothing is recorded.

    Args:
        outcome: all events → outcome.
        again: recorded outcome → the events to show on replay (a single final one may do).
    """
    if not in_flow():
        async for event in source():
            yield event
        return
    live: asyncio.Queue[E] = asyncio.Queue()
    events: list[E] = []
    held: list[E] = []

    async def body() -> T:
        events.clear()
        held.clear()
        async for event in source():
            events.append(event)
            if held or last(event):
                held.append(event)
            else:
                live.put_nowait(event)
        return outcome(events)

    task = asyncio.ensure_future(perform_async(operation, body))
    try:
        while not task.done() or not live.empty():
            getter = asyncio.ensure_future(live.get())
            try:
                await asyncio.wait((getter, task), return_when=asyncio.FIRST_COMPLETED)
                if getter.done():
                    yield getter.result()
            finally:
                getter.cancel()
        value = task.result()
        for event in held if events else again(value):
            yield event
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))


def next_place(name: str) -> int | None:
    """Which operation of ``name`` is made now on the main line of its flow or checkpoint; None beside it. For those
    that are performed in tasks of their own, which have no line."""
    frame = current.get()
    if frame is None or not frame.strict or not frame.on_main_line():
        return None
    with frame.run.engine.lock:
        place = frame.places[name]
        frame.places[name] = place + 1
    return place


@contextmanager
def scoped(key: str) -> Iterator[None]:
    """Operations inside get a scope of their own: those of one nested agent aren't mixed up with another's.

    Not a checkpoint: it runs each time. Two scopes of one key are told apart by their order.
    """
    frame = current.get()
    if frame is None:
        yield
        return
    scope, _ = frame.run.engine.identify(frame, f"scope:{key}", ())
    with within(scope):
        yield


@contextmanager
def within(scope: str) -> Iterator[None]:
    """Operations inside belong to exactly this scope, whoever else uses it: equal ones are the same call.

    For what must happen once although it is asked for in several places, as an approved action that is resumed twice.
    """
    frame = current.get()
    if frame is None:
        yield
        return
    inner = Frame(frame.run, frame.call_id, scope, frame.name, strict=frame.strict, attempt=frame.attempt)
    inner.metadata = frame.metadata
    token = current.set(inner)
    try:
        yield
    finally:
        current.reset(token)


def block_on(make: Callable[[], Coroutine[Any, Any, T]], *, instead: str, only_waits: bool = False) -> T:
    """Run a coroutine from synchronous code, whether or not a loop runs in this thread, with its context variables.

    All go to one loop on a thread of its own, because clients and locks stay bound to the loop that first used them.
    An interrupt of the calling thread cancels the coroutine. It takes the caller's place on the main line of the flow.

    Args:
        only_waits: the coroutine does nothing but wait for answers, so that the worker may let go meanwhile.
        instead: what to type where this can't work: code that already runs on that loop.

    Raises:
        KitaruUsageError: called on the loop that would have to run the coroutine.
    """
    loop = background_loop()
    if running_loop() is loop:
        raise KitaruUsageError("A blocking call was made in asynchronous code that it would block.", fix=instead)
    context = copy_context()
    frame = current.get()
    line = frame.line if frame is not None and frame.on_main_line() else None

    async def there() -> T:
        task: asyncio.Task[T] = loop.create_task(make(), context=context)
        if frame is None or line is None:
            return await task
        frame.line = (threading.get_ident(), id(task))
        try:
            return await task
        finally:
            frame.line = line

    if frame is None:
        return _result(asyncio.run_coroutine_threadsafe(there(), loop))
    with frame.run.runtime_code():
        if only_waits:
            return _result(asyncio.run_coroutine_threadsafe(there(), loop))
        future: Future[T] = frame.run.submitted.on_loop(there(), loop)
        return _result(future)


def _result(future: Future[T]) -> T:
    try:
        return future.result()
    except CancelledError as error:
        raise Paused("a blocking call was interrupted") from error
    except BaseException:
        future.cancel()
        raise


def _call(frame: Frame, operation: Operation[T], work: _OperationWork[T]) -> Call:
    run = frame.run
    token = run.store.token
    shown = operation.shown
    inputs = [
        Input(name, shown.get(name, value), token(value), parts_of(value, token))
        for name, value in operation.inputs.items()
    ]
    call_id, place = _identify(frame, operation, inputs)
    operation.call_id = call_id
    call = Call(
        call_id,
        operation.name,
        work,
        frame,
        inputs,
        operation.retry,
        operation.type,
        call_id,
        place,
        operation.code,
        cache_key=None,
    )
    if operation.reads:
        traced = run.engine.trace(inputs)
        call.sources = [
            list(dict.fromkeys([*found, *operation.reads.get(given.name, ())]))
            for given, found in zip(inputs, traced, strict=True)
        ]
    return call


def _identify(frame: Frame, operation: Operation[T], inputs: Sequence[Input]) -> tuple[str, int | None]:
    """(call id, place that a resumed run is held to, or None)."""
    engine = frame.run.engine
    if operation.place is None:
        return engine.identify(frame, operation.name, inputs, operation.identity)
    uncounted = Frame(frame.run, frame.call_id, frame.scope, strict=False)
    explicit = f"{operation.identity or ''}@{operation.place}"
    call_id, _ = engine.identify(uncounted, operation.name, inputs, explicit)
    return call_id, operation.place if frame.strict and operation.held else None


class _OperationWork(Generic[T]):
    """An operation as the engine's work."""

    __slots__ = ("body", "body_async", "operation")

    def __init__(
        self,
        operation: Operation[T],
        *,
        body: Callable[[], T] | None = None,
        body_async: Callable[[], Awaitable[T]] | None = None,
    ) -> None:
        self.operation = operation
        self.body = body
        self.body_async = body_async

    @contextmanager
    def _around(self, call: Call, attempt: int) -> Iterator[None]:
        outer = call.frame
        frame = Frame(outer.run, call.call_id, call.scope, call.name, strict=outer.strict, attempt=attempt)
        call.inside = frame
        token = current.set(frame)
        try:
            yield
        finally:
            current.reset(token)

    def invoke(self, call: Call, attempt: int) -> T:
        """Run the body in a frame of its own."""
        assert self.body is not None
        with self._around(call, attempt):
            return self.body()

    async def invoke_async(self, call: Call, attempt: int) -> T:
        """Await the body in a frame of its own."""
        assert self.body_async is not None
        with self._around(call, attempt):
            try:
                async with asyncio.timeout(self.operation.timeout) as limit:
                    return await self.body_async()
            except TimeoutError as error:
                if not limit.expired():
                    raise
                raise KitaruTimeoutError(
                    f"{call.name!r} took longer than its timeout of {self.operation.timeout:g} s.",
                    fix="give it more seconds, or retries",
                ) from error

    def with_arguments(self, call: Call, values: Mapping[str, Any]) -> None:
        """A replay runs the call with other inputs."""
        if self.operation.take is None:
            raise KitaruUsageError(
                f"{call.name!r} can't run with other arguments.", fix=f"overrides={{'checkpoint.{call.name}': value}}"
            )
        self.operation.take(values)
        replace_inputs(call, values)
        for given in call.inputs:
            if given.name in values:
                given.value = self.operation.shown.get(given.name, given.value)

    def outputs(self, run: Run, call: Call, value: T) -> tuple[list[Artifact], Mapping[str, Any]]:
        """The parts as artifacts, and the metadata."""
        recorded = self.operation.encode(value)
        artifacts = [self._write(run, call, part) for part in recorded.parts]
        metadata = dict(recorded.metadata)
        if call.inside is not None:
            metadata = call.inside.metadata | metadata
        more: dict[str, Any] = {"metadata": metadata} if metadata else {}
        return artifacts, more | ({"takes": list(self.operation.takes)} if self.operation.takes else {})

    def _write(self, run: Run, call: Call, part: Part) -> Artifact:
        artifact = run.store.write(
            part.value,
            name=part.name,
            kind=part.kind,
            artifact_id=f"{run.exec_id}/{call.call_id}/{part.name}",
            exec_id=run.exec_id,
            producing_call=call.call_id,
        )
        return artifact if part.preview is None else replace(artifact, preview={"text": part.preview})

    def restore(self, run: Run, call: Call, artifacts: Sequence[Artifact], event: Event) -> T:
        """The outcome again."""
        if self.operation.recall:
            for artifact in artifacts[1:]:
                if (take := self.operation.recall.get(artifact.name)) is not None:
                    take(run.store.read(artifact))
        return self.operation.decode(run.store.read(artifacts[0]))

    def recorded_failure(self, event: Event) -> BaseException:
        """The exception that ended the last attempt; one with its very text where it can't be loaded.

        What an agent was told of a failure is in its next request, so the text must be the same on every resume.
        """
        if event.blob is None:
            return KitaruUserCodeError(event.body["failure"]["message"])
        return recorded_failure(event, trusted=True)
