"""Live events: they come at once, go on after a lost connection, and end when they should."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError
from kitaru_nb.model import Event
from kitaru_nb.surfaces.http import events
from kitaru_nb.surfaces.http.events import PING, Pulse, poll, stream
from kitaru_nb.surfaces.http.openapi import document
from kitaru_nb.surfaces.http.tokens import Tokens
from kitaru_nb.surfaces.operations.base import Follow, Role
from kitaru_nb.surfaces.operations.system import newest
from tests.http import flows
from tests.http.httpkit import SECONDS, Ran, Served, until


def said(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The events of a stream, comments as ``{"comment": …}``."""
    found: dict[str, Any] = {}
    for line in lines:
        if not line:
            if found:
                yield found
            found = {}
        elif line.startswith(":"):
            yield {"comment": line[1:].strip()}
        else:
            name, _, value = line.partition(": ")
            found[name] = json.loads(value) if name == "data" else value


def note(runtime: Runtime, exec_id: str, number: int) -> None:
    """Record something small."""
    runtime.journal.append(exec_id, [Event(exec_id, "metadata", "", time.time(), {"number": number})])


def take(client: httpx.Client, count: int, headers: dict[str, str] | None = None, **query: object) -> list[Any]:
    """The first changes of a stream."""
    with client.stream("GET", "/api/events", params=query, headers=headers or {}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        changes = (e for e in said(answer.iter_lines()) if "data" in e)
        return [next(changes) for _ in range(count)]


def test_what_was_recorded_is_told_in_order_without_values(served: Served, ran: Ran) -> None:
    exec_id = ran(flows.brief, "secret topic")
    count = len(served.runtime.journal.tail(0))
    with served.client("view") as client:
        found = take(client, count, after=0)
    assert [event["id"] for event in found] == [str(event["data"]["seq"]) for event in found]
    kinds = [event["data"]["kind"] for event in found]
    assert kinds[0] == "execution.created"
    assert kinds[-1] == "execution.waiting"
    assert {event["data"]["exec_id"] for event in found} == {exec_id}
    assert {event["data"]["name"] for event in found} == {"brief", "research", "approve", None}
    assert found[-1]["data"]["status"] == "waiting"
    assert "secret topic" not in json.dumps(found)


def test_the_stream_is_what_the_openapi_document_says(served: Served) -> None:
    described = document()["paths"]["/events"]["get"]["responses"]["200"]["content"]
    with served.client("view") as client, client.stream("GET", "/api/events") as answer:
        assert answer.headers["content-type"].partition(";")[0] in described


def test_news_arrive_while_one_listens(served: Served, ran: Ran) -> None:
    exec_id = ran(flows.brief)
    found: list[tuple[float, Any]] = []
    listening = threading.Event()

    def listen() -> None:
        with served.client("view") as client, client.stream("GET", "/api/events") as answer:
            for event in said(answer.iter_lines()):
                if event.get("event") == "reset":
                    listening.set()
                if event.get("event") == "change":
                    found.append((time.time(), event["data"]))
                    return

    thread = threading.Thread(target=listen)
    thread.start()
    assert listening.wait(SECONDS)
    until(lambda: served.pulse._listeners, "it waits for news")
    sent = time.time()
    note(served.runtime, exec_id, 1)
    thread.join(SECONDS)
    ((arrived, change),) = found
    assert change["kind"] == "metadata"
    assert arrived - sent < PING  # it looks by itself only then


def test_a_lost_connection_goes_on_where_it_stopped_even_after_a_restart(served: Served, ran: Ran) -> None:
    exec_id = ran(flows.many, 3)
    with served.client("view") as client:
        first = take(client, 4, after=0)
    served.stop()
    note(served.runtime, exec_id, 7)
    served.start()
    total = len(served.runtime.journal.tail(0))
    with served.client("view") as client:
        rest = take(client, total - 4, headers={"last-event-id": first[-1]["id"]}, after=0)
    ids = [int(event["id"]) for event in [*first, *rest]]
    assert ids == sorted(set(ids))
    assert len(ids) == total
    assert rest[-1]["data"]["kind"] == "metadata"


def test_only_one_execution_is_followed_where_one_is_named(served: Served, ran: Ran) -> None:
    wanted, other = ran(flows.many, 1), ran(flows.brief)
    count = len(served.runtime.journal.history(wanted))
    note(served.runtime, other, 1)
    with served.client("view") as client:
        assert {e["data"]["exec_id"] for e in take(client, count, after=0, exec_id=wanted)} == {wanted}
        assert client.get("/api/events", params={"exec_id": "kr-000000000000"}).status_code == 404


@pytest.mark.parametrize("last", ["999999", "1"])
def test_who_comes_from_elsewhere_or_missed_too_much_reads_anew(
    served: Served, ran: Ran, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_MISSED", 3)
    ran(flows.brief)
    with served.client("view") as client:
        (reset,) = take(client, 1, headers={"last-event-id": last})
    assert reset["event"] == "reset"
    assert int(reset["id"]) == newest(served.runtime.journal)


def test_a_last_event_id_that_cant_be_is_refused(served: Served) -> None:
    with served.client("view") as client:
        assert client.get("/api/events", headers={"last-event-id": "nonsense"}).status_code == 400


def test_the_stream_ends_with_the_server(served: Served) -> None:
    ended = threading.Event()
    listening = threading.Event()

    def listen() -> None:
        with served.client("view") as client, client.stream("GET", "/api/events") as answer:
            for _ in answer.iter_lines():
                listening.set()
        ended.set()

    thread = threading.Thread(target=listen)
    thread.start()
    assert listening.wait(SECONDS)
    served.stop()
    assert ended.wait(SECONDS)
    thread.join()
    served.start()


async def first_of(source: Any, count: int) -> list[bytes]:
    """The first parts of a stream."""
    found = []
    async for part in source:
        found.append(part)
        if len(found) == count:
            break
    await source.aclose()
    return found


async def test_a_quiet_stream_says_that_it_lives(runtime: Runtime) -> None:
    pulse = Pulse(runtime.journal, poll=0.01)
    parts = await first_of(stream(pulse, Follow(None, 0), ping=0.05), 3)
    assert parts == [b"retry: 2000\n\n", b": ping\n\n", b": ping\n\n"]


async def test_who_begins_without_a_number_is_told_to_read_by_then(runtime: Runtime, ran: Ran) -> None:
    """What happened before is read, what happens after is told: nothing falls between."""
    exec_id = await asyncio.to_thread(ran, flows.brief)
    source = stream(Pulse(runtime.journal, poll=0.01), Follow(None, None))
    assert await anext(source) == b"retry: 2000\n\n"
    now = newest(runtime.journal)
    note(runtime, exec_id, 1)
    assert await anext(source) == b"id: %d\nevent: reset\ndata: {}\n\n" % now
    assert (await anext(source)).startswith(b"id: %d\nevent: change\n" % (now + 1))
    await source.aclose()


async def test_what_came_meanwhile_is_sent_as_one_piece(runtime: Runtime, ran: Ran) -> None:
    await asyncio.to_thread(ran, flows.many, 3)
    count = len(runtime.journal.tail(0))
    _, piece = await first_of(stream(Pulse(runtime.journal, poll=0.01), Follow(None, 0)), 2)
    assert piece.count(b"event: change\n") == count > 5


async def test_an_outage_of_the_journal_ends_a_stream_and_is_told(
    runtime: Runtime, ran: Ran, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object, **__: object) -> list[Event]:
        raise KitaruBackendError("The journal can't be reached.")

    ran(flows.brief)
    pieces = stream(Pulse(runtime.journal), Follow(None, 0))
    assert await anext(pieces) == b"retry: 2000\n\n"
    monkeypatch.setattr(runtime.journal, "tail", away)
    assert [piece async for piece in pieces] == []
    assert caplog.messages == ["A stream of events ends: The journal can't be reached."]


async def test_a_stream_ends_when_its_token_does(runtime: Runtime) -> None:
    secret = Tokens(runtime.journal).create("cy", Role.VIEW)
    tokens = Tokens(runtime.journal)
    pulse = Pulse(runtime.journal, poll=0.01)
    source = stream(pulse, Follow(None, 0), allowed=lambda: tokens.find(secret) is not None, ping=0.05)
    assert await anext(source) == b"retry: 2000\n\n"
    assert await anext(source) == b": ping\n\n"
    tokens.revoke("cy")
    assert [part async for part in source] in ([], [b": ping\n\n"])


async def test_a_busy_stream_ends_too_when_its_token_does(runtime: Runtime, ran: Ran) -> None:
    exec_id = await asyncio.to_thread(ran, flows.brief)
    tokens = Tokens(runtime.journal)
    secret = tokens.create("cy", Role.VIEW)
    pulse = Pulse(runtime.journal, poll=0.01)
    source = stream(pulse, Follow(None, None), allowed=lambda: tokens.find(secret) is not None, trust=0.01)
    assert await anext(source) == b"retry: 2000\n\n"
    assert b"event: reset\n" in await anext(source)
    for number in range(3):
        note(runtime, exec_id, number)
        assert (await anext(source)).startswith(b"id: ")
    tokens.revoke("cy")
    await asyncio.sleep(0.02)
    note(runtime, exec_id, 9)
    assert [part async for part in source] == []


async def test_a_poll_waits_for_the_first_change(runtime: Runtime, ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    exec_id = await asyncio.to_thread(ran, flows.brief)
    pulse = Pulse(runtime.journal, poll=0.01)
    now = newest(runtime.journal)
    assert (await poll(pulse, Follow(None, None, timeout=0.05))).events == ()
    wait, waits = pulse.wait, asyncio.Event()
    monkeypatch.setattr(pulse, "wait", lambda *given: waits.set() or wait(*given))
    waiting = asyncio.create_task(poll(pulse, Follow(None, None, timeout=SECONDS)))
    await waits.wait()
    note(runtime, exec_id, 1)
    news = await waiting
    assert [change.kind for change in news.events] == ["metadata"]
    assert news.seq == now + 1


async def test_many_listeners_cost_one_query_a_beat(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    plain = events.newest

    def counted(journal: Any, *, after: int = 0) -> int:
        asked.append(after)
        return plain(journal, after=after)

    monkeypatch.setattr(events, "newest", counted)
    begun = time.monotonic()
    pulse = Pulse(runtime.journal, poll=0.05)
    beats = [pulse.wait(pulse.beat, 0.5) for _ in range(50)]
    await asyncio.gather(*beats)
    again = [pulse.wait(pulse.beat, 0.5) for _ in range(50)]
    await asyncio.gather(*again)
    assert 1 <= len(asked) <= 2 + (time.monotonic() - begun) / 0.05


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 9, 100])
def test_the_newest_event_is_found_by_halving(runtime: Runtime, ran: Ran, count: int) -> None:
    assert newest(runtime.journal) == 0
    exec_id = ran(flows.many, 1)
    for number in range(count):
        note(runtime, exec_id, number)
    last = runtime.journal.tail(0)[-1].seq
    assert newest(runtime.journal) == last
    assert newest(runtime.journal, after=last - 1) == last
    assert newest(runtime.journal, after=last) == last
