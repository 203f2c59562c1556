"""The contract's program, with Claude's Agent SDK."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from claude_agent_sdk import ClaudeAgentOptions, create_sdk_mcp_server, tool

from kitaru_nb import flow
from kitaru_nb.surfaces.adapters.claude_agent_sdk import ClaudeRunRequest, KitaruClaudeRunner
from kitaru_nb.testing.adapter import tools
from kitaru_nb.testing.adapter.tools import gathered

#: What the agent calls the tools, after the server that has them.
PREFIX = "mcp__desk__"


def offered(function: Callable[[Any], Any], argument: str, kind: type) -> Any:
    @tool(function.__name__, function.__doc__ or "", {argument: kind})
    async def called(arguments: dict[str, Any]) -> dict[str, Any]:
        found = await asyncio.to_thread(function, arguments[argument])
        return {"content": [{"type": "text", "text": str(found)}]}

    return called


def runner() -> KitaruClaudeRunner:
    mine = [offered(tools.look_up, "key", str), offered(tools.trap, "kind", str)]
    mine += [offered(function, "amount", int) for function in (tools.charge, tools.pay)]
    folder = os.environ["KITARU_TEST_CLAUDE"]
    options = ClaudeAgentOptions(
        model="claude-test",
        system_prompt="Use your tools.",
        tools=[],
        setting_sources=[],
        mcp_servers={"desk": create_sdk_mcp_server("desk", tools=mine)},
        allowed_tools=[f"{PREFIX}{name}" for name in ("look_up", "charge", "trap", "pay")],
        cwd=folder,
        env={
            "CLAUDE_CONFIG_DIR": f"{folder}/config-{os.getpid()}",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_TELEMETRY": "1",
        },
    )
    return KitaruClaudeRunner(options, name="helper", approve=[f"{PREFIX}pay"])


async def run(prompt: str) -> str:
    return (await runner().run(prompt)).text


@flow
async def ask(prompt: str) -> str:
    return await run(prompt)


@flow
async def together(prompts: list[str]) -> list[str]:
    return await gathered([lambda p=prompt: run(p) for prompt in prompts])


@flow
async def approved(prompt: str) -> str:
    helper = runner()
    result = await helper.run(ClaudeRunRequest.start(prompt))
    while result.status == "interrupted":
        result = await helper.run(await helper.wait_for_approval_async(result, timeout=0))
    return result.text
