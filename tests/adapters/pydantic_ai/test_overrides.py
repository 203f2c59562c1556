"""A replay asks a model something else, or says what it answered."""

from __future__ import annotations

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelRequest

from adapters.pydantic_ai.scripted import Script, use
from kitaru_nb import KitaruClient, KitaruUsageError, KitaruUserCodeError, flow
from kitaru_nb.surfaces.adapters.pydantic_ai import KitaruAgent


def test_a_model_is_asked_something_else() -> None:
    script = Script(use("look_up", "c1", key="a"), "Done.")
    agent: Agent[None, str] = Agent(script.model, name="helper", instructions="Be kind.")

    @agent.tool_plain
    def look_up(key: str) -> str:
        """Look up a key."""
        return f"{key} is known"

    @flow
    def ask() -> str:
        return KitaruAgent(agent).run_sync("question").output

    handle = ask.run()
    assert handle.wait() == "Done."
    script.turns[1] = "Done curtly."
    again = ask.replay(handle.exec_id, overrides={"arguments.helper.model#2": {"instructions": "Be curt."}})
    assert again.wait() == "Done curtly."
    before, after = ([m.instructions for m in asked if isinstance(m, ModelRequest)] for asked in script.asked[1:])
    assert (before, after) == (["Be kind.", "Be kind."], ["Be kind.", "Be curt."])
    call = next(c for c in KitaruClient().executions.get(again.exec_id).checkpoints if c.selector == "helper.model#2")
    assert [i.preview for i in call.inputs if i.name == "instructions"] == ["'Be curt.'"]
    messages = [{"kind": "request", "parts": [{"part_kind": "user-prompt", "content": "another question"}]}]
    script.turns[0] = "Done without a tool."
    other = ask.replay(handle.exec_id, overrides={"arguments.helper.model#1": {"messages": messages}})
    assert other.wait() == "Done without a tool."
    assert [part.content for message in script.asked[-1] for part in message.parts] == ["another question"]


def test_what_a_model_cannot_be_asked_is_refused_before_it_is() -> None:
    script = Script("Done.", "Never said.")
    agent: Agent[None, str] = Agent(script.model, name="helper")

    @flow
    def ask() -> str:
        return KitaruAgent(agent).run_sync("question").output

    handle = ask.run()
    handle.wait()
    with pytest.raises(KitaruUsageError, match=r"takes no other 'tools'. Inputs are: instructions, messages, settings"):
        ask.replay(handle.exec_id, overrides={"arguments.helper.model": {"tools": []}})
    with pytest.raises(KitaruUsageError, match="'helper' is of type agent_run and takes no other arguments"):
        ask.replay(handle.exec_id, overrides={"arguments.helper": {"prompt": "x"}})
    wrong = ask.replay(handle.exec_id, overrides={"arguments.helper.model": {"messages": [{"role": "user"}]}})
    with pytest.raises(KitaruUserCodeError, match=r"'helper.model' can't be asked with"):
        wrong.wait()
    for given in (3, {"text": "Done."}):
        wrong = ask.replay(handle.exec_id, overrides={"checkpoint.helper.model": given})
        with pytest.raises(KitaruUserCodeError, match=r"answer of a model can't be .* expected its text, or"):
            wrong.wait()
    assert len(script.asked) == 1
