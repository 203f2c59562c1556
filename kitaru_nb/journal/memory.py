"""The journal in this process's memory: for tests, for trying things out, and the yardstick of the other back ends."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

from kitaru_nb.errors import KitaruBackendError
from kitaru_nb.journal import rules
from kitaru_nb.journal.base import DEFAULT_TTL, Journal
from kitaru_nb.journal.rules import ExecutionRow
from kitaru_nb.journal.watching import Watchers
from kitaru_nb.model import ONCE, Event, Execution, ExecutionStatus, Lease, Owner, Wait

StoredEvent = tuple[int, *rules.EventRow]


class MemoryJournal(Journal):
    """``memory://NAME``: handles with the same name share their data for as long as the process lives."""

    def __init__(self, url: str, *, durability: str = "power") -> None:
        """Open the data of this name. ``durability`` has no meaning here; all back ends take it."""
        self.url = url
        with _registry_lock:
            self._data = _registry.setdefault(url, _Data())
        self._closed = False
        self._watchers = Watchers(lambda: _Listener(self._data))

    def create(self, execution: Execution, events: Sequence[Event]) -> Execution:
        row, batch = ExecutionRow.new(execution), rules.prepare(execution.exec_id, events)
        with self._open() as data:
            if row.key is not None and (same := data.by_key.get((row.flow, row.key))):
                return data.rows[same].execution(time.time())
            if row.id in data.rows:
                raise rules.same_id(data.rows[row.id].execution(time.time()))
            data.rows[row.id] = row
            if row.key is not None:
                data.by_key[row.flow, row.key] = row.id
            data.store(row, batch)
            return row.execution(time.time())

    def claim(self, exec_id: str, owner: Owner, *, ttl: float = DEFAULT_TTL) -> Lease:
        with self._open() as data:
            row = data.row(exec_id)
            lease, batch = row.claim(owner, ttl, time.time())
            data.store(row, batch)
            return lease

    def renew(self, lease: Lease, *, ttl: float = DEFAULT_TTL) -> Lease:
        with self._open() as data:
            return data.row(lease.exec_id).renew(lease, ttl, time.time())

    def release(self, lease: Lease, events: Sequence[Event] = ()) -> None:
        batch = rules.prepare(lease.exec_id, events)
        with self._open() as data:
            row = data.row(lease.exec_id)
            rules.fence(lease, row.epoch)
            data.store(row, batch)
            row.release()

    def append(self, exec_id: str, events: Sequence[Event], *, lease: Lease | None = None) -> int:
        rules.check_lease(exec_id, lease)
        batch = rules.prepare(exec_id, events)
        with self._open() as data:
            row = data.row(exec_id)
            rules.fence(lease, row.epoch)
            data.store(row, batch)
            return data.of[exec_id][-1][0] if data.of[exec_id] else 0

    def history(self, exec_id: str, *, after: int = 0) -> list[Event]:
        with self._open() as data:
            found = [stored for stored in data.of.get(exec_id, ()) if stored[0] > after]
        return [rules.event_of(stored) for stored in found]

    def execution(self, exec_id: str) -> Execution:
        with self._open() as data:
            return data.row(exec_id).execution(time.time())

    def executions(
        self,
        *,
        flow: str | None = None,
        status: ExecutionStatus | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[Execution]:
        with self._open() as data:
            rows = (
                data.rows[exec_id]
                for exec_id in sorted(data.rows, reverse=True)
                if (before is None or exec_id < before) and (flow is None or data.rows[exec_id].flow == flow)
            )
            return list(itertools.islice(rules.select(rows, status), max(limit, 0)))

    def waits(self, *, exec_id: str | None = None, due_before: float | None = None, limit: int = 1000) -> list[Wait]:
        with self._open() as data:
            created = [
                rules.event_of(stored)
                for stored in data.events
                if stored[2] == "wait.created"
                and (exec_id is None or stored[1] == exec_id)
                and (stored[1], "wait.resolved", stored[3]) not in data.once
                and not ExecutionStatus(data.rows[stored[1]].status).ended
            ]
        waits = [rules.pending_wait(event) for event in created]
        if due_before is not None:
            waits = [wait for wait in waits if wait.until and wait.until.timestamp() <= due_before]
        return waits[: max(limit, 0)]

    def find(self, cache_key: str) -> Event | None:
        with self._open() as data:
            stored = data.by_cache_key.get(cache_key)
        return None if stored is None else rules.event_of(stored)

    def tail(self, after: int, *, exec_id: str | None = None, limit: int = 1000) -> list[Event]:
        with self._open() as data:
            events = data.events if exec_id is None else data.of.get(exec_id, [])
            found = [stored for stored in events if stored[0] > after][: max(limit, 0)]
        return [rules.event_of(stored) for stored in found]

    def reference(self, name: str) -> str | None:
        with self._open() as data:
            return data.changes[name][-1][1] if name in data.changes else None

    def set_reference(self, name: str, value: str | None, *, expected: str | None, by: str) -> None:
        for text in (name, value or "", by):
            rules.check_text(text)
        with self._open() as data:
            found = data.changes[name][-1][1] if name in data.changes else None
            if found != expected:
                raise rules.moved(name, expected, found)
            data.changes[name].append((time.time(), value, by))

    def reference_history(self, name: str) -> list[tuple[float, str | None, str]]:
        with self._open() as data:
            return list(data.changes.get(name, ()))

    def watch(self, on_news: Callable[[], None], *, exec_id: str | None = None) -> Callable[[], None]:
        self._open()
        return self._watchers.add(on_news, exec_id)

    def close(self) -> None:
        self._closed = True
        self._watchers.close()

    def _open(self) -> _Data:
        if self._closed:
            raise KitaruBackendError(f"The journal {self.url} was closed.", fix=f"open_journal({self.url!r})")
        return self._data


class _Data:
    """What the handles of one name share. As a context manager it is its own lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.grown = threading.Condition(self.lock)
        self.rows: dict[str, ExecutionRow] = {}
        self.by_key: dict[tuple[str, str], str] = {}
        self.events: list[StoredEvent] = []
        self.of: dict[str, list[StoredEvent]] = defaultdict(list)
        self.once: dict[tuple[str, str, str], StoredEvent] = {}
        self.by_cache_key: dict[str, StoredEvent] = {}
        self.changes: dict[str, list[tuple[float, str | None, str]]] = defaultdict(list)

    def __enter__(self) -> _Data:
        self.lock.acquire()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.lock.release()

    def row(self, exec_id: str) -> ExecutionRow:
        """The row of an execution, or `KitaruNotFoundError`."""
        if exec_id not in self.rows:
            raise rules.not_found(exec_id)
        return self.rows[exec_id]

    def store(self, row: ExecutionRow, batch: rules.Batch) -> None:
        """Append all events of a batch, or raise `KitaruConflictError` and none."""
        for exec_id, kind, key, *_ in batch.rows:
            if first := self.once.get((exec_id, kind, key)):
                raise rules.conflict(rules.event_of(first))
        for fields in batch.rows:
            self._index((len(self.events) + 1, *fields))
        row.apply(batch.change)
        self.grown.notify_all()

    def _index(self, stored: StoredEvent) -> None:
        _, exec_id, kind, key, *_, cache_key = stored
        self.events.append(stored)
        self.of[exec_id].append(stored)
        if kind in ONCE:
            self.once[exec_id, kind, key] = stored
        if cache_key is not None and kind == "checkpoint.completed":
            self.by_cache_key[cache_key] = stored


class _Listener:
    """News of the data of one name."""

    def __init__(self, data: _Data) -> None:
        self._data = data
        self._seen = len(data.events)

    def news(self, timeout: float) -> Collection[str]:
        with self._data as data:
            data.grown.wait_for(lambda: len(data.events) > self._seen, timeout)
            fresh, self._seen = data.events[self._seen :], len(data.events)
        return {exec_id for _, exec_id, *_ in fresh}

    def interrupt(self) -> None:
        pass  # it never waits for long

    def close(self) -> None:
        pass  # there is nothing to let go of


_registry: dict[str, _Data] = {}
_registry_lock = threading.Lock()
