"""A call of a function under ``@checkpoint``: how it runs in this process, and how its outcome is kept."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from kitaru_nb.core.context import Frame, current, here
from kitaru_nb.core.engine import Call, Input
from kitaru_nb.core.run import Run, recorded_failure
from kitaru_nb.errors import KitaruTimeoutError
from kitaru_nb.journal.fold import Outputs
from kitaru_nb.model import Artifact, Event

if TYPE_CHECKING:
    from kitaru_nb.core.checkpoint import Checkpoint

#: Tokens of the parts of bigger containers aren't looked up for lineage.
MAX_PARTS = 100


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

    def recorded_failure(self, event: Event) -> BaseException:
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
    over = threading.Event()

    def target() -> None:
        frame.line = here()
        try:
            user_code.enter()
            outcome["value"] = checkpoint.func(*args, **kwargs)
        except BaseException as error:
            outcome["error"] = error
        finally:
            user_code.ended(over)

    thread = threading.Thread(target=copy_context().run, args=(target,), name=f"{checkpoint.name}-timeout", daemon=True)
    with work.run.runtime_code():  # see Submitted.on_thread
        thread.start()
    thread.join(checkpoint.timeout)
    if thread.is_alive() and not outcome:
        # Takes effect at the thread's next bytecode; a call that blocks inside C ends when it returns.
        user_code.end(thread.ident or 0, over)
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
