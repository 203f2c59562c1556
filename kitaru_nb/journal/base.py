"""The contract of a journal: the append-only history of executions, their leases, and named references.

All that a person sees of an execution is a fold over its events (`kitaru_nb.journal.fold`). Kinds and bodies, JSON all:

====================  ====================================================================================
execution.created     flow, ref (how a fresh process loads the flow), inputs {name: artifact}, options, by,
                      original (exec id), plan (of a replay), line (of a notebook that asked for it: cell, words)
execution.claimed     owner {host, pid, started, nonce}, epoch              written by `claim`
execution.waiting     waits [wait ids]; the worker lets go
execution.paused      reason, signal or outage (if one caused it); the worker lets go, status stays ``running``
execution.completed   result (artifact or null)
execution.failed      failure {message, exception_type, traceback, origin}
execution.cancelled   by
execution.cancel      by; a request that the worker honours at its next step
execution.resume      by; somebody starts a worker for an interrupted or answered execution
execution.retry       by; somebody starts a worker for a failed execution
checkpoint.started    key=call id; name, type, parent, place, inputs [{name, token, preview, sources}], after,
                      attempt, code, overridden_inputs [names]; only when the checkpoint outlives 50 ms or fails
checkpoint.completed  key=call id; all of ``started`` and started_at, outputs [artifact], duration, metadata,
                      reused {exec_id, call_id}, partial [{name, type, why, do}], cell {...}
checkpoint.failed     key=call id; name, attempt, failure, final, retry_in; and all of ``started``
checkpoint.sent       key=call id; an order for another process: name, attempt, epoch, scope, code, modules [artifact],
                      inputs [artifact], sources; of isolated checkpoints
checkpoint.returned   key=call id; what that process brought back: name, attempt, epoch, and outputs [artifact] with
                      metadata, or failure and outage (if one caused it); the worker that waits for it makes
                      ``completed`` or ``failed`` of it
wait.created          key=wait id; name, question, schema, metadata, until, timeout, parent, after
wait.resolved         key=wait id; value, by, via, aborted
log.lines             key=call id or ""; lines [[at, source, level, text]]
metadata              key=call id or ""; the metadata, merged in order
artifact.saved        key=name; artifact; call
====================  ====================================================================================

``ref.kind`` is ``module`` (module, qualname, root), ``script`` (path, qualname), ``value`` (flow: artifact), ``here``
(only this process has it) or ``notebook`` (path, interactive; headless: notebook, an artifact, and output).

An artifact in a body is its fields without ``data``; ``inline`` = [offset, length] into the event's blob, or absent
when the bytes are in the artifact store under its digest. What is empty, what nearly all artifacts have and what the
event itself says is left out, as are an input's sources when there are none and the attempt when the first one
completed (`kitaru_nb.journal.fold` has both directions, and reads the longer form of version 1 too).
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import sys
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from kitaru_nb.model import Event, Execution, ExecutionStatus, Lease, Owner, Wait

DEFAULT_TTL = 30.0


class Journal(Protocol):
    """Append-only history of executions. Safe to call from several threads; several handles may share the data.

    Every method may raise `KitaruBackendError` when the storage can't be reached or written; then nothing was written.
    """

    url: str

    def create(self, execution: Execution, events: Sequence[Event]) -> Execution:
        """Store a new execution and its first events in one commit; return it.

        When ``execution.key`` is set and an execution of the same flow with this key exists, nothing is written and the
        existing one is returned. A new one has epoch 0 and nobody holds it, whatever ``execution`` says.

        Raises:
            KitaruConflictError: the id is taken; ``existing`` is that execution.
        """

    def claim(self, exec_id: str, owner: Owner, *, ttl: float = DEFAULT_TTL) -> Lease:
        """Take the right to advance an execution: epoch + 1, status ``running``, one ``execution.claimed`` event.

        A lease that expired, was released, or whose owner is known to be dead (`is_dead`) is free.

        Raises:
            KitaruNotFoundError: no such execution.
            KitaruLeaseError: somebody else holds it; the message says who and for how long.
            KitaruStateError: it is completed or cancelled. A failed one may be claimed (that is a retry).
        """

    def renew(self, lease: Lease, *, ttl: float = DEFAULT_TTL) -> Lease:
        """Extend a lease. Raises `KitaruFencedError` when it was claimed by another or released since."""

    def release(self, lease: Lease, events: Sequence[Event] = ()) -> None:
        """Append ``events`` and give the lease back, in one commit. Raises as `append` does."""

    def append(self, exec_id: str, events: Sequence[Event], *, lease: Lease | None = None) -> int:
        """Append events in one commit, all or none; return the seq of the last (of the execution, when there are none).

        Calls from several threads may share a commit. ``lease`` is None for what outsiders append (answers, cancel
        requests, metadata). Kinds in `model.STATUS_OF` change the execution's status.

        Raises:
            KitaruNotFoundError: no such execution.
            KitaruFencedError: ``lease`` isn't of the execution's epoch.
            KitaruConflictError: a kind of `model.ONCE` is recorded already for this key; ``existing`` is that event.
        """

    def history(self, exec_id: str, *, after: int = 0) -> list[Event]:
        """All events of an execution with ``seq > after``, in order. Empty for an unknown id."""

    def execution(self, exec_id: str) -> Execution:
        """The execution without its details. Raises `KitaruNotFoundError`.

        ``status`` is ``interrupted`` when it is ``running`` and no live lease holds it.
        """

    def executions(
        self,
        *,
        flow: str | None = None,
        status: ExecutionStatus | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[Execution]:
        """Executions without details, newest first; ``before`` is the last id of the page before."""

    def census(self) -> dict[tuple[str, str], int]:
        """How many executions there are of each (flow, stored status): ``running`` also where no worker is alive."""
        found: dict[tuple[str, str], int] = {}
        before = None
        while rows := self.executions(before=before, limit=5_000):
            for row in rows:
                lost = row.status is ExecutionStatus.INTERRUPTED
                status = ExecutionStatus.RUNNING if lost else row.status
                found[row.flow_name, status.value] = found.get((row.flow_name, status.value), 0) + 1
            before = rows[-1].exec_id
        return found

    def waits(self, *, exec_id: str | None = None, due_before: float | None = None, limit: int = 1000) -> list[Wait]:
        """Pending waits of executions that haven't ended, oldest first.

        With ``due_before``, only those whose ``until`` is at or before this instant (Unix seconds).
        """

    def find(self, cache_key: str) -> Event | None:
        """The newest ``checkpoint.completed`` event with this cache key, of any execution."""

    def tail(self, after: int, *, exec_id: str | None = None, limit: int = 1000) -> list[Event]:
        """Events of all executions (or one) with ``seq > after``, in order: what a live view polls."""

    def reference(self, name: str) -> str | None:
        """The value of a named reference, or None."""

    def set_reference(self, name: str, value: str | None, *, expected: str | None, by: str) -> None:
        """Compare and set; every change is kept with who and when.

        Raises:
            KitaruConflictError: the reference isn't ``expected``; ``existing`` is what it is.
        """

    def reference_history(self, name: str) -> list[tuple[float, str | None, str]]:
        """(when, value, by) of every change, oldest first."""

    def watch(self, on_news: Callable[[], None], *, exec_id: str | None = None) -> Callable[[], None]:
        """Call ``on_news`` soon after anybody appended events, to this execution or to any; return what ends this.

        A hint: it may be called for nothing, and one may be missed, so look now and then without it too. It is called
        on a thread of the journal's, and must neither block nor raise.
        """

    def close(self) -> None:
        """Release files and connections of this handle; all but another `close` raises `KitaruBackendError` then."""


def this_process() -> Owner:
    """An `Owner` for this process, with a nonce of its own."""
    return owner_of(os.getpid(), uuid.uuid4().hex[:12])


def owner_of(pid: int, nonce: str = "") -> Owner:
    """An `Owner` for a process of this machine."""
    return Owner(this_host(), pid, process_start(pid), nonce)


def this_host() -> str:
    """Where process ids mean what they mean here: the host's name and, where that can be told, which kernel it is and
    which of its sets of processes. Names alone don't say: containers may share one."""
    return f"{socket.gethostname()}{_kernel()}"


@functools.cache
def _kernel() -> str:
    try:
        boot = _BOOT.read_text().strip()
        processes = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        # Where Linux hides it, another machine may be called the same: then this process knows its own alone.
        return f"/{uuid.uuid4().hex[:8]}" if sys.platform == "linux" else ""
    return f"/{hashlib.sha256(f'{boot} {processes}'.encode()).hexdigest()[:8]}"


_BOOT = Path("/proc/sys/kernel/random/boot_id")


def process_start(pid: int) -> int:
    """Start time of a process in clock ticks since boot, or 0 where there is no /proc or no such process."""
    stat = _process_stat(pid)
    return int(stat[19]) if stat else 0


def _process_stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third (the state) on; empty where it can't be read."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    # Counted after the command name, which may itself hold spaces and parentheses.
    return stat.rpartition(")")[2].split()


def is_dead(owner: Owner) -> bool:
    """Whether ``owner`` certainly no longer runs: same host, and its process ended or was replaced."""
    if owner.host != this_host():
        return False
    try:
        with suppress(PermissionError):  # it exists, under another user
            os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    stat = _process_stat(owner.pid)
    # Z: it ended, but its parent hasn't asked how.
    return bool(stat) and (stat[0] in "ZX" or (bool(owner.started) and int(stat[19]) != owner.started))
