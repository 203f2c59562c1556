"""The journal in PostgreSQL, a team's back end: any number of workers on any number of machines.

``postgresql://user:password@host:5432/database?schema=kitaru``; all other parameters are libpq's. An appended
checkpoint is one statement and one commit; what several threads append at the same time shares a commit. All writes
take turns, so that event numbers become visible in their order: a reader who has seen one has missed none before it.

A connection that breaks is opened again. A write whose answer was lost is looked up first, so that it is done once.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import Any, Literal, TypeVar, cast

import psycopg
from psycopg import sql

from kitaru_nb.errors import KitaruBackendError
from kitaru_nb.journal import rules
from kitaru_nb.journal.base import DEFAULT_TTL, Journal

# Before psycopg: it says what to install.
from kitaru_nb.journal.postgres_connections import CLOCK, Connection, Row, Server, split_url
from kitaru_nb.journal.rules import COLUMNS, Batch, ExecutionRow
from kitaru_nb.journal.watching import Watchers
from kitaru_nb.model import ONCE, Event, Execution, ExecutionStatus, Lease, Owner, Wait

T = TypeVar("T")

VERSION = 1
#: For how many seconds an unreachable server is tried again before `KitaruBackendError`.
PATIENCE = 20.0

_EVENT = "seq, exec_id, kind, key, at, body, blob, cache_key"
_ROW = ", ".join(COLUMNS)
_ENDED = [status.value for status in ExecutionStatus if status.ended]
_TYPES = ("text", "text", "float8", "text", "bytea", "text", "float8")
#: Up to so many events are sent value by value: in an array the driver has to escape each of their texts.
_FEW = 4
_TAKE_TURN = f"select {CLOCK} from {{s}}.take_turn()"
_NOT_FOUND, _FENCED = "KN404", "KN409"


class Append:
    """One thread's wish to append, and what became of it. ``tried``: it may have happened already."""

    __slots__ = ("batch", "done", "error", "exec_id", "lease", "parameters", "result", "statement", "tried")

    def __init__(self, exec_id: str, batch: Batch, lease: Lease | None) -> None:
        self.exec_id = exec_id
        self.batch = batch
        self.lease = lease
        epoch = lease.epoch if lease is not None else None
        arrays, values = _arrays(batch)
        self.statement = f"select {{s}}.append(%s, %s, {arrays}, %s, %s, %s)"
        self.parameters = (exec_id, epoch, *values, *(batch.change or (None, None, None)))
        self.tried = self.done = False
        self.result = 0
        self.error: Exception | None = None


class PostgresJournal(Journal):
    """``durability="process"`` commits without waiting for the server's disk (``synchronous_commit=off``)."""

    def __init__(
        self, url: str, *, durability: Literal["power", "process"] = "power", patience: float = PATIENCE
    ) -> None:
        """Connect, creating the tables where there are none.

        Raises:
            KitaruUsageError: the URL can't be right.
            KitaruBackendError: no server answers for ``patience`` seconds, it refuses, or the tables were made by a
                newer version.
        """
        self.url, schema, conninfo = split_url(url)
        self._schema = sql.Identifier(schema)
        self._server = Server(self.url, conninfo, patience, durable=durability == "power")
        self._statements: dict[str, sql.Composed] = {}
        self._queue: deque[Append] = deque()
        self._turn = threading.Lock()
        self._watchers = Watchers(self._server.listen)
        try:
            self._transact(lambda connection: self._migrate(connection, schema), turn=False)
        except BaseException:
            self._server.close()
            raise

    # writing

    def create(self, execution: Execution, events: Sequence[Event]) -> Execution:
        row, batch = ExecutionRow.new(execution), rules.prepare(execution.exec_id, events)

        def work(connection: Connection) -> ExecutionRow:
            if row.key is not None and (same := self._find(connection, "flow = %s and key = %s", row.flow, row.key)):
                return same
            if taken := self._find(connection, "id = %s", row.id):
                raise rules.same_id(taken.execution(self._server.now()))
            created = dataclasses.replace(row)  # this may run twice
            created.apply(batch.change)
            marks = ", ".join(["%s"] * len(COLUMNS))
            self._run(connection, f"insert into {{s}}.executions ({_ROW}) values ({marks})", *created.columns())
            self._store(connection, row.id, batch)
            return created

        def done(connection: Connection) -> ExecutionRow | None:
            found = self._find(connection, "id = %s", row.id)
            return found if found and found.created_at == row.created_at else None

        return self._transact(work, done, batch).execution(self._server.now())

    def claim(self, exec_id: str, owner: Owner, *, ttl: float = DEFAULT_TTL) -> Lease:
        tried: list[Lease] = []

        def work(connection: Connection) -> Lease:
            row = self._row(connection, exec_id)
            lease, batch = row.claim(owner, ttl, self._server.now())
            tried.append(lease)
            self._store(connection, exec_id, batch)
            self._update(connection, row)
            return lease

        def done(connection: Connection) -> Lease | None:
            held = self._row(connection, exec_id).lease()
            return held if held in tried else None

        return self._transact(work, done)

    def renew(self, lease: Lease, *, ttl: float = DEFAULT_TTL) -> Lease:
        def work(connection: Connection) -> Lease:
            row = self._row(connection, lease.exec_id)
            renewed = row.renew(lease, ttl, self._server.now())
            self._update(connection, row)
            return renewed

        return self._transact(work)

    def release(self, lease: Lease, events: Sequence[Event] = ()) -> None:
        batch = rules.prepare(lease.exec_id, events)

        def work(connection: Connection) -> None:
            row = self._row(connection, lease.exec_id)
            rules.fence(lease, row.epoch)
            self._store(connection, lease.exec_id, batch)
            row.apply(batch.change)
            row.release()
            self._update(connection, row)

        self._transact(work, lambda connection: self._stored(connection, batch), batch)

    def append(self, exec_id: str, events: Sequence[Event], *, lease: Lease | None = None) -> int:
        rules.check_lease(exec_id, lease)
        own = Append(exec_id, rules.prepare(exec_id, events), lease)
        self._queue.append(own)
        try:
            with self._turn:
                if not own.done:
                    self._lead(own)
        finally:
            own.done = True  # when this thread was interrupted: nobody waits for it any more
        if own.error is not None:
            raise own.error
        return own.result

    def set_reference(self, name: str, value: str | None, *, expected: str | None, by: str) -> None:
        for text in (name, value or "", by):
            rules.check_text(text)
        at = time.time()

        def work(connection: Connection) -> None:
            if (found := self._reference(connection, name)) != expected:
                raise rules.moved(name, expected, found)
            self._run(connection, "delete from {s}.refs where name = %s", name)
            if value is not None:
                self._run(connection, "insert into {s}.refs (name, value) values (%s, %s)", name, value)
            change = "insert into {s}.ref_changes (name, value, at, by) values (%s, %s, %s, %s)"
            self._run(connection, change, name, value, at, by)

        def done(connection: Connection) -> bool | None:
            mine = "select 1 from {s}.ref_changes where name = %s and at = %s and by = %s"
            return True if self._run(connection, mine, name, at, by).fetchone() else None

        self._transact(work, done)

    # reading

    def history(self, exec_id: str, *, after: int = 0) -> list[Event]:
        return self._events("exec_id = %s and seq > %s order by seq", exec_id, after)

    def execution(self, exec_id: str) -> Execution:
        return self._read(lambda connection: self._row(connection, exec_id)).execution(self._server.now())

    def executions(
        self,
        *,
        flow: str | None = None,
        status: ExecutionStatus | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[Execution]:
        clauses, values = rules.wanted("%s", self._server.now(), flow=flow, status=status, before=before)
        page = max(limit, 0)

        def work(connection: Connection) -> list[Execution]:
            rows = self._pages(connection, clauses, values, page)
            return list(itertools.islice(rules.select(rows, status, self._server.now()), page))

        return self._read(work)

    def census(self) -> dict[tuple[str, str], int]:
        statement = "select flow, status, count(*) from {s}.executions group by flow, status"
        found = self._read(lambda connection: self._run(connection, statement).fetchall())
        return {(flow, status): count for flow, status, count in found}

    def waits(self, *, exec_id: str | None = None, due_before: float | None = None, limit: int = 1000) -> list[Wait]:
        wanted = {"exec_id = %s": exec_id, "until <= %s": due_before}
        given = {clause: value for clause, value in wanted.items() if value is not None}
        # Starts from the few pending waits; a join might start from the many executions.
        clauses = [*given, "(select status from {s}.executions where id = pending.exec_id) <> all(%s)"]
        found = self._events(
            f"seq in (select seq from {{s}}.pending_waits as pending where {' and '.join(clauses)} "
            "order by seq limit %s) order by seq",
            *given.values(),
            _ENDED,
            max(limit, 0),
        )
        return [rules.pending_wait(event) for event in found]

    def find(self, cache_key: str) -> Event | None:
        found = self._events("cache_key = %s and kind = 'checkpoint.completed' order by seq desc limit 1", cache_key)
        return found[0] if found else None

    def tail(self, after: int, *, exec_id: str | None = None, limit: int = 1000) -> list[Event]:
        if exec_id is None:
            return self._events("seq > %s order by seq limit %s", after, max(limit, 0))
        return self._events("exec_id = %s and seq > %s order by seq limit %s", exec_id, after, max(limit, 0))

    def reference(self, name: str) -> str | None:
        return self._read(lambda connection: self._reference(connection, name))

    def reference_history(self, name: str) -> list[tuple[float, str | None, str]]:
        changes = "select at, value, by from {s}.ref_changes where name = %s order by id"
        return [(at, value, by) for at, value, by in self._read(lambda c: self._run(c, changes, name).fetchall())]

    def watch(self, on_news: Callable[[], None], *, exec_id: str | None = None) -> Callable[[], None]:
        self._server.check_open()
        return self._watchers.add(on_news, exec_id)

    def close(self) -> None:
        self._watchers.close()
        with self._turn:
            self._server.close()

    # appending together

    def _lead(self, own: Append) -> None:
        # Whoever's write is lost from the queue when this thread is interrupted still appends it in a turn of its own.
        writes = [own]
        while self._queue:
            write = self._queue.popleft()
            if not write.done and write is not own:
                writes.append(write)
        if len(writes) > 1 and self._append_all(writes):
            return
        for write in writes:
            try:
                write.result = self._append(write)
            except Exception as error:
                write.error = error
            write.done = True

    def _append_all(self, writes: Sequence[Append]) -> bool:
        """Append all in one commit, or nothing (when one of them can't be: then each is tried by itself)."""

        def work(connection: Connection) -> list[int]:
            for write in writes:
                write.tried = True
            cursors = [self._run(connection, write.statement, *write.parameters) for write in writes]
            return [_number(cursor) for cursor in cursors]

        try:
            with self._server.connection() as connection, connection.pipeline(), connection.transaction():
                results = work(connection)
        except psycopg.Error:
            return False
        for write, result in zip(writes, results, strict=True):
            write.result, write.done = result, True
        return True

    def _append(self, write: Append) -> int:
        def work(connection: Connection) -> int:
            if write.tried and (number := self._stored(connection, write.batch)) is not None:
                return number
            write.tried = True
            try:
                return _number(self._run(connection, write.statement, *write.parameters))
            except psycopg.errors.UniqueViolation as error:
                raise self._conflict(connection, write.batch) from error
            except psycopg.Error as error:
                if error.sqlstate == _NOT_FOUND:
                    raise rules.not_found(write.exec_id) from None
                if error.sqlstate == _FENCED:
                    rules.fence(write.lease, int(error.diag.message_primary or 0))
                raise

        return self._server.run(work)

    # transactions and statements

    def _read(self, work: Callable[[Connection], T]) -> T:
        return self._server.run(work)

    def _transact(
        self,
        work: Callable[[Connection], T],
        done: Callable[[Connection], Any] | None = None,
        batch: Batch | None = None,
        *,
        turn: bool = True,
    ) -> T:
        """Run ``work`` in a transaction; when an earlier try may have been committed, ask ``done`` first."""
        tried = False

        def attempt(connection: Connection) -> T:
            nonlocal tried
            if tried and done is not None and (found := done(connection)) is not None:
                return cast(T, found)
            tried = True
            try:
                with connection.transaction():
                    if turn:  # the clock is asked each time: this machine's may be set meanwhile
                        (theirs,) = self._run(connection, _TAKE_TURN).fetchone() or (time.time(),)
                        self._server.set_clock(theirs)
                    return work(connection)
            except psycopg.errors.UniqueViolation as error:
                raise self._conflict(connection, batch or Batch([], None)) from error

        return self._server.run(attempt)

    def _store(self, connection: Connection, exec_id: str, batch: Batch) -> None:
        arrays, values = _arrays(batch)
        self._run(connection, f"select {{s}}.store(%s, {arrays})", exec_id, *values)

    def _run(self, connection: Connection, statement: str, *parameters: Any) -> psycopg.Cursor[Row]:
        composed = self._statements.get(statement)
        if composed is None:  # statements are made of this module's own words; values are parameters
            composed = self._statements[statement] = sql.SQL(statement).format(s=self._schema)
        return connection.execute(composed, parameters)

    def _migrate(self, connection: Connection, schema: str) -> None:
        connection.execute("select pg_advisory_xact_lock(hashtext('kitaru migrations'))")
        # This table of the catalogue has them all, also those that this role has no right to.
        there = connection.execute(
            "select tableowner from pg_catalog.pg_tables where schemaname = %s and tablename = 'version'", (schema,)
        ).fetchone()
        if there is None:
            script = resources.files("kitaru_nb.journal").joinpath("postgres.sql").read_text()
            script = script.replace("{schema_text}", sql.Literal(schema).as_string())
            script = script.replace("{schema}", self._schema.as_string())
            connection.execute(sql.SQL("create schema if not exists {}").format(self._schema))
            connection.execute(script)
            self._run(connection, "insert into {s}.version (version) values (%s)", VERSION)
            return
        (self._server.owner,) = there
        found = self._run(connection, "select version from {s}.version").fetchone()
        if found is not None and found[0] > VERSION:
            raise KitaruBackendError(
                f"The journal {self.url} has version {found[0]}, written by a newer kitaru_nb; this one knows up to "
                f"{VERSION}. Nothing was changed.",
                fix="pip install --upgrade kitaru-nb",
            )

    def _pages(self, connection: Connection, wanted: list[str], values: list[Any], size: int) -> Iterator[ExecutionRow]:
        """Rows, newest first, a page at a time: which of them people see as running is decided by the reader."""
        last: list[str] = []
        while size > 0:
            clauses = " and ".join([*wanted, *(["id < %s"] if last else [])]) or "true"
            statement = f"select {_ROW} from {{s}}.executions where {clauses} order by id desc limit %s"
            found = self._run(connection, statement, *values, *last, size).fetchall()
            yield from map(ExecutionRow.of, found)
            if len(found) < size:
                return
            last = [found[-1][0]]
            size = min(size * 2, 1000)

    def _conflict(self, connection: Connection, batch: Batch) -> Exception:
        for exec_id, kind, key, *_ in batch.rows:
            if kind in ONCE:
                once = f"select {_EVENT} from {{s}}.journal where exec_id = %s and kind = %s and key = %s"
                if (found := self._run(connection, once, exec_id, kind, key).fetchone()) is not None:
                    return rules.conflict(rules.event_of(found))
        return KitaruBackendError(f"{self.url} refused events as repeated, but has none of them.")

    def _stored(self, connection: Connection, batch: Batch) -> int | None:
        """Number of the last event of a batch that was written although its answer was lost; None when it wasn't."""
        same = "select max(seq) from {s}.journal where (exec_id, kind, key, at, body) = (%s, %s, %s, %s, %s)"
        number = None
        for row in batch.rows:
            (number,) = self._run(connection, same, *row[:5]).fetchone() or (None,)
            if number is None:
                return None
        return number

    def _find(self, connection: Connection, where: str, *parameters: str) -> ExecutionRow | None:
        found = self._run(connection, f"select {_ROW} from {{s}}.executions where {where}", *parameters).fetchone()
        return None if found is None else ExecutionRow.of(found)

    def _row(self, connection: Connection, exec_id: str) -> ExecutionRow:
        row = self._find(connection, "id = %s", exec_id)
        if row is None:
            raise rules.not_found(exec_id)
        return row

    def _update(self, connection: Connection, row: ExecutionRow) -> None:
        names = ("status", "updated_at", "ended_at", "epoch", "lease_owner", "lease_expires_at")
        statement = f"update {{s}}.executions set {', '.join(f'{n} = %s' for n in names)} where id = %s"
        self._run(connection, statement, *(getattr(row, name) for name in names), row.id)

    def _reference(self, connection: Connection, name: str) -> str | None:
        found = self._run(connection, "select value from {s}.refs where name = %s", name).fetchone()
        return None if found is None else str(found[0])

    def _events(self, where: str, *parameters: Any) -> list[Event]:
        statement = f"select {_EVENT} from {{s}}.journal where {where}"
        return rules.events_of(self._read(lambda connection: self._run(connection, statement, *parameters).fetchall()))


def _arrays(batch: Batch) -> tuple[str, list[Any]]:
    """The events of a batch as parallel arrays: kinds, keys, ats, bodies, blobs, cache keys, instants of waits.

    What stands for them in a statement, and its parameters.
    """
    rows = batch.rows
    columns = [[row[i] for row in rows] for i in range(1, 7)]
    columns.append([json.loads(row[4]).get("until") if row[1] == "wait.created" else None for row in rows])
    if not 0 < len(rows) <= _FEW:
        return ", ".join(f"%s::{kind}[]" for kind in _TYPES), columns
    shown = [f"array[{', '.join([f'%s::{kind}'] * len(rows))}]" for kind in _TYPES]
    return ", ".join(shown), [value for column in columns for value in column]


def _number(cursor: psycopg.Cursor[Row]) -> int:
    (number,) = cursor.fetchone() or (0,)
    return int(number)
