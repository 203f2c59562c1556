"""Resumes, replays, streams, failures: where a run goes on, and where it must stop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import Agent, ModelSettings, Runner, function_tool

from kitaru_nb import (
    KitaruDivergenceError,
    KitaruExecutionError,
    KitaruRunner,
    KitaruStateError,
    OpenAIRunRequest,
    build_resume_request,
    flow,
)
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


@function_tool(needs_approval=True)
def pay(amount: int) -> str:
    """Pay."""
    ran.append(amount)
    return f"paid {amount}"


def chain(*queries: str, last: str = "done") -> Script:
    return Script([*([call("search", f"c{n}", query=q)] for n, q in enumerate(queries)), [say(last)]])


def test_a_run_that_broke_off_goes_on_after_the_last_finished_call() -> None:
    model = chain("a", "b", "c")
    model.turns.insert(3, ValueError("the connection is gone"))

    @flow(retries=1)
    def ask() -> str:
        return str(KitaruRunner(Agent(name="helper", model=model, tools=[search])).run_sync("x").final_output)

    assert ask.run().wait() == "done"
    assert (ran, len(model.asked)) == (["a", "b", "c"], 5)
    assert model.asked[-1].input == model.asked[-2].input


@pytest.mark.parametrize("plain", [True, False])
def test_changed_instructions_stop_a_resumed_run_and_are_named(plain: bool) -> None:
    model = chain("a")
    days = ["Monday", "Tuesday"]

    @flow(retries=1)
    async def ask() -> str:
        helper = Agent(name="helper", model=model, tools=[search], instructions=f"Today is {days.pop(0)}.")
        if plain:
            await Runner.run(helper, "x")
        else:
            await KitaruRunner(Agent(name="other", model=Script([[say("ok")]]))).run("warm up")
            await Runner.run(helper, "x")
        raise ValueError("once")

    with pytest.raises((KitaruDivergenceError, KitaruExecutionError), match=r"'instructions' was.*Monday.*Tuesday"):
        ask.run().wait()
    assert ran == ["a"]
    assert len(model.asked) == 2


def test_a_replay_from_a_tool_runs_the_call_that_reads_it_although_the_result_is_equal(
    executions: Executions,
) -> None:
    model = chain("a", "b")

    @flow
    def ask() -> str:
        return str(KitaruRunner(Agent(name="helper", model=model, tools=[search])).run_sync("x").final_output)

    handle = ask.run()
    handle.wait()
    model.turns += [[call("search", "c9", query="z")], [say("new")]]
    again = ask.replay(handle.exec_id, from_="search#1")
    assert again.wait() == "new"
    assert ran == ["a", "b", "a", "z"]
    assert len(model.asked) == 5
    reused = [c.name for c in executions.calls(again) if c.original_call_id]
    assert reused == ["helper.model"]


def test_a_result_and_arguments_can_be_overridden_in_a_replay(executions: Executions) -> None:
    model = chain("a")

    @flow
    def ask() -> str:
        return str(KitaruRunner(Agent(name="helper", model=model, tools=[search])).run_sync("x").final_output)

    handle = ask.run()
    handle.wait()
    model.turns.append([say("other")])
    assert ask.replay(handle.exec_id, overrides={"checkpoint.search": "my own result"}).wait() == "other"
    assert model.asked[-1].results == {"c0": "my own result"}
    assert ran == ["a"]
    model.turns.append([say("third")])
    assert ask.replay(handle.exec_id, overrides={"arguments.search": {"query": "q"}}).wait() == "third"
    assert model.asked[-1].results == {"c0": "Q"}
    assert ran == ["a", "q"]
    answer = {"checkpoint.helper.model#2": "said by me"}
    assert ask.replay(handle.exec_id, overrides=answer).wait() == "said by me"


def test_a_replay_runs_again_what_changed_and_only_that(executions: Executions) -> None:
    model = chain("a")
    instructions = ["Be brief."]

    @flow
    def ask() -> str:
        helper = Agent(name="helper", model=model, tools=[search], instructions=instructions[0])
        return str(KitaruRunner(helper).run_sync("x").final_output)

    @flow
    def after(text: str) -> str:
        return text

    handle = ask.run()
    handle.wait()
    instructions[0] = "Be polite."
    model.turns += [[call("search", "c0", query="a")], [say("politely")]]
    assert ask.replay(handle.exec_id, from_="helper").wait() == "politely"


def test_tools_called_side_by_side_keep_their_results_in_whatever_order_they_end(executions: Executions) -> None:
    ended = [asyncio.Event() for _ in range(4)]
    ended[3].set()

    @function_tool
    async def charge(amount: int) -> str:
        """Charge, after all that were asked for later."""
        await ended[amount + 1].wait()
        ran.append(amount)
        ended[amount].set()
        return f"charged {amount}"

    calls = [call("charge", f"c{n}", amount=n) for n in range(3)]
    model = Script([calls, ValueError("gone"), [say("done")]])

    @flow(retries=1)
    def ask() -> str:
        return str(KitaruRunner(Agent(name="helper", model=model, tools=[charge])).run_sync("x").final_output)

    handle = ask.run()
    assert handle.wait() == "done"
    assert ran == [2, 1, 0]
    assert model.asked[-1].results == {f"c{n}": f"charged {n}" for n in range(3)}
    inputs = [c.inputs[0].preview for c in executions.calls(handle) if c.name == "charge"]
    assert sorted(inputs) == [f"{{'amount': {n}}}" for n in range(3)]


def test_one_call_id_for_two_calls_keeps_both() -> None:
    """Some providers number their calls anew in each answer."""
    model = Script([[call("search", "call_0", query="a")], [call("search", "call_0", query="b")], [say("done")]])
    seen: list[Any] = []

    @flow(retries=1)
    async def ask() -> None:
        try:
            result = await Runner.run(Agent(name="helper", model=model, tools=[search]), "x")
            seen.append(result.final_output)
        except Exception as error:  # newer versions of the SDK refuse it
            seen.append(type(error).__name__)
        if len(seen) == 1:
            raise ValueError("once")

    ask.run().wait()
    assert seen[0] == seen[1]
    assert len(ran) == len(set(ran))


# failures


def test_a_failing_tool_is_tried_again_and_then_told_to_the_model(executions: Executions) -> None:
    @function_tool
    def flaky() -> str:
        """Fails twice."""
        ran.append(1)
        if len(ran) < 3:
            raise ConnectionError("not yet")
        return "at last"

    def running(retries: int) -> Any:
        model = Script([[call("flaky", "c1")], [say("done")]])

        @flow
        def ask() -> str:
            runner = KitaruRunner(
                Agent(name="helper", model=model, tools=[flaky]),
                tool_checkpoint_config_by_name={"flaky": {"retries": retries}},
            )
            return str(runner.run_sync("x").final_output)

        handle = ask.run()
        handle.wait()
        tool = next(c for c in executions.calls(handle) if c.name == "flaky")
        return tool, model.asked[-1].results["c1"]

    tool, told = running(2)
    assert (tool.status, len(tool.attempts), told) == ("completed", 3, "at last")
    ran.clear()
    tool, told = running(1)
    assert (tool.status, len(tool.attempts)) == ("failed", 2)
    assert "error" in told


def test_a_failure_that_the_model_was_told_of_stays_one_after_a_crash() -> None:
    class Odd(Exception):
        def __reduce__(self) -> Any:
            raise TypeError("can't be pickled")

    @function_tool(failure_error_function=lambda context, error: f"it said: {error}")
    def broken() -> str:
        """Breaks."""
        ran.append(1)
        raise Odd("out of paper")

    model = Script([[call("broken", "c1")], [say("sorry")]])
    seen: list[Any] = []

    @flow(retries=1)
    async def ask() -> None:
        seen.append((await Runner.run(Agent(name="helper", model=model, tools=[broken]), "x")).final_output)

    ask.run().wait()
    assert seen == ["sorry"]
    assert model.asked[-1].results == {"c1": "it said: out of paper"}


def test_a_tools_own_timeout_is_told_in_its_own_words_and_stays_one(executions: Executions) -> None:
    @function_tool(timeout=0.05)
    async def slow() -> str:
        """Takes a minute the first time."""
        ran.append(1)
        await asyncio.sleep(60 if len(ran) == 1 else 0)
        return "in time"

    model = Script([[call("slow", "c1")], ValueError("gone"), [say("sorry")]])

    def bare() -> Any:
        asking = Script([[call("slow", "c1")], [say("sorry")]])
        asyncio.run(Runner.run(Agent(name="helper", model=asking, tools=[slow]), "x"))
        return asking.asked[-1].results

    @flow
    async def ask() -> str:
        helper = Agent(name="helper", model=model, tools=[slow])
        try:
            await Runner.run(helper, "x")
        except ValueError:
            return "gone"
        return "done"

    expected = bare()
    ran.clear()
    handle = ask.run()
    assert handle.wait() == "gone"
    assert model.asked[-1].results == expected
    tool = next(c for c in executions.calls(handle) if c.name == "slow")
    assert (tool.status, tool.failure.exception_type) == ("failed", "kitaru_nb.errors.KitaruTimeoutError")


def test_a_retry_that_goes_better_is_no_divergence() -> None:
    @function_tool
    def flaky() -> str:
        """Fails once."""
        ran.append(1)
        if len(ran) == 1:
            raise ConnectionError("not yet")
        return "at last"

    model = Script([[call("flaky", "c1")], [say("sorry")], [say("fine")]])
    seen: list[Any] = []

    @flow(retries=1)
    async def ask() -> str:
        seen.append((await Runner.run(Agent(name="helper", model=model, tools=[flaky]), "x")).final_output)
        if len(seen) == 1:
            raise ValueError("once")
        return str(seen[-1])

    assert ask.run().wait() == "fine"
    assert seen == ["sorry", "fine"]


def test_a_request_that_the_sdk_sends_again_is_one_call(executions: Executions) -> None:
    from agents import ModelRetrySettings, retry_policies

    settings = ModelSettings(
        retry=ModelRetrySettings(max_retries=2, policy=lambda _: True, backoff={"initial_delay": 0})
    )
    assert retry_policies
    model = Script([ConnectionError("gone"), [call("search", "c1", query="a")], [say("done")]])
    seen: list[Any] = []

    @flow(retries=1)
    async def ask() -> None:
        helper = Agent(name="helper", model=model, tools=[search], model_settings=settings)
        seen.append((await Runner.run(helper, "x")).final_output)
        if len(seen) == 1:
            raise ValueError("once")

    handle = ask.run()
    handle.wait()
    assert seen == ["done", "done"]
    assert [c.name for c in executions.calls(handle)] == ["helper.model", "search", "helper.model"]
    assert len(model.asked) == 3


# streams


async def read(stream: Any) -> str:
    said = ""
    async for event in stream:
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            said += event.data.delta
    return said.strip()


def test_a_stream_is_shown_live_and_its_result_kept(executions: Executions) -> None:
    model = chain("a", last="one two three")
    seen: list[Any] = []

    @flow(retries=1)
    async def ask() -> str:
        stream = KitaruRunner(Agent(name="helper", model=model, tools=[search])).run_streamed("x")
        with pytest.raises(KitaruStateError, match="not been read to the end"):
            stream.result()
        seen.append(await read(stream))
        if len(seen) == 1:
            raise ValueError("once")
        return str(stream.result().final_output)

    handle = ask.run()
    assert handle.wait() == "one two three"
    assert seen == ["one two three", ""]
    assert executions.names(handle) == ["helper", "helper.model", "search", "helper.model#2"]
    assert executions.calls(handle)[1].metadata["input_tokens"] == 40


def test_the_sdks_own_stream_goes_on_where_it_broke_off() -> None:
    model = chain("a", last="one two three")
    model.turns.insert(1, ValueError("gone"))
    seen: list[Any] = []

    @flow(retries=2)
    async def ask() -> str:
        result = Runner.run_streamed(Agent(name="helper", model=model, tools=[search]), "x")
        seen.append(await read(result.stream_events()))
        if len(seen) == 1:
            raise ValueError("once more")
        return str(result.final_output)

    assert ask.run().wait() == "one two three"
    assert seen == ["one two three", "one two three"]
    assert (ran, len(model.asked)) == (["a"], 3)


def test_a_stream_that_is_left_early_goes_on_after_what_was_finished() -> None:
    model = chain("a", last="one two three")
    left: list[Any] = []

    @flow
    async def ask() -> str:
        runner = KitaruRunner(Agent(name="helper", model=model, tools=[search]))
        if not left:
            events = runner.run_streamed("x").__aiter__()
            async for event in events:
                if event.type == "run_item_stream_event" and event.name == "tool_output":
                    left.append(event)
                    break
            await events.aclose()  # type: ignore[attr-defined]
        stream = runner.run_streamed("x")
        await read(stream)
        return str(stream.result().final_output)

    assert ask.run().wait() == "one two three"


def test_approvals_interrupt_a_stream_too() -> None:
    model = Script([[call("pay", "c1", amount=5)], [say("done")]])

    @flow
    async def ask() -> str:
        runner = KitaruRunner(Agent(name="helper", model=model, tools=[pay]))
        stream = runner.run_streamed(OpenAIRunRequest.start("x"))
        await read(stream)
        assert stream.result().status == "interrupted"
        again = runner.run_streamed(build_resume_request(stream.result(), approve=True))
        assert await read(again) == "done"
        return str(again.result().final_output)

    assert ask.run().wait() == "done"
    assert ran == [5]
