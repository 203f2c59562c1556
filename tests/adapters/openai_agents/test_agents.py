"""What agents can do, in a flow that fails once and is tried again: everything happens once, and goes the same way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrailTripwireTriggered,
    MaxTurnsExceeded,
    Runner,
    SessionSettings,
    SQLiteSession,
    function_tool,
    handoff,
    input_guardrail,
    set_trace_processors,
)
from agents.mcp import MCPServer
from pydantic import BaseModel

from kitaru_nb import KitaruRunner, flow
from kitaru_nb.surfaces.adapters.openai_agents.sessions import Pages
from tests.adapters.openai_agents.conftest import Executions
from tests.adapters.openai_agents.fakes import Script, Spans, call, say

ran: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@function_tool
def note(text: str) -> str:
    """Note something down."""
    ran.append(text)
    return f"noted {text}"


def twice(body: Callable[[], Any], executions: Executions) -> tuple[list[Any], list[str]]:
    """(the outcome of each attempt, names of the recorded calls) of a flow that fails after its first attempt."""
    outcomes: list[Any] = []

    @flow(retries=1)
    async def attempts() -> None:
        try:
            outcomes.append(await body())
        except Exception as error:
            outcomes.append(error)
        if len(outcomes) == 1:
            raise ValueError("once")

    handle = attempts.run()
    handle.wait()
    return outcomes, [c.name for c in executions.calls(handle)]


def test_agents_that_hand_over_to_each_other_in_a_circle(executions: Executions) -> None:
    triage_model = Script([[call("transfer_to_expert", "h1")], [say("bye")]])
    expert_model = Script([[call("note", "c1", text="a"), call("back", "h2")]])
    triage = Agent(name="triage", model=triage_model)
    expert = Agent(name="expert", model=expert_model, tools=[note])
    expert.handoffs.append(handoff(triage, tool_name_override="back"))
    triage.handoffs.append(expert)

    async def body() -> Any:
        result = await Runner.run(triage, "x")
        assert result.last_agent is triage
        return [str(result.final_output), [item.agent.name for item in result.new_items]]

    outcomes, names = twice(body, executions)
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] == "bye"
    assert names == ["triage.model", "expert.model", "note", "triage.model"]
    assert ran == ["a"]
    assert (len(triage_model.asked), len(expert_model.asked)) == (2, 1)


def test_guardrails_that_run_agents_are_not_paid_twice(executions: Executions) -> None:
    judge_model, model = Script([[say("fine")]]), Script([[say("answer")]])

    @input_guardrail
    async def judged(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        verdict = await Runner.run(Agent(name="judge", model=judge_model), f"is this fine: {given}")
        return GuardrailFunctionOutput(output_info=verdict.final_output, tripwire_triggered=False)

    async def body() -> Any:
        return (await Runner.run(Agent(name="helper", model=model, input_guardrails=[judged]), "x")).final_output

    outcomes, names = twice(body, executions)
    assert outcomes == ["answer", "answer"]
    assert sorted(names) == ["helper.model", "judge.model"]
    assert (len(judge_model.asked), len(model.asked)) == (1, 1)


@pytest.mark.parametrize("strategy", ["calls", "runner_call"])
def test_the_sdks_exceptions_are_the_same_after_a_resume(strategy: Any, executions: Executions) -> None:
    @input_guardrail(name="no_x")
    async def no(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info={"why": "x"}, tripwire_triggered=True)

    blocked = KitaruRunner(
        Agent(name="helper", model=Script([[say("a")]]), input_guardrails=[no]), checkpoint_strategy=strategy
    )
    endless = KitaruRunner(
        Agent(name="endless", model=Script([[call("note", "c1", text="a")]] * 2), tools=[note]),
        checkpoint_strategy=strategy,
    )
    seen: list[tuple[type, str, Any]] = []

    async def body() -> None:
        for runner in (blocked, endless):
            try:
                await runner.run("x") if runner is blocked else await runner.run(request)
            except (InputGuardrailTripwireTriggered, MaxTurnsExceeded) as error:
                verdict = getattr(error, "guardrail_result", None)
                about = None if verdict is None else (verdict.guardrail.name, verdict.output.output_info)
                seen.append((type(error), str(error), about))

    from kitaru_nb import OpenAIRunRequest

    request = OpenAIRunRequest.start("x", max_turns=1)
    outcomes: list[int] = []

    @flow
    async def both() -> None:
        await body()
        outcomes.append(1)
        await body()

    handle = both.run()
    handle.wait()
    # Resumed: the flow's body runs again, and finds the recorded failures.
    again = executions.client.executions
    assert len(seen) == 4
    assert seen[:2] == [
        (InputGuardrailTripwireTriggered, seen[0][1], ("no_x", {"why": "x"})),
        (MaxTurnsExceeded, "Max turns (1) exceeded", None),
    ]
    assert again.get(handle.exec_id).status == "completed"


class Tools(MCPServer):
    """A server in this process that counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[Any] = []

    name = "tools"

    async def connect(self) -> None: ...

    async def cleanup(self) -> None: ...

    async def list_tools(self, *args: Any) -> list[Any]:
        from mcp.types import Tool

        return [Tool.model_validate({"name": "add", "description": "Add.", "inputSchema": {"type": "object"}})]

    async def call_tool(self, tool_name: str, arguments: Any, meta: Any = None) -> Any:
        from mcp.types import CallToolResult, TextContent

        self.called.append((tool_name, arguments))
        return CallToolResult(content=[TextContent(type="text", text=str(sum(arguments.values())))])

    async def list_prompts(self) -> Any:
        raise NotImplementedError

    async def get_prompt(self, name: str, arguments: Any = None) -> Any:
        raise NotImplementedError


def test_tools_of_mcp_servers_are_checkpoints(executions: Executions) -> None:
    server = Tools()
    model = Script([[call("add", "c1", a=1, b=2)], [say("three")]])

    async def body() -> Any:
        return (await Runner.run(Agent(name="helper", model=model, mcp_servers=[server]), "x")).final_output

    outcomes, names = twice(body, executions)
    assert outcomes == ["three", "three"]
    assert names == ["helper.model", "add", "helper.model"]
    assert server.called == [("add", {"a": 1, "b": 2})]


def test_the_span_of_an_mcp_servers_tool_is_complete_and_nothing_complains(caplog: pytest.LogCaptureFixture) -> None:
    spans = Spans()
    set_trace_processors([spans])
    model = Script([[call("add", "c1", a=1, b=2)], [say("three")]])

    @flow
    async def ask() -> None:
        await Runner.run(Agent(name="helper", model=model, mcp_servers=[Tools()]), "x")

    ask.run().wait()
    assert [record.getMessage() for record in caplog.records] == []
    (span,) = (span for span in spans.ended if span.span_data.type == "function")
    assert span.span_data.mcp_data == {"server": "tools"}
    (link,) = (one for one in spans.ended if one.parent_id == span.span_id)
    assert (link.span_data.type, link.span_data.data["name"]) == ("custom", "add")


def test_an_agent_used_as_a_tool_is_a_scope_of_its_own(executions: Executions) -> None:
    inner_model = Script([[call("note", "c1", text="in")], [say("inner")]])
    outer_model = Script([[call("helper", "o1", input="a")], [say("outer")]])
    inner = Agent(name="helper", model=inner_model, tools=[note])
    outer = Agent(name="boss", model=outer_model, tools=[inner.as_tool("helper", "helps")])

    async def body() -> Any:
        return (await Runner.run(outer, "x")).final_output

    outcomes, names = twice(body, executions)
    assert outcomes == ["outer", "outer"]
    assert names == ["boss.model", "helper.model", "note", "helper.model", "boss.model"]
    assert ran == ["in"]


def test_a_session_is_written_once_and_read_as_it_was(executions: Executions) -> None:
    session = SQLiteSession("s1", ":memory:")
    model = Script([[call("note", "c1", text="a")], [say("hello")], [say("again")]])
    texts: list[Any] = []

    @flow(retries=1)
    async def talk() -> str:
        helper = Agent(name="helper", model=model, tools=[note])
        first = await Runner.run(helper, "one", session=session)
        if not texts:
            texts.append(str(first.final_output))
            raise ValueError("once")
        return str((await Runner.run(helper, "two", session=session)).final_output)

    handle = talk.run()
    assert handle.wait() == "again"
    assert [item.get("content") for item in model.asked[-1].input if item.get("role") == "user"] == ["one", "two"]
    assert len(model.asked) == 3

    kinds = [item.get("type", item.get("role")) for item in asyncio.run(session.get_items())]
    assert kinds == ["user", "function_call", "function_call_output", "message", "user", "message"]
    assert executions.names(handle).count("session.write") == 1
    session.close()


def test_a_session_that_shows_its_last_items_only_is_written_once_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends after the items are in the session, and before the journal says so."""
    session = SQLiteSession("s1", ":memory:", session_settings=SessionSettings(limit=2))
    model = Script([[say("hello")], [say("again")]])
    write, died = Pages._write, []

    async def dying(pages: Pages) -> int:
        written = await write(pages)
        if not died:
            died.append(written)
            raise ConnectionError("gone")
        return written

    monkeypatch.setattr(Pages, "_write", dying)

    @flow(retries=1)
    async def talk() -> None:
        helper = Agent(name="helper", model=model)
        for text in ("one", "two"):
            await Runner.run(helper, text, session=session)

    asyncio.run(session.add_items([{"role": "user", "content": f"old {n}"} for n in range(4)]))
    talk.run().wait()
    kept = asyncio.run(session.get_items(100))
    told = [item.get("content") if item.get("role") == "user" else item.get("type") for item in kept]
    assert told == ["old 0", "old 1", "old 2", "old 3", "one", "message", "two", "message"]
    assert len(model.asked) == 2
    session.close()


def test_a_run_that_breaks_off_leaves_the_session_alone() -> None:
    session = SQLiteSession("s1", ":memory:")
    model = Script([[call("note", "c1", text="a")], ValueError("gone"), [say("hello")]])

    @flow(retries=1)
    async def talk() -> str:
        helper = Agent(name="helper", model=model, tools=[note])
        return str((await KitaruRunner(helper).run("one", session=session)).final_output)

    assert talk.run().wait() == "hello"

    assert [item.get("type", item.get("role")) for item in asyncio.run(session.get_items())] == [
        "user",
        "function_call",
        "function_call_output",
        "message",
    ]
    assert ran == ["a"]
    session.close()


class Point(BaseModel):
    x: int


class Tag:
    pass


TRAPS: dict[str, Any] = {
    "tuple": (1, "a"),
    "set": {"a", "b", "c"},
    "nested_set": [Decimal("1.5"), {"x", "y"}],
    "bytes": b"\x00\xff",
    "datetime": datetime(2024, 1, 2, tzinfo=timezone.utc),
    "decimal": Decimal("1.50"),
    "model": Point(x=1),
    "none": None,
    "keys": {1: "one"},
    "nan": float("nan"),
    "object": Tag(),
    "text": "naïve 🎈\x07",
    "json": {"a": [1, 2.5, True, None]},
}


@pytest.mark.parametrize("kind", list(TRAPS))
def test_the_model_sees_the_same_result_live_and_resumed(kind: str, executions: Executions) -> None:
    @function_tool
    def trap() -> Any:
        """Give back something awkward."""
        ran.append(kind)
        return TRAPS[kind]

    # The last request fails at first: the resumed run makes it again, with what was recorded.
    model = Script([[call("trap", "c1")], ValueError("gone"), [say("done")]])

    @flow(retries=1)
    async def ask() -> str:
        return str((await KitaruRunner(Agent(name="helper", model=model, tools=[trap])).run("x")).final_output)

    handle = ask.run()
    assert handle.wait() == "done"
    live, resumed = model.asked[1], model.asked[2]
    assert live.results == resumed.results
    if kind not in ("set", "nested_set", "object"):
        assert live.results == {"c1": str(TRAPS[kind])}
    assert ran == [kind]


def test_a_tool_that_stops_the_run_gives_its_value() -> None:
    @function_tool
    def point() -> Point:
        """A point."""
        ran.append("point")
        return Point(x=4)

    model = Script([[call("point", "c1")]])
    seen: list[Any] = []

    @flow(retries=1)
    async def ask() -> None:
        helper = Agent(
            name="helper", model=model, tools=[point], tool_use_behavior="stop_on_first_tool", output_type=Point
        )
        seen.append((await Runner.run(helper, "x")).final_output)
        if len(seen) == 1:
            raise ValueError("once")

    ask.run().wait()
    assert seen == [Point(x=4), Point(x=4)]
    assert ran == ["point"]
