"""The contract's program, with Pydantic AI."""

from __future__ import annotations

from openai import AsyncOpenAI
from pydantic_ai import Agent, DeferredToolRequests, Tool
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from kitaru_nb import flow
from kitaru_nb.surfaces.adapters.pydantic_ai import KitaruAgent, wait_for_deferred_async
from kitaru_nb.testing.adapter.tools import charge, gathered, look_up, pay, trap


def model(client: AsyncOpenAI) -> OpenAIChatModel:
    return OpenAIChatModel("gpt-test", provider=OpenAIProvider(openai_client=client))


def connected() -> AsyncOpenAI:
    return AsyncOpenAI(max_retries=3)  # the environment says where


def agent(client: AsyncOpenAI) -> KitaruAgent[None, str]:
    return KitaruAgent(Agent(model(client), name="desk", tools=[look_up, charge, trap]))


async def run(prompt: str) -> str:
    async with connected() as client:
        return (await agent(client).run(prompt)).output


@flow
async def ask(prompt: str) -> str:
    return await run(prompt)


@flow
async def together(prompts: list[str]) -> list[str]:
    return await gathered([lambda p=p: run(p) for p in prompts])


@flow
async def streamed(prompt: str) -> str:
    async with connected() as client, agent(client).run_stream(prompt) as result:
        return "".join([text async for text in result.stream_text(delta=True, debounce_by=None)])


@flow
async def approved(prompt: str) -> str:
    async with connected() as client:
        cashier = KitaruAgent(
            Agent(
                model(client),
                name="cashier",
                tools=[Tool(pay, requires_approval=True)],
                output_type=[str, DeferredToolRequests],
            )
        )
        result = await cashier.run(prompt)
        while isinstance(result.output, DeferredToolRequests):
            decisions = await wait_for_deferred_async(result, timeout=0)
            result = await cashier.run(message_history=result.all_messages(), deferred_tool_results=decisions)
        return result.output
