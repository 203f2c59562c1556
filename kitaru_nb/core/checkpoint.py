"""``@checkpoint``: a function whose result is persisted, so that it never runs twice in one execution."""

from __future__ import annotations

import functools
import inspect
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, SupportsIndex, TypeVar, overload

from kitaru_nb.artifacts.store import ArtifactStore
from kitaru_nb.cells.keys import function_code
from kitaru_nb.cells.tokens import UNAVAILABLE
from kitaru_nb.core.context import Frame, current
from kitaru_nb.core.elsewhere_work import ElsewhereWork, ExecutorWork, IsolatedWork
from kitaru_nb.core.engine import Call, Input, digest
from kitaru_nb.core.function_work import FunctionWork, parts_of
from kitaru_nb.core.futures import CheckpointFuture, Futures, background_loop, pending, resolve, running_loop
from kitaru_nb.core.orders import parsing
from kitaru_nb.core.retry import Retry, as_retry
from kitaru_nb.errors import KitaruUsageError

if TYPE_CHECKING:
    from kitaru_nb.core.run import Run

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_CONSTANTS = (str, bytes, int, float, complex, bool, type(None), tuple, frozenset, Enum)

_OPTIONS = ("name", "type", "retries", "timeout", "cache", "runtime", "resources")
_ATTRIBUTES = tuple("retry" if option == "retries" else option for option in _OPTIONS)
_RUNTIMES = ("inline", "isolated")
_RESOURCES = ("cpu", "memory")


class Checkpoint(Generic[P, R]):
    """A durable function. Call it inside a flow like the plain function; outside one it is the plain function.

    Attributes:
        name: how the checkpoint is called in selectors; the function's name by default.
        retry: policy for failed attempts.
        timeout: seconds that one attempt may take, or None.
        cache: whether executions may reuse each other's results for equal code and inputs.
        type: free label that people see, e.g. ``model_call``.
        runtime: ``inline`` (in the flow's process, or where its run's executor has its workers) or ``isolated`` (each
            call in a job of its own, on the execution's runner). None is ``inline``.
        resources: of the job of an isolated call.
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
        resources: Mapping[str, str] | None = None,
    ) -> None:
        if not callable(func):
            raise KitaruUsageError(
                f"@checkpoint was given {func!r}, which can't be called; expected a function.",
                fix="@checkpoint\ndef research(topic: str) -> str: ...",
            )
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0 and timeout is not True):
            raise KitaruUsageError(
                f"timeout={timeout!r} can't be: expected seconds > 0.", fix="@checkpoint(timeout=30)"
            )
        if name is not None and (not isinstance(name, str) or not name):
            raise KitaruUsageError(f"name={name!r} can't be: expected a text.", fix="@checkpoint(name='research')")
        _check_runtime(runtime, resources)
        functools.update_wrapper(self, func)
        self.func = func
        self.name: str = name or getattr(func, "__name__", None) or type or "checkpoint"
        self.type = type
        self.retry = as_retry(retries)
        self.timeout = timeout
        self.cache = cache
        self.runtime = runtime
        self.resources = dict(resources or {})
        self.is_async = _is_async(func)
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

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        # By reference where another process can import it; so values and exceptions of its module keep their types.
        found = importable(self)
        if found is self:
            return self.func.__qualname__
        if found is not None:
            return _varied, (found, self._options())
        return super().__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        # Where the source can't be read any more (another process), the code digest travels along.
        return self.__dict__ | {"_code": self.code}

    def with_options(self, **options: Any) -> Checkpoint[P, R]:
        """The same function with other options (``name retries timeout cache type runtime resources``)."""
        _check_options(options)
        changed = Checkpoint(self.func, **(self._options() | options))
        changed._code = self._code
        return changed

    def _options(self) -> dict[str, Any]:
        return {"retries" if name == "retry" else name: getattr(self, name) for name in _ATTRIBUTES}

    @property
    def code(self) -> str:
        """Digest of the function's code, and of the functions and constants that it refers to.

        Global data that can change in place (a counter, a client, a cache) doesn't count: it is state, not code.
        """
        if self._code:
            return self._code
        with parsing:
            return function_code(self.func, _constant_token)

    @overload
    def submit(self: Checkpoint[P, Coroutine[Any, Any, T]], *args: Any, **kwargs: Any) -> CheckpointFuture[T]: ...

    @overload
    def submit(self, *args: Any, **kwargs: Any) -> CheckpointFuture[R]: ...

    def submit(self, *args: Any, **kwargs: Any) -> CheckpointFuture[Any]:
        """Start the call on another thread (for an async checkpoint: task), or on the run's executor; its future.

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
        if self._on_executor(frame.run):
            coroutine = self._perform_async(frame, args, kwargs, call, future)
            future.future = submitted.on_loop(coroutine, background_loop())
        elif not self.is_async:
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
        work = self._work(run, submitted=not on_line)
        code: str | None = None
        cache_key: str | None = None
        if call_id not in run.engine.completed:  # what is recorded needs none of it
            code = self.code
            if isinstance(work, ElsewhereWork):
                run.submitted.elsewhere.orders.code(self)
            if run.cache if self.cache is None else self.cache:
                cache_key = self._cache_key(inputs)
        place = place if on_line else None
        return Call(
            call_id, self.name, work, frame, inputs, self.retry, self.type, call_id, place, code, cache_key, after=after
        )

    def _work(self, run: Run, *, submitted: bool) -> FunctionWork:
        if self.runtime == "isolated":
            return IsolatedWork(self, run)
        return ExecutorWork(self, run) if submitted and self._on_executor(run) else FunctionWork(self, run)

    def _on_executor(self, run: Run) -> bool:
        return self.runtime != "isolated" and run.submitted.elsewhere.on_executor

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


def _is_async(func: Any) -> bool:
    """Whether calling it gives a coroutine: of an object, its ``__call__`` says so."""
    return inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(type(func).__call__)


def importable(checkpoint: Checkpoint[..., Any]) -> Checkpoint[..., Any] | None:
    """The checkpoint of the same function that another process finds by its name, or None."""
    module = checkpoint.func.__module__
    by_value = sys.modules["cloudpickle"].list_registry_pickle_by_value() if "cloudpickle" in sys.modules else ()
    if module == "__main__" or module in by_value:
        return None
    found: Any = sys.modules.get(module)
    for part in checkpoint.func.__qualname__.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, Checkpoint) and found.func is checkpoint.func else None


def _varied(checkpoint: Checkpoint[..., Any], options: Mapping[str, Any]) -> Checkpoint[..., Any]:
    return checkpoint.with_options(**options)


def _check_runtime(runtime: str | None, resources: Mapping[str, str] | None) -> None:
    if runtime not in (None, *_RUNTIMES):
        raise KitaruUsageError(
            f"runtime={runtime!r} is none of {', '.join(map(repr, _RUNTIMES))}.", fix="@checkpoint(runtime='isolated')"
        )
    if not resources:
        return
    if runtime != "isolated":
        raise KitaruUsageError(
            "resources= are those of a job of its own, and this checkpoint runs in its flow's process.",
            fix=f"@checkpoint(runtime='isolated', resources={dict(resources)!r})",
        )
    for name, amount in resources.items():
        if name not in _RESOURCES or not isinstance(amount, str) or not amount:
            raise KitaruUsageError(
                f"resources={dict(resources)!r}: {name} can't be {amount!r}; expected 'cpu' and 'memory' as texts in "
                "Kubernetes' units.",
                fix="resources={'cpu': '2', 'memory': '4Gi'}",
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
    resources: Mapping[str, str] | None = None,
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
        runtime: ``inline`` (default), or ``isolated``: each call in a job of its own, on the execution's runner.
        resources: what the job of an isolated call gets, as ``{"cpu": "2", "memory": "4Gi"}``.

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
