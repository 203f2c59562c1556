"""What is read of executions: lists, one of them, its checkpoints, graph, logs and artifacts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from operator import attrgetter
from typing import Any

from kitaru_nb.core.diff import ExecutionDiff
from kitaru_nb.core.graph import ExecutionGraph
from kitaru_nb.errors import KitaruNotFoundError
from kitaru_nb.model import Artifact, CheckpointCall, Execution, ExecutionStatus, FailureInfo, LogEntry
from kitaru_nb.surfaces.operations import arguments as a
from kitaru_nb.surfaces.operations.base import (
    ArtifactDetail,
    Caller,
    Content,
    Desk,
    LogPage,
    Page,
    Stats,
)
from kitaru_nb.surfaces.operations.paging import SEARCHED, by_position, contains, cut, foreign, position, search

#: Texts of users and models are cut at this many characters where a list shows them.
MAX_TEXT = 20_000
_COUNTED = 10_000

_execution_fields = attrgetter(*(f.name for f in dataclasses.fields(Execution)))
_artifact_fields = attrgetter(*(f.name for f in dataclasses.fields(Artifact)))


def list_executions(desk: Desk, caller: Caller, given: a.ListExecutions) -> Page[Execution]:
    """Newest first. A search by text reads a few thousand at a time: a page may be empty and still have a next."""

    def fits(row: Execution) -> bool:
        return (
            contains(given.text, row.exec_id, row.flow_name, row.key, row.deployment)
            and given.deployment in (None, row.deployment)
            and given.original in (None, row.original_exec_id)
        )

    searched = (given.text, given.deployment, given.original) != (None, None, None)
    return search(
        desk.client.runtime.journal,
        flow=given.flow,
        status=given.status,
        since=given.since,
        fits=fits if searched else None,
        limit=given.limit,
        before=given.cursor,
    )


def stats(desk: Desk, caller: Caller, given: a.Nothing) -> Stats:
    """Counts of all executions. Those that run, but that no live worker holds, count as interrupted."""
    journal = desk.client.runtime.journal
    statuses: Counter[str] = Counter()
    flows: Counter[str] = Counter()
    for (flow, status), count in journal.census().items():
        statuses[status] += count
        flows[flow] += count
    interrupted = len(journal.executions(status=ExecutionStatus.INTERRUPTED, limit=_COUNTED))
    statuses[ExecutionStatus.INTERRUPTED.value] = interrupted
    statuses[ExecutionStatus.RUNNING.value] -= interrupted
    shown = {status: count for status, count in statuses.items() if count > 0}
    return Stats(flows.total(), shown, tuple(flows.most_common(100)), len(journal.waits(limit=_COUNTED)))


def latest(desk: Desk, caller: Caller, given: a.LatestExecution) -> Execution:
    """The newest execution."""
    (found,) = desk.client.executions.list(flow=given.flow, status=given.status, limit=1) or (None,)
    if found is None:
        raise KitaruNotFoundError("There is no execution that fits.", fix="kitaru executions list")
    return summary(desk, found.exec_id)


def get(desk: Desk, caller: Caller, given: a.OneExecution) -> Execution:
    """One execution: inputs, waits, failure, result and metadata; its checkpoints and artifacts have pages."""
    return summary(desk, resolved(desk, given))


def summary(desk: Desk, exec_id: str) -> Execution:
    """An execution without its checkpoints and artifacts."""
    found = desk.client.executions.get(exec_id, details=False)
    plain = Execution(*_execution_fields(found))
    result = plain.result and _plain(plain.result)
    return dataclasses.replace(plain, failure=_short(plain.failure), result=result)


def resolved(desk: Desk, given: a.OneExecution) -> str:
    """The id of the execution that is meant."""
    return desk.client.executions.resolve(given.exec_id)


def checkpoints(desk: Desk, caller: Caller, given: a.ListCheckpoints) -> Page[CheckpointCall]:
    """In the order in which they started. A search reads a few thousand at a time, as that of executions."""
    exec_id = resolved(desk, given)
    searched = (given.status, given.text) != (None, None)
    chunk = SEARCHED if searched else given.limit + 1
    calls = desk.client.executions.checkpoints(exec_id, after=given.cursor, limit=chunk, parent=given.parent)
    found: list[CheckpointCall] = []
    last = given.cursor
    for call in calls:
        if len(found) == given.limit:
            return Page(tuple(found), next=last)
        last = call.call_id
        if given.status in (None, call.status) and contains(given.text, call.name, call.call_id):
            found.append(_shown_call(call))
    return Page(tuple(found), next=last if len(calls) == chunk else None)


def checkpoint(desk: Desk, caller: Caller, given: a.OneCheckpoint) -> CheckpointCall:
    """One call of a checkpoint, with its inputs, outputs, attempts and metadata."""
    return _shown_call(desk.client.executions.checkpoint(resolved(desk, given), given.call_id))


def graph(desk: Desk, caller: Caller, given: a.OneExecution) -> ExecutionGraph:
    """Inputs, checkpoints and waits, with the edges between them; no values."""
    return desk.client.executions.graph(resolved(desk, given))


def _shown_call(call: CheckpointCall) -> CheckpointCall:
    attempts = tuple(dataclasses.replace(t, failure=_short(t.failure)) for t in call.attempts)
    return dataclasses.replace(call, failure=_short(call.failure), attempts=attempts)


def _plain(artifact: Artifact) -> Artifact:
    """Without the client that it can be loaded with."""
    return Artifact(*_artifact_fields(artifact))


def _short(failure: FailureInfo | None) -> FailureInfo | None:
    if failure is None:
        return None
    traceback = failure.traceback and cut(failure.traceback, MAX_TEXT)
    return dataclasses.replace(failure, message=cut(failure.message, MAX_TEXT), traceback=traceback)


def logs(desk: Desk, caller: Caller, given: a.ReadLogs) -> LogPage:
    """What it printed and logged, oldest first. Without a cursor the last lines."""
    found = desk.client.executions.logs(resolved(desk, given), checkpoint=given.checkpoint, source=given.source)
    start, end = _window(len(found), given)
    return LogPage(
        tuple(_shown_entry(entry) for entry in found[start:end]),
        next=f"after:{end}" if end < len(found) else None,
        previous=f"before:{start}" if start > 0 else None,
    )


def _window(count: int, given: a.ReadLogs) -> tuple[int, int]:
    if given.cursor is None:
        return max(0, count - given.limit), count
    side, colon, where = given.cursor.partition(":")
    if side not in ("after", "before") or not colon:
        raise foreign(given.cursor)
    at = min(position(where), count)
    return (at, min(at + given.limit, count)) if side == "after" else (max(0, at - given.limit), at)


def _shown_entry(entry: LogEntry) -> LogEntry:
    return dataclasses.replace(entry, message=cut(entry.message, MAX_TEXT))


def diff(desk: Desk, caller: Caller, given: a.Diff) -> ExecutionDiff:
    """Two executions side by side, checkpoint by checkpoint."""
    executions = desk.client.executions
    return executions.diff(executions.resolve(given.exec_id), executions.resolve(given.other))


def list_artifacts(desk: Desk, caller: Caller, given: a.ListArtifacts) -> Page[Artifact]:
    """In the order in which they were made; values are shown by their previews."""
    found = desk.client.artifacts.list(
        resolved(desk, given), name=given.name, kind=given.kind, producing_call=given.call
    )
    page = by_position(found, given.limit, given.cursor)
    return Page(tuple(map(_plain, page.items)), page.next, page.total)


def get_artifact(desk: Desk, caller: Caller, given: a.OneArtifact) -> ArtifactDetail:
    """What an artifact is, its preview, and which calls read it. Nothing is loaded or unpickled."""
    artifact = _artifact(desk, given)
    sources = {f"artifact:{artifact.artifact_id}", artifact.producing_call}
    edges = desk.client.executions.graph(artifact.exec_id).edges
    readers = tuple(edge.target for edge in edges if edge.kind == "data" and edge.source in sources)
    fields: tuple[Any, ...] = (*_artifact_fields(artifact), readers)
    return ArtifactDetail(*fields)


def _artifact(desk: Desk, given: a.OneArtifact) -> Artifact:
    execution, slash, name = given.id.partition("/")
    if not slash:
        raise KitaruNotFoundError(
            f"{given.id!r} names no artifact; expected an artifact's id, or EXECUTION/NAME, such as latest/result.",
            fix="kitaru artifacts list EXECUTION",
        )
    return desk.client.artifacts.get(f"{desk.client.executions.resolve(execution)}/{name}")


def content(desk: Desk, caller: Caller, given: a.ReadContent) -> Content:
    """The stored bytes of an artifact, verified; nothing is unpickled. Byte ranges are honoured."""
    return Content(_artifact(desk, given), given.offset, given.length)
