"""A real language model over HTTP: an agent's calls are recorded, and not made again. No wording is asserted."""

from __future__ import annotations

from typing import Any

from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, function_tool
from openai import AsyncOpenAI

from kitaru_nb import flow
from kitaru_nb.testing.offline_model import OfflineModel
from tests.adapters.openai_agents.conftest import Executions


def test_an_agent_with_a_real_model_is_resumed_without_asking_it_again(executions: Executions) -> None:
    ran: list[str] = []
    answers: list[Any] = []

    @function_tool
    def weather(city: str) -> str:
        """Weather of a city."""
        ran.append(city)
        return "sunny"

    with OfflineModel() as offline:
        url = offline.base_url

        @flow(retries=1)
        async def ask() -> str:
            async with AsyncOpenAI(base_url=url, api_key="offline", max_retries=0) as client:
                model = OpenAIChatCompletionsModel(model="small", openai_client=client)
                settings = ModelSettings(max_tokens=24, temperature=0)
                helper = Agent(name="helper", model=model, tools=[weather], model_settings=settings)
                answers.append((await Runner.run(helper, "What is the weather in Paris?")).final_output)
            if len(answers) == 1:
                raise ValueError("once")
            return str(answers[-1])

        handle = ask.run()
        handle.wait()
        calls = executions.calls(handle)
        asked = [c for c in calls if c.checkpoint_type == "model_call"]
        assert offline.calls == len(asked) >= 2
    assert answers[0] == answers[1]
    assert len(ran) == len([c for c in calls if c.name == "weather"]) >= 1
    assert all(c.metadata["input_tokens"] > 0 and c.metadata["model"] == "small" for c in asked)
