"""The inbox: waits of all executions."""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import Any

from kitaru_nb.errors import KitaruNotFoundError, KitaruUsageError
from kitaru_nb.model import Wait
from kitaru_nb.surfaces.operations import arguments as a
from kitaru_nb.surfaces.operations.base import Caller, Count, Desk, InboxWait, Page
from kitaru_nb.surfaces.operations.paging import contains, cut, foreign
from kitaru_nb.surfaces.operations.reads import resolved

#: Longer questions are cut in lists; one wait is read whole.
MAX_QUESTION = 4_000
#: More pending waits than this are not looked at.
MOST = 10_000

_fields = attrgetter(*(f.name for f in dataclasses.fields(Wait)))


def list_waits(desk: Desk, caller: Caller, given: a.ListWaits) -> Page[InboxWait]:
    """Pending ones, oldest first; of one execution also closed ones, newest first."""
    chosen = [
        wait
        for wait in _candidates(desk, given)
        if contains(given.text, wait.name, wait.question, wait.exec_id)
        and given.flow in (None, _flow(desk, given, wait))
    ]
    last = None if given.cursor is None else _parsed(given.cursor)
    newest_first = given.status != "pending"
    chosen.sort(key=_order, reverse=newest_first)
    rest = [w for w in chosen if last is None or (_order(w) < last if newest_first else _order(w) > last)]
    shown = tuple(_shown(desk, wait) for wait in rest[: given.limit])
    more = len(rest) > given.limit
    return Page(shown, _cursor(rest[given.limit - 1]) if more else None, len(chosen))


def _candidates(desk: Desk, given: a.ListWaits) -> list[Wait]:
    if given.exec_id is None:
        if given.status != "pending":
            raise KitaruUsageError(
                f"status={given.status} needs exec_id: closed waits are listed for one execution.",
                fix="waits?status=all&exec_id=EXECUTION",
            )
        return desk.client.runtime.journal.waits(limit=MOST)
    execution = desk.client.executions.get(desk.client.executions.resolve(given.exec_id), details=False)
    return [wait for wait in execution.waits if given.status in ("all", wait.status)]


def _flow(desk: Desk, given: a.ListWaits, wait: Wait) -> str | None:
    return None if given.flow is None else desk.client.runtime.journal.execution(wait.exec_id).flow_name


def _order(wait: Wait) -> tuple[float, str, str]:
    return wait.created_at.timestamp(), wait.exec_id, wait.wait_id


def _cursor(wait: Wait) -> str:
    at, exec_id, wait_id = _order(wait)
    return f"{at!r}~{exec_id}~{wait_id}"


def _parsed(cursor: str) -> tuple[float, str, str]:
    at, _, rest = cursor.partition("~")
    exec_id, tilde, wait_id = rest.partition("~")
    if not tilde:
        raise foreign(cursor)
    try:
        return float(at), exec_id, wait_id
    except ValueError as error:
        raise foreign(cursor) from error


def _shown(desk: Desk, wait: Wait, *, whole: bool = False) -> InboxWait:
    flow = desk.client.runtime.journal.execution(wait.exec_id).flow_name
    if not whole and wait.question:
        wait = dataclasses.replace(wait, question=cut(wait.question, MAX_QUESTION))
    fields: tuple[Any, ...] = (*_fields(wait), flow)
    return InboxWait(*fields)


def count_waits(desk: Desk, caller: Caller, given: a.Nothing) -> Count:
    """How many waits are pending."""
    return Count(len(desk.client.runtime.journal.waits(limit=MOST)))


def get_wait(desk: Desk, caller: Caller, given: a.OneWait) -> InboxWait:
    """One wait, open or closed, with its whole question and who answered."""
    execution = desk.client.executions.get(resolved(desk, given), details=False)
    for wait in reversed(execution.waits):
        if given.wait_id in (wait.wait_id, wait.name):
            return _shown(desk, wait, whole=True)
    there = ", ".join(wait.name for wait in execution.waits) or "none"
    raise KitaruNotFoundError(f"{execution.exec_id} has no wait {given.wait_id!r}. Waits are: {there}.")
