"""When a cron expression comes: five fields, in a time zone with its summer time.

A time that the clock skips in spring comes once, at the first minute after the gap; one that it shows twice in autumn
comes once, the first time. What runs every hour or minute runs in every real hour.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo

from kitaru_nb.errors import KitaruUsageError

_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_WINDOWS = (timedelta(hours=2), timedelta(days=2), timedelta(days=62), timedelta(days=732))


class Cron:
    """A cron expression in a time zone.

    Raises:
        KitaruUsageError: it is none, never comes, or there is no such time zone.
    """

    def __init__(self, expression: str, zone: str = "UTC") -> None:
        self.expression = " ".join(expression.split())
        self.zone = _zone(zone)
        _check(self.expression)
        if next(self.after(datetime.now(timezone.utc)), None) is None:
            raise KitaruUsageError(f"{expression!r} never comes: there is no such day.", fix='--cron "0 7 * * 1-5"')

    def after(self, instant: datetime) -> Iterator[datetime]:
        """The instants at which it comes, in UTC, later than ``instant``."""
        from cronsim import CronSim  # with the calendar it takes longer to load than executions to list

        start = instant.astimezone(self.zone)
        seen = instant
        for found in CronSim(self.expression, start):
            at = found.astimezone(timezone.utc)
            # The end of summer time shows an hour twice; what has come in the first one doesn't come again.
            if at > seen:
                seen = at
                yield at

    def between(self, after: datetime, until: datetime, limit: int) -> list[datetime]:
        """The first ``limit`` instants later than ``after`` and not later than ``until``."""
        due = itertools.takewhile(lambda at: at <= until, self.after(after))
        return list(itertools.islice(due, limit))

    def newest(self, after: datetime, until: datetime) -> datetime | None:
        """The last instant later than ``after`` and not later than ``until``, however many there are."""
        for window in (*_WINDOWS, until - after):
            due = itertools.takewhile(lambda at: at <= until, self.after(max(after, until - window)))
            if found := deque(due, maxlen=1):
                return found[0]
        return None


def _check(expression: str) -> None:
    from cronsim import CronSim, CronSimError

    if expression.lower() in _ALIASES:
        raise KitaruUsageError(
            f"{expression!r} is no cron expression of five fields.", fix=f'--cron "{_ALIASES[expression.lower()]}"'
        )
    expected = "Expected five fields: minute, hour, day of the month, month, day of the week"
    if (number := len(expression.split())) != 5:
        raise KitaruUsageError(
            f"{expression!r} is no cron expression: it has {number} fields. {expected}.", fix='--cron "0 7 * * 1-5"'
        )
    try:
        CronSim(expression, datetime.now(timezone.utc))
    except CronSimError as error:
        wrong = str(error).removeprefix("Bad ").replace("-", " ").replace("day of week", "day of the week")
        raise KitaruUsageError(
            f"{expression!r} is no cron expression: its {wrong.replace('day of month', 'day of the month')} can't be. "
            f"{expected}.",
            fix='--cron "0 7 * * 1-5"',
        ) from error


def _zone(name: str) -> tzinfo:
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        import difflib

        known = zoneinfo.available_timezones()
        places = {zone.rpartition("/")[2].lower(): zone for zone in sorted(known)}
        near = difflib.get_close_matches(name, known, n=1) or [
            places[place] for place in difflib.get_close_matches(name.lower(), places, n=1)
        ]
        guess = near[0] if near else "Europe/Berlin"
        raise KitaruUsageError(
            f"There is no time zone {name!r}. Expected a name such as {guess}.", fix=f"--timezone {guess}"
        ) from error
