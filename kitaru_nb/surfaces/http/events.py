"""Live events as server-sent events. A connection that was lost goes on where it stopped: ids are journal seqs."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from kitaru_nb.errors import KitaruBackendError
from kitaru_nb.journal.base import Journal
from kitaru_nb.surfaces.http.wire import encode
from kitaru_nb.surfaces.operations.base import Follow, News
from kitaru_nb.surfaces.operations.system import changes, newest

logger = logging.getLogger("kitaru_nb.server")

#: How often everybody looks, also when the journal told of nothing: what it tells is a hint.
POLL = 1.0
#: News that come closer together than this are looked at together.
_SHORTEST = 0.02
PING = 15.0
#: Whoever was allowed to listen so many seconds ago may have lost that right.
TRUST = 1.0
#: Who missed more than this reads everything anew instead.
MOST_MISSED = 10_000
_BATCH = 200


class Pulse:
    """Tells all streams of a server that the journal grew: one small query when the journal says so, and each ``poll``
    seconds, however many listen.

    Belongs to one event loop. Take the `beat` first, then look for news, then `wait` for that beat: none is missed.
    """

    def __init__(self, journal: Journal, *, poll: float = POLL) -> None:
        self.journal = journal
        self.beat = asyncio.Event()
        self.closed = False
        self._grown = asyncio.Event()
        self._poll = poll
        self._listeners = 0
        self._listened = 0.0
        self._task: asyncio.Task[None] | None = None

    def close(self) -> None:
        """End all streams."""
        self.closed = True
        self._grown.set()
        self.beat.set()

    async def wait(self, beat: asyncio.Event, seconds: float) -> None:
        """Until there may be news since ``beat`` was taken, or so long."""
        self._listeners += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:
            await asyncio.wait_for(beat.wait(), seconds)
        except TimeoutError:
            pass  # no news: the caller looks anyway, and sends a ping
        finally:
            self._listeners -= 1
            self._listened = time.monotonic()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()

        def on_news() -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._grown.set)

        try:
            stop = await asyncio.to_thread(self.journal.watch, on_news)
        except KitaruBackendError:
            stop = _nothing  # each stream finds out for itself
        seq = None
        try:
            # Who listens looks between two waits, so nobody is there for a moment.
            while not self.closed and (self._listeners or time.monotonic() - self._listened < 2 * self._poll):
                before = seq
                try:
                    seq = await asyncio.to_thread(newest, self.journal, after=seq or 0)
                except KitaruBackendError:
                    seq = None  # each stream finds out for itself
                if seq is None or seq != before:
                    beat, self.beat = self.beat, asyncio.Event()
                    beat.set()
                await asyncio.sleep(_SHORTEST)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._grown.wait(), self._poll)
                self._grown.clear()
        finally:
            stop()


def _nothing() -> None:
    pass


async def stream(
    pulse: Pulse,
    follow: Follow,
    *,
    allowed: Callable[[], bool] = lambda: True,
    ping: float = PING,
    trust: float = TRUST,
) -> AsyncIterator[bytes]:
    """The bytes of an event stream, until the client goes, the server ends, or the caller isn't allowed any more:
    before anything is sent, that is asked again after ``trust`` seconds.

    ``reset`` says that what was read before is to be read anew: to who begins without a number, so that nothing is
    missed between its first reading and the stream, to who comes from another journal, and to who missed too much.
    """
    try:
        journal = pulse.journal
        last = await asyncio.to_thread(newest, journal)
        seq = follow.after
        yield b"retry: 2000\n\n"
        if seq is None or seq > last or (follow.exec_id is None and last - seq > MOST_MISSED):
            seq = last
            yield b"id: %d\nevent: reset\ndata: {}\n\n" % seq
        said = asked = time.monotonic()
        while not pulse.closed:
            beat = pulse.beat
            news = await asyncio.to_thread(changes, journal, Follow(follow.exec_id, seq, _BATCH))
            if not news.events and (left := said + ping - time.monotonic()) > 0:
                await pulse.wait(beat, left)
                continue
            if time.monotonic() - asked >= min(trust, ping):
                if not await asyncio.to_thread(allowed):
                    return
                asked = time.monotonic()
            # As one piece: to a client that has gone nothing is written but that.
            told = (b"id: %d\nevent: change\ndata: %s\n\n" % (change.seq, encode(change)) for change in news.events)
            yield b"".join(told) or b": ping\n\n"
            seq, said = news.seq, time.monotonic()
    except KitaruBackendError as error:
        # Nobody can be told in the middle of a stream. Its client comes again; what it then reads tells why.
        logger.warning("A stream of events ends: %s", error.message)


async def poll(pulse: Pulse, follow: Follow) -> News:
    """Changes, waited for as long as ``follow.timeout`` says."""
    ends = time.monotonic() + (follow.timeout or 0.0)
    while True:
        beat = pulse.beat
        news = await asyncio.to_thread(changes, pulse.journal, follow)
        left = ends - time.monotonic()
        if news.events or left <= 0 or pulse.closed:
            return news
        follow = dataclasses.replace(follow, after=news.seq)
        await pulse.wait(beat, left)
