"""An interrupted execution goes on: what completed is not run again, and every call gets its own result."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest

from core.bench import Bench
from kitaru_nb import (
    KitaruDivergenceError,
    KitaruUserCodeError,
    Paused,
    checkpoint,
    current_execution_id,
    flow,
    idempotency_key,
)
from kitaru_nb.core.retry import Retry


class World:
    """What survives an interruption in these tests: what ran, and whether to cut the flow off."""

    def __init__(self) -> None:
        self.ran: list[Any] = []
        self.cut = True
        self.state: dict[str, Any] = {}

    def cut_off(self) -> None:
        """The process dies here, the first time."""
        if self.cut:
            self.cut = False
            raise Paused("cut off")


@pytest.fixture
def world() -> World:
    return World()


def cut_then_finish(bench: Bench, flow: Any, **inputs: Any) -> tuple[str, Any]:
    """Advance until it is cut off, then to its end."""
    exec_id = bench.create(flow, **inputs)
    assert bench.advance(exec_id, flow).status == "interrupted"
    return exec_id, bench.finish(exec_id, flow)


def test_completed_calls_return_what_they_recorded(bench: Bench, world: World) -> None:
    @checkpoint
    def dice() -> float:
        world.ran.append("dice")
        return random.random()

    @flow
    def playing() -> list[float]:
        first = [dice(), dice()]
        world.state.setdefault("first", first)
        world.cut_off()
        return first

    _, value = cut_then_finish(bench, playing)
    assert value == world.state["first"]
    assert world.ran == ["dice"] * 2


def test_a_call_that_did_not_complete_runs_again(bench: Bench, world: World) -> None:
    @checkpoint
    def work() -> str:
        world.ran.append("work")
        world.cut_off()
        return "done"

    @flow
    def working() -> str:
        return work()

    _, value = cut_then_finish(bench, working)
    assert value == "done"
    assert world.ran == ["work", "work"]


def test_finished_children_of_an_interrupted_parent_are_reused(bench: Bench, world: World) -> None:
    @checkpoint
    def tool(n: int) -> int:
        world.ran.append(n)
        return n * n

    @checkpoint
    def agent(count: int) -> int:
        total = 0
        for n in range(count):
            if n == 2:
                world.cut_off()
            total += tool(n)
        return total

    @flow
    def working() -> int:
        return agent(4)

    exec_id, value = cut_then_finish(bench, working)
    assert value == 0 + 1 + 4 + 9
    assert world.ran == [0, 1, 2, 3]
    calls = bench.get(exec_id).checkpoints
    parent = next(c.call_id for c in calls if c.name == "agent")
    assert [c.parent for c in calls if c.name == "tool"] == [parent] * 4


@pytest.mark.parametrize("way", ["map", "gather", "sync_tool_in_async_agent"])
def test_parallel_calls_of_one_tool_keep_their_own_arguments_live_and_resumed(
    bench: Bench, world: World, way: str
) -> None:
    @checkpoint
    def charge(amount: int) -> str:
        world.ran.append(amount)
        return f"charged {amount}"

    @checkpoint
    async def charge_async(amount: int) -> str:
        await asyncio.sleep(0)
        world.ran.append(amount)
        return f"charged {amount}"

    @flow(name="shop")
    def mapping() -> list[str]:
        receipts = charge.map(range(8)).results()
        world.cut_off()
        return receipts

    @flow(name="shop")
    async def gathering() -> list[str]:
        receipts = await asyncio.gather(*(charge_async(n) for n in range(8)))
        world.cut_off()
        return list(receipts)

    @flow(name="shop")
    async def tools() -> list[str]:
        async def tool(n: int) -> str:
            await asyncio.sleep(0)
            return charge(n)

        receipts = await asyncio.gather(*(tool(n) for n in range(8)))
        world.cut_off()
        return list(receipts)

    shop = {"map": mapping, "gather": gathering, "sync_tool_in_async_agent": tools}[way]
    _, value = cut_then_finish(bench, shop)
    assert value == [f"charged {n}" for n in range(8)]
    assert sorted(world.ran) == list(range(8))


def test_concurrent_calls_in_another_order_each_get_their_own_result(bench: Bench, world: World) -> None:
    """The order of completion and of calling differs between the first run and the resumed one."""

    @checkpoint
    async def look_up(city: str) -> str:
        world.ran.append(city)
        return f"weather in {city}"

    @checkpoint
    async def write(city: str, weather: str) -> str:
        world.ran.append(weather)
        return f"{city}: {weather}"

    cities = ["Rome", "Oslo", "Lima", "Bern"]

    @flow
    async def report() -> dict[str, str]:
        order = cities if world.cut else cities[::-1]

        async def one(city: str) -> tuple[str, str]:
            weather = await look_up(city)
            if city == order[-1]:
                world.cut_off()
            return city, await write(city, weather)

        return dict(await asyncio.gather(*(one(city) for city in order)))

    _, value = cut_then_finish(bench, report)
    assert value == {city: f"{city}: weather in {city}" for city in cities}
    assert sorted(c for c in world.ran if c in cities) == sorted(cities)


def test_gathered_calls_that_come_in_another_order_do_not_diverge(bench: Bench, world: World) -> None:
    @checkpoint
    async def look_up(n: int) -> int:
        if n == 3:
            world.cut_off()
        return n * 10

    @flow
    async def shuffled() -> list[int]:
        order = [0, 1, 2, 3] if world.cut else [3, 1, 0, 2]
        return sorted(await asyncio.gather(*(look_up(n) for n in order)))

    _, value = cut_then_finish(bench, shuffled)
    assert value == [0, 10, 20, 30]


def test_mapped_calls_that_come_in_another_order_do_not_diverge(bench: Bench, world: World) -> None:
    @checkpoint
    def look_up(n: int) -> int:
        world.ran.append(n)
        return n * 10

    @flow
    def shuffled() -> list[int]:
        order = [0, 1, 2] if world.cut else [4, 2, 1, 0]
        found = look_up.map(order).results()
        world.cut_off()
        return found

    _, value = cut_then_finish(bench, shuffled)
    assert value == [40, 20, 10, 0]
    assert sorted(world.ran) == [0, 1, 2, 4]


def test_swapped_calls_do_not_swap_their_results(bench: Bench, world: World) -> None:
    @checkpoint
    def price(item: str) -> str:
        return f"price of {item}"

    @flow
    def shopping() -> list[str]:
        first, second = ("tea", "cake") if world.cut else ("cake", "tea")
        prices = {first: price(first), second: price(second)}
        world.cut_off()
        return [prices["tea"], prices["cake"]]

    _, value = cut_then_finish(bench, shopping)
    assert value == ["price of tea", "price of cake"]


def test_equal_calls_are_told_apart_by_how_often_they_came(bench: Bench, world: World) -> None:
    @checkpoint
    def count() -> int:
        world.ran.append(1)
        return len(world.ran)

    @flow
    def counting() -> list[int]:
        first = [count(), count()]
        world.cut_off()
        return [*first, count()]

    _, value = cut_then_finish(bench, counting)
    assert value == [1, 2, 3]


def test_inputs_that_can_not_be_identified_count_by_their_type_and_order(bench: Bench, world: World) -> None:
    class Client:
        def __init__(self) -> None:
            self.lock = threading.Lock()

    @checkpoint
    def use(client: Client, n: int) -> int:
        world.ran.append(n)
        return n

    @flow
    def using() -> list[int]:
        found = [use(Client(), 1), use(Client(), 2)]
        world.cut_off()
        return found

    _, value = cut_then_finish(bench, using)
    assert value == [1, 2]
    assert world.ran == [1, 2]


def test_an_id_tells_equal_calls_apart_and_never_gives_the_result_of_other_inputs(bench: Bench, world: World) -> None:
    @checkpoint
    def ask(question: str) -> str:
        world.ran.append(question)
        return f"{question}!"

    @flow
    def asking() -> list[str]:
        order = ["one", "two"] if world.cut else ["two", "one"]
        found = {i: ask("q", id=i) for i in order}
        found["three"] = ask("a" if world.cut else "b", id="three")
        world.cut_off()
        return [found[i] for i in ("one", "two", "three")]

    exec_id = bench.create(asking)
    bench.advance(exec_id, asking)
    with pytest.raises(KitaruDivergenceError):
        bench.finish(exec_id, asking)
    assert world.ran == ["q", "q", "a"]


def test_the_idempotency_key_is_the_same_for_every_attempt_and_resume_and_for_no_other_call(
    bench: Bench, world: World
) -> None:
    @checkpoint(retries=Retry(attempts=2, delay=0))
    def pay(amount: int) -> str:
        world.ran.append((amount, idempotency_key()))
        if len(world.ran) == 1:
            raise ConnectionError("lost the answer")
        if amount == 1:
            world.cut_off()
        return idempotency_key()

    @flow
    def paying() -> list[str | None]:
        return [pay(1), pay(2), current_execution_id()]

    exec_id, value = cut_then_finish(bench, paying)
    keys = {amount: {k for a, k in world.ran if a == amount} for amount in (1, 2)}
    assert [len(k) for k in keys.values()] == [1, 1]
    assert keys[1] != keys[2]
    assert value == [*keys[1], *keys[2], exec_id]
    assert current_execution_id() is None


# divergence


def diverging(world: World) -> Any:
    @checkpoint
    def research(topic: str, depth: int = 1) -> str:
        world.ran.append(topic)
        return f"notes on {topic}"

    @checkpoint
    def publish(notes: str) -> str:
        world.ran.append("publish")
        return notes

    @flow
    def brief() -> str:
        notes = research(world.state["topic"], depth=2)
        world.cut_off()
        try:
            research(world.state["topic"] + "!", depth=2)
        except ValueError:
            world.ran.append("handled")
        return publish(notes)

    return brief


def test_other_inputs_at_the_place_of_a_recorded_call_stop_the_execution(bench: Bench, world: World) -> None:
    brief = diverging(world)
    world.state["topic"] = "agents"
    exec_id = bench.create(brief)
    bench.advance(exec_id, brief)
    before = bench.kinds(exec_id)
    world.state["topic"] = "notebooks"
    with pytest.raises(KitaruDivergenceError) as caught:
        bench.finish(exec_id, brief)
    message = str(caught.value)
    for part in ("'research'", "'topic'", "'agents'", "'notebooks'", f"kitaru executions replay {exec_id}"):
        assert part in message
    assert world.ran == ["agents"]
    assert bench.kinds(exec_id) == [*before, "execution.claimed", "execution.failed"]
    failure = bench.get(exec_id).failure
    assert failure is not None
    assert failure.exception_type == "kitaru_nb.errors.KitaruDivergenceError"
    assert failure.origin == "runtime"


def test_a_flow_that_handles_every_exception_still_stops_when_it_diverged(bench: Bench, world: World) -> None:
    @checkpoint
    def step(name: str) -> str:
        world.ran.append(name)
        return name

    @flow
    def stubborn() -> str:
        try:
            step("a" if world.cut else "b")
        except Exception:
            world.state["handled"] = True
        world.cut_off()
        return step("after")

    exec_id = bench.create(stubborn)
    bench.advance(exec_id, stubborn)
    with pytest.raises(KitaruDivergenceError):
        bench.finish(exec_id, stubborn)
    assert world.state == {"handled": True}
    assert world.ran == ["a"]


def test_one_divergence_in_a_nested_call_is_found_too(bench: Bench, world: World) -> None:
    @checkpoint
    def tool(n: int) -> int:
        return n

    @checkpoint
    def agent() -> int:
        value = tool(1 if world.cut else 2)
        world.cut_off()
        return value

    @flow
    def working() -> int:
        return agent()

    exec_id = bench.create(working)
    bench.advance(exec_id, working)
    with pytest.raises(KitaruDivergenceError, match="'tool'"):
        bench.finish(exec_id, working)


def test_further_calls_of_a_longer_loop_are_no_divergence(bench: Bench, world: World) -> None:
    @checkpoint
    def step(n: int) -> int:
        return n

    @flow
    def growing() -> int:
        total = sum(step(n) for n in range(2 if world.cut else 5))
        world.cut_off()
        return total

    _, value = cut_then_finish(bench, growing)
    assert value == 10


def test_the_failure_of_a_diverged_execution_names_the_next_line(bench: Bench, world: World) -> None:
    brief = diverging(world)
    world.state["topic"] = "agents"
    exec_id = bench.create(brief)
    bench.advance(exec_id, brief)
    world.state["topic"] = "notebooks"
    bench.advance(exec_id, brief)
    with pytest.raises(KitaruUserCodeError, match="executions retry"):
        bench.executions.handle(exec_id).wait()
    world.state["topic"] = "agents"
    assert bench.finish(exec_id, brief) == "notes on agents"
