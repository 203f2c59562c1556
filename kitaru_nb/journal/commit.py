"""Group commit: what several threads want to write at the same time shares a transaction and one wait for the disk."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from kitaru_nb.journal.connections import Connections, backend_error

T = TypeVar("T")


class Write:
    """One thread's wish: a function of the connection, run inside a transaction, and what became of it."""

    __slots__ = ("done", "error", "result", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], Any]) -> None:
        self.work = work
        self.done = False
        self.result: Any = None
        self.error: Exception | None = None


class GroupCommit:
    """Runs writes, each all or nothing, one transaction at a time.

    There is no writer thread, so one thread alone pays for no handoff. A thread queues its write and waits for its
    turn; whoever has the turn commits all that is queued by then, and the others find theirs done.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._queue: deque[Write] = deque()
        self._turn = threading.Lock()
        _survive_forks(self)

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in a transaction and return its result, once that is committed.

        ``work`` may run again after it was undone. Whatever it raises undoes what it did, and is raised here.

        Raises:
            KitaruBackendError: SQLite could not do it; nothing was written.
        """
        write = Write(work)
        self._queue.append(write)
        try:
            with self._turn:
                if not write.done:
                    self._lead(write)
        finally:
            write.done = True  # when this thread was interrupted: nobody waits for it any more
        if write.error is not None:
            raise write.error
        return cast(T, write.result)

    def commit(self, writes: Sequence[Write]) -> None:
        """Settle all of ``writes``, in one transaction where possible. Only for the thread whose turn it is."""
        try:
            self._transact(writes)
        except Exception as error:
            if len(writes) == 1:
                writes[0].error, writes[0].done = self._translate(error), True
            else:  # the transaction as a whole failed; perhaps because of one of them (a value too big for the disk)
                for write in writes:
                    self.commit([write])

    def close(self) -> None:
        """Close the connections, between two transactions."""
        with self._turn:
            self._connections.close()

    def _lead(self, own: Write) -> None:
        # Whoever's write is lost from the queue when this thread is interrupted still commits it in a turn of its own.
        writes = [own]
        while self._queue:
            write = self._queue.popleft()
            if not write.done and write is not own:
                writes.append(write)
        self.commit(writes)

    def _transact(self, writes: Sequence[Write]) -> None:
        connection = self._connections.writer()
        began = False
        try:
            # Immediate: a transaction that reads first and then wants to write would fail when another came between.
            connection.execute("begin immediate")
            began = True
            if len(writes) == 1:
                writes[0].result, writes[0].error = writes[0].work(connection), None
            else:
                for write in writes:
                    _work_in_savepoint(connection, write)
            connection.execute("commit")
        except sqlite3.Error:
            self._connections.drop_writer()
            raise
        except BaseException:
            if connection.in_transaction:
                connection.execute("rollback")
                raise
            if not began:
                raise
            _settle(writes)  # interrupted just after the commit
            raise
        _settle(writes)

    def _translate(self, error: Exception) -> Exception:
        return backend_error(self._connections.path, error) if isinstance(error, sqlite3.Error) else error

    def before_fork(self) -> None:
        """Wait for the turn, and close all connections."""
        self._turn.acquire()
        self._connections.suspend()

    def after_fork(self, *, child: bool) -> None:
        """Go on; connections open again when they are needed."""
        if child:
            self._queue.clear()  # the threads that wait for these are in the parent, which will write them
            self._turn = threading.Lock()  # a lock that threads of the parent were waiting for can't be trusted
        else:
            self._turn.release()
        self._connections.resume(child=child)


def _work_in_savepoint(connection: sqlite3.Connection, write: Write) -> None:
    connection.execute("savepoint one")
    try:
        write.result, write.error = write.work(connection), None
    except sqlite3.Error:
        raise
    except Exception as error:
        write.error = error
        connection.execute("rollback to one")
    connection.execute("release one")


def _settle(writes: Sequence[Write]) -> None:
    for write in writes:
        write.done = True


_alive: weakref.WeakSet[GroupCommit] = weakref.WeakSet()
_suspended: list[GroupCommit] = []
_forking = threading.Lock()
_hooks_registered = False


def _survive_forks(group: GroupCommit) -> None:
    global _hooks_registered
    with _forking:
        if not _hooks_registered and hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=_before_fork,
                after_in_parent=lambda: _after_fork(child=False),
                after_in_child=lambda: _after_fork(child=True),
            )
            _hooks_registered = True
        _alive.add(group)


def _before_fork() -> None:
    _forking.acquire()
    _suspended.extend(_alive)
    for group in _suspended:
        group.before_fork()


def _after_fork(*, child: bool) -> None:
    for group in _suspended:
        group.after_fork(child=child)
    _suspended.clear()
    _forking.release()
