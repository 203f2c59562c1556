"""Chat models and tools of LangChain as checkpoints of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool, tool

from kitaru_nb import KitaruClient, KitaruUsageError, flow
from kitaru_nb.surfaces.adapters.langchain_parts import durable_chat_model, durable_tool


def spoken(*texts: str) -> Iterator[AIMessage]:
    for text in texts:
        yield AIMessage(text, usage_metadata={"input_tokens": 3, "output_tokens": 2, "total_tokens": 5})


class Once:
    """Fails the first time that it is called."""

    def __init__(self) -> None:
        self.called = 0

    def __call__(self) -> None:
        self.called += 1
        if self.called == 1:
            raise ConnectionError("breaks off once")


def test_a_request_is_paid_once_synchronously_and_asynchronously() -> None:
    model = durable_chat_model(GenericFakeChatModel(messages=spoken("one", "two")), name="fake")
    once = Once()

    @flow(retries=1)
    async def ask() -> list[str]:
        answers = [model.invoke("first").text, (await model.ainvoke("second")).text]
        once()
        return [str(answer) for answer in answers]

    handle = ask.run()
    assert handle.wait() == ["one", "two"]
    calls = KitaruClient().executions.get(handle.exec_id).checkpoints
    assert [(call.name, call.checkpoint_type, call.metadata["input_tokens"]) for call in calls] == [
        ("fake", "model_call", 3)
    ] * 2
    assert [artifact.kind for artifact in calls[0].artifacts] == ["response", "prompt"]


def test_a_stream_is_paid_once_and_its_text_comes_again() -> None:
    model = durable_chat_model(GenericFakeChatModel(messages=spoken("once upon a time")))
    once, seen = Once(), []

    @flow(retries=1)
    async def ask() -> str:
        seen.append([str(chunk.text) async for chunk in model.astream("tell") if chunk.text])
        once()
        return "".join(seen[-1])

    assert ask.run().wait() == "once upon a time"
    assert len(seen[0]) > 1
    assert seen[1] == ["once upon a time"]


def test_a_synchronous_stream_is_paid_once() -> None:
    model = durable_chat_model(GenericFakeChatModel(messages=spoken("once upon a time")))
    once = Once()

    @flow(retries=1)
    def ask() -> str:
        text = "".join(str(chunk.text) for chunk in model.stream("tell"))
        once()
        return text

    assert ask.run().wait() == "once upon a time"


def test_the_same_kind_of_object_comes_back_and_the_given_one_stays() -> None:
    given = GenericFakeChatModel(messages=spoken("one"))
    made = durable_chat_model(given)
    assert isinstance(made, GenericFakeChatModel)
    assert type(given) is GenericFakeChatModel

    @tool
    def look_up(key: str) -> str:
        """Look up."""
        return f"{key} is known"

    durable = durable_tool(look_up)
    assert isinstance(durable, BaseTool)
    assert durable.args == look_up.args
    assert durable.invoke({"key": "a"}) == "a is known"


def test_a_tool_runs_once_and_its_message_comes_again() -> None:
    ran: list[str] = []
    once = Once()

    @tool(response_format="content_and_artifact")
    def look_up(key: str) -> tuple[str, dict[str, Any]]:
        """Look up."""
        ran.append(key)
        return f"{key} is known", {"raw": (1, 2)}

    durable = durable_tool(look_up)
    seen: list[Any] = []

    @flow(retries=1)
    def use() -> None:
        seen.append(durable.invoke({"type": "tool_call", "id": "c1", "name": "look_up", "args": {"key": "a"}}))
        once()

    use.run().wait()
    assert ran == ["a"]
    assert seen[0] == seen[1]
    assert isinstance(seen[1], ToolMessage)
    assert seen[1].artifact == {"raw": (1, 2)}


@pytest.mark.parametrize(
    ("make", "given"),
    [(durable_chat_model, RunnableLambda(str)), (durable_tool, len)],
    ids=["model", "tool"],
)
def test_what_is_no_model_and_no_tool_is_refused(make: Any, given: Any) -> None:
    with pytest.raises(KitaruUsageError, match="expected a LangChain"):
        make(given)
    assert issubclass(GenericFakeChatModel, BaseChatModel)
