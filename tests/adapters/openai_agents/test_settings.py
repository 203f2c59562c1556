"""What a runner can be told, what it refuses, and what people get to see."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from agents import Agent, Runner, function_tool, set_trace_processors, set_tracing_disabled, trace
from agents.tracing.processors import BackendSpanExporter, BatchTraceProcessor

from adapters.endpoint import RecordedEndpoint
from kitaru_nb import KitaruRunner, KitaruUsageError, OpenAICapturePolicy, OpenAIRunRequest, flow
from kitaru_nb.surfaces.adapters.prices import register_price
from tests.adapters.openai_agents.conftest import Executions
from tests.adapters.openai_agents.fakes import Script, Spans, call, say

ran: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@function_tool
def search(query: str) -> str:
    """Search."""
    ran.append(query)
    return f"secret {query}"


def model() -> Script:
    return Script([[call("search", "c1", query="a")], [say("my secret answer")]])


def run(executions: Executions, **options: Any) -> tuple[Any, list[Any]]:
    script = model()
    results: list[Any] = []

    @flow
    def ask() -> None:
        helper = Agent(name="helper", model=script, tools=[search], instructions="A secret.")
        results.append(KitaruRunner(helper, **options).run_sync("a secret question"))

    handle = ask.run()
    handle.wait()
    return results[0], executions.calls(handle)


def test_calls_can_be_left_without_a_checkpoint(executions: Executions) -> None:
    _, calls = run(executions, tool_checkpoint_config_by_name={"search": False})
    assert [c.name for c in calls] == ["helper", "helper.model", "helper.model"]
    _, calls = run(executions, model_checkpoint_config={"checkpoint": False})
    assert [c.name for c in calls] == ["helper", "search"]
    _, calls = run(executions, tool_checkpoint_config={"checkpoint": False}, run_checkpoint_config=False)
    assert [c.name for c in calls] == ["helper.model", "helper.model"]


def test_a_tool_that_takes_too_long_is_given_up(executions: Executions) -> None:
    @function_tool
    async def slow() -> str:
        """Takes a minute."""
        await asyncio.sleep(60)
        return "late"

    script = Script([[call("slow", "c1")], [say("done")]])

    @flow
    def ask() -> None:
        runner = KitaruRunner(
            Agent(name="helper", model=script, tools=[slow]), tool_checkpoint_config_by_name={"slow": {"timeout": 0.05}}
        )
        runner.run_sync("x")

    handle = ask.run()
    handle.wait()
    tool = next(c for c in executions.calls(handle) if c.name == "slow")
    assert (tool.status, tool.failure.exception_type) == ("failed", "kitaru_nb.errors.KitaruTimeoutError")


def test_what_is_redacted_is_seen_nowhere_but_the_run_can_be_resumed(executions: Executions) -> None:
    def redact(kind: str, value: Any) -> Any:
        assert kind in ("prompt", "response", "arguments", "result")
        return json.loads(json.dumps(value, default=str).replace("secret", "•••"))

    result, calls = run(executions, capture=OpenAICapturePolicy(redact=redact))
    assert result.final_output == "my secret answer"
    seen = []
    for one in calls:
        seen += [i.preview for i in one.inputs] + [a.preview["text"] for a in one.artifacts]
        seen += [
            json.dumps(executions.client.artifacts.get(a.artifact_id).load())
            for a in one.artifacts
            if a.name in ("prompt", "response", "result", "arguments") and one.name != "helper"
        ]
    assert [text for text in seen if "secret" in text] == []
    assert [text for text in seen if "•••" in text]
    _, calls = run(executions, capture=OpenAICapturePolicy(prompts=False, arguments=False))
    assert {a.kind for c in calls for a in c.artifacts} == {"output", "response"}


def test_costs_come_from_the_price_table_or_from_the_user(executions: Executions) -> None:
    result, _ = run(executions)
    assert result.estimated_cost_usd is None
    assert result.warnings == ("No price is known for model 'gpt-test'.",)
    result, calls = run(executions, cost_calculator=lambda name, usage: usage.total_tokens / 100)
    assert result.estimated_cost_usd == pytest.approx(0.94)
    assert [c.metadata.get("cost") for c in calls] == [None, 0.47, None, 0.47]
    register_price("gpt-test-priced", input=1.0, output=10.0)
    script = Script([[say("hi")]], model="gpt-test-priced")

    @flow
    def ask() -> float | None:
        return (
            KitaruRunner(Agent(name="helper", model=script), checkpoint_strategy="runner_call")
            .run_sync("x")
            .estimated_cost_usd
        )

    assert ask.run().wait() == pytest.approx((40 * 1.0 + 7 * 10.0) / 1e6)


def test_settings_that_can_not_be_are_refused_at_once() -> None:
    agent = Agent(name="helper", tools=[search])
    for problem, options in (
        ("checkpoint_strategy='each' is none; expected one of: calls, runner_call", {"checkpoint_strategy": "each"}),
        (
            "has 'serach', but no agent here has such a tool. Tools: search",
            {"tool_checkpoint_config_by_name": {"serach": False}},
        ),
        ("model_checkpoint_config has no option 'retry'", {"model_checkpoint_config": {"retry": 2}}),
        ("retries=-1 can't be", {"tool_checkpoint_config": {"retries": -1}}),
        ("timeout=0 can't be", {"mcp_checkpoint_config": {"timeout": 0}}),
        ("run_checkpoint_config is a int", {"run_checkpoint_config": 3}),
        ("Both run_config= and run_config_factory=", {"run_config": {}, "run_config_factory": dict}),
        ("tool_checkpoint_config: retries='2' can't be", {"tool_checkpoint_config": {"retries": "2"}}),
        ("capture='none' is a str; expected an OpenAICapturePolicy", {"capture": "none"}),
        ("cost_calculator=3 can't be called; expected a function", {"cost_calculator": 3}),
        ("run_config_factory={} can't be called", {"run_config_factory": {}}),
        ("context_serializer='x' can't be called", {"context_serializer": "x"}),
        ("name=7 is a int; expected a text", {"name": 7}),
    ):
        with pytest.raises(KitaruUsageError, match=problem):
            KitaruRunner(agent, **options)  # type: ignore[arg-type]
    with pytest.raises(KitaruUsageError, match="agent without a name"):
        KitaruRunner(Agent(name=" "))
    assert KitaruRunner(Agent(name=" "), name="helper").name == "helper"
    with pytest.raises(KitaruUsageError, match="was given a str; expected an agent"):
        KitaruRunner("helper")  # type: ignore[arg-type]
    runner = KitaruRunner(agent)
    with pytest.raises(KitaruUsageError, match="'max_turns' is no option of a run"):
        runner.run_sync("x", max_turns=3)
    with pytest.raises(KitaruUsageError, match="was given a int"):
        runner.run_sync(5)  # type: ignore[arg-type]
    with pytest.raises(KitaruUsageError, match="session='abc' is a str; expected a session"):
        runner.run_sync("x", session="abc")
    for turns in (0, "3"):
        with pytest.raises(KitaruUsageError, match=f"max_turns={turns!r} can't be"):
            OpenAIRunRequest.start("x", max_turns=turns)  # type: ignore[arg-type]
    for metadata in ({"case": object()}, [1]):
        with pytest.raises(KitaruUsageError, match="expected a mapping of JSON values"):
            OpenAIRunRequest.start("x", metadata=metadata)  # type: ignore[arg-type]
    with pytest.raises(KitaruUsageError, match="redact='x' can't be called"):
        OpenAICapturePolicy(redact="x")  # type: ignore[arg-type]
    with pytest.raises(KitaruUsageError, match="neither an input nor a pending state"):
        runner.run_sync(OpenAIRunRequest())


def test_spans_name_their_checkpoints_and_replayed_ones_say_so(executions: Executions) -> None:
    spans = Spans()
    set_tracing_disabled(False)
    set_trace_processors([spans])
    script = model()
    attempts: list[int] = []

    @flow(retries=1)
    async def ask() -> None:
        await Runner.run(Agent(name="helper", model=script, tools=[search]), "x")
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("once")

    handle = ask.run()
    handle.wait()
    set_trace_processors([])
    found = [s.span_data.data for s in spans.ended if getattr(s.span_data, "name", "") == "checkpoint"]
    calls = {c.call_id: c for c in executions.calls(handle)}
    assert [calls[data["checkpoint"]].name for data in found] == ["helper.model", "search", "helper.model"] * 2
    assert [data["replayed"] for data in found] == [False] * 3 + [True] * 3
    assert {data["execution"] for data in found} == {handle.exec_id}
    ids = {s.span_id for s in spans.ended}
    assert all(call.metadata["span_id"] in ids for call in calls.values())


def test_without_tracing_nothing_is_linked_and_nothing_complains(
    executions: Executions, caplog: pytest.LogCaptureFixture
) -> None:
    set_tracing_disabled(True)
    try:
        with caplog.at_level(logging.WARNING):
            _, calls = run(executions)
    finally:
        set_tracing_disabled(False)
    assert all("span_id" not in c.metadata for c in calls)
    assert caplog.records == []
    with trace("mine"):
        assert run(executions)[0].final_output == "my secret answer"


def test_without_a_key_no_trace_leaves_this_process(
    executions: Executions, endpoint: RecordedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    set_tracing_disabled(False)
    exporter = BackendSpanExporter(endpoint=f"{endpoint.url}/v1/traces/ingest", max_retries=0)
    processor = BatchTraceProcessor(exporter)
    set_trace_processors([processor])
    _, calls = run(executions)
    processor.force_flush()
    processor.shutdown()
    set_trace_processors([])
    assert ["span_id" in c.metadata for c in calls if c.checkpoint_type == "model_call"] == [True, True]
    assert endpoint.requests() == []
