"""The contract's program with the OpenAI Agents SDK: plain `Runner.run`; only approvals go through a `KitaruRunner`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, set_trace_processors
from openai import AsyncOpenAI

from kitaru_nb import KitaruRunner, OpenAIRunRequest, flow, wait_for_approvals
from kitaru_nb.testing.adapter import tools
from kitaru_nb.testing.adapter.tools import gathered

set_trace_processors([])


@asynccontextmanager
async def agent(**options: Any) -> AsyncIterator[Agent[Any]]:
    async with AsyncOpenAI(max_retries=4) as client:
        interface = OpenAIChatCompletionsModel if os.environ.get(tools.CHAT) else OpenAIResponsesModel
        model = interface(model="gpt-test", openai_client=client)
        plain = [tools.look_up, tools.charge, tools.trap]
        mine = [function_tool(tool) for tool in plain]
        pay = function_tool(tools.pay, needs_approval=True)
        yield Agent(name="helper", instructions="Use your tools.", model=model, tools=[*mine, pay], **options)


async def run(prompt: str) -> str:
    async with agent() as helper:
        return str((await Runner.run(helper, prompt, max_turns=30)).final_output)


@flow
async def ask(prompt: str) -> str:
    return await run(prompt)


@flow
async def together(prompts: list[str]) -> list[str]:
    return await gathered([lambda prompt=prompt: run(prompt) for prompt in prompts])


@flow
async def streamed(prompt: str) -> str:
    async with agent() as helper:
        result = Runner.run_streamed(helper, prompt, max_turns=30)
        said = ""
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                said += event.data.delta
        assert said == result.final_output
        return said


@flow
async def nested(prompt: str) -> str:
    async with agent() as helper:
        boss = Agent(name="boss", model=helper.model, tools=[helper.as_tool("cashier", "Pays.")])
        runner = KitaruRunner(boss)
        result = await runner.run(OpenAIRunRequest.start(prompt))
        while result.status == "interrupted":
            result = await runner.run(wait_for_approvals(result, timeout=0))
        return str(result.final_output)


@flow
async def approved(prompt: str) -> str:
    async with agent() as helper:
        runner = KitaruRunner(helper)
        result = await runner.run(OpenAIRunRequest.start(prompt, max_turns=30))
        while result.status == "interrupted":
            result = await runner.run(wait_for_approvals(result, timeout=0))
        return str(result.final_output)
