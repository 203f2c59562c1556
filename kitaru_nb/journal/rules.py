"""What every back end stores, and the decisions that all of them share. A back end only says where rows live.

Nothing here does I/O, except that `ExecutionRow.claim` and `ExecutionRow.execution` ask whether a process is dead.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kitaru_nb.errors import (
    KitaruBackendError,
    KitaruConflictError,
    KitaruFencedError,
    KitaruLeaseError,
    KitaruNotFoundError,
    KitaruStateError,
    KitaruUsageError,
)
from kitaru_nb.journal.base import is_dead
from kitaru_nb.model import ONCE, STATUS_OF, Event, Execution, ExecutionStatus, Lease, Owner, Wait, utc

#: (exec_id, kind, key, at, body as JSON text, blob, cache_key)
EventRow = tuple[str, str, str, float, str, bytes | None, str | None]

_PARSED_TOGETHER = 500
#: For more rows than these it pays to load the quicker parser.
_MANY = 7_000
_RUNNING = ExecutionStatus.RUNNING.value
_INTERRUPTED = ExecutionStatus.INTERRUPTED
_readable_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_ascii_json = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


class StatusChange(NamedTuple):
    """What the events of one batch do to their execution's row."""

    status: str
    at: float
    ended_at: float | None


class Batch(NamedTuple):
    """Events made ready for storage: their rows, and the status that they lead to (None: unchanged)."""

    rows: list[EventRow]
    change: StatusChange | None


@dataclass(slots=True)
class ExecutionRow:
    """The stored form of an execution: Unix seconds, the owner of its lease as JSON. Fields are in column order."""

    id: str
    flow: str
    status: str
    created_at: float
    updated_at: float
    ended_at: float | None = None
    original_exec_id: str | None = None
    deployment: str | None = None
    stack: str = "local"
    key: str | None = None
    epoch: int = field(default=0, kw_only=True)
    lease_owner: str | None = field(default=None, kw_only=True)
    lease_expires_at: float | None = field(default=None, kw_only=True)

    @classmethod
    def new(cls, execution: Execution) -> ExecutionRow:
        """The row of a new execution: epoch 0, nobody holds it.

        Raises:
            KitaruUsageError: a text can't be encoded.
        """
        row = cls(
            execution.exec_id,
            execution.flow_name,
            _RUNNING if execution.status is _INTERRUPTED else execution.status.value,
            execution.created_at.timestamp(),
            execution.updated_at.timestamp(),
            execution.ended_at.timestamp() if execution.ended_at else None,
            execution.original_exec_id,
            execution.deployment,
            execution.stack,
            execution.key,
        )
        for text in (row.id, row.flow, row.stack, row.key or "", row.deployment or "", row.original_exec_id or ""):
            check_text(text)
        return row

    @classmethod
    def of(cls, columns: Sequence[Any]) -> ExecutionRow:
        """A row from its columns in the order of the fields."""
        *first, epoch, owner, expires_at = columns
        return cls(*first, epoch=epoch, lease_owner=owner, lease_expires_at=expires_at)

    def columns(self) -> tuple[Any, ...]:
        """The values in the order of the fields."""
        return tuple(getattr(self, name) for name in COLUMNS)

    def apply(self, change: StatusChange | None) -> None:
        """Take over the status that a batch leads to."""
        if change is not None:
            self.status, self.updated_at, self.ended_at = change

    def claim(self, owner: Owner, ttl: float, now: float) -> tuple[Lease, Batch]:
        """Give the execution to ``owner``; return the lease and the ``execution.claimed`` event to store.

        Raises as `Journal.claim` does, and then nothing has changed.
        """
        if self.status in ("completed", "cancelled"):
            raise KitaruStateError(
                f"{self.id} is {self.status}; only an execution that hasn't ended, or one that failed, can go on.",
                fix=f"kitaru executions replay {self.id}",
            )
        if (held := self.lease()) and _alive(held, now, is_dead):
            raise _held(held, now)
        self.epoch += 1
        self.lease_owner, self.lease_expires_at = _ascii_json(dataclasses.asdict(owner)), now + ttl
        body = {"owner": dataclasses.asdict(owner), "epoch": self.epoch}
        batch = prepare(self.id, [Event(self.id, "execution.claimed", "", now, body)])
        self.apply(batch.change)
        return Lease(self.id, owner, self.epoch, self.lease_expires_at), batch

    def renew(self, lease: Lease, ttl: float, now: float) -> Lease:
        """Extend ``lease``. Raises as `Journal.renew` does."""
        fence(lease, self.epoch)
        if self.lease_owner is None:
            raise KitaruFencedError(
                f"The lease of {self.id} was given back, so it can't be extended; claim the execution again.",
                fix=f"kitaru executions resume {self.id}",
            )
        self.updated_at, self.lease_expires_at = now, now + ttl
        return dataclasses.replace(lease, expires_at=now + ttl)

    def release(self) -> None:
        """Leave the execution to whoever claims it next."""
        self.lease_owner = self.lease_expires_at = None

    def lease(self) -> Lease | None:
        """The stored lease, alive or not; None when it was given back."""
        if self.lease_owner is None or self.lease_expires_at is None:
            return None
        return Lease(self.id, Owner(**json.loads(self.lease_owner)), self.epoch, self.lease_expires_at)

    def execution(self, now: float, dead: Callable[[Owner], bool] = is_dead) -> Execution:
        """The execution as people see it, without details."""
        lease = self.lease()
        status = ExecutionStatus(self.status)
        if self.status == _RUNNING and not (lease and _alive(lease, now, dead)):
            status = _INTERRUPTED
        return Execution(
            self.id,
            self.flow,
            status,
            utc(self.created_at),
            utc(self.updated_at),
            None if self.ended_at is None else utc(self.ended_at),
            self.original_exec_id,
            self.deployment,
            self.stack,
            self.key,
            self.epoch,
            lease,
        )


COLUMNS = tuple(f.name for f in dataclasses.fields(ExecutionRow))


def stored_status(status: ExecutionStatus | None) -> str | None:
    """The stored status under which executions of ``status`` are found."""
    return _RUNNING if status is _INTERRUPTED else status.value if status else None


def wanted(
    mark: str, now: float, *, flow: str | None, status: ExecutionStatus | None, before: str | None
) -> tuple[list[str], list[str | float]]:
    """SQL clauses that the rows of a list must meet, with ``mark`` for each value, and the values. `select` decides."""
    given: dict[str, str | float | None] = {
        f"flow = {mark}": flow,
        f"status = {mark}": stored_status(status),
        f"id < {mark}": before,
        f"lease_expires_at > {mark}": now if status is ExecutionStatus.RUNNING else None,
    }
    found = {clause: value for clause, value in given.items() if value is not None}
    return list(found), list(found.values())


def select(
    rows: Iterable[ExecutionRow], status: ExecutionStatus | None, now: float | None = None
) -> Iterator[Execution]:
    """Executions of ``rows`` that have ``status`` as people see it, in the same order, as lazily as ``rows``.

    ``now`` is the instant, in Unix seconds, at which leases are judged; by default that of this machine's clock.
    """
    now = time.time() if now is None else now
    known: dict[Owner, bool] = {}

    def dead(owner: Owner) -> bool:
        if owner not in known:
            known[owner] = is_dead(owner)
        return known[owner]

    for row in rows:
        execution = row.execution(now, dead)
        if status is None or execution.status is status:
            yield execution


def prepare(exec_id: str, events: Sequence[Event]) -> Batch:
    """Events as rows. Bodies become JSON here, before any lock is taken.

    Raises:
        KitaruUsageError: an event belongs to another execution, or holds what isn't JSON or can't be encoded.
        KitaruConflictError: the same event of `model.ONCE` is in ``events`` twice.
    """
    rows: list[EventRow] = []
    change: StatusChange | None = None
    for event in events:
        if event.exec_id != exec_id:
            raise KitaruUsageError(f"An event of {event.exec_id} was appended to {exec_id}; expected its own events.")
        if status := STATUS_OF.get(event.kind):
            change = StatusChange(status.value, event.at, event.at if status.ended else None)
        check_text(event.key)
        rows.append((exec_id, event.kind, event.key, event.at, _json(event), event.blob, event.cache_key))
    if len(rows) > 1:
        _check_once(events)
    return Batch(rows, change)


def _check_once(events: Sequence[Event]) -> None:
    seen: dict[tuple[str, str], Event] = {}
    for event in events:
        if event.kind in ONCE and seen.setdefault((event.kind, event.key), event) is not event:
            raise conflict(seen[event.kind, event.key])


def _json(event: Event) -> str:
    try:
        text = _readable_json(dict(event.body))
        if not text.isascii() and not _encodable(text):
            text = _ascii_json(dict(event.body))
    except (TypeError, ValueError, RecursionError) as error:
        raise KitaruUsageError(
            f"The body of {event.kind} {event.key!r} is not JSON: {error}. Expected JSON values only."
        ) from error
    return text


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_text(text: str) -> None:
    """Raise `KitaruUsageError` when ``text`` has no UTF-8 form (a lone surrogate)."""
    if not text.isascii() and not _encodable(text):
        raise KitaruUsageError(f"{text!r} can't be encoded as UTF-8; expected text without lone surrogates.")


def event_of(columns: Sequence[Any]) -> Event:
    """The event of a stored row: seq, then the columns of `EventRow`."""
    seq, exec_id, kind, key, at, body, blob, cache_key = columns
    try:
        return Event(exec_id, kind, key, at, json.loads(body), blob, seq, cache_key)
    except ValueError as error:
        raise KitaruBackendError(
            f"Event {seq} ({kind}) of {exec_id} is damaged: its body is not JSON ({error})."
        ) from (error)


def events_of(stored: Sequence[Sequence[Any]]) -> list[Event]:
    """The events of many stored rows."""
    if len(stored) > _MANY:
        importlib.import_module("pydantic_core")
    events: list[Event] = []
    for start in range(0, len(stored), _PARSED_TOGETHER):
        rows = stored[start : start + _PARSED_TOGETHER]
        bodies = _bodies([row[5] for row in rows])
        if len(bodies) == len(rows):
            events += [
                Event(e, k, key, at, b, blob, s, c)
                for (s, e, k, key, at, _, blob, c), b in zip(rows, bodies, strict=True)
            ]
        else:
            events += map(event_of, rows)  # one of them is damaged: this says which
    return events


def _bodies(texts: Sequence[str]) -> list[Any]:
    """JSON values of texts, or another number of values when one of them is no JSON."""
    # Pydantic's parser takes half the time of json's, but loading it takes as long as it saves in many rows. What it
    # reads it reads as json does, and it refuses some of it, such as deep nesting. Of \u it isn't asked: its first
    # versions read surrogate pairs as something else.
    if (quick := getattr(sys.modules.get("pydantic_core"), "from_json", None)) is not None:
        with suppress(ValueError):
            return [json.loads(text) if "\\u" in text else quick(text) for text in texts]
    try:
        # Together takes half the time of one by one.
        found: list[Any] = json.loads(f"[{','.join(texts)}]")
    except ValueError:
        return []
    return found


def pending_wait(event: Event) -> Wait:
    """The open wait that a ``wait.created`` event describes."""
    body = event.body
    until = body.get("until")
    return Wait(
        wait_id=event.key,
        exec_id=event.exec_id,
        name=body.get("name", event.key),
        question=body.get("question"),
        schema=body.get("schema") or {},
        status="pending",
        created_at=utc(event.at),
        metadata=body.get("metadata") or {},
        until=None if until is None else utc(until),
        after=tuple(body.get("after") or ()),
        parent=body.get("parent"),
    )


def fence(lease: Lease | None, epoch: int) -> None:
    """Raise `KitaruFencedError` unless ``lease`` (None: an outsider) is the one given out with ``epoch``."""
    if lease is not None and lease.epoch != epoch:
        raise KitaruFencedError(
            f"{lease.exec_id} is at epoch {epoch}, but the lease of process {lease.owner.pid} ({lease.owner.host}) is "
            f"of epoch {lease.epoch}: another worker advances the execution now, and nothing was written.",
            fix=f"kitaru executions get {lease.exec_id}",
        )


def check_lease(exec_id: str, lease: Lease | None) -> None:
    """Raise `KitaruUsageError` when ``lease`` belongs to another execution."""
    if lease is not None and lease.exec_id != exec_id:
        raise KitaruUsageError(f"A lease of {lease.exec_id} was used for {exec_id}; expected its own lease.")


def not_found(exec_id: str) -> KitaruNotFoundError:
    """The error for an unknown execution."""
    return KitaruNotFoundError(f"There is no execution {exec_id!r} in this journal.", fix="kitaru executions list")


def conflict(existing: Event) -> KitaruConflictError:
    """The error for what may happen once: it says who was first, when, and (of a wait) with what."""
    body, when = existing.body, utc(existing.at).isoformat(timespec="seconds")
    if existing.kind == "wait.resolved":
        by = f"{body.get('by')} ({body.get('via')})"
        said = "aborted it" if body.get("aborted") else f"answered {body.get('value')!r}"
        message = f"Wait {existing.key!r} was resolved already: {by} {said} at {when}."
    else:
        name = body.get("name", "")
        message = f"{existing.kind} of {name!r} ({existing.key}) was recorded already at {when}."
    return _with_existing(message, existing, f"kitaru executions get {existing.exec_id}")


def same_id(existing: Execution) -> KitaruConflictError:
    """The error for creating an execution whose id is taken."""
    message = f"{existing.exec_id} exists already (flow {existing.flow_name!r}); expected a fresh id."
    return _with_existing(message, existing, f"kitaru executions get {existing.exec_id}")


def moved(name: str, expected: str | None, found: str | None) -> KitaruConflictError:
    """The error for a reference that isn't what the caller saw."""
    return _with_existing(f"Reference {name!r} is {found!r}, but {expected!r} was expected.", found, None)


def _with_existing(message: str, existing: Any, fix: str | None) -> KitaruConflictError:
    error = KitaruConflictError(message, fix=fix)
    error.existing = existing
    return error


def _alive(lease: Lease, now: float, dead: Callable[[Owner], bool]) -> bool:
    return lease.expires_at > now and not dead(lease.owner)


def _held(lease: Lease, now: float) -> KitaruLeaseError:
    left = max(1, round(lease.expires_at - now))
    return KitaruLeaseError(
        f"{lease.exec_id} is held by process {lease.owner.pid} on {lease.owner.host}, for another {left} s unless it "
        "renews its lease; one worker at a time may advance an execution.",
        fix=f"kitaru executions get {lease.exec_id}",
    )
