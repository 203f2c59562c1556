"""One client of an SDK for all flows of a process: each async flow has an event loop of its own."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.endpoint import RecordedEndpoint
from kitaru_nb import KitaruRunner, flow
from kitaru_nb.testing.adapter.script import say

Ask = Callable[[str], Awaitable[str]]


def agents_with_the_default_client() -> Ask:
    from agents import Agent, Runner

    helper = Agent(name="helper", model="gpt-test")

    async def ask(prompt: str) -> str:
        return str((await Runner.run(helper, prompt)).final_output)

    return ask


def agents_with_a_client_of_ones_own() -> Ask:
    from agents import Agent, OpenAIChatCompletionsModel, Runner
    from openai import AsyncOpenAI

    helper = Agent(name="helper", model=OpenAIChatCompletionsModel("gpt-test", AsyncOpenAI()))

    async def ask(prompt: str) -> str:
        result = Runner.run_streamed(helper, prompt)
        async for _ in result.stream_events():
            pass
        return str(result.final_output)

    return ask


def anthropic() -> Ask:
    from anthropic import AsyncAnthropic

    from kitaru_nb.surfaces.adapters.anthropic import durable

    client = durable(AsyncAnthropic())

    async def ask(prompt: str) -> str:
        said: Any = await client.messages.create(
            model="claude-test", max_tokens=9, messages=[{"role": "user", "content": prompt}]
        )
        return str(said.content[0].text)

    return ask


def pydantic_ai() -> Ask:
    from pydantic_ai import Agent

    from kitaru_nb.surfaces.adapters.pydantic_ai import KitaruAgent

    helper = KitaruAgent(Agent("openai:gpt-test", name="helper"))

    async def ask(prompt: str) -> str:
        return str((await helper.run(prompt)).output)

    return ask


def langchain() -> Ask:
    from langchain_openai import ChatOpenAI

    from kitaru_nb.surfaces.adapters.langchain_parts import durable_chat_model

    model = durable_chat_model(ChatOpenAI(model="gpt-test"))

    async def ask(prompt: str) -> str:
        return str((await model.ainvoke(prompt)).content)

    return ask


@pytest.fixture(autouse=True)
def _no_traces() -> Iterator[None]:
    from agents import set_trace_processors

    set_trace_processors([])
    yield
    gc.collect()  # what SDKs leave open is found here, and not in another test


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # SDKs don't close the clients that they share
@pytest.mark.parametrize(
    "make", [agents_with_the_default_client, agents_with_a_client_of_ones_own, anthropic, pydantic_ai, langchain]
)
def test_flows_one_after_the_other_and_side_by_side_share_a_client(
    make: Callable[[], Ask], endpoint: RecordedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))
    prompts = [f"question {letter}" for letter in "abcdefg"]
    for prompt in prompts:
        endpoint.script(prompt, say(f"to {prompt}"))
    ask = make()

    @flow
    async def answer(prompt: str) -> str:
        return await ask(prompt)

    async def cell() -> str:
        return await asyncio.to_thread(answer.run(prompts[-1]).wait)

    told = [answer.run(prompt).wait() for prompt in prompts[:2]]
    told += [handle.wait() for handle in [answer.run(prompt) for prompt in prompts[2:-1]]]
    told.append(asyncio.run(cell()))
    assert told == [f"to {prompt}" for prompt in prompts]
    assert len(endpoint.requests()) == len(prompts)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_a_blocking_run_and_an_awaited_one_share_a_client(endpoint: RecordedEndpoint) -> None:
    """As in a notebook, whose cells run on a loop of their own."""
    from agents import Agent

    endpoint.script("hello", say("hi"))
    runner = KitaruRunner(Agent(name="helper", model="gpt-test"))
    said = [runner.run_sync("hello"), await runner.run("hello"), runner.run_sync("hello"), await runner.run("hello")]
    assert [result.final_output for result in said] == ["hi"] * 4
    assert len(endpoint.requests()) == 4
