"""``@checkpoint``: a function whose result is persisted, so that it never runs twice in one execution."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections import deque
from contextvars import copy_context
from enum import Enum
from typing import Any, Generic, ParamSpec, TypeVar, overload

from kitaru_nb.cells.keys import function_code
from kitaru_nb.core.context import Frame, current, running_loop
from kitaru_nb.core.engine import Call, Input, digest
from kitaru_nb.core.futures import CheckpointFuture, Futures, background_loop, resolve
from kitaru_nb.core.retry import Retry, as_retry
from kitaru_nb.core.run import Run, recorded_failure
from kitaru_nb.core.runtime import default_runtime
from kitaru_nb.errors import KitaruTimeoutError, KitaruUsageError
from kitaru_nb.model import Artifact, Event

P = ParamSpec("P")
R = TypeVar("R")

_CONSTANTS = (str, bytes, int, float, complex, bool, type(None), tuple, frozenset, Enum)

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
            raise KitaruUsageError(f"timeout={timeout!r} can't be: expected seconds > 0.", fix="@checkpoint(timeout=30)")
        functools.update_wrapper(self, func)
        self.func = func
        self.name = name or getattr(func, "__name__", type or "checkpoint")
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
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self) -> str:
        return f"<checkpoint {self.name}>"

    def __getstate__(self) -> dict[str, Any]:
        # Where the source can't be read any more (another process), the code digest travels along.
        return self.__dict__ | {"_code": self.code}

    def with_options(self, **options: Any) -> Checkpoint[P, R]:
        """The same function with other options (``name retries timeout cache type``)."""
        known = {"name": self.name, "type": self.type, "retries": self.retry, "timeout": self.timeout}
        known |= {"cache": self.cache, "runtime": self.runtime}
        if unknown := sorted(set(options) - set(known)):
            raise KitaruUsageError(f"{unknown[0]!r} is no option of a checkpoint. Options are: {', '.join(known)}.")
        return Checkpoint(self.func, **(known | options))

    @property
    def code(self) -> str:
        """Digest of the function's code, and of the functions and constants that it refers to.

        Global data that can change in place (a counter, a client, a cache) doesn't count: it is state, not code.
        """
        return self._code or function_code(self.func, _constant_token)

    def submit(self, *args: Any, **kwargs: Any) -> CheckpointFuture[R]:
        """Start the call on another thread (or, for an async checkpoint, task); its future."""
        frame = current.get()
        if frame is None:
            return CheckpointFuture.of(functools.partial(self.func, *args, **kwargs), self.is_async)
        call = self._prepare(frame, args, kwargs, on_line=False)
        run = frame.run
        if not self.is_async:
            context = copy_context()
            return CheckpointFuture(run.executor.submit(context.run, run.call, call))
        loop = running_loop()
        if loop is not None:
            return CheckpointFuture(task=loop.create_task(run.call_async(call)))
        return CheckpointFuture(asyncio.run_coroutine_threadsafe(run.call_async(call), background_loop()))

    def map(self, *iterables: Iterable[Any], **kwargs: Any) -> Futures[R]:
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

    def product(self, *iterables: Iterable[Any], **kwargs: Any) -> Futures[R]:
        """One call for each combination of items; their futures, the last iterable varying fastest."""
        rows: list[tuple[Any, ...]] = [()]
        for column in iterables:
            items = list(resolve(column))
            rows = [(*row, item) for row in rows for item in items]
        return Futures(self.submit(*row, **kwargs) for row in rows)

    def _call_in(self, frame: Frame, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        call = self._prepare(frame, args, kwargs)
        if self.is_async:
            return frame.run.call_async(call)
        return frame.run.call(call)

    def _prepare(self, frame: Frame, args: Sequence[Any], kwargs: Mapping[str, Any], *, on_line: bool = True) -> Call:
        run = frame.run
        explicit = None
        after: tuple[str, ...] = ()
        if kwargs:
            kwargs = dict(kwargs)
            explicit = self._own(kwargs, "id")
            after = tuple(f.call_id for f in self._own(kwargs, "after") or () if f.call_id)
        values = self._bind(args, kwargs)
        token = run.store.token
        inputs = []
        for name, value in values:
            if isinstance(value, CheckpointFuture | Futures):
                value = resolve(value)
            inputs.append(Input(name, value, token(value), parts_of(value, token)))
        call_id, place = run.engine.identify(frame, self.name, inputs, explicit)
        if not on_line:
            place = None
        code: str | None = None
        cache_key: str | None = None
        if call_id not in run.engine.completed:  # what is recorded needs neither
            code = self.code
            if (run.cache if self.cache is None else self.cache) and all(i.token for i in inputs):
                tokens = [f"{i.name}={i.token}" for i in inputs]
                cache_key = digest(self.name, function_code(self.func, _token), *tokens)
        work = FunctionWork(self, run)
        return Call(
            call_id, self.name, work, frame, inputs, self.retry, self.type, call_id, place, code, cache_key, after=after
        )

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
        bound = inspect.BoundArguments(self.checkpoint._signature, {i.name: i.value for i in call.inputs})  # type: ignore[arg-type]
        return bound.args, bound.kwargs

    def invoke(self, call: Call, attempt: int) -> Any:
        """Run the function in a frame of its own."""
        args, kwargs = self.arguments(call)
        frame = Frame(call.frame.run, call.call_id, call.scope, call.name, attempt=attempt)
        call.inside = frame
        token = current.set(frame)
        try:
            if self.checkpoint.timeout is not None:
                return with_timeout(self.checkpoint, args, kwargs)
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


def with_timeout(checkpoint: Checkpoint[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the function on a thread of its own; when the time is over, tell that thread to stop and go on without it."""
    outcome: dict[str, Any] = {}

    def target() -> None:
        try:
            outcome["value"] = checkpoint.func(*args, **kwargs)
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=copy_context().run, args=(target,), name=f"{checkpoint.name}-timeout", daemon=True)
    thread.start()
    thread.join(checkpoint.timeout)
    if thread.is_alive():
        # Takes effect at the thread's next bytecode; a call that blocks inside C ends when it returns.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
        raise too_long(checkpoint)
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


def too_long(checkpoint: Checkpoint[..., Any]) -> KitaruTimeoutError:
    """The error of an attempt that took longer than allowed."""
    return KitaruTimeoutError(
        f"Checkpoint {checkpoint.name!r} took longer than its timeout of {checkpoint.timeout:g} s.",
        fix="@checkpoint(timeout=...) with more seconds, or retries=",
    )


def _constant_token(value: object) -> str | None:
    """A constant that a function refers to, as a token. Containers that can change in place are state, all alike;
    only the functions and tools that they hold are looked at (None: look inside)."""
    if isinstance(value, _CONSTANTS):
        return default_runtime().store.token(value)
    if isinstance(value, list | set | dict | bytearray | deque):
        items = value.values() if isinstance(value, dict) else value
        return None if any(callable(item) for item in items) else f"state:{type(value).__name__}"
    return None


def _token(value: object) -> str | None:
    """Data that a function refers to, as a token (None: not identifiable)."""
    return default_runtime().store.token(value)


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
    if func is None:
        return lambda function: Checkpoint(function, **options)
    return Checkpoint(func, **options)
