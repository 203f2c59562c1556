"""The calls inside a checkpoint cell as a tree: an agent's run, its model calls, its tools, as they happen."""

from __future__ import annotations

import ast
import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kitaru_nb.core.engine import Call
from kitaru_nb.core.run import Run
from kitaru_nb.journal.fold import Outputs
from kitaru_nb.model import Event

RUNNING, DONE, REUSED, FAILED, STOPPED = "running", "done", "reused", "failed", "stopped"

#: Types whose arguments are shown while they run; of other calls they may be large, and are shown once recorded.
_TOOLS = frozenset({"tool_call", "mcp_call"})
_SHORT = 200


@dataclass(slots=True)
class CallNode:
    """One call.

    Attributes:
        state: ``running``, ``done`` (it ran now), ``reused``, ``failed`` or ``stopped`` (interrupted with the cell).
        began: when it started, in Unix seconds; ``seconds`` how long it took, once known.
        own_tokens, own_cost: what the call itself tells, in USD; an agent's run tells them for all its calls.
        asked, answered: short text of its inputs and of its outcome, or of its failure.
    """

    call_id: str
    name: str
    type: str | None
    state: str
    began: float
    seconds: float | None = None
    own_tokens: int = 0
    own_cost: float = 0.0
    asked: str = ""
    answered: str = ""
    attempt: int = 1
    children: list[CallNode] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Tokens of this call and all inside it."""
        return self.own_tokens or sum(child.tokens for child in self.children)

    @property
    def cost(self) -> float:
        """Cost of this call and all inside it, in USD."""
        return self.own_cost or sum(child.cost for child in self.children)

    def walk(self) -> Iterator[CallNode]:
        """This call and all inside it, outer ones first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def paid(self) -> int:
        """Tokens that were paid for now, not taken from the record."""
        if self.state == REUSED:
            return 0
        inside = sum(child.paid() for child in self.children)
        return inside if self.children else self.own_tokens


class CallTree:
    """All calls inside one checkpoint, fed by what the run tells. Not thread-safe: its owner holds a lock."""

    def __init__(self, call_id: str) -> None:
        self.root = CallNode(call_id, "", None, RUNNING, time.time())
        self._nodes = {call_id: self.root}

    def __len__(self) -> int:
        return len(self._nodes) - 1

    @property
    def calls(self) -> list[CallNode]:
        """All calls inside, outer ones first."""
        return [node for node in self.root.walk() if node is not self.root]

    @property
    def tokens(self) -> int:
        """Tokens of all calls."""
        return self.root.tokens

    @property
    def running(self) -> bool:
        """Whether a call is in flight."""
        return any(node.state == RUNNING for node in self._nodes.values() if node is not self.root)

    def has(self, call_id: str) -> bool:
        """Whether a call belongs to the tree."""
        return call_id in self._nodes

    def take(self, kind: str, call: Call, event: Event | None) -> None:
        """Account for ``started``, ``completed``, ``failed`` or ``reused`` of a call inside."""
        node = self._nodes.get(call.call_id)
        if node is None:
            node = CallNode(call.call_id, call.name, call.type, RUNNING, time.time())
            self._put(node, call.frame.call_id)
        if event is None:
            node.state, node.seconds = RUNNING, None
            if call.type in _TOOLS:
                preview = call.frame.run.runtime.preview
                node.asked = arguments_text({i.name: preview(i.value)["text"] for i in call.inputs})
        elif kind == "failed":
            self._failed(node, event)
        else:
            self._ended(node, REUSED if kind == "reused" else DONE, event)

    def add_recorded(self, events: Iterable[Event], parent: str) -> None:
        """Show the recorded calls that a reused one had inside; ``parent`` is the id that the reused one has here."""
        for event in events:
            if event.key in self._nodes:
                continue
            body = event.body
            node = CallNode(event.key, str(body["name"]), body.get("type"), REUSED, float(body.get("started_at", 0)))
            self._put(node, str(body.get("parent", "")), parent)
            if event.kind == "checkpoint.failed":
                node.began = event.body["started_at"]
                self._failed(node, event)
            else:
                self._ended(node, REUSED, event)

    def stop(self) -> None:
        """The cell has ended: what still seems to run was stopped with it."""
        for node in self._nodes.values():
            if node.state == RUNNING and node is not self.root:
                node.state, node.seconds = STOPPED, time.time() - node.began

    def _put(self, node: CallNode, parent: str, otherwise: str = "") -> None:
        above = self._nodes.get(parent) or self._nodes.get(otherwise) or self.root
        self._nodes[node.call_id] = node
        above.children.append(node)

    def _ended(self, node: CallNode, state: str, event: Event) -> None:
        body, outputs = event.body, Outputs(event)
        metadata = body.get("metadata", {})
        node.state, node.seconds = state, float(body.get("duration", 0.0))
        node.attempt = int(body.get("attempt", 1))
        node.own_tokens, node.own_cost = tokens_in(metadata), float(metadata.get("cost") or 0.0)
        node.asked = arguments_text({i[0]: i[2] for i in body.get("inputs", ())})
        node.answered = unquoted(str(outputs[0].preview.get("text", ""))) if outputs else ""

    def _failed(self, node: CallNode, event: Event) -> None:
        body = event.body
        node.answered = one_line(str(body["failure"]["message"]))
        if body["final"]:
            node.state, node.seconds = FAILED, event.at - node.began
        else:
            node.attempt = int(body["attempt"]) + 1


class RecordedCalls:
    """Finds the recorded calls inside a completed one, wherever it ran. Looks through what is at hand once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._known: Mapping[str, Sequence[Event]] | None = None

    def inside(self, event: Event) -> list[Event]:
        """Outer calls first, those of one level in order of time."""
        if self._known is None:
            plan = self._run.engine.plan
            donors: Mapping[str, Event] = {} if plan is None else plan.donors
            self._known = _by_parent({**donors, **self._run.engine.completed}.values())
        found = _below(event.key, self._known)
        if len(found) >= event.body.get("cell", {}).get("calls", 0):
            return found
        # It ran in another execution, or some of the calls failed: only the history knows them.
        origin = event.body.get("reused") or {"exec_id": event.exec_id, "call_id": event.key}
        ended = {e.key: e for e in self._run.journal.history(origin["exec_id"]) if _has_ended(e)}
        return max(found, _below(origin["call_id"], _by_parent(ended.values())), key=len)


def _has_ended(event: Event) -> bool:
    return event.kind == "checkpoint.completed" or (event.kind == "checkpoint.failed" and event.body["final"])


def _by_parent(events: Iterable[Event]) -> Mapping[str, Sequence[Event]]:
    found: dict[str, list[Event]] = {}
    for event in list(events):
        found.setdefault(event.body.get("parent", ""), []).append(event)
    return found


def _below(call_id: str, inside: Mapping[str, Sequence[Event]]) -> list[Event]:
    found: list[Event] = []
    todo = [call_id]
    for parent in todo:  # grows while it is read
        below = sorted(inside.get(parent, ()), key=lambda e: float(e.body.get("started_at", e.at)))
        found += below
        todo += [event.key for event in below]
    return found


def tokens_in(metadata: Mapping[str, Any]) -> int:
    """Tokens that a call's metadata tells."""
    if "tokens" in metadata:
        return int(metadata["tokens"] or 0)
    return int(metadata.get("input_tokens") or 0) + int(metadata.get("output_tokens") or 0)


def arguments_text(inputs: Mapping[str, str]) -> str:
    """Inputs as one short line: ``query='knots', limit=3``. A single input ``arguments`` stands for those in it."""
    if list(inputs) == ["arguments"]:
        try:
            given = ast.literal_eval(inputs["arguments"])
        except (ValueError, SyntaxError):
            given = None  # a preview that was cut, or of something else
        if not isinstance(given, dict):
            return one_line(inputs["arguments"])
        inputs = {str(name): repr(value) for name, value in given.items()}
    return one_line(", ".join(f"{name}={text}" for name, text in inputs.items()))


def unquoted(text: str) -> str:
    """One line of a preview; that of a plain text without its quotes."""
    if text[:1] in ("'", '"') and text[-1:] == text[:1]:
        with contextlib.suppress(ValueError, SyntaxError):
            text = str(ast.literal_eval(text))
    return one_line(text)


def one_line(text: str, width: int = _SHORT) -> str:
    """Text without line breaks and control characters, cut to ``width``."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: width * 4]).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def folded(nodes: Sequence[CallNode], limit: int) -> list[list[CallNode]]:
    """Calls of one level in order, as groups: one alone is shown, several are to be folded into one line.

    Of many calls the last ones are shown, and agents, and what runs or has failed.
    """
    if len(nodes) <= limit:
        return [[node] for node in nodes]
    recent = nodes[-limit:]
    marked = [n for n in nodes[:-limit] if n.children or n.state in (RUNNING, FAILED, STOPPED)]
    shown = {id(node) for node in (*marked[-3 * limit :], *recent)}
    groups: list[list[CallNode]] = []
    for node in nodes:
        if id(node) in shown or not groups or id(groups[-1][0]) in shown:
            groups.append([node])
        else:
            groups[-1].append(node)
    return groups
