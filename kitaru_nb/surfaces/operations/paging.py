"""Pages of lists: cursors, searches that read only so far, texts that are cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.journal.base import Journal
from kitaru_nb.model import Execution, ExecutionStatus, is_exec_id
from kitaru_nb.surfaces.operations.base import Page

T = TypeVar("T")

#: A search for what no index knows reads this many executions, then gives what it has and a cursor to go on.
SEARCHED = 5_000
_CHUNK = 1_000


def search(
    journal: Journal,
    *,
    flow: str | None,
    status: ExecutionStatus | None,
    since: datetime | None,
    fits: Callable[[Execution], bool] | None,
    limit: int,
    before: str | None,
) -> Page[Execution]:
    """Executions newest first, from the one before ``before``; those that ``fits`` takes, where it is given."""
    if before is not None and not is_exec_id(before):
        raise foreign(before)
    found: list[Execution] = []
    chunk = limit + 1 if fits is None else _CHUNK
    looked = 0
    while True:
        rows = journal.executions(flow=flow, status=status, before=before, limit=chunk)
        for row in rows:
            if since is not None and row.created_at < since:
                return Page(tuple(found))
            if len(found) == limit:
                return Page(tuple(found), next=before)
            before = row.exec_id
            if fits is None or fits(row):
                found.append(row)
        looked += len(rows)
        if len(rows) < chunk:
            return Page(tuple(found))
        if looked >= SEARCHED:
            return Page(tuple(found), next=before)


def by_position(items: Sequence[T], limit: int, cursor: str | None) -> Page[T]:
    """A page of a list that only grows at its end. Raises `KitaruUsageError` for a cursor that isn't one of its."""
    start = position(cursor)
    end = start + limit
    return Page(tuple(items[start:end]), next=str(end) if end < len(items) else None, total=len(items))


def position(cursor: str | None) -> int:
    """The position that a cursor means."""
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 16):
        raise foreign(cursor)
    return int(cursor)


def foreign(cursor: str) -> KitaruUsageError:
    """The error for a cursor that no page of this list gave."""
    return KitaruUsageError(f"{cut(cursor, 60)!r} is no cursor of this list; expected the `next` of one of its pages.")


def contains(text: str | None, *fields: str | None) -> bool:
    """Whether one of the fields holds ``text``, whatever the case; any does where there is no text."""
    return text is None or any(text.casefold() in field.casefold() for field in fields if field)


def cut(text: str, length: int) -> str:
    """``text``, with what is longer than ``length`` left off and said so."""
    return text if len(text) <= length else f"{text[:length]}… ({len(text):,} characters)"
