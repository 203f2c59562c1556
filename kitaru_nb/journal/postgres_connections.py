"""Connections to a PostgreSQL server: pooled, opened again when they broke, and the server's clock."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import psycopg

from kitaru_nb.config import secrets_in, shown
from kitaru_nb.errors import KitaruBackendError, KitaruUsageError

logger = logging.getLogger("kitaru_nb.journal")

T = TypeVar("T")
Row = tuple[Any, ...]
Connection = psycopg.Connection[Row]

#: What a server says whose connections a pooler hands out anew for each transaction: a statement that was prepared on
#: one is not there on the next, or another of its name is.
_POOLED = frozenset({"26000", "42P05"})
_TRIED_AGAIN = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.InvalidSqlStatementName,
    psycopg.errors.DuplicatePreparedStatement,
)
#: After so many seconds whoever waits is told why.
TOLD_AFTER = 1.0
#: The server's clock as Unix seconds.
CLOCK = "extract(epoch from clock_timestamp())::float8"


class Server:
    """Connections to one server: as many as threads use at once, opened when needed, opened again when they broke.

    Attributes:
        owner: the role that made the journal's tables; empty before anybody has.
    """

    owner = ""

    def __init__(self, url: str, conninfo: str, patience: float, *, durable: bool) -> None:
        self.url = url
        self._conninfo = conninfo
        self._patience = patience
        self._durable = durable
        self._idle: list[Connection] = []
        self._others: list[Connection] = []
        self._pid = os.getpid()
        self._closed = False
        self._prepares = True
        self._ahead = 0.0
        weakref.finalize(self, _close_all, self._idle, self._pid)  # where nobody closed the handle

    def now(self) -> float:
        """The server's clock, Unix seconds: leases of workers whose own clocks differ are judged by one."""
        return time.time() + self._ahead

    def run(self, work: Callable[[Connection], T]) -> T:
        """Run ``work``; again, on another connection, when the connection broke.

        Raises:
            KitaruBackendError: the server can't be reached or can't do it.
            KitaruUsageError: a value that PostgreSQL can't hold.
        """
        began = time.monotonic()
        pause, told = 0.05, False
        while True:
            try:
                with self.connection() as connection:
                    return work(connection)
            except _TRIED_AGAIN as error:
                if error.sqlstate in _POOLED:
                    self._prepares = False
                if self._closed or not _may_pass(error) or time.monotonic() + pause > began + self._patience:
                    raise self._failed(error) from error
                if not told and time.monotonic() >= began + TOLD_AFTER:
                    told = True
                    logger.warning("%s It is tried again for %g s.", self._failed(error).message, self._patience)
                time.sleep(pause)
                pause = min(pause * 2, 2.0)
            except psycopg.DataError as error:
                raise KitaruUsageError(f"PostgreSQL can't hold this: {_first_line(error)}.") from error
            except psycopg.Error as error:
                raise self._failed(error) from error

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection for this thread alone. One that broke isn't used again."""
        self.check_open()
        if self._pid != os.getpid():  # forked: the connections are the parent's, and closing them would be seen there
            self._others, self._idle, self._pid = self._others + self._idle, [], os.getpid()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            yield connection
        except BaseException as error:
            broken = connection.info.transaction_status is not psycopg.pq.TransactionStatus.IDLE
            if broken or (isinstance(error, psycopg.Error) and error.sqlstate in _POOLED):
                connection.close()
            raise
        finally:
            if connection.closed:
                pass  # it broke, and is forgotten
            elif self._closed:
                connection.close()
            else:
                self._idle.append(connection)

    def set_clock(self, theirs: float) -> None:
        """The server's clock shows ``theirs`` now."""
        self._ahead = theirs - time.time()

    def listen(self) -> Notifications:
        """What the server says of news, on a connection of its own. Raises `KitaruBackendError`."""
        self.check_open()
        try:
            return Notifications(self._connect(), self._failed)
        except psycopg.Error as error:
            raise self._failed(error) from error

    def check_open(self) -> None:
        """Raises `KitaruBackendError` when this handle was closed."""
        if self._closed:
            raise KitaruBackendError(f"The journal {self.url} was closed.", fix=f"open_journal({self.url!r})")

    def close(self) -> None:
        """Close what nobody uses; what is in use is closed after it."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _connect(self) -> Connection:
        threshold = 5 if self._prepares else None  # psycopg's own default, or never
        connection = psycopg.connect(self._conninfo, autocommit=True, connect_timeout=10, prepare_threshold=threshold)
        if not self._durable:
            connection.execute("set synchronous_commit = off")
        (theirs,) = connection.execute(f"select {CLOCK}").fetchone() or (time.time(),)
        self.set_clock(theirs)
        return connection

    def _failed(self, error: psycopg.Error) -> KitaruBackendError:
        asked, parts = "select 1", urlsplit(self.url)
        database, user = parts.path.strip("/") or "DATABASE", parts.username or "USER"
        if error.sqlstate == "42501":  # may log in, but not make the tables, or not use those that another role made
            asked = f"grant {self.owner or f'create on database {database}'} to {user}"
        elif f'database "{database}" does not exist' in str(error):
            asked, parts = f"create database {database}", parts._replace(path="/postgres")
        fix = f"psql '{parts._replace(query='').geturl()}' --command '{asked}'"
        return KitaruBackendError(f"The journal {self.url} failed: {_first_line(error)}.", fix=fix)


class Notifications:
    """A listener for the notifications that `store` sends (postgres.sql): each names an execution that grew."""

    def __init__(self, connection: Connection, failed: Callable[[psycopg.Error], KitaruBackendError]) -> None:
        self._connection = connection
        self._failed = failed
        connection.execute("listen kitaru")

    def news(self, timeout: float) -> Collection[str]:
        try:
            return {heard.payload for heard in self._connection.notifies(timeout=timeout, stop_after=1)}
        except psycopg.Error as error:
            raise self._failed(error) from error

    def interrupt(self) -> None:
        pass  # it never waits for long

    def close(self) -> None:
        self._connection.close()


def _close_all(connections: list[Connection], pid: int) -> None:
    while connections and pid == os.getpid():  # a child after a fork must leave those of its parent alone
        connections.pop().close()


def _may_pass(error: psycopg.Error) -> bool:
    """Whether trying again may help: not when the server refuses who asks, or has no such database."""
    if error.sqlstate is None:
        return not any(words in str(error) for words in ("authentication failed", "does not exist", "no pg_hba.conf"))
    # Connection, serialisation, resources, shutdown.
    return error.sqlstate[:2] in ("08", "40", "53", "57") or error.sqlstate in _POOLED


def split_url(url: str) -> tuple[str, str, str]:
    """(the URL without its password, the schema, what libpq is given)."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema = query.pop("schema", "kitaru")
    if not schema or len(schema.encode()) > 63:
        raise KitaruUsageError(
            f"The schema of a journal in PostgreSQL is {schema!r}; expected a name of 1 to 63 bytes.",
            fix="postgresql://user@host/database?schema=kitaru",
        )
    conninfo = parts._replace(query=urlencode(query)).geturl()
    secrets, why = secrets_in(url), ""
    try:
        psycopg.conninfo.conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError as error:
        why = _first_line(error)
    if any("/" in secret for secret in secrets):
        why = "the password has a slash"
    if why:
        for secret in secrets:
            why = why.replace(secret, "…")
        raise KitaruUsageError(
            f"{shown(url)!r} is no URL of a journal in PostgreSQL: {why}.",
            fix="postgresql://user@host:5432/database  # special characters of a password as %XX",
        )
    return shown(url), schema, conninfo


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
