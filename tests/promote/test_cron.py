"""When cron expressions come: summer time, and expressions that can't be."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.promote.cron import Cron


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        ("0 7 * * 1-5", "Europe/Berlin", "2026-11-20 12:00", ["11-23 06:00", "11-24 06:00"]),
        # In spring 02:30 doesn't exist on the 29th: it comes at 03:00, once.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28 00:00", ["03-28 01:30", "03-29 01:00", "03-30 00:30"]),
        # In autumn 02:30 exists twice on the 25th: it comes the first time only.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", ["10-25 00:30", "10-26 01:30"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 01:10", ["10-26 01:30", "10-27 01:30"]),
        ("*/30 * * * *", "Europe/Berlin", "2026-10-24 23:59", ["10-25 00:00", "10-25 00:30", "10-25 01:00"]),
        ("0 0 1 1 *", "UTC", "2026-06-01 00:00", ["01-01 00:00"]),
        ("0 12 29 2 *", "America/New_York", "2026-06-01 00:00", ["02-29 17:00"]),
    ],
    ids=["winter", "spring", "autumn", "second hour", "half hours", "year", "leap day"],
)
def test_it_comes_at_the_hours_of_its_place(expression: str, zone: str, after: str, expected: list[str]) -> None:
    came = islice(Cron(expression, zone).after(utc(after)), len(expected))
    assert [at.strftime("%m-%d %H:%M") for at in came] == expected


@settings(max_examples=30, deadline=None)
@given(
    expression=st.sampled_from(["30 2 * * *", "0 2-4 * * *", "*/20 * * * *", "15 3 * * 0", "59 1,2 25,29 * *"]),
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]),
    day=st.sampled_from(["2026-03-07", "2026-03-28", "2026-04-04", "2026-10-03", "2026-10-24", "2026-10-31"]),
    minutes=st.integers(0, 3 * 24 * 60),
)
def test_two_servers_that_begin_to_look_at_different_times_see_the_same(
    expression: str, zone: str, day: str, minutes: int
) -> None:
    cron, begun = Cron(expression, zone), utc(f"{day} 00:00")
    later, until = begun + timedelta(minutes=minutes), begun + timedelta(days=4)
    everything = cron.between(begun, until, 1_000)
    assert cron.between(later, until, 1_000) == [at for at in everything if at > later]
    assert everything == sorted(set(everything))
    last = [at for at in everything if at <= later]
    assert cron.newest(begun, later) == (last[-1] if last else None)


def test_the_newest_of_years_is_found_at_once() -> None:
    assert Cron("* * * * *").newest(utc("1990-01-01 00:00"), utc("2026-01-01 00:00:30")) == utc("2026-01-01 00:00")
    assert Cron("0 0 29 2 *").newest(utc("2016-03-01 00:00"), utc("2026-01-01 00:00")) == utc("2024-02-29 00:00")


@pytest.mark.parametrize(
    ("expression", "zone", "told"),
    [
        ("0 25 * * *", "UTC", "its hour can't be. Expected five fields: minute, hour"),
        ("0 0 * * 8", "UTC", "its day of the week can't be"),
        ("0 0 * * * *", "UTC", "it has 6 fields"),
        ("", "UTC", "it has 0 fields"),
        ("@daily", "UTC", r"--cron \"0 0 \* \* \*\""),
        ("0 0 31 2 *", "UTC", "its day of the month can't be"),
        ("0 0 */30 2 MON#5", "UTC", "never comes"),
        ("0 7 * * *", "berlin", "no time zone 'berlin'. Expected a name such as Europe/Berlin"),
        ("0 7 * * *", "Europe", "no time zone 'Europe'"),
        ("0 7 * * *", "../etc/passwd", "no time zone"),
        ("0 7 * * *", "", "no time zone ''"),
    ],
    ids=["hour", "weekday", "seconds", "empty", "alias", "february", "never", "case", "folder", "path", "nothing"],
)
def test_what_cannot_be_is_refused_with_what_can(expression: str, zone: str, told: str) -> None:
    with pytest.raises(KitaruUsageError, match=told) as caught:
        Cron(expression, zone)
    assert caught.value.fix
