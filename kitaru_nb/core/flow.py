"""``@flow``: a durable program. ``brief.run(...)`` starts an execution and returns at once."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from kitaru_nb.core import reference
from kitaru_nb.core.create import create_execution, create_replay, merged_inputs
from kitaru_nb.core.executors import parse_executor
from kitaru_nb.core.handle import FlowHandle
from kitaru_nb.core.launch import launch
from kitaru_nb.core.replay import ReplayPreview, Scope, plan_replay
from kitaru_nb.core.retry import Retry, as_retry
from kitaru_nb.core.runtime import Runtime, runtime_of
from kitaru_nb.errors import KitaruNotFoundError, KitaruUsageError
from kitaru_nb.model import Deployment, Event

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS = ("name", "stack", "key", "cache", "retries", "executor", "runtime")


class Flow(Generic[P, R]):
    """A durable program made from a function. Start it with `run`."""

    def __init__(
        self,
        func: Callable[P, Any],
        *,
        name: str | None = None,
        stack: str | None = None,
        key: str | None = None,
        cache: bool | None = None,
        retries: int | Retry | None = None,
        executor: str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        if not callable(func):
            raise KitaruUsageError(f"@flow was given {func!r}; expected a function.", fix="@flow\ndef brief(...): ...")
        functools.update_wrapper(self, func)
        self.func = func
        self.name = name or func.__name__
        self.stack = stack
        self.key = key
        self.cache = cache
        self.retry = as_retry(retries)
        if executor is not None:
            parse_executor(executor)
        self.executor = executor
        self.runtime = runtime
        self.is_async = inspect.iscoroutinefunction(func)
        self.signature = inspect.signature(func)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Refused: a plain call would not be durable."""
        shown = ", ".join([*(repr(a) for a in args), *(f"{k}={v!r}" for k, v in kwargs.items())])
        raise KitaruUsageError(
            f"Flow {self.name!r} was called like a function; a flow is started, and its result waited for.",
            fix=f"{self.name}.run({shown[:60]}).wait()",
        )

    def __repr__(self) -> str:
        return f"<flow {self.name}{self.signature}>"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"runtime": None}

    def with_options(self, **options: Any) -> Flow[P, R]:
        """The same flow with other options: ``name stack key cache retries executor runtime``."""
        _check_options(options)
        mine: dict[str, Any] = {"name": self.name, "stack": self.stack, "key": self.key, "cache": self.cache}
        mine |= {"retries": self.retry, "executor": self.executor, "runtime": self.runtime}
        return Flow(self.func, **(mine | options))

    def run(self, *args: Any, **kwargs: Any) -> FlowHandle[R]:
        """Start an execution with these inputs; a handle, at once.

        ``stack=``, ``cache=`` and ``retries=`` are taken as options where the flow has no such parameter.

        Raises:
            KitaruUsageError: inputs that don't fit the flow's signature.
            KitaruSerializationError: an input that can't be persisted. Nothing was started.
        """
        if reference.loading_script:
            raise reference.DefinitionsOnly
        taken = [o for o in ("stack", "cache", "retries") if o in kwargs and o not in self.signature.parameters]
        options = {option: kwargs.pop(option) for option in taken}
        flow = self.with_options(**options) if options else self
        inputs = flow.bind(args, kwargs)
        runtime = self.runtime or runtime_of(flow.stack)
        execution = create_execution(runtime, flow, inputs)
        return launch(runtime, execution, flow)

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs by name, defaults included. Raises `KitaruUsageError` when they don't fit the signature."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise KitaruUsageError(
                f"Flow {self.name!r} can't be started with these inputs: {error}. It takes {self.name}{self.signature}."
            ) from error
        bound.apply_defaults()
        return dict(bound.arguments)

    def replay(
        self,
        exec_id: str,
        *,
        from_: str | Sequence[str] | None = None,
        overrides: Mapping[str, Any] | None = None,
        scope: Scope = "downstream",
        inputs: Mapping[str, Any] | None = None,
        **more_inputs: Any,
    ) -> FlowHandle[R]:
        """Start a new execution from an old one: ``from_`` and what depends on it run again, the rest is reused.

        Args:
            from_: selectors (``name``, ``name#2``, call id) of the checkpoints to begin with.
            overrides: what is taken instead: an outcome, inputs of a call, or an answer, as in
                ``{"checkpoint.research": notes, "arguments.draft": {"tone": "dry"}, "wait.approve": True}``.
            scope: ``after`` also runs all that came later in program order.
            inputs: new values of flow inputs; ``more_inputs`` are these too, for those with other names than the above.

        Raises:
            KitaruNotFoundError, KitaruUsageError: as `replay_plan`.
        """
        runtime = self.runtime or runtime_of(self.stack)
        execution = create_replay(
            runtime,
            exec_id,
            from_=from_,
            overrides=overrides,
            scope=scope,
            inputs=merged_inputs(inputs, more_inputs),
            flow=self,
        )
        return launch(runtime, execution, self)

    def replay_plan(
        self,
        exec_id: str,
        *,
        from_: str | Sequence[str] | None = None,
        overrides: Mapping[str, Any] | None = None,
        scope: Scope = "downstream",
        inputs: Mapping[str, Any] | None = None,
        **more_inputs: Any,
    ) -> ReplayPreview:
        """What `replay` would run again, reuse and ask; nothing is started.

        Raises:
            KitaruNotFoundError: a selector that means nothing; lists what there is.
            KitaruUsageError: an ambiguous selector.
        """
        runtime = self.runtime or runtime_of(self.stack)
        changed = list(merged_inputs(inputs, more_inputs))
        return plan_replay(
            runtime, exec_id, from_=from_, overrides=overrides, scope=scope, changed_inputs=changed
        ).preview

    # deployments (rooms above: resolved on use, as runners are)

    def deploy(
        self,
        *args: Any,
        tags: str | Sequence[str] | Mapping[str, bool] = (),
        stack: str | None = None,
        **inputs: Any,
    ) -> Deployment:
        """Deploy the flow as its next version, with the modules and packages that it needs.

        Args:
            tags: names that route to this version from now on.
            stack: where its executions run, and where the deployment is kept; default: the flow's, or the one in use.
            args, inputs: values that executions take when they are given no others.

        Raises:
            KitaruUsageError: it can't be deployed; lists all that there is to mend.
        """
        place = stack or self.stack
        try:
            inputs = self.signature.bind_partial(*args, **inputs).arguments if args else inputs
        except TypeError as error:
            raise KitaruUsageError(
                f"Flow {self.name!r} can't be deployed with these inputs: {error}. "
                f"It takes {self.name}{self.signature}.",
                fix=f"{self.name}.deploy()",
            ) from error
        found: Deployment = self._deployed(place).create(self, tags=tags, stack=place, inputs=inputs)
        return found

    def deployments(self) -> list[Deployment]:
        """The flow's versions, newest first. Raises `KitaruNotFoundError` when it was never deployed."""
        return list(self._deployed().list(flow=self.name))

    def deployment(self, *, version: int | str | None = None, tag: str | None = None) -> Deployment:
        """One version of the flow. Raises `KitaruNotFoundError`."""
        found: Deployment = self._deployed().get(self.name, version=version, tag=tag)
        return found

    def invoke(self, *, version: int | str | None = None, tag: str | None = None, **inputs: Any) -> FlowHandle[R]:
        """Start an execution of a deployed version (default: that of the tag ``default``), not of this code.

        Raises:
            KitaruNotFoundError: no such version or tag.
            KitaruUsageError: inputs that don't fit; nothing was started.
        """
        handle: FlowHandle[R] = self._deployed().invoke(self.name, version=version, tag=tag, inputs=inputs)
        return handle

    def _deployed(self, stack: str | None = None) -> Any:
        deployments = importlib.import_module("kitaru_nb.promote.deployments")
        return deployments.Deployments(self.runtime or runtime_of(stack or self.stack))


def load_flow(created: Event, runtime: Runtime) -> Flow[..., Any]:
    """The flow of an execution, found again from its ``execution.created`` event.

    Raises:
        KitaruNotFoundError: its module, script or function is gone; the message says which.
    """
    found = reference.load_object(created, runtime)
    if not isinstance(found, Flow):
        ref = created.body["ref"]
        where, name = ref.get("path") or ref.get("module"), ref.get("qualname")
        raise KitaruNotFoundError(
            f"{where} no longer defines a flow {name!r} (found {type(found).__name__}); {created.exec_id} needs it.",
            fix=f"restore {name} in {where}, then: kitaru executions resume {created.exec_id}",
        )
    return found


class _Decorator(Protocol):
    @overload
    def __call__(self, func: Callable[P, Coroutine[Any, Any, R]], /) -> Flow[P, R]: ...

    @overload
    def __call__(self, func: Callable[P, R], /) -> Flow[P, R]: ...


@overload
def flow(func: Callable[P, Coroutine[Any, Any, R]], /) -> Flow[P, R]: ...


@overload
def flow(func: Callable[P, R], /) -> Flow[P, R]: ...


@overload
def flow(
    *,
    name: str | None = None,
    stack: str | None = None,
    cache: bool | None = None,
    retries: int | Retry | None = None,
    executor: str | None = None,
) -> _Decorator: ...


def flow(func: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a durable program; as ``@flow`` or ``@flow(retries=1)``.

    The function's body runs again when an execution is resumed, while its checkpoints return what they recorded. So it
    should do its work in checkpoints, and be the same each time between them.

    Args:
        stack: where it runs: ``local`` (a thread of this process), ``process`` (a process of its own), or a stack that
            somebody created. Default: the one in use (``kitaru stack use``), else ``local``.
        cache: default of ``cache`` for its executions.
        retries: how often an execution whose body raised goes on by itself.
        executor: where its submitted checkpoints run: ``threads`` of its process, ``dask`` (processes of this machine)
            or a Dask cluster, ``dask://HOST:PORT``. Default: the stack's.
    """
    _check_options(options)
    if func is None:
        return lambda function: Flow(function, **options)
    return Flow(func, **options)


def _check_options(options: Mapping[str, Any]) -> None:
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise KitaruUsageError(
            f"{unknown[0]!r} is no option of a flow. Options are: {', '.join(_OPTIONS)}.",
            fix="@flow(retries=1), or my_flow.with_options(key='...').run(...)",
        )
