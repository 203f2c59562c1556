"""The contract's program, with LangGraph and LangChain's chat model and tools."""

from __future__ import annotations

from typing import Any

import httpx
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt

from kitaru_nb import flow
from kitaru_nb.surfaces.adapters.langchain_parts import durable_chat_model, durable_tool
from kitaru_nb.surfaces.adapters.langgraph import KitaruGraphRunner, LangGraphRunRequest, wait_for_interrupts_async
from kitaru_nb.testing.adapter.tools import charge, gathered, look_up, pay, trap


def chat(client: httpx.AsyncClient, *, streaming: bool = False) -> ChatOpenAI:
    # A client of its own: langchain-openai would share one among the event loops of all flows.
    return ChatOpenAI(model="gpt-test", max_retries=3, streaming=streaming, http_async_client=client)


def runner(client: httpx.AsyncClient, *, streaming: bool = False) -> KitaruGraphRunner:
    tools = [durable_tool(tool(function)) for function in (look_up, charge, trap)]
    model = durable_chat_model(chat(client, streaming=streaming), name="desk.model").bind_tools(tools)

    async def agent(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("agent", agent)
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", tools_condition)
    builder.add_edge("tools", "agent")
    return KitaruGraphRunner(builder.compile(), name="desk")


async def run(prompt: str) -> str:
    async with httpx.AsyncClient() as client:
        result = await runner(client).ainvoke(LangGraphRunRequest.start({"messages": [("user", prompt)]}))
    return str(result.output["messages"][-1].text)


@flow
async def ask(prompt: str) -> str:
    return await run(prompt)


@flow
async def together(prompts: list[str]) -> list[str]:
    return await gathered([lambda p=p: run(p) for p in prompts])


@flow
async def streamed(prompt: str) -> str:
    async with httpx.AsyncClient() as client:
        stream = runner(client, streaming=True).astream({"messages": [("user", prompt)]}, stream_mode="messages")
        async for _ in stream:
            pass
    return str(stream.result.output["messages"][-1].text)


def cashier(client: httpx.AsyncClient) -> KitaruGraphRunner:
    pays = durable_tool(tool(pay))
    model = durable_chat_model(chat(client), name="cashier.model").bind_tools([pays])

    async def agent(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def decide(state: MessagesState) -> dict[str, Any]:
        (call,) = state["messages"][-1].tool_calls
        answer = interrupt({"tool": call["name"], "arguments": call["args"]})
        if answer is True:
            return {"messages": [await pays.ainvoke(call)]}
        return {"messages": [ToolMessage(f"Denied: {answer['message']}", tool_call_id=call["id"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("agent", agent)
    builder.add_node("tools", decide)
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", tools_condition, {"tools": "tools", END: END})
    builder.add_edge("tools", "agent")
    return KitaruGraphRunner(builder.compile(), name="cashier")


@flow
async def approved(prompt: str) -> str:
    async with httpx.AsyncClient() as client:
        runs = cashier(client)
        result = await runs.ainvoke({"messages": [("user", prompt)]})
        while result.status == "interrupted":
            result = await runs.ainvoke(await wait_for_interrupts_async(result, timeout=0))
    return str(result.output["messages"][-1].text)
