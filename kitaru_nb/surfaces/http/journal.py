"""The server's journal for workers that reach only the server: one path for each method of `Journal`.

The other end is `kitaru_nb.journal.http`. What it may do is what a worker must: everything, with the role ``work``, but
the server's own references (its tokens) stay the server's.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from kitaru_nb.errors import KitaruBackendError, KitaruConflictError, KitaruError, KitaruUsageError
from kitaru_nb.journal import wire
from kitaru_nb.journal.base import Journal
from kitaru_nb.model import Event, Execution, ExecutionStatus, Lease, Owner
from kitaru_nb.surfaces.http.events import Pulse
from kitaru_nb.surfaces.operations.base import Caller, KitaruPermissionError, Role
from kitaru_nb.surfaces.operations.system import newest

logger = logging.getLogger("kitaru_nb.server")

#: References that are the server's own.
_PRIVATE = "server/"
#: Of a list, this many come at once; clients ask for the next ones.
_MOST = 1000
_MOST_SECONDS = 30.0
_REMEMBERED = 4096
#: How far a lost answer may lie back for a change of a reference to be taken for the lost one, beside its own age.
_SLACK = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request.

    Attributes:
        again: seconds since it was sent first, when no answer had come; else None.
    """

    journal: Journal
    given: Mapping[str, Any]
    blobs: bytes
    again: float | None

    @property
    def events(self) -> list[Event]:
        """The events that it carries."""
        return wire.unpack_events(self.given["events"], self.blobs)

    @property
    def lease(self) -> Lease:
        """The lease that it shows."""
        found = wire.unpack_lease(self.given["lease"])
        if found is None:
            raise ValueError("it has no lease")
        return found

    def stored(self, exec_id: str, events: list[Event]) -> int | None:
        """Seq of the last of ``events`` when all of them are recorded, because an earlier try wrote them."""
        if self.again is None or not events:
            return None
        there = {(e.kind, e.key, e.at, repr(e.body)): e.seq for e in self.journal.history(exec_id)}
        seqs = [there.get((e.kind, e.key, float(e.at), repr(e.body))) for e in events]
        return None if None in seqs else seqs[-1]


class JournalRequests:
    """Answers requests for a journal. Thread-safe; `answer` blocks."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._answered: OrderedDict[tuple[str, str], Future[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def answer(self, operation: str, headers: Mapping[str, str], body: bytes, caller: Caller) -> bytes:
        """The answer, a message of `kitaru_nb.journal.wire`. Raises what the journal raises, and for what can't be."""
        reading, writing = _READING.get(operation), _WRITING.get(operation)
        if reading is None and writing is None:
            raise KitaruUsageError(f"The journal has no {operation[:60]!r}.", fix="pip install --upgrade kitaru-nb")
        try:
            given, blobs = wire.read(body)
            asked = Asked(self._journal, given, blobs, _seconds(headers.get("x-kitaru-again")))
            if reading is not None:
                return reading(asked)
            assert writing is not None
            return wire.write(self._once((caller.name, headers["x-kitaru-request"]), lambda: writing(asked)))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            if isinstance(error, KitaruError):
                raise
            logger.warning("A request for %s of %s can't be read", operation, caller.name, exc_info=True)
            raise KitaruUsageError(
                f"The request for {operation} isn't one: {type(error).__name__}: {error}.",
                fix="pip install --upgrade kitaru-nb  (here and on the server)",
            ) from error

    def _once(self, number: tuple[str, str], work: Callable[[], Any]) -> Any:
        """Do ``work``, or wait for who does it and answer the same: the same request came again."""
        with self._lock:
            known = self._answered.get(number)
            if known is None:
                mine = self._answered[number] = Future()
                while len(self._answered) > _REMEMBERED:
                    self._answered.popitem(last=False)
        if known is not None:
            return known.result()
        try:
            mine.set_result(work())
        except BaseException as error:
            mine.set_exception(error)
            with self._lock:  # nothing was written; asked again, it may be another time
                self._answered.pop(number, None)
        return mine.result()


def check_role(caller: Caller) -> None:
    """Raises `KitaruPermissionError` when the caller may not work on the journal."""
    if caller.role < Role.WORK:
        raise KitaruPermissionError(
            f"{caller.name} has the role {caller.role}; the journal needs {Role.WORK}.",
            fix=f"kitaru server token create NAME --role {Role.WORK}",
        )


async def wait_for_news(pulse: Pulse, body: bytes) -> bytes:
    """The newest seq, and which executions grew after the one that is given: as soon as there are any.

    Raises as `JournalRequests.answer`.
    """
    try:
        given = wire.read(body)[0]
        after, timeout = given["after"], min(float(given["timeout"]), _MOST_SECONDS)
    except (ValueError, LookupError, TypeError) as error:
        raise KitaruUsageError(f"The request for news isn't one: {error}.") from error
    if after is None:
        return wire.write({"seq": await asyncio.to_thread(newest, pulse.journal), "exec_ids": []})
    ends = time.monotonic() + timeout
    while True:
        beat = pulse.beat
        events = await asyncio.to_thread(pulse.journal.tail, int(after), limit=_MOST)
        left = ends - time.monotonic()
        if pulse.closed:
            raise KitaruBackendError("The server ends.")
        if events or left <= 0:
            seq = events[-1].seq if events else after
            return wire.write({"seq": seq, "exec_ids": sorted({event.exec_id for event in events})})
        await pulse.wait(beat, left)


def _create(asked: Asked) -> Any:
    execution = wire.unpack_execution(asked.given["execution"])
    try:
        return wire.pack_execution(asked.journal.create(execution, asked.events))
    except KitaruConflictError as error:
        found = error.existing
        if asked.again is None or not isinstance(found, Execution) or found.created_at != execution.created_at:
            raise
        return wire.pack_execution(found)


def _claim(asked: Asked) -> Any:
    exec_id, owner = asked.given["exec_id"], Owner(**asked.given["owner"])
    if asked.again is not None:
        held = asked.journal.execution(exec_id).lease
        if held is not None and held.owner == owner:
            return wire.pack_lease(held)
    return wire.pack_lease(asked.journal.claim(exec_id, owner, ttl=float(asked.given["ttl"])))


def _renew(asked: Asked) -> Any:
    return wire.pack_lease(asked.journal.renew(asked.lease, ttl=float(asked.given["ttl"])))


def _release(asked: Asked) -> None:
    lease, events = asked.lease, asked.events
    if asked.again is not None:
        found = asked.journal.execution(lease.exec_id)
        let_go = found.lease is None or found.epoch != lease.epoch
        if let_go and (not events or asked.stored(lease.exec_id, events) is not None):
            return
    asked.journal.release(lease, events)


def _append(asked: Asked) -> int:
    exec_id, events = asked.given["exec_id"], asked.events
    if (seq := asked.stored(exec_id, events)) is not None:
        return seq
    return asked.journal.append(exec_id, events, lease=wire.unpack_lease(asked.given["lease"]))


def _set_reference(asked: Asked) -> None:
    name, value, by = asked.given["name"], asked.given["value"], asked.given["by"]
    _check_reference(name)
    if asked.again is not None:
        changes = asked.journal.reference_history(name)
        if changes and changes[-1][1:] == (value, by) and time.time() - changes[-1][0] < asked.again + _SLACK:
            return
    asked.journal.set_reference(name, value, expected=asked.given["expected"], by=by)


def _check_reference(name: str) -> None:
    if name.startswith(_PRIVATE):
        raise KitaruPermissionError(f"The reference {name[:60]!r} is the server's own; workers may not use it.")


def _hello(asked: Asked) -> bytes:
    return wire.write({"now": time.time()})


def _execution(asked: Asked) -> bytes:
    return wire.write(wire.pack_execution(asked.journal.execution(asked.given["exec_id"])))


def _executions(asked: Asked) -> bytes:
    given = asked.given
    status = None if given["status"] is None else ExecutionStatus(given["status"])
    found = asked.journal.executions(
        flow=given["flow"], status=status, before=given["before"], limit=min(int(given["limit"]), _MOST)
    )
    return wire.write([wire.pack_execution(execution) for execution in found])


def _census(asked: Asked) -> bytes:
    return wire.write([[flow, status, count] for (flow, status), count in asked.journal.census().items()])


def _waits(asked: Asked) -> bytes:
    given = asked.given
    found = asked.journal.waits(exec_id=given["exec_id"], due_before=given["due_before"], limit=int(given["limit"]))
    return wire.write([wire.pack_wait(wait) for wait in found])


def _find(asked: Asked) -> bytes:
    found = asked.journal.find(asked.given["cache_key"])
    return wire.write(*wire.pack_events([] if found is None else [found]))


def _tail(asked: Asked) -> bytes:
    given = asked.given
    found = asked.journal.tail(int(given["after"]), exec_id=given["exec_id"], limit=min(int(given["limit"]), _MOST))
    return wire.write(*wire.pack_events(found))


def _reference(asked: Asked) -> bytes:
    _check_reference(asked.given["name"])
    return wire.write(asked.journal.reference(asked.given["name"]))


def _reference_history(asked: Asked) -> bytes:
    _check_reference(asked.given["name"])
    return wire.write([list(change) for change in asked.journal.reference_history(asked.given["name"])])


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    seconds = float(text)
    if not math.isfinite(seconds):
        raise ValueError(f"{text!r} is no number of seconds")
    return seconds


_READING: Mapping[str, Callable[[Asked], bytes]] = {
    "hello": _hello,
    "execution": _execution,
    "executions": _executions,
    "census": _census,
    "waits": _waits,
    "find": _find,
    "tail": _tail,
    "reference": _reference,
    "reference_history": _reference_history,
}
_WRITING: Mapping[str, Callable[[Asked], Any]] = {
    "create": _create,
    "claim": _claim,
    "renew": _renew,
    "release": _release,
    "append": _append,
    "set_reference": _set_reference,
}
