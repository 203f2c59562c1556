"""Tools of an MCP server: what it offers and what it did is recorded."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import MCPServer
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ToolReturnPart

from adapters.pydantic_ai.scripted import Script, use
from kitaru_nb import KitaruClient, flow
from kitaru_nb.surfaces.adapters.pydantic_ai import KitaruAgent


def test_a_call_of_a_server_is_made_once() -> None:
    bought: list[str] = []
    server = MCPServer("shop")

    @server.tool()
    def buy(item: str) -> dict[str, Any]:
        """Buy something."""
        bought.append(item)
        return {"bought": item, "price": 3}

    script = Script(use("buy", "c1", item="tea"), [ConnectionError("lost"), "done"])
    agent = KitaruAgent(Agent(script.model, name="shopper", toolsets=[MCPToolset(server)]))

    @flow(retries=1)
    async def shop() -> list[Any]:
        messages = (await agent.run("buy tea")).all_messages()
        return [part.content for m in messages for part in m.parts if isinstance(part, ToolReturnPart)]

    handle = shop.run()
    assert handle.wait() == [{"bought": "tea", "price": 3}]
    assert (bought, len(script.asked)) == (["tea"], 3)
    calls = KitaruClient().executions.get(handle.exec_id).checkpoints
    assert {(call.name, call.checkpoint_type) for call in calls} == {
        ("shopper", "agent_run"),
        ("shopper.list_tools", "mcp_call"),
        ("shopper.model", "model_call"),
        ("buy", "mcp_call"),
    }
