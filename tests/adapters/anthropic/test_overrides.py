"""A replay sends another request to Anthropic than the flow did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic

from adapters.endpoint import RecordedEndpoint
from kitaru_nb import KitaruClient, KitaruUserCodeError, checkpoint, durable, flow
from kitaru_nb.testing.adapter.script import say

OPTIONS: dict[str, Any] = {"model": "claude-test", "max_tokens": 50, "system": "Be kind."}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


@checkpoint
def shout(text: str) -> str:
    return text.upper()


@flow
def whole() -> str:
    with Anthropic() as client:
        message = durable(client).messages.create(messages=user("question"), extra_body={"top_k": 3}, **OPTIONS)
    return shout(message.content[0].text)


@flow
def streamed() -> str:
    with Anthropic() as client, durable(client).messages.stream(messages=user("question"), **OPTIONS) as stream:
        return shout("".join(stream.text_stream))


@pytest.mark.parametrize("program", [whole, streamed], ids=["whole", "streamed"])
def test_another_request_is_sent_and_what_reads_the_answer_runs_again(endpoint: RecordedEndpoint, program: Any) -> None:
    endpoint.script("question", say("plain"))
    endpoint.script("in rhyme", say("sublime"))
    handle = program.run()
    assert handle.wait() == "PLAIN"
    given = {"messages": user("in rhyme"), "system": "Be curt.", "settings": {"max_tokens": 9, "top_p": 0.5}}
    again = program.replay(handle.exec_id, overrides={"arguments.claude.model": given})
    assert again.wait() == "SUBLIME"
    _, request = endpoint.requests()
    body = {key: value for key, value in request.body.items() if key != "stream"}
    assert body == {"model": "claude-test", "messages": user("in rhyme"), "system": "Be curt.", **given["settings"]}
    call = KitaruClient().executions.get(again.exec_id).checkpoints[0]
    _, prompt = KitaruClient().artifacts.list(again.exec_id, producing_call=call.call_id)
    assert prompt.load()["messages"] == user("in rhyme")


def test_what_is_no_request_is_not_sent(endpoint: RecordedEndpoint) -> None:
    endpoint.script("question", say("plain"))
    handle = whole.run()
    handle.wait()
    again = whole.replay(handle.exec_id, overrides={"arguments.claude.model": {"messages": "in rhyme"}})
    with pytest.raises(KitaruUserCodeError, match=r"messages of 'claude.model' is 'in rhyme'; expected"):
        again.wait()
    assert endpoint.paid == 1
