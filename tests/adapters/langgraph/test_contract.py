"""LangGraph, with durable chat models and tools, passes the contract of adapters."""

from __future__ import annotations

from kitaru_nb.testing.adapter import AdapterContract


class TestLangGraph(AdapterContract):
    program = "adapters.langgraph.program"
    imports = ("openai.resources.chat", "openai.lib.streaming.chat", "genai_prices.data")
