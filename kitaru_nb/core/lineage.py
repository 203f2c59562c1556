"""The graph of an execution: which call read what which other call made."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal, NamedTuple

from kitaru_nb.model import CheckpointCall, Execution


class Edge(NamedTuple):
    """``source`` and ``target`` are call ids, ``input:NAME``, ``wait:ID`` or ``artifact:ID``.

    ``data``: the value was passed on. ``order``: only program order is known (the value was built in between).
    ``nested``: the target was called inside the source.
    """

    source: str
    target: str
    kind: Literal["data", "order", "nested"]


def edges(execution: Execution) -> list[Edge]:
    """All edges, in the order of their targets."""
    found: list[Edge] = []
    for call in execution.checkpoints:
        sources = [source for given in call.inputs for source in given.sources]
        found += edges_to(call.call_id, sources, call.after, call.parent)
    for wait in execution.waits:
        found += edges_to(f"wait:{wait.wait_id}", (), wait.after, None)
    return found


def edges_to(target: str, sources: Iterable[str], after: Collection[str], parent: str | None) -> list[Edge]:
    """The edges that end in ``target``: what it read, else what came before it, and what it was called in."""
    read = dict.fromkeys(sources)
    found = [Edge(source, target, "data") for source in read]
    if after:
        found += [Edge(before, target, "order") for before in dict.fromkeys(after) if before not in read]
    if parent:
        found.append(Edge(parent, target, "nested"))
    return found


def downstream(execution: Execution, roots: Collection[str]) -> set[str]:
    """Call ids that run again when ``roots`` do: roots, calls inside them, and whatever read their outputs.

    Roots may be call ids, ``input:NAME`` or ``wait:ID``. The enclosing calls of all these run again too (see
    `enclosing`), so what read *their* outputs is in the answer; their other children are not.
    """
    by_parent: dict[str | None, list[CheckpointCall]] = {}
    readers: dict[str, list[CheckpointCall]] = {}
    by_id = {call.call_id: call for call in execution.checkpoints}
    for call in execution.checkpoints:
        by_parent.setdefault(call.parent, []).append(call)
        for given in call.inputs:
            for source in given.sources:
                readers.setdefault(source, []).append(call)
    again: set[str] = set()
    entered: set[str] = set()
    todo = list(roots)
    while todo:
        found = todo.pop()
        if found in again:
            continue
        again.add(found)
        todo += [c.call_id for c in readers.get(found, ())]
        todo += [c.call_id for c in by_parent.get(found, ())] if found in by_id else []
        parent = by_id[found].parent if found in by_id else None
        while parent is not None and parent not in entered:
            entered.add(parent)
            todo += [c.call_id for c in readers.get(parent, ())]
            parent = by_id[parent].parent if parent in by_id else None
    return {found for found in again if found in by_id}


def enclosing(execution: Execution, calls: Collection[str]) -> set[str]:
    """The calls around ``calls``, at every level: their bodies run again, what is reused inside them is not."""
    by_id = {call.call_id: call for call in execution.checkpoints}
    found: set[str] = set()
    for call_id in calls:
        parent = by_id[call_id].parent if call_id in by_id else None
        while parent is not None and parent not in found:
            found.add(parent)
            parent = by_id[parent].parent if parent in by_id else None
    return found
