"""Executions that have not ended: what they use must stay."""

from __future__ import annotations

from collections.abc import Iterator

from kitaru_nb.journal.base import Journal
from kitaru_nb.model import Execution, ExecutionStatus

_STATUSES = (
    ExecutionStatus.PENDING,
    ExecutionStatus.RUNNING,
    ExecutionStatus.WAITING,
    ExecutionStatus.INTERRUPTED,
)
_PAGE = 500


def unended(journal: Journal, *, flow: str | None = None) -> Iterator[Execution]:
    """All that have not ended, or those of a flow, by status and newest first.

    Raises:
        KitaruBackendError: the journal can't be asked.
    """
    for status in _STATUSES:
        before: str | None = None
        while rows := journal.executions(flow=flow, status=status, before=before, limit=_PAGE):
            yield from rows
            before = rows[-1].exec_id
