"""Schedules as people see them: model values in, blocks out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from kitaru_nb.surfaces.render import Block, Column, Line, Span, Table, ago, command_line, counted, line, utc_now

if TYPE_CHECKING:
    from kitaru_nb.promote.schedules import Schedule, ScheduleChange


def schedules_blocks(found: Sequence[Schedule]) -> list[Block]:
    """A table of schedules."""
    if not found:
        return [
            line("Nothing is scheduled."),
            command_line("fix", 'kitaru deployments schedule FLOW --cron "0 7 * * 1-5"'),
        ]
    columns = (
        Column("name", flexible=True),
        Column("starts", flexible=True),
        Column("cron"),
        Column("zone", flexible=True),
        Column("next"),
        Column("last", flexible=True),
    )
    now = utc_now()
    rows = [
        (
            Span(one.name, "bold"),
            Span(_target(one)),
            Span(one.cron),
            Span(one.timezone),
            Span(_instant(one.next_at), "cyan"),
            _last(one, now),
        )
        for one in found
    ]
    return [Table(columns, rows)]


def scheduled_blocks(made: Schedule) -> list[Block]:
    """A new schedule, and when it comes next."""
    head = Line((Span("✓ ", "green"), Span(_target(made), "bold"), Span(f"  starts at {made.cron} ({made.timezone})")))
    note = line(f"next at {_instant(made.next_at)}; a server must run then", "dim", indent=2)
    return [head, note, command_line("server", "kitaru server"), command_line("all", "kitaru deployments schedules")]


def changes_blocks(found: Sequence[ScheduleChange]) -> list[Block]:
    """Who did what, and what was started when."""
    columns = (Column("when"), Column("by", flexible=True), Column("what", flexible=True))
    now = utc_now()
    return [Table(columns, [(Span(ago(c.at, now), "dim"), Span(c.by), Span(_change(c))) for c in found])]


def _change(change: ScheduleChange) -> str:
    if change.occurrence is None:
        return change.what
    came = _instant(change.occurrence)
    if change.problem is not None:
        return f"{came}: nothing was started: {change.problem}"
    many = f" ({counted(len(change.exec_ids), 'execution')}, to catch up)" if len(change.exec_ids) > 1 else ""
    return f"{came} → {change.exec_ids[-1]}{many}"


def _target(schedule: Schedule) -> str:
    selector = f"v{schedule.version}" if schedule.version is not None else schedule.tag
    return f"{schedule.flow}@{selector}" if selector else schedule.flow


def _last(schedule: Schedule, now: datetime) -> Span:
    if schedule.last_at is None:
        return Span("never", "dim")
    if schedule.problem is not None:
        return Span(schedule.problem, "red")
    return Span(f"{schedule.last_exec_id} {ago(schedule.last_at, now)}", "dim")


def _instant(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%MZ")
