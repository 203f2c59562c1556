"""Leases of this process: taken, and given back, also where storage is away at that moment."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from kitaru_nb.errors import KitaruBackendError, KitaruFencedError
from kitaru_nb.journal.base import DEFAULT_TTL, Journal, this_process
from kitaru_nb.model import Event, Lease

#: Execution → the lease that storage kept this process from giving back. Others wait until it is over.
_left: dict[str, Lease] = {}


def take(journal: Journal, exec_id: str, *, ttl: float = DEFAULT_TTL) -> Lease:
    """Claim an execution; also one that this very process could not give back. Raises as `Journal.claim`."""
    if (left := _left.get(exec_id)) is not None:
        with suppress(KitaruFencedError):  # another has it since
            journal.release(left)
        _left.pop(exec_id, None)
    return journal.claim(exec_id, this_process(), ttl=ttl)


def give_back(journal: Journal, lease: Lease, events: Sequence[Event] = ()) -> None:
    """Append the last events and release a lease. Raises as `Journal.release`."""
    try:
        journal.release(lease, events)
    except KitaruBackendError:
        _left[lease.exec_id] = lease
        raise
