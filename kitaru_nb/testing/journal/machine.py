"""A state machine that does the same random steps on a journal and on the memory journal, and compares all answers."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from kitaru_nb.errors import KitaruConflictError, KitaruError
from kitaru_nb.journal.base import Journal
from kitaru_nb.journal.memory import MemoryJournal
from kitaru_nb.model import Event, Execution, ExecutionStatus, Lease, utc
from kitaru_nb.testing.journal.setup import ELSEWHERE, dead_owner, new_execution

HANDLES = 2
#: Long over: a handle tells the clock of a server by its own, and that not to the microsecond.
LONG, EXPIRED = 1e6, -1e6

_kinds = st.sampled_from(
    [
        "checkpoint.started",
        "checkpoint.completed",
        "wait.created",
        "wait.resolved",
        "metadata",
        "execution.waiting",
        "execution.failed",
        "execution.paused",
        "execution.completed",
        "execution.cancelled",
    ]
)
_events = st.lists(
    st.tuples(
        _kinds,
        st.sampled_from(["a", "b", "c"]),
        st.fixed_dictionaries({"name": st.text(max_size=3)}, optional={"until": st.sampled_from([None, 1.0, 2.0])}),
        st.none() | st.binary(max_size=4),
        st.sampled_from([None, "k1", "k2"]),
    ),
    max_size=3,
)
_handles = st.integers(0, HANDLES - 1)
_ttls = st.sampled_from([LONG, LONG, EXPIRED])
_statuses = st.none() | st.sampled_from(ExecutionStatus)
_limits = st.integers(0, 5) | st.just(1000)


class JournalMachine(RuleBasedStateMachine):
    """Subclass it with `open_handle`, and hand ``YourMachine.TestCase`` to the test runner.

    Steps go to one of two handles on the same data; times that the journals take themselves aren't compared.
    """

    executions = Bundle("executions")
    leases = Bundle("leases")

    def open_handle(self) -> Journal:
        """A new handle on the data of this run, which is empty in the beginning."""
        raise NotImplementedError("a subclass says how to open the journal under test")

    @initialize(target=executions)
    def begin(self) -> Any:
        self.model: Journal = MemoryJournal(f"memory://{uuid.uuid4()}")
        self.handles = [self.open_handle() for _ in range(HANDLES)]
        return multiple("kr-unknown")

    def teardown(self) -> None:
        for handle in getattr(self, "handles", []):
            handle.close()

    @rule(handle=_handles)
    def reopen(self, handle: int) -> None:
        self.handles[handle].close()
        self.handles[handle] = self.open_handle()

    @rule(
        target=executions,
        handle=_handles,
        flow=st.sampled_from("fg"),
        key=st.sampled_from([None, "k", "l"]),
        specs=_events,
    )
    def create(self, handle: int, flow: str, key: str | None, specs: list[Any]) -> Any:
        execution = new_execution(flow, key=key)
        events = _build(execution.exec_id, specs)
        created = self.same(handle, lambda journal: journal.create(execution, events))
        return created.exec_id if created else multiple()

    @rule(target=leases, handle=_handles, exec_id=executions, ttl=_ttls, dead=st.sampled_from([False, False, True]))
    def claim(self, handle: int, exec_id: str, ttl: float, dead: bool) -> Any:
        owner = dead_owner() if dead else ELSEWHERE
        lease = self.same(handle, lambda journal: journal.claim(exec_id, owner, ttl=ttl))
        return lease or multiple()

    @rule(handle=_handles, lease=leases, ttl=_ttls)
    def renew(self, handle: int, lease: Lease, ttl: float) -> None:
        self.same(handle, lambda journal: journal.renew(lease, ttl=ttl))

    @rule(handle=_handles, lease=leases, specs=_events)
    def release(self, handle: int, lease: Lease, specs: list[Any]) -> None:
        self.same(handle, lambda journal: journal.release(lease, _build(lease.exec_id, specs)))

    @rule(handle=_handles, lease=consumes(leases), offset=st.sampled_from([-1, 1]), specs=_events)
    def append_with_a_wrong_epoch(self, handle: int, lease: Lease, offset: int, specs: list[Any]) -> None:
        wrong = dataclasses.replace(lease, epoch=lease.epoch + offset)
        self.same(handle, lambda journal: _append(journal, lease.exec_id, specs, wrong))

    @rule(handle=_handles, lease=leases, specs=_events)
    def append(self, handle: int, lease: Lease, specs: list[Any]) -> None:
        self.same(handle, lambda journal: _append(journal, lease.exec_id, specs, lease))

    @rule(handle=_handles, exec_id=executions, specs=_events)
    def append_from_outside(self, handle: int, exec_id: str, specs: list[Any]) -> None:
        self.same(handle, lambda journal: _append(journal, exec_id, specs, None))

    @rule(
        handle=_handles,
        name=st.sampled_from(["prod", "canary"]),
        value=st.sampled_from([None, "v1", "v2"]),
        expected=st.sampled_from([None, "v1", "v2"]),
    )
    def set_reference(self, handle: int, name: str, value: str | None, expected: str | None) -> None:
        self.same(handle, lambda journal: journal.set_reference(name, value, expected=expected, by="machine"))
        self.same(handle, lambda journal: journal.reference(name))
        self.same(handle, lambda journal: [(value, by) for _, value, by in journal.reference_history(name)])

    @rule(
        handle=_handles,
        flow=st.sampled_from([None, "f", "g"]),
        status=_statuses,
        before=st.none() | executions,
        limit=_limits,
    )
    def list_executions(
        self, handle: int, flow: str | None, status: ExecutionStatus | None, before: str | None, limit: int
    ) -> None:
        self.same(handle, lambda journal: journal.executions(flow=flow, status=status, before=before, limit=limit))

    @rule(
        handle=_handles, exec_id=st.none() | executions, due=st.none() | st.sampled_from([0.5, 1.0, 2.0]), limit=_limits
    )
    def list_waits(self, handle: int, exec_id: str | None, due: float | None, limit: int) -> None:
        self.same(handle, lambda journal: journal.waits(exec_id=exec_id, due_before=due, limit=limit))

    @rule(handle=_handles, exec_id=executions, skip=st.integers(0, 5), limit=_limits)
    def follow(self, handle: int, exec_id: str, skip: int, limit: int) -> None:
        def read(journal: Journal) -> Any:
            everything = journal.tail(0)
            after = everything[skip].seq if skip < len(everything) else 0
            return [
                journal.tail(after, limit=limit),
                journal.tail(after, exec_id=exec_id, limit=limit),
                journal.history(exec_id, after=after),
            ]

        self.same(handle, read)

    @rule(handle=_handles, exec_id=executions)
    def look_at(self, handle: int, exec_id: str) -> None:
        self.same(handle, lambda journal: journal.execution(exec_id))
        self.same(handle, lambda journal: [journal.find(key) for key in ("k1", "k2", "k3")])
        self.same(handle, lambda journal: journal.census())

    @precondition(lambda self: hasattr(self, "handles"))
    @invariant()
    def all_handles_show_what_the_model_shows(self) -> None:
        for handle in range(HANDLES):
            self.same(handle, lambda journal: [journal.tail(0), journal.executions(), journal.waits()])
            seqs = [event.seq for event in self.handles[handle].tail(0)]
            assert seqs == sorted(set(seqs))

    def same(self, handle: int, operation: Callable[[Journal], Any]) -> Any:
        """Do it on both; both answer or refuse alike. Returns the model's answer, or None when it refused."""
        expected, answer = _outcome(operation, self.model)
        found, _ = _outcome(operation, self.handles[handle])
        assert found == expected
        return answer


def _build(exec_id: str, specs: list[Any]) -> list[Event]:
    return [Event(exec_id, kind, key, 1.0, body, blob, 0, cache_key) for kind, key, body, blob, cache_key in specs]


def _append(journal: Journal, exec_id: str, specs: list[Any], lease: Lease | None) -> None:
    seq = journal.append(exec_id, _build(exec_id, specs), lease=lease)
    history = journal.history(exec_id)
    assert seq == (history[-1].seq if history else 0)


def _outcome(operation: Callable[[Journal], Any], journal: Journal) -> tuple[Any, Any]:
    try:
        answer = operation(journal)
    except KitaruError as error:
        existing = error.existing if isinstance(error, KitaruConflictError) else None
        return (type(error), _timeless(existing)), None
    return _timeless(answer), answer


def _timeless(value: Any) -> Any:
    """``value`` without what each journal decides for itself: its clock, and its numbers."""
    if isinstance(value, Event):  # a tuple too
        at = 0.0 if value.kind == "execution.claimed" else value.at
        return value._replace(at=at, seq=0)
    if isinstance(value, list | tuple):
        return [_timeless(item) for item in value]
    if isinstance(value, Lease):
        return dataclasses.replace(value, expires_at=0.0)
    if isinstance(value, Execution):
        return dataclasses.replace(value, updated_at=utc(0), lease=_timeless(value.lease))
    return value
