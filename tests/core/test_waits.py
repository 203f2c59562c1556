"""Waits: asked, answered from wherever, and never lost."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from core.bench import SECONDS, Bench, let_go, until
from kitaru_nb import (
    KitaruConflictError,
    KitaruContextError,
    KitaruDivergenceError,
    KitaruNotFoundError,
    KitaruStateError,
    KitaruUsageError,
    KitaruUserCodeError,
    KitaruWaitingError,
    KitaruWaitValidationError,
    Paused,
    checkpoint,
    flow,
    wait,
    wait_async,
)
from kitaru_nb.core import control, parking
from kitaru_nb.core import handle as handles
from kitaru_nb.core.engine import WaitRequest
from kitaru_nb.core.parking import Parking
from kitaru_nb.model import Event


class Address(BaseModel):
    """A nested model."""

    city: str
    zip: int


class Order(BaseModel):
    """An answer of several fields."""

    item: str
    count: int = 1
    to: Address


@checkpoint
def research(topic: str) -> str:
    return f"notes on {topic}"


@flow
def brief(topic: str) -> str:
    notes = research(topic)
    if not wait("approve", question=f"Publish {notes}?"):
        return "rejected"
    return f"published {notes}"


@flow
def quick_brief(topic: str) -> str:
    return f"{topic}: {wait('approve', question='Publish?', timeout=0)}"


def test_a_polling_thread_is_told_of_an_answer_and_need_not_look(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "LOOK", 10 * SECONDS)
    handle = bench.run(brief, "agents")
    bench.asked(handle)
    bench.answer(handle, True)
    assert handle.wait(SECONDS) == "published notes on agents"


def test_an_answer_to_a_polling_thread_starts_no_other_worker(bench: Bench) -> None:
    handle = bench.run(brief, "agents")
    (asked,) = bench.asked(handle)
    assert asked.question == "Publish notes on agents?"
    assert asked.after == (bench.get(handle).checkpoints[0].call_id,)
    started = bench.answer(handle, True, by="ann")
    assert handle.wait() == "published notes on agents"
    assert started.worker is None
    (resolved,) = bench.get(handle).waits
    assert (resolved.status, resolved.value, resolved.resolved_by, resolved.via) == ("resolved", True, "ann", "client")
    assert bench.kinds(handle).count("execution.claimed") == 1


def test_waiting_for_a_handle_says_once_what_is_asked_and_how_to_answer(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    handle = bench.run(brief, "agents")
    answerer = threading.Thread(target=lambda: bench.asked(handle) and bench.answer(handle, False))
    until(lambda: (run := handle.local and handle.local.run) and run.parking.parked)
    with pytest.raises(TimeoutError):
        handle.wait(0.2)
    answerer.start()
    assert handle.wait() == "rejected"
    answerer.join()
    said = capsys.readouterr().err
    assert said.count("waits for 'approve': Publish notes on agents?") == 1
    assert f"kitaru executions input {handle.exec_id} --wait approve --value true" in said


def test_a_question_that_was_just_answered_is_not_asked_again(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its worker looks twice, and then no more by itself, and nobody tells it.
    monkeypatch.setattr(parking, "LOOK", 10 * SECONDS)
    monkeypatch.setattr(type(bench.runtime.journal), "watch", lambda *_, **__: int)
    look, looked = Parking._look_for_answer, []

    def looks(self: Parking, wait: WaitRequest) -> Any:
        found = look(self, wait)
        looked.append(found)
        return found

    monkeypatch.setattr(Parking, "_look_for_answer", looks)
    handle = bench.run(brief, "agents")
    until(lambda: len(looked) == 2)
    run = handle.local and handle.local.run
    assert run is not None
    bench.answer(handle, False)
    with pytest.raises(TimeoutError):
        handle.wait(0.3)
    monkeypatch.undo()
    run.parking.stir()
    assert handle.wait() == "rejected"
    assert capsys.readouterr().err == ""


def test_answering_what_was_let_go_needs_no_resume(bench: Bench) -> None:
    handle = bench.run(quick_brief, "agents")
    with pytest.raises(KitaruWaitingError, match="'approve': Publish") as caught:
        handle.wait()
    assert caught.value.fix == f"kitaru executions input {handle.exec_id} --wait approve --value true"
    assert handle.status == "waiting"
    bench.answer(handle, True)
    assert handle.wait() == "agents: True"
    assert bench.kinds(handle) == [
        "execution.created",
        "execution.claimed",
        "wait.created",
        "execution.waiting",
        "wait.resolved",
        "execution.claimed",
        "execution.completed",
    ]


def test_no_lease_is_held_while_an_execution_waits(bench: Bench) -> None:
    exec_id = bench.create(quick_brief, topic="x")
    assert bench.advance(exec_id, quick_brief).status == "waiting"
    assert bench.runtime.journal.execution(exec_id).lease is None


def test_a_wrong_answer_is_refused_and_the_wait_stays(bench: Bench) -> None:
    handle = bench.run(quick_brief, "agents")
    let_go(handle)
    for wrong in ("yes", 1, None, object()):
        with pytest.raises(KitaruWaitValidationError, match=r"Expected true or false. The wait stays open"):
            bench.answer(handle, wrong)
    assert [w.name for w in bench.executions.pending_waits(handle.exec_id)] == ["approve"]
    bench.answer(handle, False)
    assert handle.wait() == "agents: False"


def test_the_second_answer_is_told_who_was_first_and_what(bench: Bench) -> None:
    exec_id = bench.create(quick_brief, topic="x")
    bench.advance(exec_id, quick_brief)
    pending = bench.executions.pending_waits(exec_id)
    bench.runtime.journal.append(
        exec_id, [Event(exec_id, "wait.resolved", pending[0].wait_id, 1.0, {"value": True, "by": "ann", "via": "cli"})]
    )
    with pytest.raises(KitaruConflictError, match=r"ann answered true \(through cli\)"):
        bench.answer(exec_id, False)
    with pytest.raises(KitaruConflictError, match="ann answered true"):
        bench.executions.abort_wait(exec_id, wait="approve")


def test_many_answers_at_once_leave_one(disk: Bench) -> None:
    exec_id = disk.create(quick_brief, topic="x")
    disk.advance(exec_id, quick_brief)
    everybody = threading.Barrier(6)
    outcomes: list[str] = []

    def answer(n: int) -> None:
        everybody.wait()
        try:
            disk.runtime.journal.execution(exec_id)
            pending = control.find_wait(disk.runtime, exec_id, None)
            control._resolve(disk.runtime, pending, {"value": n % 2 == 0, "by": f"p{n}", "via": "client"})
            outcomes.append(f"p{n}")
        except KitaruConflictError as error:
            outcomes.append(str(error.existing["by"]))

    threads = [threading.Thread(target=answer, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 6
    assert len(set(outcomes)) == 1


def test_an_aborted_wait_raises_in_the_flow(bench: Bench) -> None:
    @flow
    def careful() -> str:
        try:
            return str(wait("approve", timeout=0))
        except KitaruStateError as error:
            return error.message

    handle = bench.run(careful)
    let_go(handle)
    bench.executions.abort_wait(handle.exec_id, by="bob")
    assert handle.wait() == f"Wait 'approve' of {handle.exec_id} was aborted by bob."


def test_a_wait_inside_a_checkpoint_is_refused(bench: Bench) -> None:
    @checkpoint
    def asking() -> bool:
        return wait("approve")

    @flow
    def wrong() -> bool:
        return asking()

    with pytest.raises(
        KitaruUserCodeError, match=r"move wait\('approve', \.\.\.\) out of asking\(\)|inside checkpoint"
    ):
        bench.run(wrong).wait()
    with pytest.raises(KitaruContextError, match="outside a flow"):
        wait("approve")


@pytest.mark.parametrize(
    ("schema", "answer", "expected", "wrong"),
    [
        (bool, True, True, 1),
        (int, 3, 3, True),
        (int, 3.0, 3, 3.5),
        (float, 3, 3.0, "3"),
        (str, "text", "text", 1),
        (Literal["ship", "hold"], "hold", "hold", "drop"),
        (
            Order,
            {"item": "tea", "to": {"city": "Rome", "zip": 1}},
            Order(item="tea", to=Address(city="Rome", zip=1)),
            {},
        ),
        (list[Address], [{"city": "Rome", "zip": 1}], [Address(city="Rome", zip=1)], [{"city": "Rome"}]),
        (int | None, None, None, "x"),
        (datetime, "2024-05-01T12:00:00Z", datetime(2024, 5, 1, 12, tzinfo=timezone.utc), 5),
        (dict[str, int], {"a": 1}, {"a": 1}, {"a": "b"}),
        (tuple[int, str], [1, "a"], (1, "a"), [1]),
    ],
    ids=str,
)
def test_an_answer_has_the_type_of_its_schema(
    bench: Bench, schema: Any, answer: Any, expected: Any, wrong: Any
) -> None:
    @flow
    def asking() -> list[Any]:
        value = wait("ask", schema=schema, timeout=0)
        return [type(value).__name__, value == expected]

    handle = bench.run(asking)
    let_go(handle)
    with pytest.raises(KitaruWaitValidationError) as caught:
        bench.answer(handle, wrong)
    assert caught.value.fix is not None
    bench.answer(handle, answer)
    assert handle.wait() == [type(expected).__name__, True]


def test_a_schema_that_is_no_type_of_an_answer_is_refused(bench: Bench) -> None:
    @flow
    def asking() -> Any:
        return wait("ask", schema=threading.Lock)

    with pytest.raises(KitaruUserCodeError, match="can't be the type of an answer"):
        bench.run(asking).wait()


def test_a_changed_question_on_an_answered_wait_is_a_divergence(bench: Bench) -> None:
    price = [10]

    @flow
    def buying() -> bool:
        ok = wait("approve", question=f"Pay {price[0]}?", timeout=0)
        if price[0] == 10:
            raise Paused("cut off")
        return ok

    exec_id = bench.create(buying)
    bench.advance(exec_id, buying)
    bench.runtime.journal.append(
        exec_id,
        [
            Event(exec_id, "wait.resolved", w.wait_id, 1.0, {"value": True, "by": "ann", "via": "cli"})
            for w in bench.executions.pending_waits(exec_id)
        ],
    )
    price[0] = 1000
    with pytest.raises(KitaruDivergenceError, match=r"'Pay 10\?' was asked, now it is 'Pay 1000\?'"):
        bench.finish(exec_id, buying)


def test_several_waits_of_gathered_tasks_are_asked_at_once_and_answered_in_any_order(bench: Bench) -> None:
    @flow
    async def board(names: list[str]) -> dict[str, bool]:
        async def ask(name: str) -> bool:
            return bool(await wait_async("vote", question=f"{name}, do you agree?", timeout=0))

        votes = await asyncio.gather(*(ask(n) for n in names))
        return dict(zip(names, votes, strict=True))

    handle = bench.run(board, ["ann", "bob", "cy"])
    with pytest.raises(KitaruWaitingError):
        handle.wait()
    pending = bench.executions.pending_waits(handle.exec_id)
    assert [w.question for w in pending] == [f"{n}, do you agree?" for n in ("ann", "bob", "cy")]
    with pytest.raises(KitaruUsageError, match="3 pending waits"):
        bench.answer(handle, True)
    with pytest.raises(KitaruUsageError, match="3 pending waits"):
        bench.answer(handle, True, wait="vote")
    for wait_id, value in ((pending[2].wait_id, True), (pending[0].wait_id, False), (pending[1].wait_id, True)):
        bench.answer(handle, value, wait=wait_id)
        until(lambda: handle.status in ("waiting", "completed"))
    assert handle.wait() == {"ann": False, "bob": True, "cy": True}


def test_gathered_waits_that_come_in_another_order_keep_their_answers(bench: Bench) -> None:
    @flow
    async def board() -> list[bool]:
        names = ["ann", "bob"] if not answered else ["bob", "ann"]

        async def ask(name: str) -> bool:
            return bool(await wait_async("vote", question=name, timeout=0))

        votes = dict(zip(names, await asyncio.gather(*(ask(n) for n in names)), strict=True))
        return [votes["ann"], votes["bob"]]

    answered: list[str] = []
    exec_id = bench.create(board)
    bench.advance(exec_id, board)
    for pending in bench.executions.pending_waits(exec_id):
        body = {"value": pending.question == "ann", "by": "me", "via": "cli"}
        bench.runtime.journal.append(exec_id, [Event(exec_id, "wait.resolved", pending.wait_id, 1.0, body)])
        answered.append(str(pending.question))
    assert bench.finish(exec_id, board) == [True, False]


def test_a_wait_in_a_task_group_lets_go_too(bench: Bench) -> None:
    @flow
    async def grouped() -> bool:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(wait_async("approve", timeout=0))
        return bool(task.result())

    handle = bench.run(grouped)
    let_go(handle)
    assert handle.status == "waiting"
    bench.answer(handle, True)
    assert handle.wait() is True


def test_a_wait_does_not_let_go_while_calls_are_in_progress(bench: Bench) -> None:
    go_on = threading.Event()

    @checkpoint
    def slow() -> str:
        assert go_on.wait(60)
        return "finished"

    @flow
    def busy() -> list[Any]:
        running = slow.submit()
        return [wait("approve", timeout=0), running.result()]

    handle = bench.run(busy)
    bench.asked(handle)
    assert handle.status == "running"
    go_on.set()
    let_go(handle)
    assert bench.kinds(handle).index("checkpoint.completed") < bench.kinds(handle).index("execution.waiting")
    bench.answer(handle, True)
    assert handle.wait() == [True, "finished"]


def test_a_wait_does_not_let_go_while_tasks_of_the_flow_are_in_progress(bench: Bench) -> None:
    ran: list[str] = []

    @checkpoint
    async def slow() -> str:
        ran.append("slow")
        for _ in range(50):
            await asyncio.sleep(0.002)
        return "finished"

    @flow
    async def busy() -> list[Any]:
        return list(await asyncio.gather(wait_async("approve", timeout=0), slow()))

    handle = bench.run(busy)
    assert bench.complete(handle, approve=True) == [True, "finished"]
    assert ran == ["slow"]


def test_a_flow_that_swallows_everything_can_not_run_past_a_wait(bench: Bench) -> None:
    ran: list[str] = []

    @checkpoint
    def publish() -> str:
        ran.append("published")
        return "published"

    @flow
    def stubborn() -> str:
        try:
            wait("approve", timeout=0)
        except BaseException:
            ran.append("swallowed")
        return publish()

    exec_id = bench.create(stubborn)
    assert bench.advance(exec_id, stubborn).status == "waiting"
    assert ran == ["swallowed"]


def test_the_clock_resolves_a_wait_under_a_live_worker(bench: Bench) -> None:
    @flow
    def sleeping() -> str:
        return f"woke up: {wait('nap', until=timedelta(seconds=0.05))}"

    handle = bench.run(sleeping)
    assert handle.wait() == "woke up: None"
    (nap,) = bench.get(handle).waits
    assert (nap.resolved_by, nap.via) == ("clock", "clock")


def test_the_clock_resolves_what_was_let_go_when_somebody_looks(bench: Bench) -> None:
    instant = datetime.now(timezone.utc) + timedelta(hours=1)

    @flow
    def sleeping() -> str:
        return f"woke up: {wait('nap', until=instant, timeout=0)}"

    handle = bench.run(sleeping)
    let_go(handle)
    assert bench.executions.resume_due() == []
    control.resume_due(bench.runtime, at=instant.timestamp() + 1)
    assert handle.wait() == "woke up: None"


def test_an_instant_without_a_zone_is_refused(bench: Bench) -> None:
    @flow
    def sleeping() -> Any:
        return wait("nap", until=datetime(2030, 1, 1))

    with pytest.raises(KitaruUserCodeError, match="time zone"):
        bench.run(sleeping).wait()


def test_answering_names_what_is_there(bench: Bench) -> None:
    handle = bench.run(quick_brief, "x")
    let_go(handle)
    with pytest.raises(KitaruNotFoundError, match=r"no pending wait 'aprove'. Pending: approve"):
        bench.answer(handle, True, wait="aprove")
    with pytest.raises(KitaruNotFoundError, match="no execution"):
        bench.answer("kr-000000000000", True)


def test_resuming_what_still_waits_says_how_to_answer(bench: Bench) -> None:
    handle = bench.run(quick_brief, "x")
    let_go(handle)
    with pytest.raises(KitaruStateError, match="still waits for 'approve'") as caught:
        bench.executions.resume(handle.exec_id)
    assert caught.value.fix == f"kitaru executions input {handle.exec_id} --wait approve --value true"


def test_an_answered_execution_is_waited_for_while_a_worker_is_on_its_way_and_no_longer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process answered, and its worker never came."""
    monkeypatch.setattr(handles, "TAKEN_UP_WITHIN", 0.3)
    exec_id = bench.create(quick_brief, topic="x")
    bench.advance(exec_id, quick_brief)
    (pending,) = bench.executions.pending_waits(exec_id)
    answered = time.time()
    body = {"value": True, "by": "ann", "via": "cli"}
    bench.runtime.journal.append(exec_id, [Event(exec_id, "wait.resolved", pending.wait_id, answered, body)])
    with pytest.raises(KitaruStateError, match="no worker has taken it up yet") as caught:
        bench.executions.handle(exec_id).wait(60)
    assert time.time() - answered > 0.3
    assert caught.value.fix == f"kitaru executions resume {exec_id}"
