"""The journal in PostgreSQL keeps the contract, between processes too, agrees with the memory journal, and outlives
interruptions of the server."""

from __future__ import annotations

import itertools
import sys
import threading
import time
import traceback
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from kitaru_nb.errors import (
    KitaruBackendError,
    KitaruFeatureNotAvailableError,
    KitaruLeaseError,
    KitaruUsageError,
)
from kitaru_nb.journal import postgres_connections
from kitaru_nb.journal.base import Journal, this_process
from kitaru_nb.journal.open import open_journal
from kitaru_nb.journal.postgres import PostgresJournal
from kitaru_nb.model import ExecutionStatus
from kitaru_nb.testing.journal import (
    ELSEWHERE,
    JournalMachine,
    SharedJournalContract,
    event,
    new_execution,
    together,
)
from tests.journal.interruptions import append_through_restarts
from tests.journal.postgres_server import PostgresServer, running

_numbers = itertools.count()
_server: PostgresServer | None = None


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[PostgresServer]:
    global _server
    with running() as _server:
        yield _server


def fresh_url() -> str:
    """Empty data: a schema of its own in the one database."""
    assert _server is not None
    return f"{_server.url('postgres')}?schema=t{next(_numbers)}"


class TestPostgresJournal(SharedJournalContract):
    @pytest.fixture
    def url(self) -> str:
        return fresh_url()


class PostgresMachine(JournalMachine):
    def __init__(self) -> None:
        super().__init__()
        self.url = fresh_url()

    def open_handle(self) -> Journal:
        return open_journal(self.url, durability="process")


TestPostgresMachine = PostgresMachine.TestCase
TestPostgresMachine.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_a_restart_of_the_server_loses_nothing_and_nobody_notices(server: PostgresServer) -> None:
    journal = PostgresJournal(fresh_url(), patience=120)
    append_through_restarts(journal, server)
    journal.close()


def test_connections_that_the_server_ended_are_replaced() -> None:
    url = fresh_url()
    journal = open_journal(url)
    exec_id = journal.create(new_execution(), []).exec_id
    for n in range(3):
        with psycopg.connect(url.partition("?")[0], autocommit=True) as administrator:
            administrator.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
            )
        journal.append(exec_id, [event(exec_id, n=n)])
    assert [e.body["n"] for e in journal.history(exec_id)] == [0, 1, 2]
    journal.close()


@pytest.mark.parametrize(
    "found", ["deallocate all", "deallocate all; prepare _pg3_0 as select 1"], ids=["none", "other"]
)
def test_behind_a_pooler_that_changes_connections_nothing_is_prepared(found: str) -> None:
    journal = open_journal(fresh_url())
    assert isinstance(journal, PostgresJournal)
    exec_id = journal.create(new_execution(), []).exec_id
    for n in range(12):
        journal.append(exec_id, [event(exec_id, n=n)])
        if n % 3 == 2:  # the next transaction is on a connection that somebody else had; the driver isn't told
            with journal._server.connection() as connection:
                for statement in found.split("; "):
                    connection.execute(f"do $$ begin execute '{statement}'; end $$")
    assert [e.body["n"] for e in journal.history(exec_id)] == list(range(12))
    journal.close()


def test_an_append_whose_answer_was_lost_happens_once(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = open_journal(fresh_url())
    assert isinstance(journal, PostgresJournal)
    exec_id = journal.create(new_execution(), []).exec_id
    run, lost = journal._run, []

    def losing(connection: psycopg.Connection, statement: str, *parameters: object) -> psycopg.Cursor:
        result = run(connection, statement, *parameters)
        if ".append(" in statement and not lost:
            lost.append(statement)
            connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return result

    monkeypatch.setattr(journal, "_run", losing)
    seq = journal.append(exec_id, [event(exec_id, n=1)])
    assert lost
    assert [(e.seq, e.body) for e in journal.history(exec_id)] == [(seq, {"n": 1})]
    journal.close()


def test_threads_that_append_at_once_share_commits() -> None:
    url = fresh_url()
    journal = open_journal(url)
    exec_id = journal.create(new_execution(), []).exec_id

    def append(n: int) -> int:
        return journal.append(exec_id, [event(exec_id, n=n)])

    seqs = together([lambda n=n: append(n) for n in range(24)])
    assert len(set(seqs)) == 24
    assert {e.seq: e.body["n"] for e in journal.history(exec_id)} == {seq: n for n, seq in enumerate(seqs)}
    with psycopg.connect(url.partition("?")[0]) as connection:
        schema = url.rpartition("=")[2]
        found = connection.execute(f"select count(distinct xmin::text) from {schema}.journal").fetchone()
    assert found is not None
    assert found[0] < 24
    journal.close()


def test_a_reader_that_has_seen_a_number_has_missed_none_before_it() -> None:
    url = fresh_url()
    writers = [open_journal(url, durability="process") for _ in range(4)]
    ids = [w.create(new_execution(), []).exec_id for w in writers]
    reader, seen, ended = open_journal(url), [], threading.Event()

    def read() -> None:
        last = 0
        while True:
            over = ended.is_set()
            found = [e.seq for e in reader.tail(last)]
            seen.extend(found)
            last = found[-1] if found else last
            if over and not found:
                return

    def write(writer: Journal, exec_id: str) -> None:
        for n in range(80):
            writer.append(exec_id, [event(exec_id, n=n)])

    reading = threading.Thread(target=read)
    reading.start()
    together([lambda w=w, i=i: write(w, i) for w, i in zip(writers, ids, strict=True)])
    ended.set()
    reading.join()
    assert seen == sorted(set(seen))
    assert len(seen) == 4 * 80
    for handle in [*writers, reader]:
        handle.close()


def test_a_clock_that_is_set_while_a_worker_works_changes_no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    true_time = time.time
    journal = open_journal(fresh_url())
    exec_id = journal.create(new_execution(), []).exec_id
    lease = journal.claim(exec_id, ELSEWHERE, ttl=60)
    monkeypatch.setattr(time, "time", lambda: true_time() + 3600)
    with pytest.raises(KitaruLeaseError, match="another-host"):
        journal.claim(exec_id, this_process())
    assert journal.renew(lease, ttl=60).expires_at - true_time() < 70
    assert [e.exec_id for e in journal.executions(status=ExecutionStatus.RUNNING)] == [exec_id]
    journal.close()


def test_tables_of_a_newer_version_are_refused_and_left_alone() -> None:
    url = fresh_url()
    open_journal(url).close()
    schema = url.rpartition("=")[2]
    with psycopg.connect(url.partition("?")[0], autocommit=True) as connection:
        connection.execute(f"update {schema}.version set version = 99")
    with pytest.raises(KitaruBackendError, match=r"99.*newer") as caught:
        open_journal(url)
    assert caught.value.fix == "pip install --upgrade kitaru-nb"


def test_a_server_that_does_not_answer_is_tried_again_and_then_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connections, "TOLD_AFTER", 0.1)
    began = time.monotonic()
    with pytest.raises(KitaruBackendError, match=r"postgresql://ann@127\.0\.0\.1:1/x failed.*refused") as caught:
        PostgresJournal("postgresql://ann:secret@127.0.0.1:1/x", patience=0.5)
    assert time.monotonic() - began >= 0.2
    assert "secret" not in str(caught.value)
    assert caught.value.fix == "psql 'postgresql://ann@127.0.0.1:1/x' --command 'select 1'"
    (said,) = caplog.messages  # before it gave up
    assert "127.0.0.1:1/x failed" in said
    assert said.endswith("It is tried again for 0.5 s.")
    assert "secret" not in said


def test_who_may_not_make_the_tables_is_told_what_to_grant(server: PostgresServer) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as administrator:
        administrator.execute("create role narrow login")
    url = server.url("postgres").replace("kitaru@", "narrow@") + f"?schema=t{next(_numbers)}"
    with pytest.raises(KitaruBackendError, match="permission denied for database") as caught:
        open_journal(url)
    assert str(caught.value.fix).endswith("--command 'grant create on database postgres to narrow'")


def test_who_may_not_use_the_tables_of_another_role_is_told_what_to_grant(server: PostgresServer) -> None:
    schema = f"t{next(_numbers)}"
    open_journal(f"{server.url('postgres')}?schema={schema}").close()
    with psycopg.connect(server.url("postgres"), autocommit=True) as administrator:
        administrator.execute("create role stranger login")
        url = server.url("postgres").replace("kitaru@", "stranger@") + f"?schema={schema}"
        with pytest.raises(KitaruBackendError, match=f"permission denied for schema {schema}") as caught:
            open_journal(url)
        command = str(caught.value.fix).partition(" --command ")[2].strip("'")
        assert command == "grant kitaru to stranger"
        administrator.execute(command)
    open_journal(url).close()


def test_an_absent_database_is_told_at_once_with_the_line_that_makes_it(server: PostgresServer) -> None:
    began = time.monotonic()
    with pytest.raises(KitaruBackendError, match="does not exist") as caught:
        open_journal(server.url("no_such_database"))
    assert time.monotonic() - began < 10
    assert caught.value.fix == f"psql '{server.url('postgres')}' --command 'create database no_such_database'"


def test_another_name_of_the_scheme_is_refused_with_the_right_one_and_no_password() -> None:
    with pytest.raises(KitaruUsageError, match=r"'postgres://ann@db/kit' is no journal URL") as caught:
        open_journal("postgres://ann:sesame@db/kit")
    assert caught.value.fix == "export KITARU_JOURNAL=postgresql://ann@db/kit"


@pytest.mark.parametrize(
    "url", ["postgresql://h/d?schema=", "postgresql://h/d?nonsense=1"], ids=["schema", "parameter"]
)
def test_a_url_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(KitaruUsageError, match=r"postgresql|PostgreSQL"):
        open_journal(url)


@pytest.mark.parametrize("password", ["50%off", "a/b", "p:w%zz", "50%/off"])
def test_a_password_that_is_not_written_as_a_url_has_it_is_not_shown(password: str) -> None:
    with pytest.raises(KitaruUsageError, match=r"'postgresql://ann@h:5432/d' is no URL") as caught:
        open_journal(f"postgresql://ann:{password}@h:5432/d")
    assert password not in "".join(traceback.format_exception(caught.value))
    assert "%XX" in str(caught.value.fix)


def test_text_with_nul_in_a_name_is_refused_and_nothing_is_written() -> None:
    journal = open_journal(fresh_url())
    exec_id = journal.create(new_execution(), []).exec_id
    with pytest.raises(KitaruUsageError, match="NUL"):
        journal.append(exec_id, [event(exec_id, key="a\0b")])
    assert journal.history(exec_id) == []
    journal.close()


def test_without_the_driver_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for name in ("postgres", "postgres_connections"):
        monkeypatch.delitem(sys.modules, f"kitaru_nb.journal.{name}")
    with pytest.raises(KitaruFeatureNotAvailableError) as caught:
        open_journal("postgresql://h/d")
    assert caught.value.fix == "pip install 'kitaru-nb[postgres]'"
