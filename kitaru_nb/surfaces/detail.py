"""Pages about one execution: its tree of checkpoints, waits, failure, logs, replays and differences. Pure functions
from values to blocks."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from kitaru_nb.core.answers import answering
from kitaru_nb.core.control import Started, describe_schema
from kitaru_nb.core.diff import ExecutionDiff
from kitaru_nb.core.replay import ReplayPreview, tokens_of
from kitaru_nb.model import Artifact, CheckpointCall, Execution, ExecutionStatus, FailureInfo, LogEntry, Wait
from kitaru_nb.surfaces.render import (
    GLYPHS,
    Block,
    Column,
    Line,
    Panel,
    Span,
    Table,
    ago,
    command_line,
    counted,
    cut,
    duration,
    line,
    size,
    status_span,
    took,
)

_LABEL = 11
_TEXT = 60
_LEVEL_STYLES = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red", "DEBUG": "dim"}


def execution_blocks(execution: Execution, *, now: datetime, limit: int) -> list[Block]:
    """All that a person asks first: how it stands, what it did and cost, what it waits for, why it failed.

    Args:
        limit: how many checkpoints are shown.
    """
    blocks: list[Block] = [
        Line((Span(execution.exec_id, "bold"), Span(f"  {execution.flow_name}  "), status_span(execution.status))),
        *_facts(execution, now),
    ]
    if execution.checkpoints:
        blocks += [line(), *checkpoint_blocks(execution.checkpoints, limit=limit)]
    for index, wait in enumerate(execution.waits):
        apart = wait.status == "pending" or index == 0
        blocks += [*([line()] if apart else []), *wait_blocks(wait, now)]
    if execution.failure is not None:
        blocks += [line(), failure_panel(execution.failure)]
    return blocks + next_step(execution)


def _facts(execution: Execution, now: datetime) -> Iterable[Block]:
    def fact(label: str, text: str) -> Line:
        return Line((Span(f"{label:<{_LABEL}}", "dim"), Span(text)))

    yield fact("started", f"{ago(execution.created_at, now)}, took {took(execution, now)}")
    for name, text in execution.inputs.items():
        yield fact("input", f"{name} = {_flat(text, _TEXT)}")
    if execution.original_exec_id:
        yield fact("replay of", execution.original_exec_id)
    if execution.stack != "local":
        yield fact("stack", execution.stack)
    if execution.key:
        yield fact("key", execution.key)
    for name, value in execution.metadata.items():
        yield fact("logged", f"{name} = {_flat(json.dumps(value, ensure_ascii=False), _TEXT)}")
    if execution.result is not None:
        yield fact("result", _flat(_text(execution.result), _TEXT))


def next_step(execution: Execution) -> list[Block]:
    """The line to type next, where there is one."""
    exec_id, status = execution.exec_id, execution.status
    if status is ExecutionStatus.FAILED:
        return [command_line("fix", f"kitaru executions retry {exec_id}")]
    if status is ExecutionStatus.INTERRUPTED:
        return [command_line("go on", f"kitaru executions resume {exec_id}")]
    if status is ExecutionStatus.WAITING and execution.waits and execution.pending_wait is None:
        return [command_line("go on", f"kitaru executions resume {exec_id}")]
    return []


def checkpoint_blocks(calls: Sequence[CheckpointCall], *, limit: int) -> list[Block]:
    """The calls as a tree, with sums below it."""
    rows = []
    for prefix, call in tree(calls)[:limit]:
        status, tokens = status_span(call.status), tokens_of(call)
        output = call.failure.message if call.failure and call.status == "failed" else output_text(call)
        rows.append(
            (
                Span(prefix + call.selector),
                Span(status.text, status.style),
                Span(duration(call.duration)),
                Span(f"{tokens:,}" if tokens else ""),
                Span(money(_cost(call))),
                Span(output, "red" if call.status == "failed" else ""),
            )
        )
    columns = (
        Column("CHECKPOINT", flexible=True),
        Column("STATUS"),
        Column("TIME", right=True),
        Column("TOKENS", right=True),
        Column("COST", right=True),
        Column("OUTPUT", flexible=True),
    )
    shown = _without_empty(columns, rows, ("TOKENS", "COST"))
    blocks: list[Block] = [shown]
    if len(calls) > limit:
        blocks.append(line(f"… {len(calls) - limit:,} more: --limit {len(calls)}", "dim"))
    tokens, cost = sum(map(tokens_of, calls)), sum(map(_cost, calls))
    if tokens or cost:
        total = [counted(len(calls), "checkpoint"), counted(tokens, "token"), money(cost)]
        blocks.append(line(" · ".join(part for part in total if part), "dim"))
    return blocks


def _without_empty(columns: Sequence[Column], rows: Sequence[Sequence[Span]], optional: Sequence[str]) -> Table:
    kept = [i for i, column in enumerate(columns) if column.title not in optional or any(row[i].text for row in rows)]
    return Table([columns[i] for i in kept], [[row[i] for i in kept] for row in rows])


def tree(calls: Sequence[CheckpointCall]) -> list[tuple[str, CheckpointCall]]:
    """Calls with the branches to draw before them, each below the call that encloses it."""
    ids = {call.call_id for call in calls}
    children: dict[str | None, list[CheckpointCall]] = {}
    for call in calls:
        children.setdefault(call.parent if call.parent in ids else None, []).append(call)
    found: list[tuple[str, CheckpointCall]] = []
    todo = [("", "", call) for call in reversed(children.get(None, []))]
    while todo:
        branch, below, call = todo.pop()
        found.append((branch, call))
        inner = children.get(call.call_id, [])
        entries = [
            (below + ("└ " if i == len(inner) - 1 else "├ "), below + ("  " if i == len(inner) - 1 else "│ "), child)
            for i, child in enumerate(inner)
        ]
        todo += reversed(entries)
    return found


def wait_blocks(wait: Wait, now: datetime) -> list[Block]:
    """A wait: its question and the line that answers it, or who answered what."""
    glyph, style = GLYPHS["waiting" if wait.status == "pending" else wait.status]
    head = [Span(f"{glyph} wait ", style), Span(wait.name, "bold")]
    if wait.status != "pending":
        what = "aborted" if wait.status == "aborted" else f"answered {_flat(json.dumps(wait.value), _TEXT)}"
        when = ago(wait.resolved_at, now) if wait.resolved_at else ""
        return [Line((*head, Span(f": {what} by {wait.resolved_by} ({wait.via}) {when}", "")))]
    blocks: list[Block] = [Line((*head, Span(f", asked {ago(wait.created_at, now)}", "dim")))]
    if wait.question:
        blocks.append(line(wait.question, indent=2))
    blocks.append(line(f"expected: {describe_schema(wait.schema)}", "dim", indent=2))
    if wait.until is not None:
        blocks.append(line(f"the clock answers {ago(wait.until, now)}", "dim", indent=2))
    return [*blocks, answer_line(wait)]


def answer_line(wait: Wait) -> Line:
    """The line that answers a wait."""
    return command_line("answer", answering(wait, wait.exec_id))


def failure_panel(failure: FailureInfo) -> Panel:
    """Why it failed, with the end of its traceback."""
    lines = [failure.message]
    if failure.traceback:
        lines += ["", *failure.traceback.rstrip().splitlines()[-6:]]
    return Panel(f"{failure.exception_type.rpartition('.')[2]} ({failure.origin})", lines, "red")


def outcome_blocks(execution: Execution, now: datetime) -> list[Block]:
    """How an execution stands after it was followed, in a few lines."""
    head = Line(
        (status_span(execution.status), Span(f"  {execution.exec_id}", "bold"), Span(f"  {execution.flow_name}"))
    )
    blocks: list[Block] = [head]
    if execution.result is not None:
        blocks.append(line(f"result: {_flat(_text(execution.result), 200)}", indent=2))
    if execution.failure is not None:
        kind = execution.failure.exception_type.rpartition(".")[2]
        blocks.append(line(f"{kind}: {execution.failure.message}", "red", indent=2))
    for wait in execution.waits:
        if wait.status == "pending" and not execution.status.ended:
            blocks += wait_blocks(wait, now)
    return blocks + next_step(execution)


def started_blocks(started: Started) -> list[Block]:
    """What an action set in motion."""
    exec_id = started.exec_id
    if started.by_notebook:
        return [line("The open notebook goes on: run the cell again.", indent=2)]
    if started.elsewhere:
        said = line("Nothing goes on yet: only the Python process that started it can.", indent=2)
        return [said, command_line("there", f"KitaruClient().executions.resume({exec_id!r})")]
    if started.worker is None:
        return [line("A live worker takes it up.", indent=2), _watch(exec_id)]
    return [line(f"A fresh worker was started; its output goes to {started.worker}", indent=2), _watch(exec_id)]


def _watch(exec_id: str) -> Line:
    return command_line("watch", f"kitaru executions logs {exec_id} --follow")


def plan_blocks(plan: ReplayPreview) -> list[Block]:
    """What a replay would do."""
    groups = (
        ("runs again", plan.runs, "●", "blue"),
        ("entered", plan.enters, "○", "dim"),
        ("arguments", plan.arguments, "✎", "yellow"),
        ("overridden", plan.overridden, "✎", "yellow"),
        ("reused", plan.reused, "↺", "cyan"),
        ("asked again", plan.asks, "⏸", "yellow"),
    )
    blocks: list[Block] = [line(f"A replay of {plan.original_exec_id} would do this; nothing was started.")]
    for label, selectors, glyph, style in groups:
        if selectors:
            blocks.append(Line((Span(f"{glyph} {label:<12}", style), Span(", ".join(selectors)))))
    saved = [duration(plan.seconds_saved) if plan.seconds_saved else ""]
    saved += [counted(plan.tokens_saved, "token") if plan.tokens_saved else "", money(plan.cost_saved)]
    if parts := [part for part in saved if part]:
        blocks.append(line(f"saves {', '.join(parts)}", "dim"))
    return blocks


_CHANGES = {
    "same": Span("= same", "dim"),
    "output": Span("≠ output", "yellow"),
    "status": Span("≠ status", "red"),
    "only_left": Span("− only left", "red"),
    "only_right": Span("+ only right", "green"),
}


def diff_blocks(diff: ExecutionDiff) -> list[Block]:
    """Two executions side by side."""
    columns = (
        Column("CHECKPOINT", flexible=True),
        Column("CHANGE"),
        Column("WHY", flexible=True),
        Column("LEFT", flexible=True),
        Column("RIGHT", flexible=True),
    )
    rows = [
        (Span(call.selector), _CHANGES[call.change], Span(call.why), Span(call.left or "—"), Span(call.right or "—"))
        for call in diff.calls
    ]
    rows += [(Span(f"{name} (wait)"), *_compared(a, b)) for name, a, b in diff.waits]
    rows.append((Span("result", "bold"), *_compared(*diff.result)))
    count = len(diff.differing)
    summary = f"{counted(count, 'checkpoint differs', 'checkpoints differ')}, {len(diff.calls) - count} the same"
    return [
        Line((Span("left ", "dim"), Span(diff.left, "bold"), Span("   right ", "dim"), Span(diff.right, "bold"))),
        Table(columns, rows),
        line(summary, "dim"),
    ]


def _compared(left: str, right: str) -> tuple[Span, Span, Span, Span]:
    return _CHANGES["same" if left == right else "output"], Span(""), Span(left), Span(right)


def log_line(entry: LogEntry, *, grouped: bool = False) -> Line:
    """One line of a log; ``grouped`` leaves the checkpoint's name to the heading."""
    spans = [Span(entry.timestamp.astimezone().strftime("%H:%M:%S "), "dim")]
    if not grouped:
        spans.append(Span(f"{entry.checkpoint_name or 'flow':<14} ", "cyan"))
    style = _LEVEL_STYLES.get(entry.level, "")
    if entry.source == "logging":
        spans.append(Span(f"{entry.level} ", style))
    return Line((*spans, Span(entry.message, style)))


def log_blocks(entries: Sequence[LogEntry], *, grouped: bool) -> list[Block]:
    """Log lines in order of time, or under the checkpoint that wrote them."""
    if not grouped:
        return [log_line(entry) for entry in entries]
    groups: dict[str | None, list[LogEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.call_id, []).append(entry)
    blocks: list[Block] = []
    for group in groups.values():
        blocks += [line()] if blocks else []
        blocks.append(line(group[0].checkpoint_name or "flow", "bold cyan"))
        blocks += [log_line(entry, grouped=True) for entry in group]
    return blocks


def artifacts_blocks(artifacts: Sequence[Artifact], exec_id: str, *, chosen: bool = False) -> list[Block]:
    """The artifacts of an execution; ``chosen``: those that fit what was asked for."""
    if not artifacts:
        return [line(f"{exec_id} has no artifacts {'that fit' if chosen else 'yet'}.", "dim")]
    columns = (
        Column("ARTIFACT", flexible=True),
        Column("KIND"),
        Column("TYPE", flexible=True),
        Column("SIZE", right=True),
        Column("PREVIEW", flexible=True),
    )
    names = Counter(map(artifact_name, artifacts))
    labels = [n if names[n] == 1 else a.artifact_id.partition("/")[2] for a in artifacts for n in [artifact_name(a)]]
    rows = [
        (Span(label, "bold"), Span(a.kind), Span(_type(a)), Span(size(a.size)), Span(_text(a)))
        for a, label in zip(artifacts, labels, strict=True)
    ]
    first = shlex.quote(f"{exec_id}/{labels[0]}")
    return [Table(columns, rows), command_line("show", f"kitaru artifacts get {first}")]


def artifact_name(artifact: Artifact) -> str:
    """What a person types after ``EXECUTION/`` to mean an artifact."""
    return artifact.names[0] if artifact.names else artifact.name


def artifact_blocks(artifact: Artifact, text: str, note: str) -> list[Block]:
    """One artifact: what it is, then its text (or preview)."""
    head = (
        Span(artifact.artifact_id, "bold"),
        Span(f"  {_type(artifact)} · {artifact.serializer} · {size(artifact.size)}", "dim"),
    )
    blocks: list[Block] = [Line(head), line(text)]
    if table := artifact.preview.get("table"):
        blocks[1:] = [_preview_table(table)]
    return [*blocks, line(note, "dim")] if note else blocks


def _preview_table(table: Mapping[str, object]) -> Table:
    titles, rows = table["columns"], table["rows"]
    assert isinstance(titles, Sequence)
    assert isinstance(rows, Sequence)
    shown = [[Span(str(cell)) for cell in row] for row in rows]
    wide = max([len(titles), *map(len, shown)])
    names = [*([""] * (wide - len(titles))), *map(str, titles)]
    return Table(
        [Column(name, flexible=True) for name in names], [[*row, *[Span("")] * (wide - len(row))] for row in shown]
    )


def output_text(call: CheckpointCall) -> str:
    """What a call made, in one line."""
    parts = [f"{'='.join(a.names)}={_text(a)}" if a.names else _text(a) for a in call.artifacts]
    return ", ".join(parts)


def money(dollars: float) -> str:
    """An amount in US dollars; "" for nothing."""
    if not dollars:
        return ""
    return f"${dollars:.2f}" if dollars >= 0.995 else f"${dollars:.4f}"


def _cost(call: CheckpointCall) -> float:
    return float(call.metadata.get("cost") or 0)


def _type(artifact: Artifact) -> str:
    return artifact.python_type.removeprefix("builtins.")


def _text(artifact: Artifact) -> str:
    return str(artifact.preview.get("text", ""))


def _flat(text: str, width: int) -> str:
    return cut(" ".join(text.split()), width)
