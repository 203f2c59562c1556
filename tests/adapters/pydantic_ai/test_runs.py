"""Runs of agents: recorded once, found again, typed, named, refused."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, FunctionToolset, ModelRetry, RunContext
from pydantic_ai.capabilities import Instrumentation
from pydantic_ai.messages import ToolReturnPart

from adapters.pydantic_ai.scripted import Script, use
from kitaru_nb import (
    KitaruClient,
    KitaruDivergenceError,
    KitaruExecutionError,
    KitaruUsageError,
    KitaruUserCodeError,
    checkpoint,
    flow,
)
from kitaru_nb.model import CheckpointCall
from kitaru_nb.surfaces.adapters.prices import register_price
from kitaru_nb.surfaces.adapters.pydantic_ai import KitaruAgent, KitaruDurability


class Place(BaseModel):
    name: str
    height: Decimal


class Once:
    """Fails the first time that it is called."""

    def __init__(self) -> None:
        self.called = 0

    def __call__(self) -> None:
        self.called += 1
        if self.called == 1:
            raise ConnectionError("the flow breaks off once")


def calls(exec_id: str) -> list[CheckpointCall]:
    return list(KitaruClient().executions.get(exec_id).checkpoints)


def named(exec_id: str, name: str) -> CheckpointCall:
    return next(call for call in calls(exec_id) if call.name == name)


def mountaineer(script: Script, ran: list[str], **options: Any) -> Agent[None, Any]:
    agent: Agent[None, Any] = Agent(script.model, name="guide", instructions="Be exact.", **options)

    @agent.tool_plain
    def look_up(name: str) -> Place:
        """Look up a mountain."""
        ran.append(name)
        return Place(name=name, height=Decimal("2962.10"))

    return agent


CLIMB = (use("look_up", "c1", name="Zugspitze"), "It is high.")


def wrapped(script: Script, ran: list[str]) -> Any:
    return KitaruAgent(mountaineer(script, ran))


def capable(script: Script, ran: list[str]) -> Any:
    return mountaineer(script, ran, capabilities=[KitaruDurability()])


@pytest.mark.parametrize("make", [wrapped, capable], ids=["wrapped", "capability"])
def test_a_resumed_run_pays_for_nothing_and_gives_back_the_same(make: Callable[..., Any]) -> None:
    script, ran, once = Script(*CLIMB), [], Once()
    agent = make(script, ran)
    results = []

    @flow(retries=1)
    async def climb() -> str:
        results.append(await agent.run("How high?"))
        once()
        return str(results[-1].output)

    handle = climb.run()
    assert handle.wait() == "It is high."
    assert (len(script.asked), ran) == (2, ["Zugspitze"])
    first, second = results
    assert first.all_messages() == second.all_messages()
    assert (first.usage, first.run_id, first.conversation_id) == (second.usage, second.run_id, second.conversation_id)
    assert [(call.name, call.checkpoint_type) for call in calls(handle.exec_id)] == [
        ("guide", "agent_run"),
        ("guide.model", "model_call"),
        ("look_up", "tool_call"),
        ("guide.model", "model_call"),
    ]
    run = named(handle.exec_id, "guide")
    assert {call.parent for call in calls(handle.exec_id)[1:]} == {run.call_id}


def test_results_of_tools_keep_their_types_live_and_from_the_record() -> None:
    script, once = Script(*CLIMB), Once()
    agent = KitaruAgent(mountaineer(script, []))
    seen: list[Any] = []

    @flow(retries=1)
    async def climb() -> None:
        result = await agent.run("How high?")
        parts = [part for message in result.all_messages() for part in message.parts]
        seen.append(next(part.content for part in parts if isinstance(part, ToolReturnPart)))
        once()

    climb.run().wait()
    assert seen == [Place(name="Zugspitze", height=Decimal("2962.10"))] * 2


def test_an_output_is_typed_live_and_from_the_record() -> None:
    script, once = Script(use("final_result", "c1", name="Zugspitze", height="2962.10")), Once()
    agent = KitaruAgent(Agent(script.model, name="guide", output_type=Place))
    outputs: list[Place] = []

    @flow(retries=1)
    async def climb() -> None:
        outputs.append((await agent.run("Which?")).output)
        once()

    climb.run().wait()
    assert outputs == [Place(name="Zugspitze", height=Decimal("2962.10"))] * 2
    assert len(script.asked) == 1


def test_a_run_inside_which_the_flow_breaks_off_goes_on_after_its_last_call() -> None:
    script, ran = Script(use("look_up", "c1", name="Eiger"), [ConnectionError("lost"), "It is high."]), []
    agent = KitaruAgent(mountaineer(script, ran))

    @flow(retries=1)
    async def climb() -> str:
        return str((await agent.run("How high?")).output)

    assert climb.run().wait() == "It is high."
    assert (len(script.asked), ran) == (3, ["Eiger"])


def test_run_sync_works_in_a_plain_flow_inside_a_running_loop_and_outside() -> None:
    script = Script("Hello.")
    agent = KitaruAgent(Agent(script.model, name="greeter"))

    @flow
    def plain() -> str:
        return agent.run_sync("hi").output

    @flow
    async def inside() -> str:
        return agent.run_sync("hi").output

    assert [plain.run().wait(), inside.run().wait(), agent.run_sync("hi").output] == ["Hello."] * 3


async def test_outside_a_flow_nothing_is_recorded() -> None:
    script = Script("Hello.")
    agent = KitaruAgent(Agent(script.model, name="greeter"))
    assert (await agent.run("hi")).output == "Hello."
    assert agent.run_sync("hi").output == "Hello."
    assert KitaruClient().executions.list() == []


def test_another_prompt_at_the_same_place_stops_the_resumed_flow() -> None:
    prompts, once = ["first", "second"], Once()
    agent = KitaruAgent(Agent(Script("fine").model, name="clock"))

    @flow(retries=1)
    async def ask() -> None:
        await agent.run(prompts.pop(0))
        once()

    with pytest.raises((KitaruDivergenceError, KitaruExecutionError), match=r"prompt.*first.*second"):
        ask.run().wait()


def test_a_tool_that_asks_the_model_to_try_again_is_recorded_as_that() -> None:
    script = Script(use("pick", "c1", n=1), use("pick", "c2", n=2), "done")
    agent: Agent[None, str] = Agent(script.model, name="picker")
    ran, once = [], Once()

    @agent.tool_plain
    def pick(n: int) -> str:
        """Pick a number."""
        ran.append(n)
        if n == 1:
            raise ModelRetry("not that one")
        return f"picked {n}"

    durable = KitaruAgent(agent)

    @flow(retries=1)
    async def choose() -> str:
        result = await durable.run("pick")
        once()
        return result.output

    handle = choose.run()
    assert handle.wait() == "done"
    assert (ran, len(script.asked)) == ([1, 2], 3)
    assert [call.status for call in calls(handle.exec_id) if call.name == "pick"] == ["completed"] * 2
    assert "not that one" in repr(script.asked[1])


def test_a_tool_is_tried_again_as_its_metadata_says_and_not_when_it_says_so() -> None:
    script = Script([use("flaky", "c1"), use("light", "c2")], "done")
    agent: Agent[None, str] = Agent(script.model, name="worker")
    ran: list[str] = []

    @agent.tool_plain(metadata={"kitaru": {"retries": 1, "timeout": 30}})
    def flaky() -> str:
        """Fails once."""
        ran.append("flaky")
        if ran.count("flaky") == 1:
            raise ConnectionError("try again")
        return "at last"

    @agent.tool_plain(metadata={"kitaru": False})
    def light() -> str:
        """Needs no record."""
        return "light"

    durable = KitaruAgent(agent)

    @flow
    async def work() -> str:
        return (await durable.run("work")).output

    handle = work.run()
    assert handle.wait() == "done"
    assert ran == ["flaky", "flaky"]
    flaky_call = named(handle.exec_id, "flaky")
    assert [attempt.status for attempt in flaky_call.attempts] == ["failed", "completed"]
    assert not any(call.name == "light" for call in calls(handle.exec_id))


def test_a_failed_request_is_tried_again_as_the_agent_says() -> None:
    script = Script([ConnectionError("busy"), "done"])
    agent = KitaruAgent(Agent(script.model, name="worker"), model_retries=1)

    @flow
    async def work() -> str:
        return (await agent.run("work")).output

    handle = work.run()
    assert handle.wait() == "done"
    assert len(script.asked) == 2
    assert len(named(handle.exec_id, "worker.model").attempts) == 2


def test_runs_inside_a_tool_are_children_of_its_call() -> None:
    inner = KitaruAgent(Agent(Script("42").model, name="inner"))
    outer: Agent[None, str] = Agent(Script(use("delegate", "c1"), "done").model, name="outer")

    @outer.tool
    async def delegate(ctx: RunContext[None]) -> str:
        """Ask somebody else."""
        return (await inner.run("what?", usage=ctx.usage)).output

    agent = KitaruAgent(outer)

    @flow
    async def work() -> int:
        return (await agent.run("work")).usage.requests

    handle = work.run()
    assert handle.wait() == 3
    tool, run, model = (named(handle.exec_id, name) for name in ("delegate", "inner", "inner.model"))
    assert (run.parent, model.parent) == (tool.call_id, run.call_id)


def test_toolsets_and_models_of_a_single_run_are_durable_too() -> None:
    script, ran, once = Script(use("extra", "c1"), "done"), [], Once()

    def extra() -> str:
        """Something for this run."""
        ran.append("extra")
        return "more"

    agent = KitaruAgent(Agent(name="worker"))

    @agent.wrapped.toolset  # type: ignore[attr-defined, untyped-decorator]
    def on_demand(ctx: RunContext[None]) -> FunctionToolset[None]:
        return FunctionToolset([extra])

    @flow(retries=1)
    async def work() -> str:
        result = await agent.run("work", model=script.model)
        once()
        return str(result.output)

    handle = work.run()
    assert handle.wait() == "done"
    assert (ran, len(script.asked)) == (["extra"], 2)
    assert named(handle.exec_id, "extra").checkpoint_type == "tool_call"


def test_override_changes_the_model_of_a_durable_agent() -> None:
    other = Script("other")
    agent = KitaruAgent(Agent(Script("mine").model, name="worker"))

    @flow
    async def work() -> str:
        with agent.override(model=other.model):
            return (await agent.run("work")).output

    assert work.run().wait() == "other"


def test_iterating_over_the_steps_of_a_run_is_recorded() -> None:
    script, once = Script(*CLIMB), Once()
    agent = KitaruAgent(mountaineer(script, []))

    @flow(retries=1)
    async def climb() -> str:
        async with agent.iter("How high?") as run:
            async for _ in run:
                pass
        once()
        assert run.result is not None
        return str(run.result.output)

    assert climb.run().wait() == "It is high."
    assert len(script.asked) == 2


def test_spans_of_replayed_work_are_not_made_again() -> None:
    script = Script("fine")
    agent = KitaruAgent(Agent(script.model, name="traced", capabilities=[Instrumentation()]))

    @flow
    async def ask() -> str:
        return (await agent.run("hi")).output

    assert ask.run().wait() == "fine"


def test_costs_follow_the_price_table() -> None:
    register_price("scripted", input=1_000_000, output=2_000_000)
    agent = KitaruAgent(Agent(Script("one two").model, name="dear"))

    @flow
    async def ask() -> None:
        await agent.run("hi")

    handle = ask.run()
    handle.wait()
    metadata = named(handle.exec_id, "dear.model").metadata
    assert metadata["model"] == "scripted"
    assert metadata["cost"] == pytest.approx(metadata["input_tokens"] + 2 * metadata["output_tokens"])


def test_a_replay_notices_that_a_tool_has_changed() -> None:
    script, ran = Script(*CLIMB), []
    agent = KitaruAgent(mountaineer(script, ran))

    @checkpoint
    def pack(answer: str) -> str:
        return answer

    @flow
    async def climb() -> str:
        return pack(str((await agent.run("How high?")).output))

    handle = climb.run()
    handle.wait()
    assert KitaruClient().executions.replay(handle.exec_id, from_="pack").wait() == "It is high."
    assert (len(script.asked), ran) == (2, ["Zugspitze"])

    def look_up(name: str) -> Place:
        """Look up a mountain."""
        ran.append(f"{name}, anew")
        return Place(name=name, height=Decimal("1"))

    (tools,) = (leaf for leaf in agent.toolsets if isinstance(leaf, FunctionToolset))
    del tools.tools["look_up"]
    tools.add_function(look_up)
    assert KitaruClient().executions.replay(handle.exec_id, from_="pack").wait() == "It is high."
    assert ran == ["Zugspitze", "Zugspitze, anew"]
    assert len(script.asked) == 3


def test_a_text_given_for_a_model_call_in_a_replay_is_its_answer() -> None:
    script = Script("mine")
    agent = KitaruAgent(Agent(script.model, name="worker"))

    @flow
    async def work() -> str:
        return (await agent.run("work")).output

    handle = work.run()
    handle.wait()
    model = named(handle.exec_id, "worker.model")
    again = KitaruClient().executions.replay(handle.exec_id, overrides={f"checkpoint.{model.call_id}": "yours"})
    assert again.wait() == "yours"
    assert len(script.asked) == 1


def test_a_value_given_for_a_run_in_a_replay_is_its_output() -> None:
    agent = KitaruAgent(Agent(Script("mine").model, name="worker"))

    @flow
    async def work() -> str:
        return (await agent.run("work")).output

    handle = work.run()
    handle.wait()
    again = KitaruClient().executions.replay(handle.exec_id, overrides={"checkpoint.worker": "yours"})
    assert again.wait() == "yours"


def test_what_cannot_be_is_refused_before_anything_runs() -> None:
    nameless: Agent[None, str] = Agent(Script("x").model)
    with pytest.raises(KitaruUsageError, match=r"no name.*\n.*name=\"support\""):
        KitaruAgent(nameless)
    assert KitaruAgent(nameless, name="support").checkpoint_name == "support"
    with pytest.raises(KitaruUsageError, match=r"expected a pydantic_ai\.Agent"):
        KitaruAgent("support")  # type: ignore[arg-type]
    with pytest.raises(KitaruUsageError, match="model_timeout=-1"):
        KitaruDurability(model_timeout=-1)
    with pytest.raises(KitaruUsageError, match="retries=-1"):
        KitaruDurability(tool_retries=-1)
    capable_already: Agent[None, str] = Agent(Script("x").model, name="a", capabilities=[KitaruDurability()])
    with pytest.raises(KitaruUsageError, match="has a KitaruDurability already"):
        KitaruAgent(capable_already, tool_retries=1)


@pytest.mark.parametrize(("metadata", "found"), [({"retry": 1}, "option 'retry'"), ("often", "'often'")])
def test_metadata_that_is_no_option_is_refused(metadata: Any, found: str) -> None:
    script = Script(use("act", "c1"), "done")
    agent: Agent[None, str] = Agent(script.model, name="worker")
    ran: list[int] = []

    @agent.tool_plain(metadata={"kitaru": metadata})
    def act() -> str:
        """Act."""
        ran.append(1)
        return "acted"

    durable = KitaruAgent(agent)

    @flow
    async def work() -> str:
        return (await durable.run("work")).output

    with pytest.raises(KitaruExecutionError, match=found):
        work.run().wait()
    assert ran == []


def test_a_tool_can_run_with_other_arguments_in_a_replay() -> None:
    ran: list[Any] = []
    script = Script(use("measure", "c1", place={"name": "Zugspitze", "height": "2962"}), "It is high.")
    agent: Agent[None, str] = Agent(script.model, name="guide")

    @agent.tool_plain
    def measure(place: Place) -> str:
        """Measure a mountain."""
        ran.append(place)
        return f"{place.name} measured"

    @flow
    def climb() -> str:
        return KitaruAgent(agent).run_sync("How high?").output

    handle = climb.run()
    assert handle.wait() == "It is high."
    given = {"arguments.measure": {"place": {"name": "Watzmann", "height": "2713.1"}}}
    again = climb.replay(handle.exec_id, overrides=given)
    assert again.wait() == "It is high."
    assert ran == [Place(name="Zugspitze", height=Decimal(2962)), Place(name="Watzmann", height=Decimal("2713.1"))]
    assert named(again.exec_id, "measure").artifacts[0].preview["text"] == "'Watzmann measured'"
    with pytest.raises(KitaruUserCodeError, match="'measure' can't take the arguments") as caught:
        climb.replay(handle.exec_id, overrides={"arguments.measure": {"place": 3}}).wait()
    assert "arguments.measure" in str(caught.value.__cause__)
    assert len(ran) == 2
