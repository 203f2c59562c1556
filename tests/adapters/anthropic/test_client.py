"""What is Anthropic's own: the client's identity, every way to send messages, exact messages, clear refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Message
from pydantic import BaseModel

from adapters.endpoint import RecordedEndpoint
from kitaru_nb import (
    KitaruClient,
    KitaruDivergenceError,
    KitaruExecutionError,
    KitaruUsageError,
    durable,
    flow,
)
from kitaru_nb.surfaces.adapters.anthropic_events import events_of, message_of
from kitaru_nb.testing.adapter.script import say, use

OPTIONS: dict[str, Any] = {"model": "claude-test", "max_tokens": 50}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, endpoint: RecordedEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def created(client: Anthropic) -> str:
    return text_of(client.messages.create(messages=user("question"), **OPTIONS))


def streamed(client: Anthropic) -> str:
    with client.messages.stream(messages=user("question"), **OPTIONS) as stream:
        text = "".join(stream.text_stream)
        assert text == stream.get_final_text()
        assert stream.request_id == stream.response.headers.get("request-id")
    return text


def raw_stream(client: Anthropic) -> str:
    with client.messages.create(messages=user("question"), stream=True, **OPTIONS) as events:
        return "".join(e.delta.text for e in events if e.type == "content_block_delta" and e.delta.type == "text_delta")


def beta_created(client: Anthropic) -> str:
    return text_of(client.beta.messages.create(messages=user("question"), betas=["x-1"], **OPTIONS))


def beta_streamed(client: Anthropic) -> str:
    with client.beta.messages.stream(messages=user("question"), **OPTIONS) as stream:
        return text_of(stream.get_final_message())


def with_options(client: Anthropic) -> str:
    return created(client.with_options(max_retries=0, timeout=30))


WAYS: dict[str, Callable[[Anthropic], str]] = {
    "create": created,
    "stream": streamed,
    "create(stream=True)": raw_stream,
    "beta create": beta_created,
    "beta stream": beta_streamed,
    "with_options": with_options,
}


@pytest.mark.parametrize("way", WAYS)
def test_however_messages_are_sent_they_are_paid_once(endpoint: RecordedEndpoint, way: str) -> None:
    endpoint.script("question", say("an answer in pieces"))
    found: list[str] = []

    @flow(retries=1)
    def ask() -> str:
        with Anthropic() as plain:
            found.append(WAYS[way](durable(plain, name="support")))
        if len(found) == 1:
            raise ValueError("once")
        return found[-1]

    handle = ask.run()
    assert handle.wait() == "an answer in pieces"
    assert found == ["an answer in pieces"] * 2
    assert endpoint.paid == 1
    (call,) = KitaruClient().executions.get(handle.exec_id).checkpoints
    assert (call.name, call.checkpoint_type) == ("support.model", "model_call")
    assert (call.metadata["input_tokens"], call.metadata["output_tokens"]) == (40, 7)


@pytest.mark.parametrize("way", WAYS)
def test_outside_a_flow_the_client_does_what_it_did(endpoint: RecordedEndpoint, way: str) -> None:
    endpoint.script("question", say("an answer in pieces"))
    with Anthropic() as plain:
        assert WAYS[way](durable(plain)) == "an answer in pieces"
    assert KitaruClient().executions.list() == []


def test_a_tool_runner_goes_on_where_it_was(endpoint: RecordedEndpoint) -> None:
    endpoint.script("question", use("look_up", key="a"), say("fine"))
    ran: list[str] = []

    @anthropic.beta_tool
    def look_up(key: str) -> str:
        """Look something up.

        Args:
            key: what to look up.
        """
        ran.append(key)
        return f"{key} is known"

    @flow(retries=1)
    def ask() -> str:
        with Anthropic() as plain:
            runner = durable(plain).beta.messages.tool_runner(tools=[look_up], messages=user("question"), **OPTIONS)
            text = text_of(runner.until_done())
        if len(ran) == 1:
            raise ValueError("once")
        return text

    assert ask.run().wait() == "fine"
    assert endpoint.paid == 2
    assert ran == ["a", "a"]  # the tool isn't a checkpoint, so it runs again


class Verdict(BaseModel):
    good: bool
    why: str


def test_parse_gives_the_typed_answer_live_and_from_the_record(endpoint: RecordedEndpoint) -> None:
    endpoint.script("question", say('{"good": true, "why": "it works"}'))
    found: list[Any] = []

    @flow(retries=1)
    def ask() -> bool:
        with Anthropic() as plain:
            message = durable(plain).messages.parse(messages=user("question"), output_format=Verdict, **OPTIONS)
        found.append(message)
        if len(found) == 1:
            raise ValueError("once")
        assert message.parsed_output is not None
        return message.parsed_output.good

    assert ask.run().wait() is True
    assert found[0] == found[1]
    assert found[0].parsed_output == found[1].parsed_output == Verdict(good=True, why="it works")
    assert endpoint.paid == 1


def test_a_message_comes_back_exactly_with_its_request_id(
    endpoint: RecordedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.script("question", use("look_up", key="a"))
    found: list[Message] = []

    @flow(retries=1)
    async def ask() -> None:
        async with AsyncAnthropic() as plain:
            found.append(await durable(plain).messages.create(messages=user("question"), **OPTIONS))
        if len(found) == 1:
            raise ValueError("once")

    ask.run().wait()
    live, again = found
    assert live == again
    assert type(live) is type(again) is Message
    assert live.to_dict() == again.to_dict()
    assert live.model_fields_set == again.model_fields_set
    assert live.content[0].to_dict() == again.content[0].to_dict()
    assert live._request_id == again._request_id


def test_unknown_fields_and_blocks_survive(endpoint: RecordedEndpoint) -> None:
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": [{"type": "hologram", "shape": {"x": 1}}, {"type": "text", "text": "hi", "mood": "good"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 2, "qubits": 3},
        "weather": "fine",
    }
    endpoint.script("question", say("other"))

    @flow
    def ask() -> Any:
        with Anthropic() as plain:
            return durable(plain).messages.create(messages=user("question"), **OPTIONS).to_dict(warnings=False)

    handle = ask.run()
    handle.wait()
    again = ask.replay(handle.exec_id, overrides={"checkpoint.claude.model": message})
    assert again.wait() == message


def test_an_overridden_answer_may_be_plain_text_but_not_just_anything(endpoint: RecordedEndpoint) -> None:
    endpoint.script("question", say("no"))

    @flow
    def ask() -> str:
        with Anthropic() as plain:
            return created(durable(plain))

    handle = ask.run()
    assert handle.wait() == "no"
    assert ask.replay(handle.exec_id, overrides={"checkpoint.claude.model": "yes"}).wait() == "yes"
    with pytest.raises(KitaruExecutionError, match=r"3 can't be a message; expected its text"):
        ask.replay(handle.exec_id, overrides={"checkpoint.claude.model": 3}).wait()


def test_another_request_on_resume_stops_the_flow(endpoint: RecordedEndpoint) -> None:
    endpoint.script("today", say("fine"))
    days = ["today is Monday", "today is Tuesday"]

    @flow(retries=1)
    def ask() -> None:
        with Anthropic() as plain:
            durable(plain).messages.create(messages=user("today"), system=days.pop(0), **OPTIONS)
        raise ValueError("once")

    with pytest.raises((KitaruDivergenceError, KitaruExecutionError), match=r"system.*Monday.*Tuesday"):
        ask.run().wait()


def test_a_stream_that_is_left_before_its_end_has_come_is_not_kept(endpoint: RecordedEndpoint) -> None:
    endpoint.script("slow", say("an answer in many pieces").dripping(0.5))
    endpoint.script("question", say("another answer"))

    @flow
    def ask() -> str:
        with Anthropic() as plain:
            client = durable(plain)
            with client.messages.stream(messages=user("slow"), **OPTIONS) as stream:
                next(stream.text_stream)
            return streamed(client)

    handle = ask.run()
    assert handle.wait() == "another answer"
    assert endpoint.paid == 1
    calls = KitaruClient().executions.get(handle.exec_id).checkpoints
    assert [call.status for call in calls].count("completed") == 1


@pytest.mark.parametrize("way", ["create", "stream"])
def test_an_error_of_the_endpoint_is_the_sdks_own(endpoint: RecordedEndpoint, way: str) -> None:
    endpoint.script("question", say("fine").after("500"))
    caught: list[Exception] = []

    @flow
    def ask() -> None:
        with Anthropic(max_retries=0) as plain:
            try:
                WAYS[way](durable(plain))
            except anthropic.InternalServerError as error:
                caught.append(error)

    ask.run().wait()
    assert len(caught) == 1


def test_raw_responses_are_paid_once_too(endpoint: RecordedEndpoint) -> None:
    endpoint.script("question", say("fine"))
    found: list[Any] = []

    @flow(retries=1)
    def ask() -> str:
        with Anthropic() as plain:
            response = durable(plain).messages.with_raw_response.create(messages=user("question"), **OPTIONS)
        found.append((response.status_code, text_of(response.parse()), response.json()))
        if len(found) == 1:
            raise ValueError("once")
        return text_of(response.parse())

    assert ask.run().wait() == "fine"
    assert found[0] == found[1]
    assert endpoint.paid == 1


def test_other_requests_of_the_client_are_left_alone(endpoint: RecordedEndpoint) -> None:
    @flow
    def ask() -> None:
        with Anthropic(max_retries=0) as plain:
            durable(plain).messages.count_tokens(messages=user("question"), model="claude-test")

    handle = ask.run()
    with pytest.raises(KitaruExecutionError):
        handle.wait()
    assert KitaruClient().executions.get(handle.exec_id).checkpoints == ()


def test_the_client_keeps_its_class_and_the_given_one_is_not_touched() -> None:
    with Anthropic(default_headers={"x": "y"}) as plain:
        before = plain.messages
        client = durable(plain)
        assert isinstance(client, Anthropic)
        assert client is not plain
        assert plain.messages is before
        assert client.messages is not before
        assert type(plain) is Anthropic
        assert client.api_key == plain.api_key
        assert client.default_headers["x"] == "y"
        assert durable(client) is client
        assert isinstance(client.with_options(timeout=3), type(client))


@pytest.mark.parametrize("given", [Anthropic, None, "claude", object()], ids=["class", "None", "text", "object"])
def test_something_else_than_a_client_is_refused(given: Any) -> None:
    with pytest.raises(KitaruUsageError, match="expected a client of Anthropic's SDK"):
        durable(given)


def test_messages_may_be_an_iterator_and_hold_answers_and_files(endpoint: RecordedEndpoint, tmp_path: Path) -> None:
    picture = tmp_path / "dot.png"
    picture.write_bytes(b"\x89PNG")
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": picture}}
    endpoint.script("question", say("fine"))

    @flow
    def ask() -> str:
        with Anthropic() as plain:
            client = durable(plain)
            first = client.messages.create(messages=iter(user("question")), **OPTIONS)
            again = [{"role": "user", "content": [image, {"type": "text", "text": "question"}]}]
            messages = [*user("hello"), {"role": "assistant", "content": first.content}, *again]
            return text_of(client.messages.create(messages=(m for m in messages), **OPTIONS))

    assert ask.run().wait() == "fine"
    sent = endpoint.requests()[1].body["messages"]
    assert sent[1]["content"] == [{"type": "text", "text": "fine"}]
    assert sent[2]["content"][0]["source"]["data"] == "iVBORw=="


def test_two_streams_at_once_keep_their_answers(endpoint: RecordedEndpoint) -> None:
    endpoint.script("slow", say("tortoise").taking(0.2))
    endpoint.script("quick", say("hare"))
    tries: list[int] = []

    async def ask_one(client: AsyncAnthropic, name: str) -> str:
        async with client.messages.stream(messages=user(name), **OPTIONS) as stream:
            return await stream.get_final_text()

    @flow(retries=1)
    async def both() -> list[str]:
        async with AsyncAnthropic() as plain:
            client = durable(plain)
            names = ["slow", "quick"] if not tries else ["quick", "slow"]
            found = await asyncio.gather(*(ask_one(client, name) for name in names))
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("once")
        return list(found)

    assert both.run().wait() == ["hare", "tortoise"]
    assert endpoint.paid == 2


MESSAGES: dict[str, list[dict[str, Any]]] = {
    "text": [{"type": "text", "text": "hi — 日本語"}],
    "nothing": [],
    "empty text": [{"type": "text", "text": ""}],
    "tool": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": [1, {"b": None}], "é": "\u202e"}}],
    "tool without input": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}],
    "thinking": [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "hi"}],
    "citations": [{"type": "text", "text": "hi", "citations": [{"type": "char_location", "cited_text": "x"}]}],
    "unknown": [{"type": "hologram", "shape": {"x": 1}}],
}


@pytest.mark.parametrize("label", MESSAGES)
def test_a_message_taken_apart_and_put_together_is_the_same(label: str) -> None:
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": MESSAGES[label],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 3},
        "weather": "fine",
    }
    assert message_of(events_of(message)) == message


def test_pieces_of_all_kinds_grow_together() -> None:
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    citation = {"type": "char_location", "cited_text": "x"}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 5, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "", "citations": None}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "he"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "llo"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": citation}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": block},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a"'}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ": 1}"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9, "x": None}},
        {"type": "message_stop"},
    ]
    assert message_of(events) == {
        "content": [{"type": "text", "text": "hello", "citations": [citation]}, {**block, "input": {"a": 1}}],
        "usage": {"input_tokens": 5, "output_tokens": 9},
        "stop_reason": "tool_use",
    }
