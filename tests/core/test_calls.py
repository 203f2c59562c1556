"""Checkpoints called from flows: plain values, sync and async, side by side."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from core.bench import Bench
from kitaru_nb import KitaruUsageError, KitaruUserCodeError, checkpoint, flow
from kitaru_nb.core.submitted import MAX_THREADS


@dataclass
class Point:
    """A value of a type of the user's."""

    x: int
    y: int


@checkpoint
def double(x: int) -> int:
    return 2 * x


@checkpoint
async def double_async(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


@checkpoint
def add(*numbers: int, **more: int) -> int:
    return sum(numbers) + sum(more.values())


def test_a_checkpoint_returns_a_plain_value_on_which_the_flow_branches(bench: Bench) -> None:
    @checkpoint
    def decide(topic: str) -> str:
        return "go" if topic == "good" else "stop"

    @flow
    def brief(topic: str) -> str:
        if decide(topic) == "go":
            return f"went: {decide(topic).upper()}"
        return "stopped"

    assert bench.run(brief, "good").wait() == "went: GO"
    assert bench.run(brief, "bad").wait() == "stopped"


@pytest.mark.parametrize(
    "value",
    [None, True, 1, 1.5, "text", b"bytes", [1, 2], (1, 2), {1, 2}, {"a": [1]}, Point(1, 2), 10**40],
    ids=repr,
)
def test_a_flow_returns_any_value_and_a_fresh_reader_gets_the_same(bench: Bench, value: Any) -> None:
    @checkpoint
    def make() -> Any:
        return value

    @flow
    def returning() -> Any:
        return make()

    handle = bench.run(returning)
    live = handle.wait()
    again = bench.executions.handle(handle.exec_id).wait()
    assert live == again == value
    assert type(again) is type(value)


def test_arguments_are_bound_as_in_a_plain_call(bench: Bench) -> None:
    @checkpoint
    def show(a: int, /, b: int, *rest: int, key: str = "k", **more: int) -> list[Any]:
        return [a, b, rest, key, more]

    @flow
    def calling() -> list[Any]:
        return [show(1, 2), show(1, b=3, key="x"), show(1, 2, 3, 4, z=9), add(1, 2, c=3)]

    assert bench.run(calling).wait() == [
        [1, 2, (), "k", {}],
        [1, 3, (), "x", {}],
        [1, 2, (3, 4), "k", {"z": 9}],
        6,
    ]


def test_outside_a_flow_a_checkpoint_is_the_plain_function() -> None:
    assert double(2) == 4
    assert asyncio.run(double_async(2)) == 4
    assert double.submit(2).result() == 4
    assert double.map([1, 2]).results() == [2, 4]
    assert double_async.submit(3).result() == 6


def test_calling_a_flow_like_a_function_says_how_it_is_started() -> None:
    @flow
    def brief(topic: str) -> str:
        return topic

    with pytest.raises(KitaruUsageError, match=r"brief\.run\('agents'\)\.wait\(\)"):
        brief("agents")


def test_submit_map_and_product_give_results_in_the_order_of_their_calls(bench: Bench) -> None:
    @flow
    def fan(n: int) -> list[Any]:
        first = double.submit(n)
        assert first.result() == 2 * n
        return [
            double.map(range(4)).results(),
            add.map([1, 2], [10, 20]).results(),
            add.product([1, 2], [10, 20]).results(),
            double.map([5, 6]).results(),
        ]

    assert bench.run(fan, 7).wait() == [[0, 2, 4, 6], [11, 22], [11, 21, 12, 22], [10, 12]]


def test_map_refuses_iterables_of_different_lengths(bench: Bench) -> None:
    @flow
    def fan() -> None:
        add.map([1, 2], [1])

    with pytest.raises(KitaruUserCodeError, match="2, 1 items"):
        bench.run(fan).wait()


def test_futures_are_resolved_as_inputs_alone_and_in_containers(bench: Bench) -> None:
    @checkpoint
    def total(numbers: list[int], extra: dict[str, int]) -> int:
        return sum(numbers) + sum(extra.values())

    @flow
    def chain() -> list[int]:
        a, b = double.submit(1), double_async.submit(2)
        later = total.submit([a, b, 1], {"c": a})
        return [double(a), later.result(), total(double.map([1, 2]), {}), double.submit(double.submit(later)).result()]

    handle = bench.run(chain)
    assert handle.wait() == [4, 9, 6, 36]
    calls = {c.call_id: c for c in bench.get(handle).checkpoints}
    assert len(calls) == 9


def test_after_waits_for_the_futures_and_records_the_order(bench: Bench) -> None:
    order: list[str] = []
    began = threading.Event()

    @checkpoint
    def slow() -> str:
        began.wait(60)
        order.append("slow")
        return "slow"

    @checkpoint
    def then() -> str:
        order.append("then")
        return "then"

    @flow
    def ordered() -> None:
        first = slow.submit()
        second = then.submit(after=[first])
        began.set()
        second.result()

    handle = bench.run(ordered)
    handle.wait()
    assert order == ["slow", "then"]
    calls = {c.name: c for c in bench.get(handle).checkpoints}
    assert calls["then"].after == (calls["slow"].call_id,)


def test_calls_that_submit_calls_do_not_lock_up_the_pool(bench: Bench) -> None:
    full = threading.Barrier(MAX_THREADS)

    @checkpoint
    def outer(n: int) -> int:
        full.wait(60)  # every thread of the pool is taken, before the first of them submits what it waits for
        return sum(double.map([n, n + 1]).results())

    @flow
    def nested() -> int:
        return sum(outer.map(range(MAX_THREADS)).results())

    assert bench.run(nested).wait(60) == sum(2 * n + 2 * (n + 1) for n in range(MAX_THREADS))


def test_submitted_calls_run_side_by_side(bench: Bench) -> None:
    barrier = threading.Barrier(8)

    @checkpoint
    def meet(me: int) -> int:
        barrier.wait(60)
        return me

    @flow
    def together() -> list[int]:
        return meet.map(range(8)).results()

    assert bench.run(together).wait() == list(range(8))


def test_calls_that_nobody_waited_for_are_finished_before_the_flow_is(bench: Bench) -> None:
    ran: list[int] = []

    @checkpoint
    def work(n: int) -> int:
        ran.append(n)
        return n

    @checkpoint
    async def work_async(n: int) -> int:
        await asyncio.sleep(0.01)
        ran.append(n)
        return n

    @flow
    def forgetful() -> str:
        work.map(range(50))
        work_async.map(range(50, 60))
        return "done"

    @flow
    async def forgetful_async() -> str:
        work.map(range(50))
        work_async.map(range(50, 60))
        return "done"

    for forgets in (forgetful, forgetful_async):
        ran.clear()
        handle = bench.run(forgets)
        assert handle.wait() == "done"
        assert sorted(ran) == list(range(60))
        assert bench.kinds(handle).count("checkpoint.completed") == 60
        assert bench.kinds(handle)[-1] == "execution.completed"


def test_async_checkpoints_gather_and_submit_in_an_async_flow(bench: Bench) -> None:
    @flow
    async def gathering() -> list[Any]:
        gathered = await asyncio.gather(*(double_async(n) for n in range(4)))
        tasks = double_async.map([7, 8])
        chained = await double_async(double_async.submit(1))
        threads = await double.map([1, 2])
        return [gathered, await tasks, chained, threads, double(5), await double.submit(6)]

    assert bench.run(gathering).wait() == [[0, 2, 4, 6], [14, 16], 4, [2, 4], 10, 12]


def test_gathered_async_checkpoints_really_run_side_by_side(bench: Bench) -> None:
    barrier: list[asyncio.Event] = []

    @checkpoint
    async def meet(me: int) -> int:
        barrier[me].set()
        await asyncio.gather(*(event.wait() for event in barrier))
        return me

    @flow
    async def together() -> list[int]:
        barrier[:] = [asyncio.Event() for _ in range(3)]
        return list(await asyncio.gather(*(meet(n) for n in range(3))))

    assert bench.run(together).wait(60) == [0, 1, 2]


def test_async_checkpoints_submitted_from_a_sync_flow_share_one_loop(bench: Bench) -> None:
    loops: set[int] = set()

    @checkpoint
    async def where(n: int) -> int:
        loops.add(id(asyncio.get_running_loop()))
        return n

    @flow
    def submitting() -> list[int]:
        return where.map(range(3)).results()

    assert bench.run(submitting).wait() == [0, 1, 2]
    assert bench.run(submitting).wait() == [0, 1, 2]
    assert len(loops) == 1


def test_asyncio_run_of_a_checkpoint_works_in_a_sync_flow(bench: Bench) -> None:
    @flow
    def mixed() -> list[int]:
        async def both() -> list[int]:
            return list(await asyncio.gather(double_async(1), double_async(2)))

        return [asyncio.run(double_async(3)), *asyncio.run(both())]

    handle = bench.run(mixed)
    assert handle.wait() == [6, 2, 4]
    assert len(bench.get(handle).checkpoints) == 3


def test_run_until_complete_works_on_the_thread_of_a_sync_flow(bench: Bench) -> None:
    @flow
    def like_an_sdk() -> int:
        return asyncio.get_event_loop().run_until_complete(double_async(4))

    assert bench.run(like_an_sdk).wait() == 8


async def test_run_returns_at_once_in_a_running_loop_and_the_handle_is_awaited(bench: Bench) -> None:
    went_on = threading.Event()

    @checkpoint
    def hold() -> str:
        assert went_on.wait(60)
        return "held"

    @flow
    def holding() -> str:
        return hold()

    handle = bench.run(holding)
    assert handle.status in ("pending", "running")
    went_on.set()
    assert await handle == "held"
    assert await handle == "held"


async def test_waiting_for_a_handle_in_a_task_can_be_given_up(bench: Bench) -> None:
    went_on = threading.Event()

    @flow
    def holding() -> str:
        assert went_on.wait(60)
        return "held"

    handle = bench.run(holding)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_result(handle), 0.05)
    went_on.set()
    assert await handle == "held"


async def _result(handle: Any) -> Any:
    return await handle


def test_the_result_of_a_task_is_not_waited_for_on_its_own_loop(bench: Bench) -> None:
    @flow
    async def blocking() -> int:
        return double_async.submit(1).result()

    with pytest.raises(KitaruUserCodeError, match="await future"):
        bench.run(blocking).wait()


def test_a_checkpoint_on_a_method_gets_its_instance(bench: Bench) -> None:
    class Agent:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        @checkpoint
        def scale(self, x: int) -> int:
            return self.factor * x

    @flow
    def methods() -> int:
        return Agent(3).scale(4)  # type: ignore[no-any-return]

    assert bench.run(methods).wait() == 12


def test_sync_and_async_drivers_write_the_same_history(bench: Bench) -> None:
    """The same flow, once with plain and once with async functions: retries, nesting, failures, waits and all."""
    failing: list[int] = []

    def fail_once() -> None:
        if not failing:
            failing.append(1)
            raise ValueError("once")

    @checkpoint(name="leaf")
    def leaf(n: int) -> int:
        return n

    @checkpoint(name="leaf")
    async def leaf_async(n: int) -> int:
        return n

    @checkpoint(name="tree", retries=1)
    def tree(n: int) -> list[int]:
        values = [leaf(n), leaf(n + 1)]
        fail_once()
        return values

    @checkpoint(name="tree", retries=1)
    async def tree_async(n: int) -> list[int]:
        values = [await leaf_async(n), await leaf_async(n + 1)]
        fail_once()
        return values

    @flow(name="parity")
    def plain(n: int) -> list[int]:
        return [*tree(n), leaf(n), leaf(n)]

    @flow(name="parity")
    async def asynchronous(n: int) -> list[int]:
        return [*await tree_async(n), await leaf_async(n), await leaf_async(n)]

    histories = []
    for variant in (plain, asynchronous):
        failing.clear()
        handle = bench.run(variant, 1)
        assert handle.wait() == [1, 2, 1, 1]
        # ``checkpoint.started`` is there when the machine takes longer than 50 ms.
        histories.append([_comparable(e) for e in bench.events(handle)[1:] if e.kind != "checkpoint.started"])
    assert histories[0] == histories[1]


def _comparable(event: Any) -> Any:
    varying = {"started_at", "duration", "attempt_at", "code", "by", "owner", "ref", "retry_in", "failure"}
    body = {k: v for k, v in event.body.items() if k not in varying}
    for output in body.get("outputs", ()):
        assert "artifact_id" not in output  # it follows from the event
        output.pop("exec_id", None)
    if "result" in body:
        body["result"].pop("artifact_id")
    return event.kind, event.key, body, event.blob if event.kind == "checkpoint.completed" else None


def test_a_runtime_that_is_not_offered_is_refused_where_the_checkpoint_is_made() -> None:
    with pytest.raises(KitaruUsageError, match="'gpu' is none of 'inline', 'isolated'") as caught:
        checkpoint(runtime="gpu")(double.func)
    assert caught.value.fix is not None
