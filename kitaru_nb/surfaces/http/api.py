"""The API without a framework: a request and a caller in, a response out. Hosts read bodies and send bytes, no more."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from kitaru_nb.errors import (
    KitaruBackendError,
    KitaruConflictError,
    KitaruContextError,
    KitaruError,
    KitaruFeatureNotAvailableError,
    KitaruNotFoundError,
    KitaruSerializationError,
    KitaruStateError,
    KitaruTimeoutError,
    KitaruUsageError,
    KitaruWaitValidationError,
)
from kitaru_nb.surfaces.http import content, openapi
from kitaru_nb.surfaces.http.wire import decode, encode
from kitaru_nb.surfaces.operations.base import Caller, Content, Desk, Follow, KitaruPermissionError, Operation
from kitaru_nb.surfaces.operations.perform import TooManyTries, perform
from kitaru_nb.surfaces.operations.table import OPERATIONS

logger = logging.getLogger("kitaru_nb.server")


class MethodError(KitaruUsageError):
    """There is such a path, but not for this method."""

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f"{method} isn't allowed here; expected {' or '.join(allowed)}.")
        self.allowed = tuple(allowed)


#: The first that fits an error is its status.
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (KitaruPermissionError, 403),
    (TooManyTries, 429),
    (MethodError, 405),
    (KitaruNotFoundError, 404),
    (KitaruWaitValidationError, 422),
    (KitaruUsageError, 400),
    (KitaruSerializationError, 400),
    (KitaruContextError, 400),
    (KitaruStateError, 409),
    (KitaruFeatureNotAvailableError, 501),
    (KitaruBackendError, 503),
    (KitaruTimeoutError, 504),
    (KitaruError, 409),
)
#: What an execution recorded isn't for caches of others.
_JSON = {"content-type": "application/json; charset=utf-8", "cache-control": "no-store"}
#: The last one keeps a proxy before the server from holding events back.
_STREAM = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store", "x-accel-buffering": "no"}


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the API. ``path`` is what comes after ``/api/``, still percent-encoded."""

    method: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """What to send. ``body`` is bytes, a file's range to stream, or changes to follow (`kitaru_nb.surfaces.http.events`
    has a stream of them, and one answer where ``timeout`` is given)."""

    status: int
    headers: Mapping[str, str]
    body: bytes | content.Bytes | Follow


class Api:
    """All operations, with what holds for each request. Thread-safe; `answer` blocks, so hosts call it in a thread."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def answer(self, request: Request, caller: Caller) -> Response:
        """The response to a request; errors are responses too."""
        try:
            return self._answer(request, caller)
        except Exception as error:
            return refusal(error)

    def _answer(self, request: Request, caller: Caller) -> Response:
        if request.path == "openapi.json" and request.method in ("GET", "HEAD"):
            return Response(200, _JSON, openapi_document())
        method = "GET" if request.method == "HEAD" else request.method
        operation, parameters = match(method, request.path)
        operation.check_role(caller)  # first of all: who may not do it isn't told what is wrong with the body
        given = _arguments(operation, parameters, request)
        return self._respond(perform(operation, self.desk, caller, given), request)

    def _respond(self, result: Any, request: Request) -> Response:
        if isinstance(result, Content):
            return _content(self.desk, result, request.headers)
        if isinstance(result, Follow):
            if result.timeout is not None:
                return Response(200, _JSON, result)
            return Response(200, _STREAM, resumed(result, request.headers))
        return Response(200, _JSON, encode(result))


def _arguments(operation: Operation, parameters: Mapping[str, str], request: Request) -> dict[str, Any]:
    """The operation's arguments, from path, query and body. Raises `KitaruUsageError`."""
    if operation.method == "GET":
        rest = _query(request.query)
    else:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.body.strip() and kind != "application/json":
            raise KitaruUsageError(
                f"The body is {kind or 'of no type'}; expected application/json.",
                fix="Content-Type: application/json",
            )
        if request.query:
            raise KitaruUsageError(f"{operation.method} {operation.path} takes a JSON body, and no query.")
        rest = decode(request.body)
    if clash := sorted(set(rest) & set(parameters)):
        raise KitaruUsageError(f"{clash[0]!r} is in the path already.")
    return {**rest, **parameters}


def match(method: str, path: str) -> tuple[Operation, dict[str, str]]:
    """The operation of a request, and the arguments in its path. Raises `KitaruNotFoundError`, or `MethodError`."""
    parts = path.strip("/").split("/")
    allowed = []
    for operation in OPERATIONS:
        found = _fit(_pattern(operation), parts)
        if found is None:
            continue
        if operation.method == method:
            return operation, found
        allowed.append(operation.method)
    if allowed:
        raise MethodError(method, sorted(set(allowed)))
    raise KitaruNotFoundError(f"The API has no {path[:200]!r}.", fix="GET api/openapi.json lists what there is")


@functools.cache
def _pattern(operation: Operation) -> tuple[str, ...]:
    return tuple(operation.path.split("/"))


def _fit(pattern: Sequence[str], parts: Sequence[str]) -> dict[str, str] | None:
    if len(pattern) != len(parts):
        return None
    found = {}
    for expected, part in zip(pattern, parts, strict=True):
        if expected.startswith("{"):
            found[expected[1:-1]] = unquote(part, errors="surrogateescape")
        elif expected != part:
            return None
    return found


def _query(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise KitaruUsageError(f"{name!r} is given twice.")
        found[name] = value
    return found


def resumed(follow: Follow, headers: Mapping[str, str]) -> Follow:
    """Where a client that lost its connection goes on."""
    last = headers.get("last-event-id", "").strip()
    if not last:
        return follow
    if not (last.isascii() and last.isdigit() and len(last) < 19):
        raise KitaruUsageError(f"Last-Event-ID is {last[:60]!r}; expected the id of an event.")
    return Follow(follow.exec_id, int(last))


def _content(desk: Desk, found: Content, headers: Mapping[str, str]) -> Response:
    status, extra, body = content.answer(desk.client.runtime.store, found, headers)
    return Response(status, extra, body)


def status_of(error: BaseException) -> int:
    """The HTTP status of an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_body(error: BaseException) -> dict[str, Any]:
    """What is told of an error. One that isn't ours is told without its words, which may hold anything."""
    if not isinstance(error, KitaruError):
        return {
            "error": {"type": "InternalError", "message": "Something went wrong; see the server's log.", "fix": None}
        }
    body: dict[str, Any] = {"type": type(error).__name__, "message": error.message, "fix": error.fix}
    existing = getattr(error, "existing", None) if isinstance(error, KitaruConflictError) else None
    if isinstance(existing, Mapping) and "by" in existing:
        body["details"] = {
            "answered_by": existing["by"],
            "via": existing.get("via"),
            "value": existing.get("value"),
            "aborted": bool(existing.get("aborted")),
        }
    return {"error": body}


def refusal(error: Exception) -> Response:
    """An error as a response."""
    status = status_of(error)
    if status == 500:
        logger.error("A request failed", exc_info=error)
    headers = dict(_JSON)
    if isinstance(error, MethodError):
        headers["allow"] = ", ".join(error.allowed)
    if isinstance(error, TooManyTries):
        headers["retry-after"] = str(error.seconds)
    return Response(status, headers, encode(error_body(error)))


@functools.cache
def openapi_document() -> bytes:
    """The OpenAPI document as JSON."""
    return json.dumps(openapi.document(), indent=1).encode()
