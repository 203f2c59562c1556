"""Two executions side by side: which calls are the same, which differ, and in what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kitaru_nb.core.replay import tokens_of
from kitaru_nb.model import CheckpointCall, Execution


@dataclass(frozen=True, slots=True)
class CallDiff:
    """One call in both executions.

    Attributes:
        change: ``same`` output, ``output`` differs, ``status`` differs, or it is ``only_left`` / ``only_right``.
        why: first cause that is known: ``inputs: topic``, ``code`` or ``ran again``; "" where nothing differs.
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
    rows = [_compare(path, *calls) for path, calls in _pairs(left, right).items()]
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


def _compare(path: str, left: CheckpointCall | None, right: CheckpointCall | None) -> CallDiff:
    seconds = (left.duration if left else None, right.duration if right else None)
    tokens = (tokens_of(left) if left else 0, tokens_of(right) if right else 0)
    shown = (_preview(left), _preview(right))
    if left is None or right is None:
        return CallDiff(path, "only_right" if left is None else "only_left", "", *shown, seconds, tokens)
    done = ("completed", "reused")
    if (left.status in done) != (right.status in done):
        return CallDiff(path, "status", f"{left.status} → {right.status}", *shown, seconds, tokens)
    if [(a.name, a.digest) for a in left.artifacts] == [(a.name, a.digest) for a in right.artifacts]:
        return CallDiff(path, "same", "", *shown, seconds, tokens)
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
