"""What is asked of the server itself, and the events that it passes on."""

from __future__ import annotations

from kitaru_nb import __version__
from kitaru_nb.journal.base import Journal
from kitaru_nb.model import STATUS_OF, Event
from kitaru_nb.surfaces.checkup import Check, all_checks
from kitaru_nb.surfaces.operations import arguments as a
from kitaru_nb.surfaces.operations.base import Caller, Change, Desk, Follow, Info, News
from kitaru_nb.surfaces.operations.paging import cut

#: Groups of operations beside those on executions.
FEATURES = ("deployments", "schedules", "stacks")
_NAME = 200
_FAR = 2**62


def info(desk: Desk, caller: Caller, given: a.Nothing) -> Info:
    """Who is asking whom, and what there is."""
    home = str(desk.client.runtime.home)
    return Info(__version__, caller.name, str(caller.role), home, desk.host, FEATURES)


def doctor(desk: Desk, caller: Caller, given: a.Nothing) -> tuple[Check, ...]:
    """Check that all is well where the server runs. Writes a few bytes into home and store, to see that it can."""
    return tuple(all_checks(desk.client.runtime.settings))


def events(desk: Desk, caller: Caller, given: a.ReadEvents) -> Follow:
    """Changes of all executions or one, as they are recorded."""
    return Follow(_existing(desk, given), given.after)


def poll(desk: Desk, caller: Caller, given: a.PollEvents) -> Follow:
    """As `events`, for those who can't read a stream."""
    return Follow(_existing(desk, given), given.after, given.limit, given.timeout)


def _existing(desk: Desk, given: a.ReadEvents) -> str | None:
    if given.exec_id is None:
        return None
    exec_id = desk.client.executions.resolve(given.exec_id)
    return desk.client.runtime.journal.execution(exec_id).exec_id


def changes(journal: Journal, follow: Follow) -> News:
    """The changes after ``follow.after`` that there are by now."""
    after = newest(journal) if follow.after is None else follow.after
    found = journal.tail(min(after, _FAR), exec_id=follow.exec_id, limit=follow.limit)
    return News(tuple(change(event) for event in found), found[-1].seq if found else after)


def change(event: Event) -> Change:
    """An event without its values."""
    name = event.body.get("flow" if event.kind == "execution.created" else "name")
    status = STATUS_OF.get(event.kind)
    return Change(
        event.seq,
        event.exec_id,
        event.kind,
        event.key,
        event.at,
        cut(name, _NAME) if isinstance(name, str) else None,
        status.value if status else None,
    )


def newest(journal: Journal, *, after: int = 0) -> int:
    """The seq of the newest event of all executions that is later than ``after``, else ``after``: found by halving."""

    def has_later(seq: int) -> bool:
        return bool(journal.tail(seq, limit=1))

    if not has_later(after):
        return after
    low, step = after, 1
    while has_later(low + step):
        low, step = low + step, step * 2
    high = low + step
    while high - low > 1:  # an event later than `low` exists, none later than `high`
        middle = (low + high) // 2
        low, high = (middle, high) if has_later(middle) else (low, middle)
    return high
