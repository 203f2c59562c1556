"""``kitaru executions``: what is read of executions (what is done to them is in `kitaru_nb.surfaces.commands.actions`).

Commands import the engine when they run, so ``kitaru --help`` and ``kitaru executions list`` answer without it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kitaru_nb.config import Settings, load_settings, shown
from kitaru_nb.journal.open import open_journal
from kitaru_nb.model import Execution, ExecutionStatus, LogEntry, is_exec_id, to_json, utc
from kitaru_nb.surfaces.console import Answer, QuickGroup, command, is_machine, print_json_line, record, show
from kitaru_nb.surfaces.render import Block, executions_blocks, line, utc_now

if TYPE_CHECKING:
    from kitaru_nb.client import KitaruClient

app = typer.Typer(
    cls=QuickGroup,
    name="executions",
    help="List, read, answer, replay and end executions.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ExecutionId = Annotated[str, typer.Argument(metavar="ID", help="An id, its beginning or end, or: latest.")]

#: Fields that a list fills; the others need the execution's history.
_ROW_FIELDS = tuple(f.name for f in fields(Execution))[: [f.name for f in fields(Execution)].index("inputs")]


@command(app, "executions.list")
def list_(
    flow: Annotated[str | None, typer.Option(help="Only executions of this flow.")] = None,
    status: Annotated[ExecutionStatus | None, typer.Option(help="Only those that stand so.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many.")] = 20,
    before: Annotated[str | None, typer.Option(metavar="ID", help="Continue after the last id of a page.")] = None,
) -> Answer:
    """List executions, newest first."""
    if before is not None and not is_exec_id(before):
        raise typer.BadParameter(f"{before!r} is no id; expected --before with the last id of a page.")
    # The journal's index is all that a list needs. The engine that a client brings along takes longer to import than
    # the list takes to read.
    settings = settings_in_use()
    with closing(open_journal(settings.journal_url, durability=settings.durability)) as journal:
        rows = journal.executions(flow=flow, status=status, before=before, limit=limit + 1)
    page = rows[:limit]
    items = [{name: to_json(getattr(row, name)) for name in _ROW_FIELDS} for row in page]
    asked = " that fit" if flow or status or before else ""
    asked_for = {"--flow": flow, "--status": status and status.value, "--limit": str(limit) if limit != 20 else None}
    words = [word for name, value in asked_for.items() if value for word in (name, value)]
    more = shlex.join(["kitaru", "executions", "list", *words]) if len(rows) > limit else None
    where = shown(settings.journal) if settings.journal else settings.home
    hint = f"No executions{asked} in {where}. Start one: kitaru run notebook.ipynb, or my_flow.run() in Python."
    return Answer(executions_blocks(page, now=utc_now(), hint=hint, more=more), items=items)


def settings_in_use() -> Settings:
    """The settings, with journal and store of the stack in use."""
    settings = load_settings()
    if settings.stack in ("local", "process"):
        return settings
    from kitaru_nb.core.runtime import settings_on  # loads what most lists don't need

    return settings_on(settings.stack, settings)


@command(app, "executions.get")
def get(
    execution: ExecutionId,
    limit: Annotated[int, typer.Option(min=1, help="How many checkpoints are shown.")] = 200,
) -> Answer:
    """Show one execution with all details."""
    from kitaru_nb.client import KitaruClient
    from kitaru_nb.surfaces.detail import execution_blocks

    client = KitaruClient()
    found = client.executions.get(client.executions.resolve(execution))
    return Answer(execution_blocks(found, now=utc_now(), limit=limit), item=record(found))


@command(app, "executions.logs")
def logs(
    execution: ExecutionId,
    checkpoint: Annotated[str | None, typer.Option(help="Only lines of this checkpoint.")] = None,
    source: Annotated[str | None, typer.Option(help="Only: stdout, stderr or logging.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the last lines.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the execution ends or waits.")] = False,
    grouped: Annotated[bool, typer.Option("--grouped", help="Under the checkpoint that wrote them.")] = False,
) -> Answer:
    """Show what an execution printed and logged. With --follow --json, one JSON object a line."""
    from kitaru_nb.client import KitaruClient
    from kitaru_nb.surfaces.detail import log_blocks

    if source is not None and source not in ("stdout", "stderr", "logging"):
        raise typer.BadParameter(f"{source!r} is no source; expected stdout, stderr or logging.")
    if follow and grouped:
        raise typer.BadParameter("--follow shows lines as they come; --grouped needs them all. Leave one out.")
    client = KitaruClient()
    exec_id = client.executions.resolve(execution)
    entries = client.executions.logs(exec_id, checkpoint=checkpoint, source=source)
    if follow:
        skip = 0 if limit is None else max(0, len(entries) - limit)
        return _follow_logs(client, exec_id, checkpoint, source, skip)
    entries = entries if limit is None else entries[-limit:]
    blocks: list[Block] = log_blocks(entries, grouped=grouped) or [line("No lines.", "dim")]
    return Answer(blocks, items=[to_json(entry) for entry in entries])


def _follow_logs(client: KitaruClient, exec_id: str, checkpoint: str | None, source: str | None, skip: int) -> Answer:
    from kitaru_nb.surfaces.commands.following import await_worker
    from kitaru_nb.surfaces.detail import log_line, outcome_blocks

    await_worker(client, exec_id)
    chosen = (
        entry
        for entry in _live_entries(client, exec_id)
        if (checkpoint is None or checkpoint in (entry.checkpoint_name, entry.call_id))
        and (source is None or entry.source == source)
    )
    for number, entry in enumerate(chosen):
        if number < skip:
            continue
        if is_machine():
            print_json_line("executions.logs", to_json(entry))
        else:
            show([log_line(entry)])
    execution = client.executions.get(exec_id)
    if is_machine():
        raise typer.Exit(0)
    show(outcome_blocks(execution, utc_now()), err=True)
    return Answer()


def _live_entries(client: KitaruClient, exec_id: str) -> Iterator[LogEntry]:
    """Lines as they are recorded. Those of a checkpoint whose name isn't recorded yet wait for it."""
    names: dict[str, str] = {"": ""}
    held: dict[str, list[list[Any]]] = {}
    for event in client.executions.follow(exec_id):
        if event.kind.startswith("checkpoint."):
            names[event.key] = str(event.body["name"])
        if event.kind == "log.lines":
            held.setdefault(event.key, []).extend(event.body["lines"])
        if event.key in names:
            yield from _entries(held.pop(event.key, []), event.key, names[event.key])
    for key, lines in held.items():
        yield from _entries(lines, key, None)


def _entries(lines: list[list[Any]], key: str, name: str | None) -> Iterator[LogEntry]:
    for at, source, level, text in lines:
        yield LogEntry(text, level, utc(at), source, name or None, key or None)


@command(app, "executions.diff")
def diff(
    left: Annotated[str, typer.Argument(metavar="A", help="An id, its beginning or end, or: latest.")],
    right: Annotated[str, typer.Argument(metavar="B", help="The other one.")],
) -> Answer:
    """Compare two executions, checkpoint by checkpoint."""
    from kitaru_nb.client import KitaruClient
    from kitaru_nb.surfaces.detail import diff_blocks

    client = KitaruClient()
    executions = client.executions
    found = executions.diff(executions.resolve(left), executions.resolve(right))
    return Answer(diff_blocks(found), item=record(found))
