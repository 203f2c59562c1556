"""Operations of adapters: recorded once, found again, streamed, told apart, checked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from kitaru_nb import (
    KitaruClient,
    KitaruDivergenceError,
    KitaruExecutionError,
    KitaruUsageError,
    KitaruUserCodeError,
    flow,
)
from kitaru_nb.surfaces.adapters.base import (
    Operation,
    Part,
    Recorded,
    block_on,
    perform,
    perform_async,
    perform_stream,
    scoped,
)


@pytest.fixture(autouse=True)
def _home(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))


def model(messages: list[str]) -> Operation[str]:
    def encode(answer: str) -> Recorded:
        parts = (Part("response", answer, "response"), Part("prompt", messages, "prompt"))
        return Recorded(parts, {"input_tokens": 3, "output_tokens": 2})

    return Operation("agent.model", "model_call", {"messages": messages}, encode=encode)


def test_an_operation_is_kept_with_its_prompt_and_tokens() -> None:
    @flow
    def ask() -> str:
        return perform(model(["hi"]), lambda: "hello")

    handle = ask.run()
    assert handle.wait() == "hello"
    (call,) = KitaruClient().executions.get(handle.exec_id).checkpoints
    assert (call.name, call.checkpoint_type, call.metadata["input_tokens"]) == ("agent.model", "model_call", 3)
    assert [(a.name, a.kind) for a in call.artifacts] == [("response", "response"), ("prompt", "prompt")]


def test_outside_a_flow_the_body_simply_runs() -> None:
    assert perform(model(["hi"]), lambda: "hello") == "hello"


def test_a_retried_flow_pays_once_and_the_events_of_a_stream_come_again() -> None:
    paid: list[str] = []
    seen: list[list[int]] = []

    async def source() -> AsyncIterator[int]:
        paid.append("stream")
        for n in (1, 2, 3):
            yield n

    @flow(retries=1)
    async def both() -> int:
        await perform_async(model(["a"]), lambda: asyncio.sleep(0, paid.append("a") or "a"))
        stream = perform_stream(
            Operation[int]("agent.stream", "model_call", {}),
            source,
            outcome=sum,
            again=lambda total: [total],
            last=lambda n: n == 3,
        )
        seen.append([n async for n in stream])
        if len(seen) == 1:
            raise ValueError("once")
        return seen[-1][0]

    assert both.run().wait() == 6
    assert paid == ["a", "stream"]
    assert seen == [[1, 2, 3], [6]]


def test_a_stream_that_is_left_early_is_not_recorded() -> None:
    runs: list[int] = []

    async def source() -> AsyncIterator[int]:
        runs.append(1)
        for n in range(10):
            yield n
            await asyncio.sleep(0)

    @flow
    async def impatient() -> int:
        for _ in range(2):
            stream = perform_stream(
                Operation[int]("s", "model_call", {}), source, outcome=sum, again=lambda v: [v], last=lambda n: n == 9
            )
            async for n in stream:
                if n == 2 and len(runs) == 1:
                    break
            await stream.aclose()  # type: ignore[attr-defined]
        return len(runs)

    handle = impatient.run()
    assert handle.wait() == 2
    assert len(KitaruClient().executions.get(handle.exec_id).checkpoints) == 1


def test_scopes_of_one_key_side_by_side_keep_their_own_answers() -> None:
    async def nested(value: int) -> int:
        with scoped("helper"):
            await asyncio.sleep(0.01 * (3 - value))
            return await perform_async(
                Operation[int]("helper.model", "model_call", {}), lambda: asyncio.sleep(0, value)
            )

    @flow
    async def parallel() -> list[int]:
        return list(await asyncio.gather(*(nested(n) for n in range(3))))

    handle = parallel.run()
    assert handle.wait() == [0, 1, 2]
    assert len(KitaruClient().executions.get(handle.exec_id).checkpoints) == 3


def test_another_request_at_the_same_place_stops_the_resumed_run() -> None:
    turns: list[str] = []

    @flow(retries=1)
    def ask() -> str:
        turns.append("today is Monday" if not turns else "today is Tuesday")
        operation = Operation[str]("agent.model", "model_call", {"instructions": turns[-1]}, place=0)
        answer = perform(operation, lambda: "hello")
        if len(turns) == 1:
            raise ValueError("once")
        return answer

    with pytest.raises((KitaruDivergenceError, KitaruExecutionError), match=r"instructions.*Monday.*Tuesday"):
        ask.run().wait()


def test_block_on_works_in_a_loop_and_without_one() -> None:
    async def work() -> int:
        return await perform_async(Operation[int]("w", "model_call", {}), lambda: asyncio.sleep(0, 7))

    @flow
    def plain() -> int:
        return block_on(work, instead="await it")

    @flow
    async def inside() -> int:
        return block_on(work, instead="await it")

    assert block_on(work, instead="await it") == 7
    assert plain.run().wait() == 7
    assert inside.run().wait() == 7


class Tool:
    """A tool of an adapter, called by a flow; what it was really called with is noted."""

    def __init__(self, *, takes: bool = True) -> None:
        self.ran: list[Any] = []
        self.takes = takes
        self.flow = flow(self.called, name="called")

    def called(self, n: int) -> int:
        given: Any = {"n": n}

        def take(values: Mapping[str, Any]) -> None:
            nonlocal given
            given = values["arguments"]

        def body() -> int:
            self.ran.append(given)
            return int(given["n"]) * 2

        operation = Operation[int](
            "double", "tool_call", {"arguments": given}, identity="c1", take=take if self.takes else None
        )
        return perform(operation, body)


def test_a_replay_can_run_a_tool_with_other_arguments() -> None:
    tool = Tool()
    handle = tool.flow.run(1)
    assert handle.wait() == 2
    again = tool.flow.replay(handle.exec_id, overrides={"arguments.double": {"n": 5}})
    assert again.wait() == 10
    assert tool.ran == [{"n": 1}, {"n": 5}]
    executions = KitaruClient().executions
    before, after = (executions.get(h.exec_id).checkpoints[0] for h in (handle, again))
    assert before.call_id == after.call_id
    assert [i.preview for i in after.inputs] == ["{'n': 5}"]


def test_arguments_of_a_tool_that_cannot_be_are_refused_before_anything_runs() -> None:
    tool = Tool()
    handle = tool.flow.run(1)
    handle.wait()
    with pytest.raises(KitaruUsageError, match="arguments of 'double' are 5; expected a mapping") as caught:
        tool.flow.replay(handle.exec_id, overrides={"arguments.double": 5})
    assert caught.value.fix == "overrides={'arguments.double': {'NAME': value}}"
    assert tool.ran == [{"n": 1}]


def test_an_operation_that_takes_no_arguments_says_so_and_does_not_run() -> None:
    tool = Tool(takes=False)
    handle = tool.flow.run(1)
    handle.wait()
    with pytest.raises(KitaruUserCodeError, match="'double' can't run with other arguments"):
        tool.flow.replay(handle.exec_id, overrides={"arguments.double": {"n": 5}}).wait()
    assert tool.ran == [{"n": 1}]
