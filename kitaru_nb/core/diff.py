"""Two executions side by side: which calls are the same, which differ, and in what."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from kitaru_nb.core.replay import tokens_of
from kitaru_nb.model import CheckpointCall, Execution


@dataclass(frozen=True, slots=True)
class CallDiff:
    """One call in both executions.

    Attributes:
        change: ``same`` output, ``output`` differs, ``status`` differs, or it is ``only_left`` / ``only_right``.
        why: first cause that is known: ``inputs: topic``, ``code`` or ``ran again``. Where nothing differs: ``reused``
            when one execution took it over from another one, by itself or inside the call around it; else "".
        left, right: preview of the output, or None.
        seconds, tokens: (left, right).
    """

    selector: str
    change: Literal["same", "output", "status", "only_left", "only_right"]
    why: str
    left: str | None
    right: str | None
    seconds: tuple[float | None, float | None]
    tokens: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ExecutionDiff:
    """All calls of two executions, in the order of the left one."""

    left: str
    right: str
    calls: tuple[CallDiff, ...]
    waits: tuple[tuple[str, str, str], ...]
    result: tuple[str, str]

    @property
    def differing(self) -> tuple[CallDiff, ...]:
        """The calls that aren't the same."""
        return tuple(c for c in self.calls if c.change != "same")


def diff_executions(left: Execution, right: Execution) -> ExecutionDiff:
    """Compare calls with equal inputs, and then those of the same selector at the same nesting."""
    pairs = _pairs(left, right)
    inside_reused = _inside_reused(left, right, pairs.values())
    rows = [_compare(path, *calls, inside_reused) for path, calls in pairs.items()]
    waits_before = {w.name: repr(w.value) if w.status == "resolved" else w.status for w in left.waits}
    waits_after = {w.name: repr(w.value) if w.status == "resolved" else w.status for w in right.waits}
    waits = tuple(
        (name, waits_before.get(name, "—"), waits_after.get(name, "—"))
        for name in dict.fromkeys([*waits_before, *waits_after])
    )
    return ExecutionDiff(left.exec_id, right.exec_id, tuple(rows), waits, (_result(left), _result(right)))


def _pairs(left: Execution, right: Execution) -> dict[str, tuple[CheckpointCall | None, CheckpointCall | None]]:
    """(call, its counterpart) by path, in the order of the left execution; then what only the right one has."""
    before, after = _by_path(left), _by_path(right)
    same_id = {call.call_id: path for path, call in after.items()}
    taken = {same_id[call.call_id] for call in before.values() if call.call_id in same_id}
    pairs: dict[str, tuple[CheckpointCall | None, CheckpointCall | None]] = {}
    for path, call in before.items():
        other = same_id.get(call.call_id) or (path if path in after and path not in taken else None)
        pairs[path] = (call, after[other] if other else None)
        taken |= {other} if other else set()
    for path, call in after.items():
        if path not in taken:
            pairs[path if path not in pairs else f"{path} ({right.exec_id})"] = (None, call)
    return pairs


def _by_path(execution: Execution) -> dict[str, CheckpointCall]:
    by_id = {c.call_id: c for c in execution.checkpoints}
    counts: dict[str, int] = {}
    paths: dict[str, str] = {}
    for call in execution.checkpoints:
        parent = paths.get(call.parent or "", "")
        base = f"{parent} › {call.name}" if parent else call.name
        n = counts[base] = counts.get(base, 0) + 1
        paths[call.call_id] = base if n == 1 else f"{base}#{n}"
    return {path: by_id[call_id] for call_id, path in paths.items()}


def _inside_reused(
    left: Execution, right: Execution, pairs: Iterable[tuple[CheckpointCall | None, CheckpointCall | None]]
) -> set[str]:
    """Ids of calls that only one execution lists because the other one took over the call around them as a whole."""
    by_id: dict[str, CheckpointCall] = {c.call_id: c for e in (left, right) for c in e.checkpoints}
    taken_over: set[str] = set()
    alone: list[CheckpointCall] = []
    for one, other in pairs:
        if one is None or other is None:
            alone += [call for call in (one, other) if call is not None]
        elif "reused" in (one.status, other.status) and _same(one, other):
            taken_over |= {one.call_id, other.call_id}
    found: set[str] = set()
    for call in alone:
        parent = call.parent
        while parent is not None and parent not in taken_over:
            parent = by_id[parent].parent if parent in by_id else None
        if parent is not None:
            found.add(call.call_id)
    return found


def _same(left: CheckpointCall, right: CheckpointCall) -> bool:
    return [(a.name, a.digest) for a in left.artifacts] == [(a.name, a.digest) for a in right.artifacts]


def _compare(
    path: str, left: CheckpointCall | None, right: CheckpointCall | None, inside_reused: Collection[str]
) -> CallDiff:
    if right is None and left is not None and left.call_id in inside_reused:
        right = left
    elif left is None and right is not None and right.call_id in inside_reused:
        left = right
    seconds = (left.duration if left else None, right.duration if right else None)
    tokens = (tokens_of(left) if left else 0, tokens_of(right) if right else 0)
    shown = (_preview(left), _preview(right))
    if left is None or right is None:
        return CallDiff(path, "only_right" if left is None else "only_left", "", *shown, seconds, tokens)
    done = ("completed", "reused")
    if (left.status in done) != (right.status in done):
        return CallDiff(path, "status", f"{left.status} → {right.status}", *shown, seconds, tokens)
    if _same(left, right):
        reused = left is right or "reused" in (left.status, right.status)
        return CallDiff(path, "same", "reused" if reused else "", *shown, seconds, tokens)
    return CallDiff(path, "output", _why(left, right), *shown, seconds, tokens)


def _why(left: CheckpointCall, right: CheckpointCall) -> str:
    before = {i.name: i.token for i in left.inputs}
    changed = [i.name for i in right.inputs if before.get(i.name) != i.token]
    if changed:
        return f"inputs: {', '.join(changed)}"
    return "code" if left.code != right.code else "ran again"


def _preview(call: CheckpointCall | None) -> str | None:
    if call is None or not call.artifacts:
        return None
    if not call.artifacts[0].names:
        return str(call.artifacts[0].preview.get("text", ""))
    return ", ".join(f"{'='.join(a.names)}={a.preview.get('text', '')}" for a in call.artifacts if a.names)


def _result(execution: Execution) -> str:
    return str(execution.result.preview.get("text", "")) if execution.result else str(execution.status)
