"""``llm``: durable in a flow, plain outside; two providers, streams, aliases, what is kept, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.endpoint import RecordedEndpoint
from kitaru_nb import KitaruClient, KitaruExecutionError, KitaruUsageError, flow, llm, llm_async, register_price
from kitaru_nb.surfaces.adapters import prices
from kitaru_nb.surfaces.adapters.llm import resolve
from kitaru_nb.testing.adapter.script import say

MODELS = {"openai": "openai:gpt-test", "anthropic": "anthropic:claude-test"}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, endpoint: RecordedEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(prices, "_registered", {})


def configured(tmp_path: Path, text: str) -> None:
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "config.toml").write_text(text)


@pytest.mark.parametrize("provider", MODELS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_outside_a_flow_it_is_a_plain_call(endpoint: RecordedEndpoint, provider: str, stream: bool) -> None:
    endpoint.script("question", say("an answer in pieces"))
    assert llm("the question", model=MODELS[provider], stream=stream) == "an answer in pieces"
    assert KitaruClient().executions.list() == []


@pytest.mark.parametrize("provider", MODELS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_call_keeps_prompt_response_tokens_seconds_and_cost(
    endpoint: RecordedEndpoint, provider: str, stream: bool
) -> None:
    model = MODELS[provider].partition(":")[2]
    register_price(model, input=100, output=1000)
    endpoint.script("question", say("an answer in pieces"))

    @flow
    def ask() -> str:
        return llm("question", model=MODELS[provider], system="Be brief.", max_tokens=50, temperature=0, stream=stream)

    handle = ask.run()
    assert handle.wait() == "an answer in pieces"
    (call,) = KitaruClient().executions.get(handle.exec_id).checkpoints
    assert (call.name, call.checkpoint_type) == ("llm", "model_call")
    metadata = dict(call.metadata)
    assert (metadata["model"], metadata["provider"]) == (model, provider)
    assert (metadata["input_tokens"], metadata["output_tokens"]) == (40, 7)
    assert metadata["cost"] == pytest.approx(0.011)
    assert metadata["latency"] > 0
    assert ("first_text" in metadata) == stream
    response, prompt = KitaruClient().artifacts.list(handle.exec_id, producing_call=call.call_id)
    assert (response.kind, response.load()) == ("response", "an answer in pieces")
    assert prompt.kind == "prompt"
    assert prompt.load() == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "question"}],
        "temperature": 0,
        "max_tokens": 50,
    }
    (request,) = endpoint.requests()
    assert request.body["max_tokens"] == 50
    assert request.body["temperature"] == 0
    assert "Be brief." in str(request.seen)


@pytest.mark.parametrize("provider", MODELS)
def test_a_retried_flow_pays_once(endpoint: RecordedEndpoint, provider: str) -> None:
    endpoint.script("first", say("one"))
    endpoint.script("second", say("two"))
    tries: list[int] = []

    @flow(retries=1)
    def ask() -> str:
        text = llm("first", model=MODELS[provider])
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("once")
        return text + llm("second", model=MODELS[provider], name="follow_up")

    handle = ask.run()
    assert handle.wait() == "onetwo"
    assert endpoint.paid == 2
    assert [c.name for c in KitaruClient().executions.get(handle.exec_id).checkpoints] == ["llm", "follow_up"]


def test_calls_at_the_same_time_keep_their_answers(endpoint: RecordedEndpoint) -> None:
    names = ["slow", "quick"]
    endpoint.script("slow", say("tortoise").taking(0.3))
    endpoint.script("quick", say("hare"))

    @flow(retries=1)
    async def both() -> list[str]:
        found = await asyncio.gather(*(llm_async(name, model="gpt-test") for name in names))
        if names[0] == "slow":
            names.reverse()
            raise ValueError("once, and then in the other order")
        return list(found)

    assert both.run().wait() == ["hare", "tortoise"]
    assert endpoint.paid == 2


def test_text_is_printed_while_it_comes_but_only_the_first_time(
    endpoint: RecordedEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.script("question", say("an answer in pieces"))
    tries: list[int] = []

    @flow(retries=1)
    def ask() -> str:
        text = llm("question", model="gpt-test", stream=True)
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("once")
        return text

    assert ask.run().wait() == "an answer in pieces"
    assert capsys.readouterr().out == "an answer in pieces\n"


def test_a_stream_that_breaks_off_is_an_error_and_is_not_kept(endpoint: RecordedEndpoint) -> None:
    endpoint.script("question", say("an answer in pieces").after("cut"))

    @flow
    def ask() -> str:
        return llm("question", model="gpt-test", stream=True)

    handle = ask.run()
    with pytest.raises(KitaruExecutionError):
        handle.wait()
    KitaruClient().executions.retry(handle.exec_id)
    assert handle.wait() == "an answer in pieces"
    assert endpoint.paid == 1


@pytest.mark.parametrize("provider", MODELS)
def test_passing_faults_are_got_over(endpoint: RecordedEndpoint, provider: str) -> None:
    endpoint.script("question", say("fine").after("429", "500"))
    assert llm("question", model=MODELS[provider]) == "fine"
    assert len(endpoint.requests()) == 3


def test_an_override_is_the_answer(endpoint: RecordedEndpoint) -> None:
    endpoint.script("question", say("no"))

    @flow
    def ask() -> str:
        return llm("question", model="gpt-test")

    handle = ask.run()
    assert handle.wait() == "no"
    assert ask.replay(handle.exec_id, overrides={"checkpoint.llm": "yes"}).wait() == "yes"
    assert endpoint.paid == 1


async def test_it_works_where_a_loop_is_running(endpoint: RecordedEndpoint) -> None:
    endpoint.script("question", say("fine"))
    assert llm("question", model="gpt-test") == "fine"
    assert await llm_async("question", model="gpt-test") == "fine"


def test_messages_are_passed_as_they_are(endpoint: RecordedEndpoint) -> None:
    endpoint.script("and now?", say("fine"))
    messages = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "and now?"},
    ]
    assert llm(messages, model="gpt-test") == "fine"
    assert endpoint.requests()[0].body["messages"] == messages


def test_an_alias_stands_for_a_model(endpoint: RecordedEndpoint, tmp_path: Path) -> None:
    configured(tmp_path, '[models]\nfast = "openai:gpt-fast"\ndefault = "anthropic:claude-best"\n')
    endpoint.script("question", say("fine"))
    assert llm("question", model="fast") == "fine"
    assert llm("question") == "fine"
    assert [request.body["model"] for request in endpoint.requests()] == ["gpt-fast", "claude-best"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("openai:gpt-4o", ("openai", "gpt-4o")),
        ("openai/gpt-4o", ("openai", "gpt-4o")),
        ("gpt-4o", ("openai", "gpt-4o")),
        ("claude-sonnet-4-5", ("anthropic", "claude-sonnet-4-5")),
        ("anthropic:claude-sonnet-4-5", ("anthropic", "claude-sonnet-4-5")),
        ("llama3:8b", ("openai", "llama3:8b")),
        ("meta-llama/Llama-3", ("openai", "meta-llama/Llama-3")),
        ("openai:meta-llama/Llama-3:8b", ("openai", "meta-llama/Llama-3:8b")),
    ],
)
def test_a_models_name_says_its_provider(text: str, meant: tuple[str, str]) -> None:
    assert resolve(text) == meant


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: llm("  ", model="gpt-test"), "The prompt is empty"),
        (lambda: llm([], model="gpt-test"), r"\[\] is no message"),
        (lambda: llm([{"role": "robot", "content": "x"}], model="gpt-test"), "'robot'.* is no message"),
        (lambda: llm([{"role": "user"}], model="gpt-test"), "is no message; expected a mapping with role"),
        (lambda: llm(3, model="gpt-test"), "3 is no message"),  # type: ignore[arg-type]
        (lambda: llm("x", model="gpt-test", temperature=3), "temperature=3 can't be"),
        (lambda: llm("x", model="gpt-test", temperature="hot"), "temperature='hot' can't be"),  # type: ignore[arg-type]
        (lambda: llm("x", model="gpt-test", max_tokens=0), "max_tokens=0 can't be"),
        (lambda: llm("x", model="gpt-test", max_tokens="9"), "max_tokens='9' can't be"),  # type: ignore[arg-type]
        (lambda: llm("x", model="openai:"), "names no model"),
        (lambda: llm("x", model=""), "names no model"),
        (lambda: llm("x"), r"No model was named, and .*config\.toml has no alias 'default'"),
    ],
    ids=[
        "blank",
        "no messages",
        "role",
        "content",
        "number",
        "temperature",
        "hot",
        "max_tokens",
        "nine",
        "half",
        "empty",
        "none",
    ],
)
def test_what_cant_be_is_refused_before_anything_is_asked(
    endpoint: RecordedEndpoint, call: Callable[[], Any], message: str
) -> None:
    with pytest.raises(KitaruUsageError, match=message):
        call()
    assert endpoint.requests() == []


@pytest.mark.parametrize("provider", MODELS)
def test_a_missing_key_is_named(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "BASE_URL"):
        monkeypatch.delenv(f"{provider.upper()}_{name}")
    with pytest.raises(KitaruUsageError, match=f"no key for {provider}: {provider.upper()}_API_KEY is not set"):
        llm("x", model=MODELS[provider])


def test_a_server_of_ones_own_needs_no_key(endpoint: RecordedEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    endpoint.script("question", say("fine"))
    assert llm("question", model="gpt-test") == "fine"


def test_a_wrong_alias_in_the_settings_names_the_file(tmp_path: Path) -> None:
    configured(tmp_path, "[models]\nfast = 3\n")
    with pytest.raises(KitaruUsageError, match=r"The model 'fast' is 3 .*config\.toml"):
        llm("x", model="fast")
