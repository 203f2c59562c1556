"""Runs of agents in flows: with a runner and without, in every kind of code."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, Model, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool
from agents.exceptions import MaxTurnsExceeded
from openai import AsyncOpenAI
from pydantic import BaseModel

from adapters.endpoint import RecordedEndpoint
from kitaru_nb import KitaruRunner, OpenAIRunRequest, OpenAIRunResult, checkpoint, flow
from kitaru_nb.testing.adapter.script import say as answers
from kitaru_nb.testing.adapter.script import use
from tests.adapters.openai_agents.conftest import Executions
from tests.adapters.openai_agents.fakes import Script, call, say

ran: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@function_tool
def search(query: str) -> str:
    """Search."""
    ran.append(query)
    return query.upper()


def searching() -> Script:
    return Script([[call("search", "c1", query="a"), call("search", "c2", query="b")], [say("found")]])


def test_a_plain_run_in_a_flow_has_durable_calls(executions: Executions) -> None:
    model = searching()
    attempts: list[int] = []

    @flow(retries=1)
    async def ask() -> str:
        helper = Agent(name="helper", model=model, tools=[search])
        result = await Runner.run(helper, "hi")
        assert result.last_agent is helper
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("once")
        return str(result.final_output)

    handle = ask.run()
    assert handle.wait() == "found"
    assert (len(model.asked), ran) == (2, ["a", "b"])
    assert executions.names(handle) == ["helper.model", "search", "search#2", "helper.model#2"]
    first, one, two, last = executions.calls(handle)
    assert [c.checkpoint_type for c in (first, one, two, last)] == [
        "model_call",
        "tool_call",
        "tool_call",
        "model_call",
    ]
    assert [(a.name, a.kind) for a in first.artifacts] == [("response", "response"), ("prompt", "prompt")]
    assert [(a.name, a.kind) for a in one.artifacts] == [("result", "output"), ("arguments", "input")]
    assert (first.metadata["model"], first.metadata["input_tokens"], first.metadata["output_tokens"]) == (
        "gpt-test",
        40,
        7,
    )
    assert one.parent_call_ids == (first.call_id,)
    assert set(last.parent_call_ids) == {first.call_id, one.call_id, two.call_id}


@pytest.mark.parametrize("strategy", ["calls", "runner_call"])
def test_a_runner_makes_each_run_a_checkpoint(strategy: Any, executions: Executions) -> None:
    model = searching()

    @flow
    def ask() -> str:
        runner = KitaruRunner(Agent(name="helper", model=model, tools=[search]), checkpoint_strategy=strategy)
        result = runner.run_sync(OpenAIRunRequest.start("hi"))
        assert isinstance(result, OpenAIRunResult)
        assert (result.status, result.usage.input_tokens, result.usage.requests) == ("completed", 80, 2)
        return str(result.final_output)

    handle = ask.run()
    assert handle.wait() == "found"
    names = ["helper", "helper.model", "search", "search#2", "helper.model#2"]
    assert executions.names(handle) == (names if strategy == "calls" else ["helper"])
    run, *inside = executions.calls(handle)
    assert run.checkpoint_type == "agent_run"
    assert {one.parent for one in inside} <= {run.call_id}
    assert run.metadata["status"] == "completed"
    assert ("input_tokens" in run.metadata) == (strategy == "runner_call")


async def test_run_sync_works_where_a_loop_runs() -> None:
    outside = KitaruRunner(Agent(name="helper", model=searching(), tools=[search]))
    assert outside.run_sync("hi").final_output == "found"
    model = searching()

    @flow
    async def ask() -> str:
        return str(KitaruRunner(Agent(name="helper", model=model, tools=[search])).run_sync("hi").final_output)

    assert await asyncio.to_thread(ask.run().wait) == "found"


def test_the_sdks_own_run_sync_works_in_a_flow_and_in_a_checkpoint(executions: Executions) -> None:
    models = [searching(), searching()]

    @checkpoint
    def inside() -> str:
        return str(Runner.run_sync(Agent(name="inner", model=models[0], tools=[search]), "hi").final_output)

    @flow
    def ask() -> str:
        return inside() + str(Runner.run_sync(Agent(name="outer", model=models[1], tools=[search]), "hi").final_output)

    handle = ask.run()
    assert handle.wait() == "foundfound"
    outer, *children = executions.calls(handle)
    assert [c.name for c in children if c.parent == outer.call_id] == ["inner.model", "search", "search", "inner.model"]


def test_outside_a_flow_the_sdk_simply_runs() -> None:
    helper = Agent(name="helper", model=searching(), tools=[search])
    result = asyncio.run(KitaruRunner(helper).run("hi"))
    assert (result.final_output, result.status, result.estimated_cost_usd) == ("found", "completed", None)
    with pytest.raises(MaxTurnsExceeded):
        asyncio.run(Runner.run(Agent(name="helper", model=searching(), tools=[search]), "hi", max_turns=1))


def without_ids(body: Any) -> Any:
    """A request without what the endpoint or the SDK draws anew for each run; that there is one is left."""
    if isinstance(body, list):
        return [without_ids(item) for item in body]
    if isinstance(body, dict):
        return {name: "…" if name in ("id", "prompt_cache_key") else without_ids(item) for name, item in body.items()}
    return body


@pytest.mark.parametrize("interface", [OpenAIChatCompletionsModel, OpenAIResponsesModel])
def test_the_provider_is_asked_in_a_flow_just_what_it_is_asked_outside(
    interface: type[Model], endpoint: RecordedEndpoint
) -> None:
    """The SDK looks at what kind of object a model is; a durable one is of the same kind."""
    endpoint.script("hi", use("search", query="a"), answers("found"))
    seen: list[Model] = []

    class Watched(Agent[Any]):
        async def get_all_tools(self, run_context: Any) -> list[Any]:
            assert isinstance(self.model, Model)
            seen.append(self.model)
            return await super().get_all_tools(run_context)

    async def ask() -> str:
        async with AsyncOpenAI() as client:
            model: Any = interface
            helper = Watched(name="helper", model=model(model="gpt-test", openai_client=client), tools=[search])
            return str((await Runner.run(helper, "hi")).final_output)

    @flow
    async def asking() -> str:
        return await ask()

    assert asyncio.run(ask()) == asking.run().wait() == "found"
    bodies = [without_ids(request.body) for request in endpoint.requests()]
    assert len(bodies) == 4
    assert bodies[:2] == bodies[2:]
    assert len(seen) >= 4
    assert all(isinstance(model, interface) for model in seen)


def test_the_users_agents_stay_as_they_are() -> None:
    helper = Agent(name="helper", model=searching(), tools=[search])
    other = Agent(name="other", handoffs=[helper])

    def told() -> dict[str, Any]:
        return {f"{one.name}.{f.name}": getattr(one, f.name) for one in (helper, other) for f in fields(one)}

    before = told()

    @flow
    async def ask() -> str:
        return str((await Runner.run(helper, "hi")).final_output)

    assert ask.run().wait() == "found"
    after = told()
    assert [name for name in before if after[name] is not before[name]] == []
    assert type(helper) is Agent


class City(BaseModel):
    name: str
    people: int


@pytest.mark.parametrize("strategy", ["calls", "runner_call"])
def test_typed_answers_come_back_as_what_they_are(strategy: Any) -> None:
    model = Script([[say('{"name": "Rome", "people": 3}')]])
    seen: list[Any] = []

    @flow(retries=1)
    def ask() -> City:
        runner = KitaruRunner(Agent(name="helper", model=model, output_type=City), checkpoint_strategy=strategy)
        result = runner.run_sync("hi")
        seen.append(result)
        if len(seen) == 1:
            raise ValueError("once")
        return result.final_output  # type: ignore[no-any-return]

    assert ask.run().wait() == City(name="Rome", people=3)
    assert seen[0] == seen[1]
    assert isinstance(seen[1].final_output, City)


def test_runs_side_by_side_keep_their_own_answers(executions: Executions) -> None:
    def echo(items: list[Any]) -> Any:
        return [say("re: " + items[0]["content"])]

    model = Script([echo] * 6)
    orders = [[0, 1, 2], [2, 0, 1]]

    @flow(retries=1)
    async def many() -> list[str]:
        order = orders.pop(0)
        helper = Agent(name="helper", model=model)
        runs = {n: asyncio.ensure_future(Runner.run(helper, f"question {n}")) for n in order}
        answers = [str((await runs[n]).final_output) for n in range(3)]
        if orders:
            raise ValueError("once")
        return answers

    handle = many.run()
    assert handle.wait() == ["re: question 0", "re: question 1", "re: question 2"]
    assert len(model.asked) == 3
    assert len(executions.calls(handle)) == 3


def in_a_fresh_process(code: str) -> None:
    """Run code where the tests can be imported; compiled modules are kept, or the SDK takes half a minute to import."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240, env=environment, cwd=root)


def test_importing_the_package_does_not_import_the_sdk() -> None:
    code = (
        "import sys, kitaru_nb; from kitaru_nb import flow, OpenAIRunRequest, OpenAICapturePolicy\n"
        "f = flow(lambda: 1); assert f.with_options(name='f').run().wait() == 1\n"
        "assert 'agents' not in sys.modules, 'imported'"
    )
    in_a_fresh_process(code)


def test_an_import_inside_the_flow_is_in_time_to_be_durable() -> None:
    code = """
from kitaru_nb import flow, KitaruClient

@flow
async def ask():
    from agents import Agent, Runner, set_trace_processors
    from tests.adapters.openai_agents.fakes import Script, say
    set_trace_processors([])
    return (await Runner.run(Agent(name="late", model=Script([[say("yes")]])), "hi")).final_output

handle = ask.run()
assert handle.wait() == "yes"
assert [c.name for c in KitaruClient().executions.get(handle.exec_id).checkpoints] == ["late.model"]
"""
    in_a_fresh_process(code)
