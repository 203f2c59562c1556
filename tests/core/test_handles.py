"""Handles and the client: what they say in every state, and what to type next."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from core.bench import Bench, forget, let_go
from kitaru_nb import (
    ExecutionStatus,
    KitaruExecutionError,
    KitaruNotFoundError,
    KitaruStateError,
    KitaruTimeoutError,
    KitaruUsageError,
    KitaruUserCodeError,
    KitaruWaitingError,
    Paused,
    checkpoint,
    flow,
    wait,
)
from kitaru_nb.errors import KitaruBackendError, KitaruFeatureNotAvailableError
from kitaru_nb.journal.memory import MemoryJournal
from kitaru_nb.model import Lease


@checkpoint
def step(n: int) -> int:
    return n


@flow
def asking() -> bool:
    return wait("approve", question="Go on?", timeout=0)


@flow
def failing() -> None:
    raise ValueError("no luck")


@flow
def pausing() -> None:
    raise Paused("cut off")


@pytest.mark.parametrize("is_here", [True, False])
@pytest.mark.parametrize(
    ("program", "status", "error", "fix"),
    [
        (asking, "waiting", KitaruWaitingError, "kitaru executions input {} --wait approve --value true"),
        (failing, "failed", KitaruUserCodeError, "kitaru executions retry {}"),
        (pausing, "interrupted", KitaruExecutionError, "kitaru executions resume {}"),
    ],
)
def test_waiting_for_what_goes_no_further_does_not_hang_and_says_the_next_line(
    bench: Bench, program: Any, status: str, error: type[Exception], fix: str, is_here: bool
) -> None:
    handle = bench.run(program)
    let_go(handle)
    if not is_here:
        forget(handle)
        handle = bench.executions.handle(handle.exec_id)
    assert handle.status == status
    for call in (handle.wait, handle.get):
        with pytest.raises(error) as caught:
            call()
        assert getattr(caught.value, "fix", None) == fix.format(handle.exec_id)
    assert repr(handle) == f"<execution {handle.exec_id} {status}>"


def test_waiting_for_a_cancelled_execution_does_not_hang(bench: Bench) -> None:
    handle = bench.run(asking)
    let_go(handle)
    bench.executions.cancel(handle.exec_id)
    with pytest.raises(KitaruExecutionError, match="was cancelled"):
        handle.wait()


def test_the_exception_of_a_failed_flow_is_the_cause(bench: Bench) -> None:
    handle = bench.run(failing)
    with pytest.raises(KitaruUserCodeError, match="ValueError: no luck") as caught:
        handle.wait()
    assert isinstance(caught.value.__cause__, ValueError)
    failure = bench.get(handle).failure
    assert failure is not None
    assert "raise ValueError" in (failure.traceback or "")
    assert bench.get(handle).status_reason == "no luck"


def test_a_running_flow_has_no_result_yet_and_waiting_for_it_can_be_bounded(bench: Bench) -> None:
    go_on = threading.Event()

    @flow
    def working() -> str:
        assert go_on.wait(60)
        return "done"

    handle = bench.run(working)
    with pytest.raises(KitaruStateError, match="no result yet"):
        handle.get()
    with pytest.raises(KitaruTimeoutError, match=r"has not ended after 0.05 s; it goes on"):
        handle.wait(timeout=0.05)
    go_on.set()
    assert handle.wait() == "done"
    assert handle.status is ExecutionStatus.COMPLETED


def test_inputs_that_do_not_fit_start_nothing(bench: Bench) -> None:
    @flow
    def brief(topic: str, words: int = 3) -> str:
        return topic * words

    for args, kwargs in (((), {}), ((1, 2, 3), {}), (("a",), {"topics": 1})):
        with pytest.raises(KitaruUsageError, match=r"It takes brief\(topic: .*words: .*= 3\)"):
            bench.run(brief, *args, **kwargs)
    with pytest.raises(TypeError, match="lock"):
        bench.run(brief, threading.Lock())
    assert bench.executions.list() == []
    assert bench.run(brief, "ab").wait() == "ababab"


def test_options_that_are_none_are_refused_with_those_that_are() -> None:
    for call in (
        lambda: flow(retires=1),  # type: ignore[call-overload]
        lambda: checkpoint(retires=1),  # type: ignore[call-overload]
        lambda: failing.with_options(retires=1),
        lambda: step.with_options(retires=1),
    ):
        with pytest.raises(KitaruUsageError, match=r"'retires' is no option .* retries"):
            call()
    with pytest.raises(KitaruUsageError, match="seconds > 0"):
        checkpoint(timeout=0)(lambda: None)
    with pytest.raises(KitaruUsageError, match="expected a function"):
        flow(3)  # type: ignore[call-overload]


def test_an_unknown_stack_is_refused(bench: Bench) -> None:
    with pytest.raises(KitaruFeatureNotAvailableError, match="Stacks are: local, process"):
        bench.bind(failing, stack="moon").run()


def test_options_of_the_call_are_left_to_a_flow_that_has_such_parameters(bench: Bench) -> None:
    @flow
    def deploying(stack: str, id: int) -> list[Any]:
        return [stack, id]

    assert bench.run(deploying, stack="moon", id=3).wait() == ["moon", 3]


def test_actions_that_do_not_fit_the_state_say_which_does(bench: Bench) -> None:
    handle = bench.run(failing)
    let_go(handle)
    with pytest.raises(KitaruStateError) as resumed:
        bench.executions.resume(handle.exec_id)
    assert resumed.value.fix == f"kitaru executions retry {handle.exec_id}"
    other = bench.run(pausing)
    let_go(other)
    with pytest.raises(KitaruStateError) as retried:
        bench.executions.retry(other.exec_id)
    assert retried.value.fix == f"kitaru executions resume {other.exec_id}"
    for action in (bench.executions.get, bench.executions.cancel, bench.executions.resume, bench.executions.logs):
        with pytest.raises(KitaruNotFoundError):
            action("kr-000000000000")


def test_lists_are_newest_first_filtered_and_paged(bench: Bench) -> None:
    handles = []
    for program in (failing, pausing, failing, asking):
        handles.append(bench.run(program))
        let_go(handles[-1])
    ids = [h.exec_id for h in handles]
    listing = bench.executions.list
    assert [e.exec_id for e in listing()] == ids[::-1]
    assert [e.exec_id for e in listing(flow="failing")] == [ids[2], ids[0]]
    assert [e.exec_id for e in listing(status="interrupted")] == [ids[1]]
    assert [e.exec_id for e in listing(limit=2, before=ids[2])] == [ids[1], ids[0]]
    assert [e.exec_id for e in listing(page=2, size=3)] == [ids[0]]
    with pytest.raises(KitaruUsageError, match="Statuses are: pending, running, waiting"):
        listing(status="done")
    with pytest.raises(KitaruUsageError, match="the first is 1"):
        listing(page=0)


def test_a_selector_is_an_id_the_end_of_one_or_latest(bench: Bench) -> None:
    handle = bench.run(pausing)
    let_go(handle)
    resolve = bench.executions.resolve
    assert resolve(handle.exec_id) == resolve("latest") == resolve(handle.exec_id[-5:]) == handle.exec_id
    with pytest.raises(KitaruNotFoundError, match="no execution 'zzzz'"):
        resolve("zzzz")


def test_following_gives_events_until_the_execution_lets_go(bench: Bench) -> None:
    @flow
    def working() -> None:
        for n in range(3):
            step(n)

    handle = bench.run(working)
    kinds = [event.kind for event in bench.executions.follow(handle.exec_id, poll=0.01)]
    assert kinds.count("checkpoint.completed") == 3
    assert kinds[-1] == "execution.completed"


def test_lineage_has_data_edges_order_edges_and_nesting(bench: Bench) -> None:
    @checkpoint
    def source(topic: str) -> str:
        return f"a text about {topic}"

    @checkpoint
    def inner(text: str) -> str:
        return f"{text}, read"

    @checkpoint
    def reader(texts: list[str]) -> str:
        return inner(texts[0])

    @checkpoint
    def formatted(prompt: str) -> str:
        return prompt

    @flow
    def working(topic: str) -> str:
        text = source(topic)
        read = reader([text])
        return formatted(f"<{read}>")

    handle = bench.run(working, "lineage")
    handle.wait()
    ids = {c.name: c.call_id for c in bench.get(handle).checkpoints}
    found = {(e.source, e.target, e.kind) for e in bench.executions.lineage(handle.exec_id)}
    assert (("input:topic"), ids["source"], "data") in found
    assert (ids["source"], ids["reader"], "data") in found
    assert (ids["source"], ids["inner"], "data") in found
    assert (ids["reader"], ids["inner"], "nested") in found
    assert (ids["reader"], ids["formatted"], "order") in found


def test_a_process_does_not_keep_the_results_of_finished_flows(bench: Bench) -> None:
    from kitaru_nb.core.local import threads

    @flow
    def large() -> bytes:
        return b"x" * 1000

    handle = bench.run(large)
    assert len(handle.wait()) == 1000
    let_go(handle)
    assert threads[handle.exec_id].outcome is None


class Full(MemoryJournal):
    """A journal whose disk is full from the first append under a lease on."""

    def append(self, exec_id: str, events: Any, *, lease: Lease | None = None) -> int:
        """Refused, as SQLite refuses it."""
        raise KitaruBackendError("the disk is full", fix="make room")

    def release(self, lease: Lease, events: Any = ()) -> None:
        """Refused too: not even the end can be recorded."""
        raise KitaruBackendError("the disk is full", fix="make room")


@flow
def one_step() -> int:
    return step(1)


def test_a_full_disk_is_told_by_the_handle_at_once(tmp_path: Any) -> None:
    bench = Bench(tmp_path, journal=Full(f"memory://{tmp_path.name}"))
    handle = bench.bind(one_step).run()
    with pytest.raises(KitaruBackendError, match="the disk is full") as caught:
        handle.wait(timeout=60)
    assert caught.value.fix == "make room"
