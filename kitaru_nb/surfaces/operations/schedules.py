"""Schedules: which deployments a server starts by the clock. Each change records who made it."""

from __future__ import annotations

from kitaru_nb.promote.schedules import Schedule, ScheduleChange
from kitaru_nb.surfaces.operations import arguments as a
from kitaru_nb.surfaces.operations.base import Caller, Desk, Page
from kitaru_nb.surfaces.operations.paging import by_position


def list_schedules(desk: Desk, caller: Caller, given: a.ListSchedules) -> Page[Schedule]:
    """By name."""
    return by_position(desk.client.schedules.list(flow=given.flow), given.limit, given.cursor)


def get(desk: Desk, caller: Caller, given: a.OneSchedule) -> Schedule:
    """One schedule: what it starts, when it comes next, and what came of it last."""
    return desk.client.schedules.get(given.name)


def history(desk: Desk, caller: Caller, given: a.ScheduleHistory) -> Page[ScheduleChange]:
    """Who made and deleted it, and what it started when, oldest first."""
    return by_position(desk.client.schedules.history(given.name), given.limit, given.cursor)


def create(desk: Desk, caller: Caller, given: a.CreateSchedule) -> Schedule:
    """Have a deployment started by the clock."""
    return desk.client.schedules.create(**dict(given), by=caller.name)


def delete(desk: Desk, caller: Caller, given: a.OneSchedule) -> Schedule:
    """Have a deployment no longer started by the clock; what the schedule was."""
    return desk.client.schedules.delete(given.name, by=caller.name)
