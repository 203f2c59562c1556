"""``wait``: a named pause that a person, webhook, agent, clock or command resolves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar, overload

from kitaru_nb.core.context import Frame, require_frame
from kitaru_nb.core.engine import WaitRequest, digest
from kitaru_nb.errors import KitaruContextError, KitaruStateError, KitaruUsageError, KitaruWaitValidationError

T = TypeVar("T")

_PLAIN_SCHEMAS: dict[Any, dict[str, str]] = {
    bool: {"type": "boolean"},
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
}

#: JSON knows one kind of number: 1.0 is an answer to ``int``, and 1 to ``float``.
_PLAIN_TYPES: dict[str, Callable[[Any], Any]] = {"boolean": bool, "string": str, "integer": int, "number": float}


@overload
def wait(
    first: str | None = None,
    /,
    *,
    name: str | None = None,
    question: str | None = None,
    schema: type[T],
    timeout: float | None = None,
    until: datetime | timedelta | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> T: ...


@overload
def wait(
    first: type[T],
    /,
    *,
    name: str | None = None,
    question: str | None = None,
    timeout: float | None = None,
    until: datetime | timedelta | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> T: ...


@overload
def wait(
    first: str | None = None,
    /,
    *,
    name: str | None = None,
    question: str | None = None,
    timeout: float | None = None,
    until: datetime | timedelta | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> bool: ...


def wait(
    first: Any = None,
    /,
    *,
    name: str | None = None,
    question: str | None = None,
    schema: Any = bool,
    timeout: float | None = None,
    until: datetime | timedelta | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Any:
    """Pause the flow until somebody answers; the answer.

    The worker polls for ``timeout`` seconds (default: 600 where a flow runs on a thread, 0 in workers and notebooks),
    then lets go: the process or pod may end, and the answer starts a fresh one.

    Args:
        first: its name, or (as Kitaru has it) the type of the answer.
        name: how the wait is called when it is answered; default ``wait``.
        question: what the person who answers should read.
        schema: type of the answer, anything that pydantic can make a JSON Schema from.
        until: instant (or time from now) at which the clock resolves the wait with None.
        metadata: JSON values to show beside the question.

    Raises:
        KitaruContextError: outside a flow, or inside a checkpoint (a checkpoint must not hold compute while it waits).
        KitaruStateError: the wait was aborted.
        KitaruDivergenceError: it was answered for another question.
        Paused: the worker lets go (not an error; don't catch it).
    """
    frame, request, adapter = _prepare(first, name, question, schema, timeout, until, metadata)
    body = frame.run.wait(request)
    return _answered(request, body, adapter, frame)


async def wait_async(
    first: Any = None,
    /,
    *,
    name: str | None = None,
    question: str | None = None,
    schema: Any = bool,
    timeout: float | None = None,  # noqa: ASYNC109 (it ends the worker's polling, not this call)
    until: datetime | timedelta | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Any:
    """`wait` for asynchronous flows: other tasks of the flow go on while it polls."""
    frame, request, adapter = _prepare(first, name, question, schema, timeout, until, metadata)
    body = await frame.run.wait_async(request)
    return _answered(request, body, adapter, frame)


def _prepare(
    first: Any,
    name: str | None,
    question: str | None,
    schema: Any,
    timeout: float | None,
    until: datetime | timedelta | None,
    metadata: Mapping[str, Any] | None,
) -> tuple[Frame, WaitRequest, Any]:
    if first is not None and not isinstance(first, str):
        schema = first
    elif first is not None and name is not None:
        raise KitaruUsageError(f"This wait has two names, {first!r} and {name!r}.", fix=f"wait({first!r})")
    if name is not None and not isinstance(name, str):
        raise KitaruUsageError(f"name={name!r} can't be: expected a text.", fix="wait('approve')")
    name = name or (first if isinstance(first, str) else None) or "wait"
    frame = require_frame("wait()")
    if frame.call_id:
        raise KitaruContextError(
            f"wait({name!r}) was called inside checkpoint {frame.name!r}; a wait lets its worker go, so it belongs in "
            "the body of the flow (or in a plain cell of the notebook).",
            fix=f"move wait({name!r}, ...) out of {frame.name}() into the flow",
        )
    frame.run.check()
    json_schema, adapter = schema_of(schema)
    if timeout is not None and (not isinstance(timeout, int | float) or not timeout >= 0):
        raise KitaruUsageError(
            f"timeout={timeout!r} can't be: expected seconds >= 0.", fix=f"wait({name!r}, timeout=0)"
        )
    if question is not None and not isinstance(question, str):
        raise KitaruUsageError(
            f"question={question!r} can't be: expected a text.", fix=f"wait({name!r}, question={str(question)!r})"
        )
    if metadata is not None and not isinstance(metadata, Mapping):
        raise KitaruUsageError(
            f"metadata={metadata!r} can't be: expected a mapping of JSON values.",
            fix=f"wait({name!r}, metadata={{'draft': 1}})",
        )
    wait_id = _identify(frame, name, question, json_schema)
    recorded = frame.run.engine.asked.get(wait_id)
    instant = recorded.body.get("until") if recorded else _instant(until)
    request = WaitRequest(
        wait_id, name, question, json_schema, dict(metadata or {}), timeout, instant, frame, after=frame.last
    )
    return frame, request, adapter


def _identify(frame: Frame, name: str, question: str | None, schema: Mapping[str, Any]) -> str:
    """On the main line of a flow the n-th wait of this name; among concurrent tasks, whose order isn't fixed, the n-th
    with this question; in a notebook this very question, however often its cell runs."""
    if not frame.strict:
        asked = digest(frame.scope, "wait", name, question or "", repr(sorted(schema.items(), key=str)))
        wait_id, n, resolved = asked, 0, frame.run.engine.resolved
        # The notebook itself closed it when its question changed; now it is asked again.
        while (
            wait_id in resolved
            and resolved[wait_id].body.get("aborted")
            and resolved[wait_id].body["via"] == "notebook"
        ):
            n += 1
            wait_id = digest(asked, str(n))
        return wait_id
    base = (
        digest(frame.scope, "wait", name) if frame.on_main_line() else digest(frame.scope, "wait", name, question or "")
    )
    with frame.run.engine.lock:
        n = frame.seen[base]
        frame.seen[base] = n + 1
    return base if n == 0 else digest(base, str(n))


def _instant(until: datetime | timedelta | None) -> float | None:
    if until is None:
        return None
    if isinstance(until, timedelta):
        return time.time() + until.total_seconds()
    if isinstance(until, datetime) and until.tzinfo is not None:
        return until.timestamp()
    raise KitaruUsageError(
        f"until={until!r} can't be: expected a timedelta, or a datetime with a time zone.",
        fix="until=timedelta(hours=2)",
    )


def schema_of(schema: Any) -> tuple[Mapping[str, Any], Any]:
    """(JSON Schema, pydantic TypeAdapter or None) of a type. Raises `KitaruUsageError` when pydantic has none."""
    if schema in _PLAIN_SCHEMAS:
        return _PLAIN_SCHEMAS[schema], None
    from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter

    try:
        adapter = TypeAdapter(schema)
        return adapter.json_schema(), adapter
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise KitaruUsageError(
            f"schema={schema!r} can't be the type of an answer: {str(error).splitlines()[0]}",
            fix="schema=bool, str, Literal['a', 'b'] or a pydantic model",
        ) from error


def _answered(request: WaitRequest, body: Mapping[str, Any], adapter: Any, frame: Frame) -> Any:
    if body.get("aborted"):
        raise KitaruStateError(f"Wait {request.name!r} of {frame.run.exec_id} was aborted by {body['by']}.")
    if frame.run.after_answer is not None:
        frame.run.after_answer(request, body)
    value = body.get("value")
    if body["by"] == "clock" and value is None:  # in a replay too, which has the answer from its original
        return None
    frame.last = (f"wait:{request.wait_id}",)
    if adapter is None:
        return _PLAIN_TYPES[request.schema["type"]](value)
    from pydantic import ValidationError

    try:
        answer = adapter.validate_json(json.dumps(value))
    except ValidationError as error:
        raise KitaruWaitValidationError(
            f"The recorded answer of wait {request.name!r} no longer fits its schema: {error}",
            fix=f"kitaru executions replay {frame.run.exec_id} --from {request.name}",
        ) from error
    frame.run.engine.produced(frame.run.store.token(answer), f"wait:{request.wait_id}")
    return answer
