"""The journal over HTTP keeps the contract, between processes too, agrees with the memory journal, and outlives
interruptions of the server."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kitaru_nb.config import secrets_in, shown
from kitaru_nb.errors import KitaruBackendError, KitaruError, KitaruLeaseError, KitaruUsageError
from kitaru_nb.journal import http_connections, wire
from kitaru_nb.journal.base import Journal, this_process
from kitaru_nb.journal.http import HttpJournal
from kitaru_nb.journal.memory import MemoryJournal
from kitaru_nb.journal.open import open_journal
from kitaru_nb.model import Event, ExecutionStatus, Lease
from kitaru_nb.surfaces.http.journal import JournalRequests
from kitaru_nb.surfaces.operations.base import Caller, Role
from kitaru_nb.testing.journal import ELSEWHERE, JournalMachine, SharedJournalContract, event, new_execution
from tests.journal.http_server import JournalServer, serving
from tests.journal.interruptions import append_through_restarts

_server: JournalServer | None = None


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JournalServer]:
    global _server
    with serving(tmp_path_factory.mktemp("served")) as _server:
        yield _server


def fresh_url() -> str:
    """Empty data: a journal of its own on the one server."""
    assert _server is not None
    return _server.url()


class TestHttpJournal(SharedJournalContract):
    @pytest.fixture
    def url(self) -> str:
        return fresh_url()


class HttpMachine(JournalMachine):
    def __init__(self) -> None:
        super().__init__()
        self.url = fresh_url()

    def open_handle(self) -> Journal:
        return open_journal(self.url)


TestHttpMachine = HttpMachine.TestCase
TestHttpMachine.settings = settings(
    max_examples=8, stateful_step_count=25, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture
def journal() -> Iterator[Journal]:
    handle = open_journal(fresh_url())
    yield handle
    handle.close()


def writes(journal: Journal) -> dict[str, Callable[[], Any]]:
    """One write of each kind, with what it needs done before."""
    made = [journal.create(new_execution(), []).exec_id for _ in range(4)]
    leases = [journal.claim(exec_id, ELSEWHERE, ttl=60) for exec_id in made[1:]]
    fresh = new_execution()
    done = event(made[2], "checkpoint.completed", "call")
    return {
        "create": lambda: journal.create(fresh, [event(fresh.exec_id, "execution.created")]).exec_id,
        "claim": lambda: journal.claim(made[0], this_process(), ttl=60).epoch,
        "renew": lambda: journal.renew(leases[0], ttl=600).epoch,
        "append": lambda: journal.append(made[2], [event(made[2], text="ü"), done], lease=leases[1]),
        "release": lambda: journal.release(leases[2], [event(made[3], "execution.waiting")]),
        "set_reference": lambda: journal.set_reference("tag", "v1", expected=None, by="ann"),
    }


@pytest.mark.parametrize("restarted", [False, True], ids=["the-same-server", "a-restarted-server"])
@pytest.mark.parametrize("operation", ["create", "claim", "renew", "append", "release", "set_reference"])
def test_a_request_whose_answer_was_lost_is_done_once(server: JournalServer, operation: str, restarted: bool) -> None:
    outcomes = []
    for lost in (False, True):
        journal = open_journal(server.url())
        write = writes(journal)[operation]
        if lost:
            server.lose_the_next_answer(forget=restarted)
        result = write()
        assert server.lost == 0
        events = list(journal.tail(0))
        executions = [(e.status, e.epoch, e.lease is None) for e in journal.executions()]
        changes = [(value, by) for _, value, by in journal.reference_history("tag")]
        outcomes.append(
            (isinstance(result, str) or result, [(e.seq, e.kind, e.key) for e in events], executions, changes)
        )
        journal.close()
    assert outcomes[0] == outcomes[1]


def test_a_request_that_comes_again_while_it_is_done_waits_for_its_answer(journal: Journal) -> None:
    began, go_on, done = threading.Event(), threading.Event(), []

    class Slow(MemoryJournal):
        def append(self, exec_id: str, events: Sequence[Event], *, lease: Lease | None = None) -> int:
            began.set()
            assert go_on.wait(60)
            done.append(exec_id)
            return super().append(exec_id, events, lease=lease)

    slow = Slow("memory://slow")
    exec_id = slow.create(new_execution(), []).exec_id
    packed, blobs = wire.pack_events([event(exec_id)])
    message = wire.write({"exec_id": exec_id, "events": packed, "lease": None}, blobs)
    requests = JournalRequests(slow)

    def ask(**headers: str) -> bytes:
        return requests.answer("append", {"x-kitaru-request": "1", **headers}, message, Caller("w", Role.WORK, "http"))

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask)
        assert began.wait(60)
        again = pool.submit(ask, **{"x-kitaru-again": "0.5"})
        go_on.set()
        assert first.result() == again.result()
    assert done == [exec_id]


def test_a_restart_of_the_server_loses_nothing_and_nobody_notices(server: JournalServer) -> None:
    journal, heard = HttpJournal(server.url(), patience=120), threading.Event()
    end = journal.watch(heard.set)
    lease = append_through_restarts(journal, server)
    heard.clear()
    journal.append(lease.exec_id, [event(lease.exec_id)], lease=lease)
    assert heard.wait(60), "nobody tells of news any more"
    end()
    journal.close()


def test_a_server_that_is_not_there_is_tried_again_and_then_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connections, "TOLD_AFTER", 0.1)
    with socket.socket() as silent:  # it has the port, and listens to nobody
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(
            KitaruBackendError, match=rf"http://127\.0\.0\.1:{port}/team can't be reached.*refused"
        ) as caught:
            HttpJournal(f"http://:secret@127.0.0.1:{port}/team", patience=0.5)
    assert 0.2 <= time.monotonic() - began < 60
    assert caught.value.fix == f"check that a server answers there: curl http://127.0.0.1:{port}/team"
    assert "secret" not in str(caught.value)
    # Whoever waits for a command is told why before it gives up.
    (said,) = caplog.messages
    assert f"http://127.0.0.1:{port}/team can't be reached" in said
    assert said.endswith("It is tried again for 0.5 s.")
    assert "secret" not in said


def test_a_server_that_went_away_is_named_and_nothing_is_written(server: JournalServer) -> None:
    journal = HttpJournal(server.url(), patience=0.3)
    exec_id = journal.create(new_execution(), []).exec_id
    server.stop()
    try:
        for work in (lambda: journal.append(exec_id, [event(exec_id)]), lambda: journal.execution(exec_id)):
            with pytest.raises(KitaruBackendError, match="can't be reached"):
                work()
    finally:
        server.start()
    assert journal.append(exec_id, [event(exec_id)]) == 1
    journal.close()


def test_what_a_proxy_says_while_the_server_is_away_is_no_answer(server: JournalServer) -> None:
    journal = HttpJournal(server.url(), patience=0.3)
    server.away = True
    with pytest.raises(KitaruBackendError, match="it answers 502"):
        journal.executions()
    server.away = False
    assert journal.executions() == []
    journal.close()


def test_something_that_is_no_server_of_ours_is_told_at_once(server: JournalServer) -> None:
    began = time.monotonic()
    for url, said in [
        (f"http://127.0.0.1:{server.port}/page", "status 200 and text/html"),
        (f"{server.url()}/elsewhere", "status 404 and application/json"),
    ]:
        with pytest.raises(KitaruBackendError, match=f"is no journal of a kitaru server: {said}"):
            open_journal(url)
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("role", [Role.VIEW, Role.OPERATE])
def test_a_role_below_work_is_refused_with_the_line_to_type(server: JournalServer, role: Role) -> None:
    with pytest.raises(KitaruBackendError, match=f"has the role {role}; the journal needs work") as caught:
        open_journal(server.url(role=role))
    assert caught.value.fix is not None
    assert "KITARU_JOURNAL_TOKEN" in caught.value.fix
    assert "--role work" in caught.value.fix


@pytest.mark.parametrize("token", ["", "wrong"])
def test_without_a_token_or_with_a_wrong_one_nobody_is_let_in(server: JournalServer, token: str) -> None:
    plain = without_token(server.url())
    with pytest.raises(KitaruBackendError, match="refuses") as caught:
        open_journal(server.with_token(plain, token) if token else plain)
    assert "KITARU_JOURNAL_TOKEN" in (caught.value.fix or "")


def test_the_token_may_be_in_the_environment_and_is_never_shown(
    server: JournalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.url()
    token = url.partition("//:")[2].partition("@")[0]
    monkeypatch.setenv("KITARU_JOURNAL_TOKEN", token)
    journal = open_journal(without_token(url))
    assert journal.executions() == []
    assert journal.url == without_token(url)
    journal.close()


@pytest.mark.parametrize(
    "url", ["https://", "http://h:x", "https://h/?a=b", "https://h i/", "http://:t k@h", "https://hé"]
)
def test_a_url_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(KitaruUsageError):
        open_journal(url)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://:kt_secret@h:1/p", "https://h:1/p"),
        ("https://kt_secret@h", "https://h"),
        ("postgresql://ann:secret@h/d?schema=s", "postgresql://ann@h/d?schema=s"),
        ("postgresql://ann@h/d", "postgresql://ann@h/d"),
        ("postgresql://h/d?user=ann&password=secret&schema=s", "postgresql://h/d?user=ann&schema=s"),
        ("postgresql://ann:a$b%40c@h?sslpassword=secret", "postgresql://ann@h"),
        ("postgresql://ann:a/b@h:5432/d", "postgresql://ann@h:5432/d"),
        ("https://host:8443/team@home", "https://host:8443/team@home"),
        ("sqlite:///home/a:b@c/journal.db", "sqlite:///home/a:b@c/journal.db"),
    ],
)
def test_what_people_see_of_a_url_holds_no_secret(url: str, seen: str) -> None:
    assert shown(url) == seen
    assert bool(secrets_in(url)) == (url != seen)
    assert not secrets_in(seen)


def test_the_servers_own_references_stay_the_servers(journal: Journal) -> None:
    with pytest.raises(KitaruBackendError, match="server's own"):
        journal.reference("server/tokens")
    with pytest.raises(KitaruBackendError, match="server's own"):
        journal.reference_history("server/tokens")
    with pytest.raises(KitaruBackendError, match="server's own"):
        journal.set_reference("server/tokens", "{}", expected=None, by="mallory")


def test_a_lease_of_a_worker_that_died_on_this_machine_is_free_though_the_server_cannot_know(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [journal.create(new_execution(), []).exec_id for _ in range(3)]
    for exec_id in ids[:2]:
        journal.claim(exec_id, ELSEWHERE, ttl=1000)
    with pytest.raises(KitaruLeaseError):
        journal.claim(ids[0], this_process())
    # As if this were the machine of that worker, whose process is gone. The server's is another one.
    monkeypatch.setattr("kitaru_nb.journal.http.is_dead", lambda owner: owner == ELSEWHERE)
    interrupted = ExecutionStatus.INTERRUPTED
    assert journal.execution(ids[0]).status is interrupted
    assert [e.exec_id for e in journal.executions(status=interrupted)] == [ids[1], ids[0]]
    assert [e.exec_id for e in journal.executions(status=interrupted, limit=1)] == [ids[1]]
    assert journal.executions(status=ExecutionStatus.RUNNING) == []
    assert journal.claim(ids[0], this_process()).epoch == 2
    assert [e.exec_id for e in journal.executions(status=interrupted)] == [ids[1]]


def test_more_than_the_server_takes_is_refused_with_what_to_do(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    exec_id = journal.create(new_execution(), []).exec_id
    large = Event(exec_id, "metadata", "", 1.0, {}, b"x" * 100_000)
    monkeypatch.setattr(wire, "MAX_REQUEST", 50_000)
    with pytest.raises(KitaruUsageError, match="takes 50,000") as caught:
        journal.append(exec_id, [large])
    assert caught.value.fix == "export KITARU_INLINE_MAX_BYTES=16384"
    message = wire.write({"text": "x" * 60_000})
    assert isinstance(journal, HttpJournal)
    with pytest.raises(KitaruBackendError, match=r"larger than 50,000 bytes"):  # who doesn't ask is refused as well
        journal.understand(journal._server.post(f"{wire.PATH}append", message, {}))
    assert journal.history(exec_id) == []


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_names = [
    "exec_id",
    "events",
    "lease",
    "owner",
    "ttl",
    "execution",
    "name",
    "value",
    "expected",
    "by",
    "after",
    "limit",
]
_given = st.fixed_dictionaries({}, optional=dict.fromkeys(_names, _json)) | _json
_messages = st.binary(max_size=30) | st.builds(
    lambda g, b: json.dumps(g).encode() + b"\n" + b, _given, st.binary(max_size=5)
)


@settings(max_examples=100, deadline=None, database=None)
@given(
    operation=st.sampled_from(["append", "claim", "create", "release", "renew", "set_reference", "tail", "waits", "x"]),
    message=_messages,
    headers=st.fixed_dictionaries(
        {}, optional={n: st.text(max_size=4) for n in ("x-kitaru-request", "x-kitaru-again")}
    ),
)
def test_whatever_comes_is_answered_or_refused_and_nothing_is_written(
    operation: str, message: bytes, headers: dict[str, str]
) -> None:
    journal = MemoryJournal("memory://fuzzed")
    with suppress(KitaruError):
        JournalRequests(journal).answer(operation, headers, message, Caller("w", Role.WORK, "http"))
    assert journal.executions() == []


def without_token(url: str) -> str:
    """The URL as anybody may see it."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
