"""What happens in the moment in which a worker lets go of its execution is never lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from core.bench import SECONDS, Bench, until
from kitaru_nb import flow, wait
from kitaru_nb.core.control import Started
from kitaru_nb.core.handle import FlowHandle
from kitaru_nb.core.launch import run_on_thread
from kitaru_nb.core.local import threads
from kitaru_nb.journal.base import Journal, this_process
from kitaru_nb.journal.memory import MemoryJournal
from kitaru_nb.model import Event, Lease


@flow
def quick_brief(topic: str) -> str:
    return f"{topic}: {wait('approve', question='Publish?', timeout=0)}"


class Interposed(MemoryJournal):
    """Something happens between two operations of a worker: just before, or just after it gives its lease back."""

    before_release: Callable[[], None] | None = None
    after_release: Callable[[], None] | None = None

    def release(self, lease: Lease, events: Any = ()) -> None:
        """Give it back, with what was interposed."""
        before, self.before_release = self.before_release, None
        after, self.after_release = self.after_release, None
        if before is not None:
            before()
        super().release(lease, events)
        if after is not None:
            after()


class Heard(MemoryJournal):
    """An answer is heard, and the execution is at its end, before the one who gave it hears that it was recorded."""

    def append(self, exec_id: str, events: Sequence[Event], *, lease: Lease | None = None) -> int:
        """Append."""
        seq = super().append(exec_id, events, lease=lease)
        if events[0].kind == "wait.resolved":
            until(lambda: self.execution(exec_id).status.ended)
        return seq


@pytest.fixture
def interposed(tmp_path: Any) -> tuple[Bench, Interposed]:
    journal = Interposed(f"memory://{tmp_path.name}")
    return Bench(tmp_path, journal=journal), journal


@pytest.mark.parametrize("moment", ["before_release", "after_release"])
def test_an_answer_while_the_worker_lets_go_is_never_lost(interposed: tuple[Bench, Interposed], moment: str) -> None:
    """Before the release the answerer sees a live worker; after it, its fresh worker and the old one race."""
    bench, journal = interposed
    exec_id = bench.create(quick_brief, topic="agents")
    setattr(journal, moment, lambda: bench.answer(exec_id, True))
    local = run_on_thread(bench.runtime, exec_id, bench.bind(quick_brief))
    handle = FlowHandle[str](bench.runtime, exec_id, local)
    until(lambda: handle.status == "completed")
    assert handle.wait() == "agents: True"
    kinds = bench.kinds(exec_id)
    assert kinds.count("wait.resolved") == 1
    assert kinds.count("execution.completed") == 1


@pytest.mark.parametrize("end", ["completed", "failed"])
def test_an_answer_that_was_taken_up_at_once_starts_nobody_else(tmp_path: Any, end: str) -> None:
    bench = Bench(tmp_path, journal=Heard(f"memory://{tmp_path.name}"))

    @flow
    def asking() -> None:
        wait("approve")
        if end == "failed":
            raise ValueError("no")

    handle = bench.run(asking)
    bench.asked(handle)
    assert bench.answer(handle, True) == Started(handle.exec_id, None)
    assert threads[handle.exec_id].ended.wait(SECONDS)
    assert handle.status == end
    assert bench.kinds(handle).count("execution.claimed") == 1


def test_a_cancel_request_while_the_worker_lets_go_is_never_lost(interposed: tuple[Bench, Interposed]) -> None:
    bench, journal = interposed
    exec_id = bench.create(quick_brief, topic="x")
    journal.before_release = lambda: bench.executions.cancel(exec_id, by="ann") and None
    assert bench.advance(exec_id, quick_brief).status == "cancelled"
    assert bench.get(exec_id).status == "cancelled"


def test_a_cancel_request_that_a_dead_worker_did_not_honour_is_honoured_by_the_next(bench: Bench) -> None:
    ran: list[str] = []

    @flow
    def working() -> None:
        ran.append("working")

    exec_id = bench.create(working)
    journal: Journal = bench.runtime.journal
    lease = journal.claim(exec_id, this_process(), ttl=60)
    bench.executions.cancel(exec_id, by="ann")
    journal.release(lease)
    assert bench.advance(exec_id, working).status == "cancelled"
    assert ran == []
