"""``@checkpoint``: a function whose result is persisted, so that it never runs twice in one execution."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextvars import copy_context
from enum import Enum
from typing import Any, Generic, ParamSpec, TypeVar, overload

from kitaru_nb.artifacts.store import ArtifactStore
from kitaru_nb.cells.keys import function_code
from kitaru_nb.cells.tokens import UNAVAILABLE
from kitaru_nb.core.context import Frame, current, here
from kitaru_nb.core.engine import Call, Input, digest
from kitaru_nb.core.futures import CheckpointFuture, Futures, background_loop, pending, resolve, running_loop
from kitaru_nb.core.retry import Retry, as_retry
from kitaru_nb.core.run import Run, recorded_failure
from kitaru_nb.errors import KitaruFeatureNotAvailableError, KitaruTimeoutError, KitaruUsageError
from kitaru_nb.journal.fold import Outputs
from kitaru_nb.model import Artifact, Event

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_CONSTANTS = (str, bytes, int, float, complex, bool, type(None), tuple, frozenset, Enum)

_OPTIONS = ("name", "type", "retries", "timeout", "cache", "runtime")

#: Tokens of the parts of bigger containers aren't looked up for lineage.
MAX_PARTS = 100


class Checkpoint(Generic[P, R]):
    """A durable function. Call it inside a flow like the plain function; outside one it is the plain function.

    Attributes:
        name: how the checkpoint is called in selectors; the function's name by default.
        retry: policy for failed attempts.
        timeout: seconds that one attempt may take, or None.
        cache: whether executions may reuse each other's results for equal code and inputs.
        type: free label that people see, e.g. ``model_call``.
    """

    def __init__(
        self,
        func: Callable[P, R],
        *,
        name: str | None = None,
        type: str | None = None,
        retries: int | Retry | None = None,
        timeout: float | None = None,
        cache: bool | None = None,
        runtime: str | None = None,
    ) -> None:
        if not callable(func):
            raise KitaruUsageError(
                f"@checkpoint was given {func!r}, which can't be called; expected a function.",
                fix="@checkpoint\ndef research(topic: str) -> str: ...",
            )
        if timeout is not None and timeout <= 0:
            raise KitaruUsageError(
                f"timeout={timeout!r} can't be: expected seconds > 0.", fix="@checkpoint(timeout=30)"
            )
        if runtime not in (None, "inline"):
            raise KitaruFeatureNotAvailableError(
                f"runtime={runtime!r} is not offered; a checkpoint runs in its flow's process ('inline').",
                fix="@checkpoint, without runtime=",
            )
        functools.update_wrapper(self, func)
        self.func = func
        self.name: str = name or getattr(func, "__name__", None) or type or "checkpoint"
        self.type = type
        self.retry = as_retry(retries)
        self.timeout = timeout
        self.cache = cache
        self.runtime = runtime
        self.is_async = inspect.iscoroutinefunction(func)
        self._signature = inspect.signature(func)
        parameters = list(self._signature.parameters.values())
        plain = all(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
        self._names = tuple(p.name for p in parameters) if plain else None
        self._code: str | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        frame = current.get()
        if frame is None:
            return self.func(*args, **kwargs)
        return self._call_in(frame, args, kwargs)  # type: ignore[no-any-return]

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        call: Callable[..., Any] = self
        return self if instance is None else functools.partial(call, instance)

    def __repr__(self) -> str:
        return f"<checkpoint {self.name}>"

    def __getstate__(self) -> dict[str, Any]:
        # Where the source can't be read any more (another process), the code digest travels along.
        return self.__dict__ | {"_code": self.code}

    def with_options(self, **options: Any) -> Checkpoint[P, R]:
        """The same function with other options (``name retries timeout cache type``)."""
        mine: dict[str, Any] = {"name": self.name, "type": self.type, "retries": self.retry, "timeout": self.timeout}
        mine |= {"cache": self.cache, "runtime": self.runtime}
        _check_options(options)
        changed = Checkpoint(self.func, **(mine | options))
        changed._code = self._code
        return changed

    @property
    def code(self) -> str:
        """Digest of the function's code, and of the functions and constants that it refers to.

        Global data that can change in place (a counter, a client, a cache) doesn't count: it is state, not code.
        """
        return self._code or function_code(self.func, _constant_token)

    @overload
    def submit(self: Checkpoint[P, Coroutine[Any, Any, T]], *args: Any, **kwargs: Any) -> CheckpointFuture[T]: ...

    @overload
    def submit(self, *args: Any, **kwargs: Any) -> CheckpointFuture[R]: ...

    def submit(self, *args: Any, **kwargs: Any) -> CheckpointFuture[Any]:
        """Start the call on another thread (or, for an async checkpoint, task); its future.

        Futures among the arguments are waited for there, not here.
        """
        frame = current.get()
        if frame is None:
            return CheckpointFuture.of(functools.partial(self.func, *args, **kwargs), self.is_async)
        future: CheckpointFuture[Any] = CheckpointFuture()
        call = None
        if not any(_pending(args, kwargs)):
            call = self._prepare(frame, args, kwargs, on_line=False)
            future.call_id = call.call_id
        submitted, loop = frame.run.submitted, running_loop()
        if not self.is_async:
            future.work = submitted.on_thread(functools.partial(self._perform, frame, args, kwargs, call, future))
        elif loop is not None:
            future.task = submitted.as_task(self._perform_async(frame, args, kwargs, call, future), loop)
        else:
            coroutine = self._perform_async(frame, args, kwargs, call, future)
            future.future = submitted.on_loop(coroutine, background_loop())
        return future

    def _perform(
        self,
        frame: Frame,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        call: Call | None,
        future: CheckpointFuture[Any],
    ) -> Any:
        call = call or self._prepare(frame, args, kwargs, on_line=False)
        future.call_id = call.call_id
        return frame.run.call(call)

    async def _perform_async(
        self,
        frame: Frame,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        call: Call | None,
        future: CheckpointFuture[Any],
    ) -> Any:
        for waited in _pending(args, kwargs):
            await waited
        call = call or self._prepare(frame, args, kwargs, on_line=False)
        future.call_id = call.call_id
        return await frame.run.call_async(call)

    @overload
    def map(self: Checkpoint[P, Coroutine[Any, Any, T]], *iterables: Iterable[Any], **kwargs: Any) -> Futures[T]: ...

    @overload
    def map(self, *iterables: Iterable[Any], **kwargs: Any) -> Futures[R]: ...

    def map(self, *iterables: Iterable[Any], **kwargs: Any) -> Futures[Any]:
        """One call for each item (for several iterables: for each tuple of them, of equal length); their futures.

        Raises:
            KitaruUsageError: iterables of different lengths.
        """
        columns = [list(resolve(column)) for column in iterables]
        if len({len(c) for c in columns}) > 1:
            raise KitaruUsageError(
                f"{self.name}.map got iterables of {', '.join(str(len(c)) for c in columns)} items; expected equal "
                "lengths.",
                fix=f"{self.name}.product(...) for every combination",
            )
        return Futures(self.submit(*row, **kwargs) for row in zip(*columns, strict=True))

    @overload
    def product(
        self: Checkpoint[P, Coroutine[Any, Any, T]], *iterables: Iterable[Any], **kwargs: Any
    ) -> Futures[T]: ...

    @overload
    def product(self, *iterables: Iterable[Any], **kwargs: Any) -> Futures[R]: ...

    def product(self, *iterables: Iterable[Any], **kwargs: Any) -> Futures[Any]:
        """One call for each combination of items; their futures, the last iterable varying fastest."""
        rows: list[tuple[Any, ...]] = [()]
        for column in iterables:
            items = list(resolve(column))
            rows = [(*row, item) for row in rows for item in items]
        return Futures(self.submit(*row, **kwargs) for row in rows)

    def _call_in(self, frame: Frame, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if self.is_async:
            return self._call_async(frame, args, kwargs)
        return frame.run.call(self._prepare(frame, args, kwargs))

    async def _call_async(self, frame: Frame, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """An awaited call. It gets its place here, in the task that awaits it: gathered calls have no fixed order."""
        for future in _pending(args, kwargs):
            await future
        return await frame.run.call_async(self._prepare(frame, args, kwargs))

    def _prepare(self, frame: Frame, args: Sequence[Any], kwargs: Mapping[str, Any], *, on_line: bool = True) -> Call:
        run = frame.run
        explicit = None
        after: tuple[str, ...] = ()
        if kwargs:
            kwargs = dict(kwargs)
            explicit = self._own(kwargs, "id")
            after = _ended(self._own(kwargs, "after"))
        token = run.store.token
        inputs = []
        for name, value in self._bind(args, kwargs):
            value = resolve(value)
            inputs.append(Input(name, value, token(value), parts_of(value, token)))
        call_id, place = run.engine.identify(frame, self.name, inputs, explicit)
        code: str | None = None
        cache_key: str | None = None
        if call_id not in run.engine.completed:  # what is recorded needs neither
            code = self.code
            if run.cache if self.cache is None else self.cache:
                cache_key = self._cache_key(inputs)
        work = FunctionWork(self, run)
        place = place if on_line else None
        return Call(
            call_id, self.name, work, frame, inputs, self.retry, self.type, call_id, place, code, cache_key, after=after
        )

    def _cache_key(self, inputs: Sequence[Input]) -> str | None:
        """Content key of a call, or None when an input or the code can't be told exactly."""
        code = function_code(self.func, _token)
        if code.startswith(UNAVAILABLE) or not all(i.token for i in inputs):
            return None
        return digest(self.name, code, *[f"{i.name}={i.token}" for i in inputs])

    def _own(self, kwargs: dict[str, Any], name: str) -> Any:
        """An option of the call itself (``id=``, ``after=``), unless the function has such a parameter."""
        return None if name in self._signature.parameters else kwargs.pop(name, None)

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
        if self._names is not None and not kwargs and len(args) == len(self._names):
            return zip(self._names, args, strict=True)
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments.items()


class FunctionWork:
    """A call of a function: one output, the value that it returned."""

    __slots__ = ("checkpoint", "run")

    def __init__(self, checkpoint: Checkpoint[..., Any], run: Run) -> None:
        self.checkpoint = checkpoint
        self.run = run

    def arguments(self, call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call's inputs as they are given to the function."""
        if self.checkpoint._names is not None:
            return tuple(i.value for i in call.inputs), {}
        bound = inspect.BoundArguments(self.checkpoint._signature, {i.name: i.value for i in call.inputs})
        return bound.args, bound.kwargs

    def invoke(self, call: Call, attempt: int) -> Any:
        """Run the function in a frame of its own."""
        args, kwargs = self.arguments(call)
        frame = Frame(call.frame.run, call.call_id, call.scope, call.name, attempt=attempt)
        call.inside = frame
        token = current.set(frame)
        try:
            if self.checkpoint.timeout is not None:
                return with_timeout(self, frame, args, kwargs)
            return self.checkpoint.func(*args, **kwargs)
        finally:
            current.reset(token)

    async def invoke_async(self, call: Call, attempt: int) -> Any:
        """Await the function in a frame of its own."""
        args, kwargs = self.arguments(call)
        frame = Frame(call.frame.run, call.call_id, call.scope, call.name, attempt=attempt)
        call.inside = frame
        token = current.set(frame)
        try:
            coroutine: Any = self.checkpoint.func(*args, **kwargs)
            if self.checkpoint.timeout is None:
                return await coroutine
            try:
                async with asyncio.timeout(self.checkpoint.timeout) as limit:
                    return await coroutine
            except TimeoutError as error:
                if limit.expired():
                    raise too_long(self.checkpoint) from error
                raise
        finally:
            current.reset(token)

    def with_arguments(self, call: Call, values: Mapping[str, Any]) -> None:
        """The function is called with these values of its parameters."""
        replace_inputs(call, values)

    def outputs(self, run: Run, call: Call, value: Any) -> tuple[list[Artifact], Mapping[str, Any]]:
        """The returned value as one artifact, and the metadata that the body logged."""
        if inspect.iscoroutine(value):
            value.close()
        artifact = run.store.write(
            value,
            name=call.name,
            kind="output",
            artifact_id=f"{run.exec_id}/{call.call_id}/{call.name}",
            exec_id=run.exec_id,
            producing_call=call.call_id,
        )
        metadata = call.inside.metadata if call.inside is not None else None
        return [artifact], {"metadata": metadata} if metadata else {}

    def restore(self, run: Run, call: Call, artifacts: Sequence[Artifact], event: Event) -> Any:
        """The value that was returned."""
        if isinstance(artifacts, Outputs) and (found := artifacts.inline(0)) is not None:
            return run.store.read_inline(*found, artifact=lambda: artifacts[0])
        return run.store.read(artifacts[0])

    def recorded_failure(self, event: Event) -> Exception:
        """The exception that ended the last attempt."""
        return recorded_failure(event, trusted=self.run.runtime.settings.trust_pickle)


def parts_of(value: Any, token: Callable[[Any], str | None]) -> Sequence[str]:
    """Tokens of the items of a small list, tuple or dict: values that were put together keep their lineage."""
    kind = type(value)
    if kind is dict:
        items: Iterable[Any] = value.values()
    elif kind is list or kind is tuple:
        items = value
    else:
        return ()
    if len(value) > MAX_PARTS:
        return ()
    return [t for t in map(token, items) if t is not None]


def replace_inputs(call: Call, values: Mapping[str, Any]) -> None:
    """Give ``call`` these values of its inputs. They come from the replay, so from no other call."""
    run = call.frame.run
    token, sources = run.store.token, call.sources or run.engine.trace(call.inputs)
    call.sources = [[] if i.name in values else known for i, known in zip(call.inputs, sources, strict=True)]
    given = [(i, values[i.name]) if i.name in values else (i, None) for i in call.inputs]
    call.inputs = [
        Input(i.name, value, token(value), parts_of(value, token)) if i.name in values else i for i, value in given
    ]
    call.overridden = tuple(i.name for i in call.inputs if i.name in values)


def with_timeout(work: FunctionWork, frame: Frame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the function on a thread of its own; when the time is over, tell that thread to end and go on without it."""
    checkpoint, user_code = work.checkpoint, work.run.user_code
    outcome: dict[str, Any] = {}

    def target() -> None:
        frame.line = here()
        try:
            user_code.enter()
            outcome["value"] = checkpoint.func(*args, **kwargs)
        except BaseException as error:
            outcome["error"] = error
        finally:
            user_code.ended()

    thread = threading.Thread(target=copy_context().run, args=(target,), name=f"{checkpoint.name}-timeout", daemon=True)
    with work.run.runtime_code():  # see Submitted.on_thread
        thread.start()
    thread.join(checkpoint.timeout)
    if thread.is_alive() and not outcome:
        # Takes effect at the thread's next bytecode; a call that blocks inside C ends when it returns.
        user_code.end(thread.ident or 0)
        raise too_long(checkpoint)
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


def too_long(checkpoint: Checkpoint[..., Any]) -> KitaruTimeoutError:
    """The error of an attempt that took longer than allowed."""
    return KitaruTimeoutError(
        f"Checkpoint {checkpoint.name!r} took longer than its timeout of {checkpoint.timeout:g} s.",
        fix="@checkpoint(timeout=...) with more seconds, or retries=",
    )


def _pending(args: Iterable[Any], kwargs: Mapping[str, Any]) -> Iterator[CheckpointFuture[Any]]:
    """The futures among the arguments of a call."""
    for value in (*args, *kwargs.values()):
        yield from pending(value)


def _ended(after: Any) -> tuple[str, ...]:
    """Wait for the futures in ``after=``; ids of their calls. Values in it are there already."""
    futures = list(pending([after] if isinstance(after, CheckpointFuture) else after))
    for future in futures:
        future.result()
    return tuple(future.call_id for future in futures if future.call_id)


def _constant_token(value: object) -> str | None:
    """A constant that a function refers to, as a token. Containers that can change in place are state, all alike;
    only the functions and tools that they hold are looked at (None: look inside)."""
    if isinstance(value, _CONSTANTS):
        return _token(value)
    if isinstance(value, list | set | dict | bytearray | deque):
        items = value.values() if isinstance(value, dict) else value
        return None if any(callable(item) for item in items) else f"state:{type(value).__name__}"
    return None


def _token(value: object) -> str | None:
    """Data that a function refers to, as a token (None: not identifiable)."""
    return _tokens().token(value)


@functools.lru_cache(maxsize=1)
def _tokens() -> ArtifactStore:
    """Any store: a token doesn't depend on where values are kept."""
    return ArtifactStore("tokens")


@overload
def checkpoint(func: Callable[P, R], /) -> Checkpoint[P, R]: ...


@overload
def checkpoint(
    *,
    name: str | None = None,
    type: str | None = None,
    retries: int | Retry | None = None,
    timeout: float | None = None,
    cache: bool | None = None,
    runtime: str | None = None,
) -> Callable[[Callable[P, R]], Checkpoint[P, R]]: ...


def checkpoint(func: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a durable unit of work; as ``@checkpoint`` or ``@checkpoint(retries=2, timeout=30)``.

    Inside a flow each call is recorded with its typed result. When the execution is resumed, a completed call returns
    what it recorded; a call that did not complete runs again.

    Args:
        name: how it is called in selectors; default: the function's name.
        type: free label, e.g. ``model_call``.
        retries: how often a failed attempt is tried again, or a `Retry` policy.
        timeout: seconds that one attempt may take.
        cache: reuse results of other executions for equal code and inputs.
        runtime: ``inline`` (default).

    Raises:
        KitaruUsageError: an option that can't be.
    """
    _check_options(options)
    if func is None:
        return lambda function: Checkpoint(function, **options)
    return Checkpoint(func, **options)


def _check_options(options: Mapping[str, Any]) -> None:
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise KitaruUsageError(
            f"{unknown[0]!r} is no option of a checkpoint. Options are: {', '.join(_OPTIONS)}.",
            fix="@checkpoint(retries=2, timeout=30)",
        )
