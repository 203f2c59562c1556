"""Connections to one SQLite file: one that writes, a few that read, none that crosses a fork."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kitaru_nb.errors import KitaruBackendError, KitaruUsageError
from kitaru_nb.journal import migrations

BUSY_SECONDS = 30.0


class Connections:
    """The connections of one handle.

    `reader` lends one that nobody else uses meanwhile. `writer` is for the thread whose turn it is to write.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
        """Open the file, after creating it or bringing it up to date where needed.

        Raises:
            KitaruBackendError: that isn't possible, or the file isn't a journal, or a newer version wrote it.
        """
        self.path = path
        self._durable = durable
        self._idle: list[sqlite3.Connection] = []
        self._lent = 0
        self._closed = False
        self._writer: sqlite3.Connection | None = None
        self._watching: sqlite3.Connection | None = None
        self._state = threading.Condition(threading.Lock())
        # Of a handle that nobody closed; at the end of the process too, before Python itself can't do it in order.
        self._open: set[sqlite3.Connection] = set()
        weakref.finalize(self, _close_all, self._open)
        try:
            if not path.exists():
                migrations.create(path, durable=durable)
            self._upgrade(migrations.check_header(path))
            self._idle.append(self._connect())
            self._file = _file_at(path)
        except (sqlite3.Error, OSError) as error:
            raise backend_error(path, error) from error

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection; what SQLite raises meanwhile becomes a `KitaruBackendError`."""
        with self._state:
            self.check_open()
            connection = self._idle.pop() if self._idle else None
            self._lent += 1
        try:
            connection = connection or self._connect()
            yield connection
        except sqlite3.Error as error:
            raise backend_error(self.path, error) from error
        finally:
            self._take_back(connection)

    def writer(self) -> sqlite3.Connection:
        """The connection that writes. Only one thread at a time may ask for it."""
        self.check_open()
        if self._writer is None:
            self._writer = self._connect()
        return self._writer

    def drop_writer(self) -> None:
        """Close the writing connection after trouble; the next `writer` is a fresh one."""
        if self._writer is not None:
            self._close(self._writer)
            self._writer = None

    def data_version(self) -> tuple[int, int]:
        """Differs from the one before when somebody else committed since. Raises `KitaruBackendError`."""
        with self._state:
            self.check_open()
            try:
                if self._watching is None:
                    self._watching = self._connect()
                # Versions of two connections can't be compared: after a fork it is another one.
                return id(self._watching), self._watching.execute("pragma data_version").fetchone()[0]
            except sqlite3.Error as error:
                raise backend_error(self.path, error) from error

    def close(self) -> None:
        """Close all connections; those that are lent follow when they come back. Only when nobody writes."""
        with self._state:
            self._closed = True
            self._close_all()

    def suspend(self) -> None:
        """Before a fork: wait until nobody reads, close everything, and let nobody in until `resume`.

        SQLite's connections don't survive a fork: parent and child would drop each other's file locks, and the child
        could delete the write-ahead log under the parent. So none is open while it happens.
        """
        self._state.acquire()
        self._state.wait_for(lambda: self._lent == 0, timeout=BUSY_SECONDS)
        self._close_all()

    def resume(self, *, child: bool) -> None:
        """After a fork, in both processes, in the thread that forked."""
        if child:
            self._state, self._lent = threading.Condition(threading.Lock()), 0
        else:
            self._state.release()

    def _take_back(self, connection: sqlite3.Connection | None) -> None:
        with self._state:
            self._lent -= 1
            if connection is not None and self._closed:
                self._close(connection)
            elif connection is not None:
                self._idle.append(connection)
            if self._lent == 0:
                self._state.notify_all()

    def _close_all(self) -> None:
        for connection in self._idle:
            self._close(connection)
        self._idle.clear()
        self.drop_writer()
        if self._watching is not None:
            self._close(self._watching)
            self._watching = None

    def _close(self, connection: sqlite3.Connection) -> None:
        self._open.discard(connection)
        connection.close()

    def check_open(self) -> None:
        """Raises `KitaruBackendError` when this handle was closed, or the file isn't there any more: what SQLite would
        then write into the deleted one, nobody could ever read."""
        if self._closed:
            raise KitaruBackendError(
                f"The journal {self.path} was closed.", fix=f'open_journal("sqlite://{self.path}")'
            )
        try:
            there = _file_at(self.path)
        except OSError as error:
            raise _moved(self.path, "was deleted or moved away") from error
        if there != self._file:
            raise _moved(self.path, "was replaced by another file")

    def _upgrade(self, version: int) -> None:
        if version < migrations.SCHEMA_VERSION:
            connection = self._connect()
            try:
                migrations.migrate(connection)
            finally:
                self._close(connection)

    def _connect(self) -> sqlite3.Connection:
        # mode=rw: a file that vanished meanwhile must not come back empty.
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        self._open.add(connection)
        try:
            self._configure(connection)
        except BaseException:
            self._close(connection)
            raise
        return connection

    def _configure(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"pragma synchronous={'full' if self._durable else 'normal'}")
        if self._durable:
            connection.execute("pragma fullfsync=1")  # macOS: fsync alone leaves data in the drive's cache
        # An upgrade by a newer version may still be in the write-ahead log, where the header doesn't show it.
        migrations.check_version(self.path, connection.execute("pragma user_version").fetchone()[0])


def _file_at(path: Path) -> tuple[int, int]:
    """Which file is there, whatever it is called. Raises `OSError`."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _moved(path: Path, how: str) -> KitaruBackendError:
    return KitaruBackendError(
        f"The journal {path} {how} while it was in use; nothing was written.",
        fix="put the file back, or start this process again",
    )


def _close_all(connections: set[sqlite3.Connection]) -> None:
    while connections:
        connections.pop().close()


def path_of(url: str) -> Path:
    """The file that ``sqlite:///absolute/path`` means; any number of slashes may begin the path.

    Raises:
        KitaruUsageError: there is no absolute path in it.
    """
    rest = url.removeprefix("sqlite://")
    if not rest.startswith("/") or not rest.strip("/"):
        raise KitaruUsageError(
            f"{url!r} names no file; expected sqlite:///absolute/path.", fix=f"sqlite://{Path('journal.db').absolute()}"
        )
    bare = rest.lstrip("/")
    return Path(bare if os.name == "nt" else f"/{bare}")


def backend_error(path: Path, error: sqlite3.Error | OSError) -> KitaruBackendError:
    """What SQLite or the system said about ``path``, with what can be done about it."""
    if isinstance(error, OSError):
        return KitaruBackendError(
            f"The journal {path} can't be opened or created: {error.strerror or error}.", fix=_HOME_FIX
        )
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    what, fix = _ADVICE.get(code, ("can't be used", "kitaru doctor"))
    return KitaruBackendError(
        f"The journal {path} {what}; nothing was written. SQLite says: {error}.", fix=fix.format(path=path)
    )


_HOME_FIX = "export KITARU_HOME=/a/writable/folder"
_NO_SPACE = ("can't be written: the disk is full or failing", "df -h {path.parent}")
_DAMAGED = ("is damaged", 'sqlite3 "{path}" .recover | sqlite3 "{path}.recovered"')
_LOCKED = (f"is locked by another program for more than {BUSY_SECONDS:.0f} s", 'fuser -v "{path}"')
_READ_ONLY = ("can't be opened for writing", _HOME_FIX)
_ADVICE = {
    sqlite3.SQLITE_FULL: _NO_SPACE,
    sqlite3.SQLITE_IOERR: _NO_SPACE,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
}
