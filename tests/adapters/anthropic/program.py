"""The contract's program with Anthropic's client: a plain tool loop, as the SDK's documentation shows it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from anthropic import AsyncAnthropic
from anthropic.types import Message

from kitaru_nb import checkpoint, flow
from kitaru_nb.surfaces.adapters.anthropic import durable
from kitaru_nb.surfaces.adapters.approvals import Question, ask_async
from kitaru_nb.testing.adapter import tools
from kitaru_nb.testing.adapter.tools import gathered

Ask = Callable[[AsyncAnthropic, list[Any]], Awaitable[Message]]


def offered(tool: Callable[..., Any], argument: str, kind: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {argument: {"type": kind}}, "required": [argument]}
    return {"name": tool.__name__, "description": tool.__doc__, "input_schema": schema}


OPTIONS: dict[str, Any] = {
    "model": "claude-test",
    "max_tokens": 500,
    "system": "Use your tools.",
    "tools": [
        offered(tools.look_up, "key", "string"),
        offered(tools.charge, "amount", "integer"),
        offered(tools.pay, "amount", "integer"),
        offered(tools.trap, "kind", "string"),
    ],
}


@checkpoint(type="tool_call")
async def look_up(key: str) -> str:
    return await asyncio.to_thread(tools.look_up, key)


@checkpoint(type="tool_call")
async def charge(amount: int) -> str:
    return await asyncio.to_thread(tools.charge, amount)


@checkpoint(type="tool_call")
async def pay(amount: int) -> str:
    return await asyncio.to_thread(tools.pay, amount)


@checkpoint(type="tool_call")
async def trap(kind: str) -> str:
    return str(await asyncio.to_thread(tools.trap, kind))


TOOLS = {"look_up": look_up, "charge": charge, "pay": pay, "trap": trap}


async def ask_whole(client: AsyncAnthropic, messages: list[Any]) -> Message:
    return await client.messages.create(messages=messages, **OPTIONS)


async def ask_streamed(client: AsyncAnthropic, messages: list[Any]) -> Message:
    async with client.messages.stream(messages=messages, **OPTIONS) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        message = await stream.get_final_message()
    assert text == "".join(block.text for block in message.content if block.type == "text")
    return message


async def answer(use: Any, approving: bool) -> dict[str, Any]:
    if approving:
        question = Question(f"approve:{use.id}", f"Run {use.name} with {use.input}?", {"tool": use.name})
        (decision,) = await ask_async([question])
        if not decision.approve:
            return {"type": "tool_result", "tool_use_id": use.id, "content": decision.message, "is_error": True}
    return {"type": "tool_result", "tool_use_id": use.id, "content": await TOOLS[use.name](**use.input)}


async def run(prompt: str, ask: Ask = ask_whole, approving: bool = False) -> str:
    messages: list[Any] = [{"role": "user", "content": prompt}]
    async with AsyncAnthropic() as plain:
        client = durable(plain)
        while True:
            message = await ask(client, messages)
            uses = [block for block in message.content if block.type == "tool_use"]
            if not uses:
                return "".join(block.text for block in message.content if block.type == "text")
            results = await asyncio.gather(*(answer(use, approving) for use in uses))
            messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": list(results)}]


@flow
async def ask(prompt: str) -> str:
    return await run(prompt)


@flow
async def together(prompts: list[str]) -> list[str]:
    return await gathered([lambda prompt=prompt: run(prompt) for prompt in prompts])


@flow
async def streamed(prompt: str) -> str:
    return await run(prompt, ask_streamed)


@flow
async def approved(prompt: str) -> str:
    return await run(prompt, approving=True)
