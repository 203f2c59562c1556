"""A replay asks a model something else; what people may not see of it, they don't see then either."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, function_tool

from adapters.openai_agents.conftest import Executions
from adapters.openai_agents.fakes import Script, call, say
from kitaru_nb import KitaruRunner, KitaruUsageError, KitaruUserCodeError, OpenAICapturePolicy, flow


@function_tool
def search(query: str) -> str:
    """Search."""
    return query.upper()


def test_a_model_is_asked_something_else(executions: Executions) -> None:
    model = Script([[call("search", "c0", query="a")], [say("done")]])

    @flow
    def ask() -> str:
        helper = Agent(name="helper", instructions="Be kind.", model=model, tools=[search])
        return str(KitaruRunner(helper).run_sync("x").final_output)

    handle = ask.run()
    assert handle.wait() == "done"
    model.turns.append([say("curtly done")])
    given: dict[str, Any] = {"instructions": "Be curt."}
    again = ask.replay(handle.exec_id, overrides={"arguments.helper.model#2": given})
    assert again.wait() == "curtly done"
    assert model.asked[2].instructions == "Be curt."
    assert model.asked[2].input == model.asked[1].input
    model.turns.append([say("about something else")])
    given = {"input": [{"role": "user", "content": "y"}]}
    assert ask.replay(handle.exec_id, overrides={"arguments.helper.model#2": given}).wait() == "about something else"
    assert (model.asked[3].instructions, model.asked[3].input) == ("Be kind.", given["input"])


def test_what_a_model_cannot_be_asked_is_refused_before_it_is(executions: Executions) -> None:
    model = Script([[say("done")]])

    @flow
    def ask() -> str:
        return str(KitaruRunner(Agent(name="helper", model=model)).run_sync("x").final_output)

    handle = ask.run()
    handle.wait()
    with pytest.raises(KitaruUsageError, match=r"takes no other 'model'. Inputs are: input"):
        ask.replay(handle.exec_id, overrides={"arguments.helper.model": {"model": "other"}})
    wrong = ask.replay(handle.exec_id, overrides={"arguments.helper.model": {"input": 3}})
    with pytest.raises(KitaruUserCodeError, match=r"input of 'helper.model' is 3; expected text, or a list"):
        wrong.wait()
    assert len(model.asked) == 1


def test_an_outcome_is_given_to_a_run_or_to_a_model_but_not_just_anything(executions: Executions) -> None:
    model = Script([[say("done")]])

    @flow
    def ask() -> list[Any]:
        result = KitaruRunner(Agent(name="helper", model=model)).run_sync("x")
        return [result.status, result.final_output]

    handle = ask.run()
    handle.wait()
    for given in ("my words", {"city": "Rome"}):
        assert ask.replay(handle.exec_id, overrides={"checkpoint.helper": given}).wait() == ["completed", given]
    assert ask.replay(handle.exec_id, overrides={"checkpoint.helper.model": "words"}).wait() == ["completed", "words"]
    wrong: Any
    for wrong in ({"text": "hi"}, {"output": [{"text": "hi"}]}):
        again = ask.replay(handle.exec_id, overrides={"checkpoint.helper.model": wrong})
        with pytest.raises(KitaruUserCodeError, match=r"model('s answer)? is {'text': 'hi'}; expected"):
            again.wait()
    assert len(model.asked) == 1


def test_other_arguments_are_redacted_like_those_of_the_model(executions: Executions) -> None:
    model = Script([[call("search", "c0", query="a secret")], [say("done")], [say("done")]])
    capture = OpenAICapturePolicy(redact=lambda kind, value: f"<{kind}>")

    @flow
    def ask() -> str:
        helper = Agent(name="helper", model=model, tools=[search])
        return str(KitaruRunner(helper, capture=capture).run_sync("x").final_output)

    handle = ask.run()
    handle.wait()
    again = ask.replay(handle.exec_id, overrides={"arguments.search": {"query": "another secret"}})
    assert again.wait() == "done"
    assert model.asked[-1].results == {"c0": "ANOTHER SECRET"}
    found = next(c for c in executions.calls(again) if c.name == "search")
    assert [i.preview for i in found.inputs] == ["'<arguments>'"]
    assert not [a.preview for a in found.artifacts if "secret" in str(a.preview).lower()]
