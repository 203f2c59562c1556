"""What a journal says over HTTP: requests and answers of `HttpJournal`, as both ends write and read them.

A message is one line of JSON, a newline, and the bytes of all blobs one after another; the JSON says how long each is.
Bodies of events are in it as the very JSON that is stored, so numbers and texts arrive as they were sent.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kitaru_nb import errors
from kitaru_nb.errors import KitaruBackendError, KitaruConflictError, KitaruError, KitaruUsageError
from kitaru_nb.model import Event, Execution, ExecutionStatus, Lease, Owner, Wait, utc

#: Where a server has it, with the version of this form.
PATH = "/journal/v1/"
#: The largest request that a server takes.
MAX_REQUEST = 64 * 1024 * 1024
MEDIA_TYPE = "application/vnd.kitaru.journal"

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def write(value: Any, blobs: Iterable[bytes] = ()) -> bytes:
    """A message. Raises `KitaruUsageError` for what isn't JSON."""
    try:
        line = _encode(value)
        if not line.isascii():
            try:
                return b"".join([line.encode(), b"\n", *blobs])
            except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can say
                line = _encode_ascii(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise KitaruUsageError(f"What was given to the journal is not JSON: {error}.") from error
    return b"".join([line.encode(), b"\n", *blobs])


def read(message: bytes) -> tuple[Any, bytes]:
    """The value of a message, and its blobs. Raises `ValueError` for what is no message."""
    line, newline, blobs = message.partition(b"\n")
    if not newline:
        raise ValueError("it has no end of line")
    try:
        return json.loads(line), blobs
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def pack_events(events: Iterable[Event]) -> tuple[list[Any], list[bytes]]:
    """Events, and their blobs."""
    blobs: list[bytes] = []
    return [_event(event, blobs) for event in events], blobs


def _event(event: Event, blobs: list[bytes]) -> list[Any]:
    exec_id, kind, key, at, body, blob, seq, cache_key = event
    if blob is not None:
        blobs.append(blob)
    return [exec_id, kind, key, at, dict(body), None if blob is None else len(blob), seq, cache_key]


def unpack_events(packed: Iterable[Sequence[Any]], blobs: bytes) -> list[Event]:
    """Inverse of `pack_events`. Raises `ValueError` when the blobs aren't all there."""
    events = []
    start = 0
    for exec_id, kind, key, at, body, length, seq, cache_key in packed:
        blob = None
        if length is not None:
            blob, start = blobs[start : start + length], start + length
        events.append(Event(exec_id, kind, key, at, body, blob, seq, cache_key))
    if start != len(blobs):
        raise ValueError(f"it has {len(blobs)} bytes of blobs where its events say {start}")
    return events


def pack_lease(lease: Lease | None) -> dict[str, Any] | None:
    """A lease."""
    return None if lease is None else dataclasses.asdict(lease)


def unpack_lease(packed: Mapping[str, Any] | None) -> Lease | None:
    """Inverse of `pack_lease`."""
    return None if packed is None else Lease(**{**packed, "owner": Owner(**packed["owner"])})


def pack_execution(execution: Execution) -> list[Any]:
    """An execution without its details."""
    return [
        execution.exec_id,
        execution.flow_name,
        execution.status.value,
        execution.created_at.timestamp(),
        execution.updated_at.timestamp(),
        execution.ended_at.timestamp() if execution.ended_at else None,
        execution.original_exec_id,
        execution.deployment,
        execution.stack,
        execution.key,
        execution.epoch,
        pack_lease(execution.lease),
    ]


def unpack_execution(packed: Sequence[Any]) -> Execution:
    """Inverse of `pack_execution`."""
    exec_id, flow, status, created, updated, ended, original, deployment, stack, key, epoch, lease = packed
    return Execution(
        exec_id,
        flow,
        ExecutionStatus(status),
        utc(created),
        utc(updated),
        None if ended is None else utc(ended),
        original,
        deployment,
        stack,
        key,
        epoch,
        unpack_lease(lease),
    )


_INSTANTS = ("created_at", "until", "resolved_at")


def pack_wait(wait: Wait) -> dict[str, Any]:
    """A wait."""
    packed = {field.name: getattr(wait, field.name) for field in dataclasses.fields(wait)}
    for name in _INSTANTS:
        packed[name] = packed[name].timestamp() if packed[name] else None
    return packed


def unpack_wait(packed: Mapping[str, Any]) -> Wait:
    """Inverse of `pack_wait`."""
    instants = {name: utc(packed[name]) if packed[name] is not None else None for name in _INSTANTS}
    return Wait(**{**packed, **instants, "after": tuple(packed["after"])})


def pack_error(error: KitaruError) -> tuple[dict[str, Any], list[bytes]]:
    """An error, with what existed already when it is about that."""
    body: dict[str, Any] = {"type": type(error).__name__, "message": error.message, "fix": error.fix}
    blobs: list[bytes] = []
    if isinstance(error, KitaruConflictError):
        existing = error.existing
        if isinstance(existing, Event):
            body["event"] = _event(existing, blobs)
        elif isinstance(existing, Execution):
            body["execution"] = pack_execution(existing)
        else:
            body["value"] = existing
    return {"error": body}, blobs


def unpack_error(packed: Mapping[str, Any], blobs: bytes) -> KitaruError:
    """Inverse of `pack_error`; a `KitaruBackendError` for what isn't an error of a journal."""
    kind = getattr(errors, str(packed["type"]), None)
    if not (isinstance(kind, type) and issubclass(kind, KitaruError)):
        kind = KitaruBackendError
    error = kind(packed["message"], fix=packed.get("fix"))
    if isinstance(error, KitaruConflictError):
        if "event" in packed:
            (error.existing,) = unpack_events([packed["event"]], blobs)
        elif "execution" in packed:
            error.existing = unpack_execution(packed["execution"])
        else:
            error.existing = packed.get("value")
    return error
