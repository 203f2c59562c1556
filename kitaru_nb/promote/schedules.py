"""Schedules: deployments that a server starts by the clock, kept as references of the journal.

Every occurrence has a key of its own, ``sched:NAME:INSTANT``, and moving on to the next is a compare-and-set: any
number of servers may look, and each occurrence is started once.
"""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, get_args

from kitaru_nb.core.runtime import Runtime, acting_as, whoami
from kitaru_nb.errors import (
    KitaruBackendError,
    KitaruConflictError,
    KitaruError,
    KitaruNotFoundError,
    KitaruUsageError,
)
from kitaru_nb.journal.base import Journal
from kitaru_nb.model import Execution, utc
from kitaru_nb.promote.cron import Cron
from kitaru_nb.promote.deployments import Deployments
from kitaru_nb.promote.schedule_records import NAMES, names, past_ref, ref
from kitaru_nb.promote.schedule_records import record as record_of
from kitaru_nb.promote.selectors import selected

CatchUp = Literal["skip", "one", "all"]

#: An occurrence that is later than this was missed: no server looked when it came.
LATE = timedelta(seconds=60)
#: How many missed occurrences are started at a time.
BATCH = 100

_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A deployment that is started by the clock.

    Attributes:
        version, tag: which version is started; a tag is looked up each time. Without either it is the tag ``default``.
        cron: five fields, read in the time zone ``timezone``.
        inputs: what each execution gets.
        stack: where they run; None: where the deployment says.
        catch_up: of the occurrences that came while no server ran, none (``skip``), the last ``one``, or ``all`` run.
        next_at: the next occurrence.
        last_at: the last one for which something was started, or tried to be.
        last_exec_id: the execution that was started then.
        problem: why none could be started then.
    """

    name: str
    flow: str
    cron: str
    timezone: str
    created_at: datetime
    created_by: str
    next_at: datetime
    version: int | None = None
    tag: str | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    stack: str | None = None
    catch_up: CatchUp = "skip"
    last_at: datetime | None = None
    last_exec_id: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ScheduleChange:
    """One line of a schedule's history.

    Attributes:
        what: ``created``, ``deleted``, ``started`` or ``failed``.
        occurrence: the instant that was meant, for the last two.
        exec_ids: the executions that were started.
        problem: why none could be.
    """

    at: datetime
    by: str
    what: str
    occurrence: datetime | None = None
    exec_ids: tuple[str, ...] = ()
    problem: str | None = None


class Schedules:
    """The schedules of one journal. ``clock`` gives the time, an aware datetime."""

    def __init__(self, runtime: Runtime, *, clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc)) -> None:
        self._runtime = runtime
        self._deployments = Deployments(runtime)
        self._clock = clock

    @property
    def _journal(self) -> Journal:
        return self._runtime.journal

    def create(
        self,
        flow: str,
        *,
        cron: str,
        timezone: str = "UTC",
        name: str | None = None,
        version: int | str | None = None,
        tag: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        stack: str | None = None,
        catch_up: CatchUp = "skip",
        by: str | None = None,
    ) -> Schedule:
        """Have servers start a deployment by the clock. ``flow`` may carry the selector: ``brief@prod``.

        Args:
            cron: five fields: minute, hour, day of the month, month, day of the week.
            timezone: where the hours are read, such as ``Europe/Berlin``; summer time is minded.
            name: of the schedule; default: the flow's.
            catch_up: which of the occurrences that come while no server runs are started afterwards.

        Raises:
            KitaruUsageError: what can't be: the expression, the time zone, the name, ``catch_up``, an input.
            KitaruNotFoundError: no such deployment.
            KitaruConflictError: there is a schedule of this name.
        """
        when = Cron(cron, timezone)
        flow, number, tag = selected(flow, version, tag)
        name = name or flow
        if _NAME.fullmatch(name) is None:
            raise KitaruUsageError(
                f"{name!r} can't be a schedule's name; expected up to 100 letters, digits, _ . or -.",
                fix="--name every-morning",
            )
        if catch_up not in get_args(CatchUp):
            raise KitaruUsageError(
                f"catch_up is {catch_up!r}; expected {', '.join(get_args(CatchUp))}.", fix="--catch-up one"
            )
        _, values, _ = self._deployments.fitting(flow, version=number, tag=tag, inputs=inputs, stack=stack)
        record = {
            "flow": flow,
            "cron": when.expression,
            "timezone": timezone,
            "version": number,
            "tag": tag,
            "inputs": {given: values[given] for given in inputs or ()},
            "stack": stack,
            "catch_up": catch_up,
        }
        self._write(name, record, by or whoami())
        self._add_name(name, by or whoami())
        return self.get(name)

    def _write(self, name: str, record: Mapping[str, Any], by: str) -> None:
        known = self._journal.reference(ref(name))
        try:
            if record_of(self._journal, name) is not None:
                raise KitaruConflictError("it is there")
            self._journal.set_reference(ref(name), json.dumps(record), expected=known, by=by)
        except KitaruConflictError as conflict:
            found = self.get(name)
            raise KitaruConflictError(
                f"There is a schedule {name!r} already: {found.flow} at {found.cron} ({found.timezone}), "
                f"by {found.created_by}.",
                fix=f"--name OTHER  # or: kitaru deployments unschedule {name}",
            ) from conflict

    def _add_name(self, name: str, by: str) -> None:
        while True:
            known = self._journal.reference(NAMES)
            there = json.loads(known or "[]")
            if name in there:
                return
            try:
                self._journal.set_reference(NAMES, json.dumps(sorted([*there, name])), expected=known, by=by)
            except KitaruConflictError:
                continue  # somebody else was faster: look again
            return

    def list(self, *, flow: str | None = None) -> builtins.list[Schedule]:
        """All schedules, or those of a flow, by name."""
        found = [self._find(name) for name in names(self._journal)]
        return [schedule for schedule in found if schedule is not None and flow in (None, schedule.flow)]

    def get(self, name: str) -> Schedule:
        """One schedule. Raises `KitaruNotFoundError` that lists those there are."""
        found = self._find(name)
        if found is None:
            there = ", ".join(schedule.name for schedule in self.list()) or "none"
            raise KitaruNotFoundError(
                f"There is no schedule {name!r}. Schedules are: {there}.",
                fix='kitaru deployments schedule FLOW --cron "0 7 * * 1-5"',
            )
        return found

    def _find(self, name: str) -> Schedule | None:
        return self._read(name, self._journal.reference(past_ref(name)))

    def _read(self, name: str, past: str | None) -> Schedule | None:
        """A schedule whose past is this; None where there is none, or none any more."""
        record = record_of(self._journal, name)
        if record is None:
            return None
        at, _, by = self._journal.reference_history(ref(name))[-1]
        known = json.loads(past or "{}")
        last = datetime.fromisoformat(known["at"]) if known else None
        ids = known.get("exec_ids")
        return Schedule(
            name,
            created_at=utc(at),
            created_by=by,
            next_at=next(Cron(record["cron"], record["timezone"]).after(max(self._clock(), last or utc(at)))),
            last_at=last,
            last_exec_id=ids[-1] if ids else None,
            problem=known.get("problem"),
            **record,
        )

    def delete(self, name: str, *, by: str | None = None) -> Schedule:
        """Have a deployment no longer started by the clock; what was started goes on. What the schedule was.

        Raises:
            KitaruNotFoundError: no such schedule.
            KitaruConflictError: somebody else changed it at this moment.
        """
        found = self.get(name)
        known = self._journal.reference(ref(name))
        self._journal.set_reference(ref(name), json.dumps({"deleted": True}), expected=known, by=by or whoami())
        while (past := self._journal.reference(past_ref(name))) is not None:  # another one of this name begins anew
            with suppress(KitaruConflictError):
                self._journal.set_reference(past_ref(name), None, expected=past, by=by or whoami())
        return found

    def history(self, name: str) -> builtins.list[ScheduleChange]:
        """Who made and deleted a schedule, and what it started when, oldest first; also of one that was deleted.

        Raises:
            KitaruNotFoundError: there never was one of this name.
        """
        changes = []
        for at, value, by in self._journal.reference_history(ref(name)):
            deleted = value is None or json.loads(value).get("deleted")
            changes.append(ScheduleChange(utc(at), by, "deleted" if deleted else "created"))
        if not changes:
            self.get(name)
        for at, value, by in self._journal.reference_history(past_ref(name)):
            if value is None:
                continue
            past = json.loads(value)
            what = "failed" if past["problem"] else "started"
            occurrence = datetime.fromisoformat(past["at"])
            changes.append(ScheduleChange(utc(at), by, what, occurrence, tuple(past["exec_ids"]), past["problem"]))
        return sorted(changes, key=lambda change: change.at)

    # the clock

    def fire(self) -> builtins.list[Execution]:
        """Create the executions whose time has come; those that nobody else has created, for the caller to start.

        Of several servers that look at once, one gets them. What was created and never started, because that server
        died, is pending, as anything whose worker never came.

        Raises:
            KitaruBackendError: the journal or the store can't be written; what was not done is due again.
        """
        started: builtins.list[Execution] = []
        for schedule in self.list():
            started += self._fire(schedule.name)
        return started

    def _fire(self, name: str) -> builtins.list[Execution]:
        # Read before anything else: who moved on meanwhile has changed it, and only one does.
        known = self._journal.reference(past_ref(name))
        schedule = self._read(name, known)
        due = [] if schedule is None else self._due(schedule)
        if schedule is None or not due:
            return []
        made: builtins.list[Execution] = []
        problem = None
        try:
            with acting_as(f"schedule {name}"):
                made = [self._create(schedule, at) for at in due]
        except KitaruBackendError:
            raise
        except KitaruError as error:  # its tag is gone, or its inputs no longer fit: told, and tried at its next time
            problem = error.message
        ids = [execution.exec_id for execution in made]
        past = json.dumps({"at": due[-1].isoformat(), "exec_ids": ids, "problem": problem})
        try:
            self._journal.set_reference(past_ref(name), past, expected=known, by=f"schedule {name}")
        except KitaruConflictError:
            return []  # another server was faster, and starts them
        return made

    def _due(self, schedule: Schedule) -> builtins.list[datetime]:
        """Its occurrences that have come and are to be started, oldest first."""
        now, when = self._clock(), Cron(schedule.cron, schedule.timezone)
        last = max(schedule.last_at or schedule.created_at, schedule.created_at)
        if schedule.catch_up == "all":
            return when.between(last, now, BATCH)
        since = last if schedule.catch_up == "one" else max(last, now - LATE)
        newest = when.newest(since, now) if since < now else None
        return [] if newest is None else [newest]

    def _create(self, schedule: Schedule, at: datetime) -> Execution:
        return self._deployments.prepare(
            schedule.flow,
            version=schedule.version,
            tag=schedule.tag,
            inputs=schedule.inputs,
            stack=schedule.stack,
            key=f"sched:{schedule.name}:{at.isoformat()}",
        )
