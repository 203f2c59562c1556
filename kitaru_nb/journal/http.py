"""The journal of a server (``kitaru server``), for workers that reach nothing else of a team's storage.

``https://host:port/path``; the token, of the role ``work``, is in ``KITARU_JOURNAL_TOKEN``, or a password in the URL.
Each method is one request, and one transaction of the journal that the server has: leases, fencing and what may happen
once are judged there, by its clock. A request whose answer was lost is sent again under its number, and done once.
"""

from __future__ import annotations

import dataclasses
import heapq
import http.client
import itertools
import json
import socket
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from kitaru_nb.errors import KitaruBackendError, KitaruFencedError, KitaruLeaseError, KitaruUsageError
from kitaru_nb.journal import rules, wire
from kitaru_nb.journal.base import DEFAULT_TTL, Journal, is_dead
from kitaru_nb.journal.http_connections import TOKEN_VARIABLE, Reply, Server, address_of
from kitaru_nb.journal.rules import ExecutionRow
from kitaru_nb.journal.watching import Watchers
from kitaru_nb.model import Event, Execution, ExecutionStatus, Lease, Owner, Wait

#: For how many seconds an unreachable server is tried again before `KitaruBackendError`.
PATIENCE = 20.0
#: How long the server is asked to wait for news.
NEWS_SECONDS = 20.0
_PAGE = 1000
#: What the server answers to who may not come in: no token, no right, a body that is too large, a name that it hasn't
#: got, too many wrong tokens.
_REFUSALS = frozenset({400, 401, 403, 413, 421, 429})


class HttpJournal(Journal):
    """What a commit survives is what the server's journal was opened with."""

    def __init__(self, url: str, *, durability: str = "power", patience: float = PATIENCE) -> None:
        """Ask the server whether it is one, and lets this token in.

        Raises:
            KitaruUsageError: the URL or the token can't be right.
            KitaruBackendError: no server answers for ``patience`` seconds, or it refuses.
        """
        address = address_of(url)
        self.url = address.shown
        self._server = Server(address, wire.MEDIA_TYPE, patience)
        self._watchers = Watchers(lambda: _Listener(self._server, self.understand))
        try:
            self._ask("hello")
        except BaseException:
            self._server.close()
            raise

    def create(self, execution: Execution, events: Sequence[Event]) -> Execution:
        ExecutionRow.new(execution)  # refuses text that can't be stored before anything is sent
        packed, blobs = _checked(execution.exec_id, events)
        given = {"execution": wire.pack_execution(execution), "events": packed}
        return self._seen(wire.unpack_execution(self._write("create", given, blobs)))

    def claim(self, exec_id: str, owner: Owner, *, ttl: float = DEFAULT_TTL) -> Lease:
        given = {"exec_id": exec_id, "owner": dataclasses.asdict(owner), "ttl": ttl}
        try:
            return _lease(self._write("claim", given))
        except KitaruLeaseError:
            held = self.execution(exec_id).lease
            if held is None or not is_dead(held.owner):
                raise
        # Only here, on the dead owner's machine, can it be known: what it held is given back in its name.
        with suppress(KitaruFencedError):
            self.release(held)
        return _lease(self._write("claim", given))

    def renew(self, lease: Lease, *, ttl: float = DEFAULT_TTL) -> Lease:
        return _lease(self._write("renew", {"lease": wire.pack_lease(lease), "ttl": ttl}))

    def release(self, lease: Lease, events: Sequence[Event] = ()) -> None:
        packed, blobs = _checked(lease.exec_id, events)
        self._write("release", {"lease": wire.pack_lease(lease), "events": packed}, blobs)

    def append(self, exec_id: str, events: Sequence[Event], *, lease: Lease | None = None) -> int:
        rules.check_lease(exec_id, lease)
        packed, blobs = _checked(exec_id, events)
        given = {"exec_id": exec_id, "events": packed, "lease": wire.pack_lease(lease)}
        return int(self._write("append", given, blobs))

    def history(self, exec_id: str, *, after: int = 0) -> list[Event]:
        return list(self._events(after, exec_id, None))

    def execution(self, exec_id: str) -> Execution:
        return self._seen(wire.unpack_execution(self._ask("execution", exec_id=exec_id)))

    def executions(
        self,
        *,
        flow: str | None = None,
        status: ExecutionStatus | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[Execution]:
        wanted: tuple[ExecutionStatus | None, ...] = (status,)
        if status is ExecutionStatus.INTERRUPTED:  # some that the server takes for running have died on this machine
            wanted = (ExecutionStatus.INTERRUPTED, ExecutionStatus.RUNNING)
        lists = [self._pages(flow, each, before, limit) for each in wanted]
        found = heapq.merge(*lists, key=lambda execution: execution.exec_id, reverse=True)
        fitting = (execution for execution in found if status in (None, execution.status))
        return list(itertools.islice(fitting, max(limit, 0)))

    def census(self) -> dict[tuple[str, str], int]:
        return {(flow, status): count for flow, status, count in self._ask("census")}

    def waits(self, *, exec_id: str | None = None, due_before: float | None = None, limit: int = 1000) -> list[Wait]:
        found = self._ask("waits", exec_id=exec_id, due_before=due_before, limit=limit)
        return [wire.unpack_wait(packed) for packed in found]

    def find(self, cache_key: str) -> Event | None:
        found = wire.unpack_events(*self._read("find", {"cache_key": cache_key}))
        return found[0] if found else None

    def tail(self, after: int, *, exec_id: str | None = None, limit: int = 1000) -> list[Event]:
        return list(self._events(after, exec_id, max(limit, 0)))

    def reference(self, name: str) -> str | None:
        found: str | None = self._ask("reference", name=name)
        return found

    def set_reference(self, name: str, value: str | None, *, expected: str | None, by: str) -> None:
        for text in (name, value or "", by):
            rules.check_text(text)
        self._write("set_reference", {"name": name, "value": value, "expected": expected, "by": by})

    def reference_history(self, name: str) -> list[tuple[float, str | None, str]]:
        return [(at, value, by) for at, value, by in self._ask("reference_history", name=name)]

    def watch(self, on_news: Callable[[], None], *, exec_id: str | None = None) -> Callable[[], None]:
        self._server.check_open()
        return self._watchers.add(on_news, exec_id)

    def close(self) -> None:
        self._watchers.close()
        self._server.close()

    def _events(self, after: int, exec_id: str | None, limit: int | None) -> Iterator[Event]:
        """Events after a seq, a page at a time."""
        while limit is None or limit > 0:
            size = _PAGE if limit is None else min(limit, _PAGE)
            page = wire.unpack_events(*self._read("tail", {"after": after, "exec_id": exec_id, "limit": size}))
            yield from page
            if len(page) < size:
                return
            after = page[-1].seq
            limit = None if limit is None else limit - size

    def _pages(
        self, flow: str | None, status: ExecutionStatus | None, before: str | None, size: int
    ) -> Iterator[Execution]:
        """Executions of a list of the server's as this machine sees them, newest first."""
        while size > 0:
            given = {"flow": flow, "status": status.value if status else None, "before": before, "limit": size}
            found = [wire.unpack_execution(packed) for packed in self._ask("executions", **given)]
            yield from map(self._seen, found)
            if len(found) < size:
                return
            before = found[-1].exec_id
            size = min(size * 2, _PAGE)

    @staticmethod
    def _seen(execution: Execution) -> Execution:
        """An execution as this machine sees it: the server can't know whose processes have died here."""
        lease = execution.lease
        if execution.status is ExecutionStatus.RUNNING and lease is not None and is_dead(lease.owner):
            return dataclasses.replace(execution, status=ExecutionStatus.INTERRUPTED)
        return execution

    # requests

    def _ask(self, operation: str, **given: Any) -> Any:
        return self._read(operation, given)[0]

    def _read(self, operation: str, given: Any) -> tuple[Any, bytes]:
        return self.understand(self._server.post(wire.PATH + operation, wire.write(given), {}))

    def _write(self, operation: str, given: Any, blobs: Iterable[bytes] = ()) -> Any:
        message = wire.write(given, blobs)
        if len(message) > wire.MAX_REQUEST:
            raise KitaruUsageError(
                f"{len(message):,} bytes were to be written to the journal at once; {self.url} takes "
                f"{wire.MAX_REQUEST:,}. Larger values belong in the artifact store.",
                fix="export KITARU_INLINE_MAX_BYTES=16384",
            )
        number = {"X-Kitaru-Request": uuid.uuid4().hex}
        return self.understand(self._server.post(wire.PATH + operation, message, number))[0]

    def understand(self, reply: Reply) -> tuple[Any, bytes]:
        """What the server answered, and its blobs. Raises the error that it answered."""
        try:
            if reply.media_type == wire.MEDIA_TYPE:
                value, blobs = wire.read(reply.body)
            elif reply.media_type == "application/json" and reply.status in _REFUSALS:  # not let in to the journal
                value, blobs = {"error": self._refused(reply.status, json.loads(reply.body)["error"])}, b""
            else:
                raise ValueError(f"and {reply.media_type or 'nothing'} in its answer")
        except (ValueError, LookupError, TypeError) as error:
            raise KitaruBackendError(
                f"{self.url} is no journal of a kitaru server: status {reply.status} {error}.",
                fix="export KITARU_JOURNAL=https://host:port",
            ) from error
        if reply.status >= 400:
            raise wire.unpack_error(value["error"], blobs)
        return value, blobs

    def _refused(self, status: int, error: dict[str, Any]) -> dict[str, Any]:
        fix = error["fix"]
        if status in (401, 403):
            fix = f"export {TOKEN_VARIABLE}=...  (kitaru server token create NAME --role work)"
        return {"type": "KitaruBackendError", "message": f"{self.url} refuses: {error['message']}", "fix": fix}


def _checked(exec_id: str, events: Sequence[Event]) -> tuple[list[Any], list[bytes]]:
    rules.prepare(exec_id, events)  # refuses what can't be stored before anything is sent
    return wire.pack_events(events)


def _lease(packed: Any) -> Lease:
    found = wire.unpack_lease(packed)
    assert found is not None
    return found


class _Listener:
    """Asks the server to answer when there is news."""

    def __init__(self, server: Server, understand: Callable[[Reply], tuple[Any, bytes]]) -> None:
        self._server = server
        self._understand = understand
        self._connection = server.connect(NEWS_SECONDS + 20)
        self._ended = False
        self._after: int | None = None
        self._after = self._ask(0)["seq"]

    def news(self, timeout: float) -> Collection[str]:
        if self._ended:
            return ()
        found = self._ask(NEWS_SECONDS)
        self._after = found["seq"]
        return frozenset(found["exec_ids"])

    def _ask(self, seconds: float) -> dict[str, Any]:
        message = wire.write({"after": self._after, "timeout": seconds})
        try:
            reply = self._server.exchange(self._connection, f"{wire.PATH}news", message, {})
        except (OSError, http.client.HTTPException) as error:
            if self._ended:
                return {"seq": self._after, "exec_ids": ()}
            raise KitaruBackendError(f"No news of {self._server.address.shown}: {error}.") from error
        found: dict[str, Any] = self._understand(reply)[0]
        return found

    def interrupt(self) -> None:
        self._ended = True
        if (waiting := self._connection.sock) is not None:
            with suppress(OSError):  # it ended by itself
                waiting.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._connection.close()
