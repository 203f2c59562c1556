"""Interrupts, cancellation and workers that lost their lease: durable pauses, and nothing written that must not be."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from core.bench import Bench, Shop, let_go, until
from kitaru_nb import (
    KitaruExecutionError,
    KitaruLeaseError,
    KitaruStateError,
    Retry,
    checkpoint,
    flow,
    wait,
)
from kitaru_nb.core.handle import FlowHandle
from kitaru_nb.core.local import threads
from kitaru_nb.errors import Paused
from kitaru_nb.journal.base import this_process
from kitaru_nb.journal.memory import MemoryJournal
from kitaru_nb.model import Lease

FOREVER = threading.Event()


class Steps:
    """A long flow in three variants, and what ran of it."""

    def __init__(self) -> None:
        self.ran: list[int] = []
        self.in_fifth = threading.Event()
        self.hold = True

        @checkpoint(name="step")
        def step(n: int) -> int:
            self.ran.append(n)
            if n == 5:
                self.in_fifth.set()
                while self.hold:
                    FOREVER.wait(0.01)
            return n

        @checkpoint(name="step")
        async def step_async(n: int) -> int:
            self.ran.append(n)
            if n == 5:
                self.in_fifth.set()
                while self.hold:  # noqa: ASYNC110 (it is to be interrupted)
                    await asyncio.sleep(0.01)
            return n

        @flow(name="steps")
        def plain() -> int:
            return sum(step(n) for n in range(10))

        @flow(name="steps")
        async def asynchronous() -> int:
            return sum([await step_async(n) for n in range(10)])

        @flow(name="steps")
        async def gathering() -> int:
            return sum(await asyncio.gather(*(step_async(n) for n in range(10))))

        @flow(name="steps")
        def mapping() -> int:
            return sum(step.map(range(10)).results())

        @flow(name="steps")
        def on_the_loop() -> int:
            return sum(step_async.map(range(10)).results())

        self.flows = {
            "plain": plain,
            "async": asynchronous,
            "gather": gathering,
            "map": mapping,
            "background loop": on_the_loop,
        }


@pytest.fixture
def steps() -> Steps:
    return Steps()


VARIANTS = ["plain", "async", "gather", "map", "background loop"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_ctrl_c_while_waiting_for_a_handle_pauses_and_resume_goes_on(
    bench: Bench, steps: Steps, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = bench.run(steps.flows[variant])
    assert steps.in_fifth.wait(60)
    monkeypatch.setattr(FlowHandle, "_check_deadline", _ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        handle.wait()
    monkeypatch.undo()
    assert handle.status == "interrupted"
    with pytest.raises(KitaruExecutionError, match="nothing finished is lost") as caught:
        handle.wait()
    assert caught.value.fix == f"kitaru executions resume {handle.exec_id}"
    steps.hold = False
    bench.executions.resume(handle.exec_id)
    assert handle.wait() == 45
    assert set(steps.ran) == set(range(10))
    assert steps.ran.count(5) == 2
    assert [steps.ran.count(n) for n in range(5)] == [1] * 5 or variant not in ("plain", "async")


def _ctrl_c(self: object, deadline: object, timeout: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("variant", VARIANTS)
def test_cancel_reaches_a_running_flow(bench: Bench, steps: Steps, variant: str) -> None:
    handle = bench.run(steps.flows[variant])
    assert steps.in_fifth.wait(60)
    bench.executions.cancel(handle.exec_id, by="ann")
    let_go(handle)
    assert handle.status == "cancelled"
    with pytest.raises(KitaruExecutionError, match="was cancelled"):
        handle.wait()
    last = bench.events(handle)[-1]
    assert (last.kind, last.body["by"]) == ("execution.cancelled", "ann")
    with pytest.raises(KitaruStateError, match="nothing to cancel"):
        bench.executions.cancel(handle.exec_id)
    with pytest.raises(KitaruStateError):
        bench.executions.resume(handle.exec_id)


def test_cancel_reaches_a_sync_loop_of_short_checkpoints(bench: Bench) -> None:
    ran: list[int] = []
    going = threading.Event()

    @checkpoint
    def step(n: int) -> int:
        ran.append(n)
        if n == 20:
            going.set()
        return n

    @flow
    def endless() -> None:
        n = 0
        while True:
            n = step(n) + 1

    handle = bench.run(endless)
    assert going.wait(60)
    bench.executions.cancel(handle.exec_id)
    let_go(handle)
    assert handle.status == "cancelled"
    assert bench.kinds(handle).count("checkpoint.completed") in (len(ran), len(ran) - 1)


@pytest.mark.parametrize("is_polling", [True, False])
def test_cancel_reaches_a_waiting_flow(bench: Bench, is_polling: bool) -> None:
    @flow
    def asking() -> bool:
        return wait("approve", timeout=60 if is_polling else 0)

    handle = bench.run(asking)
    bench.asked(handle)
    if not is_polling:
        let_go(handle)
    bench.executions.cancel(handle.exec_id)
    let_go(handle)
    assert handle.status == "cancelled"
    assert bench.executions.pending_waits(handle.exec_id) == []


def test_a_busy_loop_of_the_user_is_interrupted_at_its_next_bytecode(bench: Bench) -> None:
    began = threading.Event()
    tidied: list[str] = []

    @checkpoint
    def spin() -> None:
        try:
            began.set()
            while True:
                pass
        finally:
            tidied.append("finally")

    @flow
    def spinning() -> None:
        spin()

    handle = bench.run(spinning)
    assert began.wait(60)
    assert handle.local is not None
    handle.local.interrupt()
    let_go(handle)
    assert handle.status == "interrupted"
    assert tidied == ["finally"]


def test_a_checkpoint_with_a_timeout_is_interrupted_before_it_is_over(bench: Bench) -> None:
    began = threading.Event()

    @checkpoint(timeout=60)
    def slow() -> None:
        began.set()
        while True:
            FOREVER.wait(0.01)

    @flow
    def working() -> None:
        slow()

    handle = bench.run(working)
    assert began.wait(60)
    assert handle.local is not None
    handle.local.interrupt()
    let_go(handle)
    assert handle.status == "interrupted"
    assert "checkpoint.failed" not in bench.kinds(handle)


def test_a_retry_that_waits_for_its_delay_is_interrupted(bench: Bench) -> None:
    began = threading.Event()

    @checkpoint(retries=Retry(attempts=3, delay=60))
    def flaky() -> None:
        began.set()
        raise ValueError("again")

    @flow
    def working() -> None:
        flaky()

    handle = bench.run(working)
    until(lambda: "checkpoint.failed" in bench.kinds(handle))
    assert handle.local is not None
    handle.local.interrupt()
    let_go(handle)
    assert handle.status == "interrupted"


# One that arrives in the callback of a weak reference is lost there; the next step of the run pauses then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("journal", ["bench", "disk"])
def test_many_interrupts_at_random_moments_always_leave_a_resumable_execution(
    request: pytest.FixtureRequest, journal: str
) -> None:
    """Each time the flow gets a little further, whatever bytecode the interrupt arrived at."""
    bench: Bench = request.getfixturevalue(journal)
    ran: list[int] = []
    length = math.inf

    @checkpoint
    def step(n: int) -> int:
        ran.append(n)
        return n

    @flow
    def counting() -> int:
        return sum(step(n) for n in itertools.takewhile(lambda n: n < length, itertools.count()))

    handle = bench.run(counting)
    for interrupted in range(20):
        target = len(ran) + 1 + interrupted % 7
        until(lambda target=target, handle=handle: len(ran) >= target or handle.local.ended.is_set())
        handle.local.interrupt()
        let_go(handle)
        assert handle.status == "interrupted", bench.get(handle).failure
        if interrupted == 19:
            length = max(ran) + 2
        exec_id = handle.exec_id
        bench.executions.resume(exec_id)
        handle = bench.executions.handle(exec_id)
        handle.local = threads[exec_id]
    assert handle.wait() == sum(range(length))
    assert bench.kinds(handle).count("checkpoint.completed") == length


def test_sys_exit_in_a_flow_is_a_failure_and_not_a_pause(bench: Bench) -> None:
    @flow
    def leaving() -> None:
        sys.exit(3)

    handle = bench.run(leaving)
    let_go(handle)
    assert handle.status == "failed"


# leases


def test_a_second_worker_is_refused_and_writes_nothing(bench: Bench, steps: Steps) -> None:
    handle = bench.run(steps.flows["plain"])
    assert steps.in_fifth.wait(60)
    before = bench.events(handle)
    with pytest.raises(KitaruLeaseError, match="is held by process"):
        bench.advance(handle.exec_id, steps.flows["plain"])
    assert [e for e in bench.events(handle) if e.kind != "checkpoint.started"] == [
        e for e in before if e.kind != "checkpoint.started"
    ]
    steps.hold = False
    assert handle.wait() == 45


class Stolen(MemoryJournal):
    """Behaves as if the lease had been lost and claimed by another worker at a chosen completion of a checkpoint."""

    steal_at: int | None = None
    completions = 0

    def append(self, exec_id: str, events: Any, *, lease: Lease | None = None) -> int:
        """Append, after the theft if its moment has come."""
        completes = any(event.kind == "checkpoint.completed" for event in events)
        self.completions += completes
        if lease is not None and completes and self.completions == self.steal_at:
            self.release(lease)
            self.claim(exec_id, this_process())
        return super().append(exec_id, events, lease=lease)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_fenced_worker_stops_whatever_the_flow_handles(tmp_path: Path, is_async: bool) -> None:
    journal = Stolen(f"memory://stolen {is_async}")
    journal.steal_at = 3
    bench = Bench(tmp_path, journal=journal)
    ran: list[int] = []

    @checkpoint
    def step(n: int) -> int:
        ran.append(n)
        return n

    @checkpoint
    async def step_async(n: int) -> int:
        ran.append(n)
        return n

    @flow
    def plain() -> None:
        for n in range(10):
            try:
                step(n)
            except Exception:
                ran.append(-1)

    @flow
    async def asynchronous() -> None:
        for n in range(10):
            try:
                await step_async(n)
            except Exception:
                ran.append(-1)

    stubborn = asynchronous if is_async else plain
    exec_id = bench.create(stubborn)
    outcome = bench.advance(exec_id, stubborn)
    assert outcome.status == "interrupted"
    assert "another worker advances the execution now" in outcome.reason
    assert ran == [0, 1, 2]
    kinds = bench.kinds(exec_id)
    assert kinds.count("checkpoint.completed") == 2
    assert kinds[-1] == "execution.claimed"


def test_a_paused_lease_is_renewed_while_a_checkpoint_takes_long(tmp_path: Path) -> None:
    """The lease is shorter than the checkpoint; the keeper extends it."""
    bench = Bench(tmp_path, lease_seconds=1.0)
    went_on = threading.Event()

    @checkpoint
    def long() -> str:
        assert went_on.wait(60)
        return "done"

    @flow
    def working() -> str:
        return long()

    handle = bench.run(working)
    journal = bench.runtime.journal

    def expiry() -> float:
        lease = journal.execution(handle.exec_id).lease
        return lease.expires_at if lease is not None else 0.0

    first = until(expiry)
    until(lambda: expiry() > first + 1.0)
    assert handle.status == "running"
    went_on.set()
    assert handle.wait() == "done"


def test_who_asks_again_is_heard_again(bench: Bench) -> None:
    began, swallowed = threading.Event(), threading.Event()

    @checkpoint
    def stubborn() -> None:
        try:
            began.set()
            while True:
                FOREVER.wait(0.01)
        except Paused:
            swallowed.set()
        while True:
            FOREVER.wait(0.01)

    @flow
    def working() -> None:
        stubborn()

    handle = bench.run(working)
    assert began.wait(60)
    assert handle.local is not None
    handle.local.interrupt()
    assert swallowed.wait(60)
    assert not handle.local.ended.is_set()
    handle.local.interrupt()
    let_go(handle)
    assert handle.status == "interrupted"


# processes

TERMINATED = """
import sys, time
from kitaru_nb import checkpoint, flow

@checkpoint
def step(n):
    with open("ran.txt", "a") as file:
        file.write(f"{n}\\n")
    if n == 3 and not go_on():
        time.sleep(60)
    return n

def go_on():
    from pathlib import Path
    return Path("go_on").exists()

@flow(stack="process")
def working():
    return sum(step(n) for n in range(6))

if __name__ == "__main__":
    print(working.run().exec_id)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_gets_a_signal_pauses_and_its_execution_is_resumed(shop: Shop, number: signal.Signals) -> None:
    done = shop.run(shop.write("working.py", TERMINATED))
    exec_id = done.stdout.strip()
    assert exec_id.startswith("kr-"), done
    until(lambda: (shop.folder / "ran.txt").exists() and "3\n" in (shop.folder / "ran.txt").read_text(), 120)
    lease = shop.bench.get(exec_id).lease
    assert lease is not None
    os.kill(lease.owner.pid, number)
    shop.ended(exec_id, "interrupted")
    shop.prints(exec_id, f"{exec_id} interrupted: the worker got {number.name}")
    (paused,) = [event for event in shop.bench.events(exec_id) if event.kind == "execution.paused"]
    assert paused.body == {"reason": f"the worker got {number.name}", "signal": number.name}
    (shop.folder / "go_on").touch()
    shop.bench.executions.resume(exec_id)
    shop.ended(exec_id)
    assert (shop.folder / "ran.txt").read_text().split() == ["0", "1", "2", "3", "3", "4", "5"]
