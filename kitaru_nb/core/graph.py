"""The graph of an execution, light enough for thousands of calls: no inputs, outputs or previews."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from kitaru_nb.core.lineage import Edge, edges_to
from kitaru_nb.core.replay import tokens_in
from kitaru_nb.journal.fold import FoldedCall, Folding
from kitaru_nb.model import Execution, ExecutionStatus, Wait, utc


class Node(NamedTuple):
    """An input of the flow, a call of a checkpoint, or a wait.

    A named tuple for the reason that `kitaru_nb.model.Event` is one: graphs have thousands of them.

    Attributes:
        node_id: a call id, ``input:NAME`` or ``wait:ID``; edges name these, and ``artifact:ID`` of other executions.
        selector: what a person types to mean it.
        type: of a call, e.g. ``model_call``.
        duration: seconds, once it has ended.
        parent: call id of the enclosing call.
        failure: message of the last failure of a call that failed.
    """

    node_id: str
    kind: Literal["input", "checkpoint", "wait"]
    name: str
    selector: str
    type: str | None
    status: str
    started_at: datetime | None = None
    ended_at: datetime | None = None
    duration: float | None = None
    tokens: int = 0
    cost: float = 0.0
    parent: str | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class ExecutionGraph:
    """Inputs, then calls in the order in which they started, then waits; ``seq`` is the last event that counts."""

    exec_id: str
    status: ExecutionStatus
    seq: int
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def graph(row: Execution, folding: Folding) -> ExecutionGraph:
    """The graph of a folded execution."""
    nodes = [Node(f"input:{name}", "input", name, name, None, "completed") for name in folding.inputs]
    edges: list[Edge] = []
    for call in folding.calls():
        if (drawn := call.drawn) is None:
            drawn = call.drawn = (_call(folding, call), _edges(call))
        nodes.append(drawn[0])
        edges += drawn[1]
    for wait in folding.waits.values():
        nodes.append(_wait(wait))
        edges += edges_to(f"wait:{wait.wait_id}", (), wait.after, None)
    return ExecutionGraph(row.exec_id, row.status, folding.seq, tuple(nodes), tuple(edges))


def _call(folding: Folding, call: FoldedCall) -> Node:
    event = call.event
    body = event.body
    started, ended = call.started, None if call.status == "running" else call.ended
    metadata = folding.metadata_of(call)
    return Node(
        event.key,
        "checkpoint",
        body["name"],
        call.selector,
        body.get("type"),
        call.status,
        utc(started),
        None if ended is None else utc(ended),
        None if ended is None else round(ended - started, 6),
        tokens_in(metadata) if metadata else 0,
        float(metadata.get("cost") or 0) if metadata else 0.0,
        body.get("parent") or None,
        body["failure"]["message"] if event.kind == "checkpoint.failed" else None,
    )


def _edges(call: FoldedCall) -> list[Edge]:
    body = call.event.body
    sources = [source for given in body.get("inputs", ()) if len(given) > 3 for source in given[3]]
    after, parent = body.get("after", ()), body.get("parent")
    if len(after) == 1 and not sources and not parent:  # as nearly all calls of a long loop: quicker
        return [Edge(after[0], call.event.key, "order")]
    return edges_to(call.event.key, sources, after, parent)


def _wait(wait: Wait) -> Node:
    seconds = None if wait.resolved_at is None else (wait.resolved_at - wait.created_at).total_seconds()
    return Node(
        f"wait:{wait.wait_id}",
        "wait",
        wait.name,
        wait.name,
        None,
        wait.status,
        wait.created_at,
        wait.resolved_at,
        seconds,
        parent=wait.parent,
    )
