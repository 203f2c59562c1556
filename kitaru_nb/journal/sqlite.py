"""The journal in one SQLite file, the embedded default: write-ahead log, any number of handles, threads and processes.

Opening an up-to-date file and working with it needs the standard library only; sqlite-utils comes in when a file is
created or upgraded, and for `SqliteJournal.database`.
"""

from __future__ import annotations

import dataclasses
import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal

from kitaru_nb.journal import migrations, rules
from kitaru_nb.journal.base import DEFAULT_TTL, Journal
from kitaru_nb.journal.commit import GroupCommit
from kitaru_nb.journal.connections import Connections, path_of
from kitaru_nb.journal.rules import COLUMNS, ExecutionRow
from kitaru_nb.journal.watching import Watchers
from kitaru_nb.model import Event, Execution, ExecutionStatus, Lease, Owner, Wait

if TYPE_CHECKING:
    import sqlite_utils

#: How often the file is asked whether it grew, while anybody watches.
LOOK_EVERY = 0.02

_EVENT = "seq, exec_id, kind, key, at, body, blob, cache_key"
_INSERT_EVENT = "insert into journal (exec_id, kind, key, at, body, blob, cache_key) values (?, ?, ?, ?, ?, ?, ?)"
_ROW = ", ".join(COLUMNS)
_INSERT_ROW = f"insert into executions ({_ROW}) values ({', '.join('?' * len(COLUMNS))})"
_UPDATE_LEASE = """update executions set status = ?, updated_at = ?, ended_at = ?, epoch = ?, lease_owner = ?,
    lease_expires_at = ? where id = ?"""
_ENDED = ", ".join(f"'{status.value}'" for status in ExecutionStatus if status.ended)


class SqliteJournal(Journal):
    """``sqlite:///absolute/path``. With ``durability="power"`` a commit survives power loss, with ``"process"`` only
    the death of processes."""

    def __init__(self, url: str, *, durability: Literal["power", "process"] = "power") -> None:
        """Open the file, creating or upgrading it where needed.

        Raises:
            KitaruUsageError: the URL names no absolute path.
            KitaruBackendError: the file can't be opened, isn't a journal, or was written by a newer version.
        """
        self.path = path_of(url)
        self.url = f"sqlite://{self.path}"
        self._connections = Connections(self.path, durable=durability == "power")
        self._commits = GroupCommit(self._connections)
        self._watchers = Watchers(lambda: _Listener(self._connections))

    def create(self, execution: Execution, events: Sequence[Event]) -> Execution:
        row, batch = ExecutionRow.new(execution), rules.prepare(execution.exec_id, events)

        def work(connection: sqlite3.Connection) -> ExecutionRow:
            if row.key is not None and (same := _find_row(connection, "flow = ? and key = ?", row.flow, row.key)):
                return same
            if taken := _find_row(connection, "id = ?", row.id):
                raise rules.same_id(taken.execution(time.time()))
            created = dataclasses.replace(row)  # this may run twice
            created.apply(batch.change)
            connection.execute(_INSERT_ROW, created.columns())
            _insert(connection, batch)
            return created

        return self._commits.run(work).execution(time.time())

    def claim(self, exec_id: str, owner: Owner, *, ttl: float = DEFAULT_TTL) -> Lease:
        def work(connection: sqlite3.Connection) -> Lease:
            row = _row(connection, exec_id)
            lease, batch = row.claim(owner, ttl, time.time())
            _insert(connection, batch)
            _update(connection, row)
            return lease

        return self._commits.run(work)

    def renew(self, lease: Lease, *, ttl: float = DEFAULT_TTL) -> Lease:
        def work(connection: sqlite3.Connection) -> Lease:
            row = _row(connection, lease.exec_id)
            renewed = row.renew(lease, ttl, time.time())
            _update(connection, row)
            return renewed

        return self._commits.run(work)

    def release(self, lease: Lease, events: Sequence[Event] = ()) -> None:
        batch = rules.prepare(lease.exec_id, events)

        def work(connection: sqlite3.Connection) -> None:
            row = _row(connection, lease.exec_id)
            rules.fence(lease, row.epoch)
            _insert(connection, batch)
            row.apply(batch.change)
            row.release()
            _update(connection, row)

        self._commits.run(work)

    def append(self, exec_id: str, events: Sequence[Event], *, lease: Lease | None = None) -> int:
        rules.check_lease(exec_id, lease)
        batch = rules.prepare(exec_id, events)

        # The hot path: one select, one insert for each event; the row is rewritten only when the status changes.
        def work(connection: sqlite3.Connection) -> int:
            found = connection.execute("select epoch from executions where id = ?", (exec_id,)).fetchone()
            if found is None:
                raise rules.not_found(exec_id)
            rules.fence(lease, found[0])
            seq = _insert(connection, batch)
            if batch.change:
                connection.execute(
                    "update executions set status = ?, updated_at = ?, ended_at = ? where id = ?",
                    (*batch.change, exec_id),
                )
            return seq or _last_seq(connection, exec_id)

        return self._commits.run(work)

    def history(self, exec_id: str, *, after: int = 0) -> list[Event]:
        return self._events("exec_id = ? and seq > ? order by seq", exec_id, after)

    def execution(self, exec_id: str) -> Execution:
        with self._connections.reader() as connection:
            return _row(connection, exec_id).execution(time.time())

    def executions(
        self,
        *,
        flow: str | None = None,
        status: ExecutionStatus | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[Execution]:
        clauses, values = rules.wanted("?", time.time(), flow=flow, status=status, before=before)
        sql = f"select {_ROW} from executions where {' and '.join(clauses) or '1'} order by id desc"
        with self._connections.reader() as connection, closing(connection.execute(sql, values)) as cursor:
            rows = (ExecutionRow.of(columns) for columns in cursor)
            return list(itertools.islice(rules.select(rows, status), max(limit, 0)))

    def census(self) -> dict[tuple[str, str], int]:
        sql = "select flow, status, count(*) from executions group by flow, status"
        with self._connections.reader() as connection:
            return {(flow, status): count for flow, status, count in connection.execute(sql)}

    def waits(self, *, exec_id: str | None = None, due_before: float | None = None, limit: int = 1000) -> list[Wait]:
        wanted = {"pending_waits.exec_id = ?": exec_id, "until <= ?": due_before}
        given = {clause: value for clause, value in wanted.items() if value is not None}
        # Starts from the few pending waits; a join might start from the many executions.
        clauses = [*given, f"(select status from executions where id = pending_waits.exec_id) not in ({_ENDED})"]
        sql = f"""select {_EVENT} from journal where seq in (
            select seq from pending_waits where {" and ".join(clauses)} order by seq limit ?) order by seq"""
        with self._connections.reader() as connection:
            found = connection.execute(sql, (*given.values(), max(limit, 0))).fetchall()
        return [rules.pending_wait(event) for event in rules.events_of(found)]

    def find(self, cache_key: str) -> Event | None:
        found = self._events("cache_key = ? and kind = 'checkpoint.completed' order by seq desc limit 1", cache_key)
        return found[0] if found else None

    def tail(self, after: int, *, exec_id: str | None = None, limit: int = 1000) -> list[Event]:
        if exec_id is None:
            return self._events("seq > ? order by seq limit ?", after, max(limit, 0))
        return self._events("exec_id = ? and seq > ? order by seq limit ?", exec_id, after, max(limit, 0))

    def reference(self, name: str) -> str | None:
        with self._connections.reader() as connection:
            return _reference(connection, name)

    def set_reference(self, name: str, value: str | None, *, expected: str | None, by: str) -> None:
        for text in (name, value or "", by):
            rules.check_text(text)

        def work(connection: sqlite3.Connection) -> None:
            if (found := _reference(connection, name)) != expected:
                raise rules.moved(name, expected, found)
            connection.execute("delete from refs where name = ?", (name,))
            if value is not None:
                connection.execute("insert into refs (name, value) values (?, ?)", (name, value))
            connection.execute(
                "insert into ref_changes (name, value, at, by) values (?, ?, ?, ?)", (name, value, time.time(), by)
            )

        self._commits.run(work)

    def reference_history(self, name: str) -> list[tuple[float, str | None, str]]:
        with self._connections.reader() as connection:
            return connection.execute(
                "select at, value, by from ref_changes where name = ? order by id", (name,)
            ).fetchall()

    def watch(self, on_news: Callable[[], None], *, exec_id: str | None = None) -> Callable[[], None]:
        self._connections.check_open()
        return self._watchers.add(on_news, exec_id)

    def close(self) -> None:
        self._watchers.close()
        self._commits.close()

    def database(self) -> sqlite_utils.Database:
        """A connection of the caller's own, for reading: ``journal.database()["checkpoints"].rows``. Close it after."""
        connection = sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)
        return migrations.database(connection)

    def _events(self, where: str, *parameters: Any) -> list[Event]:
        with self._connections.reader() as connection:
            found = connection.execute(f"select {_EVENT} from journal where {where}", parameters).fetchall()
        return rules.events_of(found)


class _Listener:
    """Asks SQLite whether anybody committed: a few microseconds, without a query."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._ended = threading.Event()
        self._version = connections.data_version()

    def news(self, timeout: float) -> Collection[str] | None:
        ends = time.monotonic() + timeout
        while (version := self._connections.data_version()) == self._version:
            if time.monotonic() > ends or self._ended.wait(LOOK_EVERY):
                return ()
        self._version = version
        return None

    def interrupt(self) -> None:
        self._ended.set()

    def close(self) -> None:
        pass  # the connection is closed with the others


def _insert(connection: sqlite3.Connection, batch: rules.Batch) -> int:
    """Store the events of a batch; return the seq of the last, or 0 when there are none."""
    seq = 0
    for fields in batch.rows:
        try:
            seq = connection.execute(_INSERT_EVENT, fields).lastrowid or 0
        except sqlite3.IntegrityError:
            found = connection.execute(
                f"select {_EVENT} from journal where exec_id = ? and kind = ? and key = ?", fields[:3]
            ).fetchone()
            if found is None:
                raise
            raise rules.conflict(rules.event_of(found)) from None
    return seq


def _find_row(connection: sqlite3.Connection, where: str, *parameters: str) -> ExecutionRow | None:
    found = connection.execute(f"select {_ROW} from executions where {where}", parameters).fetchone()
    return None if found is None else ExecutionRow.of(found)


def _row(connection: sqlite3.Connection, exec_id: str) -> ExecutionRow:
    row = _find_row(connection, "id = ?", exec_id)
    if row is None:
        raise rules.not_found(exec_id)
    return row


def _update(connection: sqlite3.Connection, row: ExecutionRow) -> None:
    connection.execute(
        _UPDATE_LEASE,
        (row.status, row.updated_at, row.ended_at, row.epoch, row.lease_owner, row.lease_expires_at, row.id),
    )


def _last_seq(connection: sqlite3.Connection, exec_id: str) -> int:
    return int(connection.execute("select max(seq) from journal where exec_id = ?", (exec_id,)).fetchone()[0] or 0)


def _reference(connection: sqlite3.Connection, name: str) -> str | None:
    found = connection.execute("select value from refs where name = ?", (name,)).fetchone()
    return None if found is None else str(found[0])
