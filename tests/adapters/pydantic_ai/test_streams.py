"""Streams: live, committed before their end, found again, left early."""

from __future__ import annotations

import asyncio

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import PartDeltaEvent, PartStartEvent

from adapters.pydantic_ai.scripted import Script, use
from kitaru_nb import KitaruClient, KitaruExecutionError, flow
from kitaru_nb.surfaces.adapters.pydantic_ai import KitaruAgent


def agent_of(script: Script) -> KitaruAgent[None, str]:
    agent: Agent[None, str] = Agent(script.model, name="teller")

    @agent.tool_plain
    def look_up() -> str:
        """Look up."""
        return "found"

    return KitaruAgent(agent)


def test_the_reader_gets_words_while_the_model_still_speaks() -> None:
    script = Script("once upon a time")
    agent = agent_of(script)
    early: list[str] = []

    @flow
    async def tell() -> str:
        script.pause = asyncio.Event()
        async with agent.run_stream("tell") as result:
            async for text in result.stream_text(delta=True, debounce_by=None):
                early.append(text)
                if len(early) == 2:
                    assert not script.pause.is_set()
                    script.pause.set()
            return await result.get_output()

    assert tell.run().wait() == "once upon a time"
    assert early == ["once ", "upon ", "a ", "time"]


def test_a_stream_is_paid_once_and_comes_again_from_the_record() -> None:
    script, seen = Script(use("look_up", "c1"), "once upon a time"), []
    agent = agent_of(script)

    @flow(retries=1)
    async def tell() -> str:
        async with agent.run_stream("tell") as result:
            texts = [text async for text in result.stream_text(delta=True, debounce_by=None)]
            output = await result.get_output()
        seen.append((texts, output, result.usage.input_tokens))
        if len(seen) == 1:
            raise ConnectionError("breaks off once")
        return output

    assert tell.run().wait() == "once upon a time"
    assert len(script.asked) == 2
    (live, *first), (again, *second) = seen
    assert live == ["once ", "upon ", "a ", "time"]
    assert "".join(again) == "once upon a time"
    assert first == second


def test_the_answer_is_recorded_before_the_reader_is_told_of_the_end() -> None:
    script = Script("once upon a time")
    agent = agent_of(script)
    statuses: list[str] = []

    @flow
    async def tell() -> str:
        async with agent.run_stream("tell") as result:
            async for _ in result.stream_text(debounce_by=None):
                pass
            execution = KitaruClient().executions.latest()
            statuses.extend(c.status for c in execution.checkpoints if c.name == "teller.model")
            return await result.get_output()

    tell.run().wait()
    assert statuses == ["completed"]


def test_a_stream_that_is_left_early_is_not_recorded() -> None:
    script = Script("once upon a time")
    agent = agent_of(script)

    @flow
    async def tell() -> None:
        script.pause = asyncio.Event()  # never set: only leaving ends it
        async with agent.run_stream("tell") as result:
            async for _ in result.stream_text(delta=True, debounce_by=None):
                break

    handle = tell.run()
    handle.wait()
    recorded = [
        call for call in KitaruClient().executions.get(handle.exec_id).checkpoints if call.status == "completed"
    ]
    assert recorded == []


def test_a_handler_of_events_gets_them_live() -> None:
    script = Script("once upon a time")
    agent = agent_of(script)
    texts: list[str] = []

    async def handler(ctx: object, events: object) -> None:
        async for event in events:  # type: ignore[attr-defined]
            if isinstance(event, PartStartEvent):
                texts.append(event.part.content)  # type: ignore[union-attr]
            elif isinstance(event, PartDeltaEvent):
                texts.append(event.delta.content_delta)  # type: ignore[union-attr, arg-type]

    @flow
    async def tell() -> str:
        return (await agent.run("tell", event_stream_handler=handler)).output

    assert tell.run().wait() == "once upon a time"
    assert texts == ["once ", "upon ", "a ", "time"]


def test_a_stream_that_fails_fails_the_run_with_what_the_model_said() -> None:
    script = Script([ValueError("the line went dead"), "never said"])
    agent = agent_of(script)

    @flow
    async def tell() -> str:
        async with agent.run_stream("tell") as result:
            return await result.get_output()

    with pytest.raises(KitaruExecutionError, match="the line went dead"):
        tell.run().wait()
