"""A replay asks an ``llm()`` call something else, or another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapters.endpoint import RecordedEndpoint
from kitaru_nb import KitaruClient, KitaruUsageError, KitaruUserCodeError, flow, llm
from kitaru_nb.testing.adapter.script import say


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))


@flow
def ask() -> str:
    first = llm("the question", model="openai:gpt-test", temperature=0)
    return llm(f"sum up: {first}", model="openai:gpt-test", name="sum")


def test_another_model_is_asked_something_else_and_what_reads_the_answer_runs_again(endpoint: RecordedEndpoint) -> None:
    endpoint.script("the question", say("plain"))
    endpoint.script("in rhyme", say("sublime"))
    endpoint.script("sum up: plain", say("in short: plain"))
    endpoint.script("sum up: sublime", say("in short: sublime"))
    handle = ask.run()
    assert handle.wait() == "in short: plain"
    messages = [{"role": "user", "content": "in rhyme"}]
    given = {"model": "anthropic:claude-test", "messages": messages, "settings": {"max_tokens": 9}}
    again = ask.replay(handle.exec_id, overrides={"arguments.llm": given})
    assert again.wait() == "in short: sublime"
    request = endpoint.requests()[2]
    assert (request.path, request.body["model"], request.body["max_tokens"]) == ("/v1/messages", "claude-test", 9)
    assert "temperature" not in request.body
    call = KitaruClient().executions.get(again.exec_id).checkpoints[0]
    assert [i.preview for i in call.inputs] == ["'anthropic:claude-test'", str(messages), "{'max_tokens': 9}"]
    _, prompt = KitaruClient().artifacts.list(again.exec_id, producing_call=call.call_id)
    assert prompt.load() == {"messages": messages, "max_tokens": 9}


def test_only_the_model_changes_when_only_that_is_given(endpoint: RecordedEndpoint) -> None:
    endpoint.script("question", say("plain"))
    endpoint.script("sum up", say("short"))
    handle = ask.run()
    handle.wait()
    ask.replay(handle.exec_id, overrides={"arguments.sum": {"model": "openai:gpt-other"}}).wait()
    before, after = endpoint.requests()[1:]
    assert after.seen == {**before.seen, "model": "gpt-other"}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"prompt": "hello"}, r"takes no other 'prompt'. Inputs are: model, messages, settings"),
        ("hello", "expected a mapping with some of its inputs: model, messages, settings"),
    ],
    ids=["no such input", "no mapping"],
)
def test_what_a_call_does_not_take_is_refused_before_anything_is_asked(
    endpoint: RecordedEndpoint, given: Any, found: str
) -> None:
    endpoint.script("question", say("plain"))
    endpoint.script("sum up", say("short"))
    handle = ask.run()
    handle.wait()
    with pytest.raises(KitaruUsageError, match=found):
        ask.replay(handle.exec_id, overrides={"arguments.llm": given})
    again = ask.replay(handle.exec_id, overrides={"arguments.llm": {"settings": {"heat": 1}}})
    with pytest.raises(KitaruUserCodeError, match="no 'heat'; expected temperature and max_tokens"):
        again.wait()
    assert endpoint.paid == 2
