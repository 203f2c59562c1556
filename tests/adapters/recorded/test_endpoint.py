"""The recorded endpoint itself: all interfaces, streams, faults, held requests, what is counted."""

from __future__ import annotations

import json
import threading

import anthropic
import openai
import pytest

from adapters.endpoint import RecordedEndpoint
from kitaru_nb.testing.adapter.script import Fault, say, side_by_side, use

TOOLS = ["look_up", "charge"]


def chat(messages: list[dict[str, object]], *, retries: int = 0, stream: bool = False) -> object:
    with openai.OpenAI(max_retries=retries) as client:
        answer = client.chat.completions.create(model="gpt-test", messages=messages, stream=stream)  # type: ignore[call-overload]
        return list(answer) if stream else answer


def user(text: str) -> list[dict[str, object]]:
    return [{"role": "user", "content": text}]


def test_chat_plays_a_script_turn_by_turn(endpoint: RecordedEndpoint) -> None:
    endpoint.script("weather", side_by_side(use("look_up", key="Rome"), use("look_up", key="Oslo")), say("sunny"))
    messages = user("the weather, please")
    message = chat(messages).choices[0].message  # type: ignore[attr-defined]
    assert [json.loads(call.function.arguments) for call in message.tool_calls] == [{"key": "Rome"}, {"key": "Oslo"}]
    messages.append(message.model_dump(exclude_unset=True))
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "20"} for call in message.tool_calls]
    assert chat(messages).choices[0].message.content == "sunny"  # type: ignore[attr-defined]
    assert endpoint.paid == 2
    assert endpoint.requests()[1].seen["messages"][-1]["content"] == "20"


def test_responses_plays_the_same_script(endpoint: RecordedEndpoint) -> None:
    endpoint.script("weather", side_by_side(use("look_up", key="Rome"), use("look_up", key="Oslo")), say("sunny"))
    with openai.OpenAI() as client:
        first = client.responses.create(model="gpt-test", input="weather")
        given = [item.model_dump(exclude_unset=True) for item in first.output]
        results = [{"type": "function_call_output", "call_id": i["call_id"], "output": "20"} for i in given]
        second = client.responses.create(model="gpt-test", input=[*user("weather"), *given, *results])  # type: ignore[list-item]
    assert second.output_text == "sunny"
    assert second.usage is not None
    assert (second.usage.input_tokens, second.usage.output_tokens) == (40, 7)
    assert endpoint.paid == 2


def test_messages_plays_the_same_script_streamed(endpoint: RecordedEndpoint) -> None:
    endpoint.script("weather", side_by_side(use("look_up", key="Rome"), use("look_up", key="Oslo")), say("sunny"))
    with anthropic.Anthropic() as client:
        with client.messages.stream(model="claude-test", max_tokens=9, messages=user("weather")) as stream:  # type: ignore[arg-type]
            first = stream.get_final_message()
        results = [{"type": "tool_result", "tool_use_id": b.id, "content": "20"} for b in first.content]  # type: ignore[union-attr]
        asked = {"role": "assistant", "content": first.content}
        turns = [*user("weather"), asked, {"role": "user", "content": results}]
        second = client.messages.create(model="claude-test", max_tokens=9, messages=turns)  # type: ignore[arg-type]
    assert [block.text for block in second.content] == ["sunny"]  # type: ignore[union-attr]
    assert (second.usage.input_tokens, second.usage.output_tokens) == (40, 7)
    assert endpoint.paid == 2


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("429", openai.RateLimitError),
        ("500", openai.InternalServerError),
        ("disconnect", openai.APIConnectionError),
        ("malformed", json.JSONDecodeError),
    ],
    ids=["429", "500", "disconnect", "malformed"],
)
def test_a_fault_comes_once_then_the_answer(endpoint: RecordedEndpoint, fault: Fault, error: type[Exception]) -> None:
    endpoint.script("hello", say("hi").after(fault))
    with pytest.raises(error):
        chat(user("hello"))
    assert chat(user("hello")).choices[0].message.content == "hi"  # type: ignore[attr-defined]
    assert len(endpoint.requests()) == 2


def test_a_client_that_retries_gets_over_faults_and_one_answer_is_paid(endpoint: RecordedEndpoint) -> None:
    endpoint.script("hello", say("hi").after("429", "500", "disconnect"))
    assert chat(user("hello"), retries=3).choices[0].message.content == "hi"  # type: ignore[attr-defined]
    assert [request.status for request in endpoint.requests()] == [429, 500, None, 200]
    assert endpoint.paid == 1


def test_a_stream_that_is_cut_is_not_paid(endpoint: RecordedEndpoint) -> None:
    endpoint.script("hello", say("a long answer in many pieces").after("cut"))
    pieces = []
    with openai.OpenAI(max_retries=0) as client:
        stream = client.chat.completions.create(model="gpt-test", messages=user("hello"), stream=True)  # type: ignore[call-overload]
        with pytest.raises(openai.APIConnectionError):
            pieces.extend(stream)
    assert pieces
    assert endpoint.paid == 0
    assert len(chat(user("hello"), stream=True)) > len(pieces)  # type: ignore[arg-type]
    assert endpoint.paid == 1


def test_a_held_request_is_seen_but_not_answered(endpoint: RecordedEndpoint) -> None:
    endpoint.script("hello", say("hi"))
    endpoint.hold(after=1)
    errors: list[Exception] = []

    def ask() -> None:
        try:
            chat(user("hello"))
            chat(user("hello again"))
        except openai.APIConnectionError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    (held,) = endpoint.wait_held()
    assert held.body["messages"][0]["content"] == "hello again"
    endpoint.let_go()
    thread.join()
    assert len(errors) == 1
    assert endpoint.paid == 1
    chat(user("hello"))
    assert endpoint.paid == 2


def test_what_no_script_covers_is_an_error_that_is_not_retried(endpoint: RecordedEndpoint) -> None:
    with pytest.raises(openai.NotFoundError, match="No fixture matched"):
        chat(user("unheard of"), retries=5)
    assert len(endpoint.requests()) == 1
