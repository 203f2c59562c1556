"""Pydantic AI passes the contract of adapters."""

from __future__ import annotations

from kitaru_nb.testing.adapter import AdapterContract


class TestPydanticAI(AdapterContract):
    program = "adapters.pydantic_ai.program"
    imports = ("openai.resources.chat", "openai.lib.streaming.chat", "genai_prices.data")
