"""The contract of adapters, with the OpenAI Agents SDK."""

from __future__ import annotations

from kitaru_nb.testing.adapter import AdapterContract


class TestOpenAIAgents(AdapterContract):
    program = "adapters.openai_agents.program"
