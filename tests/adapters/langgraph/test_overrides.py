"""A replay gives other arguments to tools, chat models and runs of graphs, and other results."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode, tools_condition

from kitaru_nb import KitaruClient, KitaruUsageError, KitaruUserCodeError, flow
from kitaru_nb.surfaces.adapters.langchain_parts import durable_chat_model, durable_tool
from kitaru_nb.surfaces.adapters.langgraph import KitaruGraphRunner

asked: list[list[Any]] = []
ran: list[Any] = []


class Chat(FakeMessagesListChatModel):
    """Calls the tool once, then says what it was shown."""

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any) -> Any:
        asked.append(list(messages))
        self.i = min(self.i, len(self.responses) - 1)
        last = messages[-1]
        said = f"I saw {last.text}" if last.type == "tool" else ""
        call = {"name": "look_up", "args": {"key": "a"}, "id": "c1"}
        self.responses = [AIMessage(said) if said else AIMessage("", tool_calls=[call])]
        return super()._generate(messages, stop, run_manager, **options)


@tool
def look_up(key: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Look up a key."""
    ran.append((key, len(state["messages"])))
    return f"{key} is known"


def runner() -> KitaruGraphRunner:
    tools = [durable_tool(look_up)]
    model = durable_chat_model(Chat(responses=[AIMessage("")]), name="desk.model")

    def agent(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("agent", agent)
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", tools_condition, {"tools": "tools", END: END})
    builder.add_edge("tools", "agent")
    return KitaruGraphRunner(builder.compile(), name="desk")


@flow
def ask() -> str:
    return str(runner().invoke({"messages": [("user", "question")]}).output["messages"][-1].text)


@pytest.fixture
def exec_id() -> str:
    asked.clear()
    handle = ask.run()
    assert handle.wait() == "I saw a is known"
    ran.clear()
    asked.clear()
    return handle.exec_id


def test_a_tool_runs_with_other_arguments_and_keeps_what_the_graph_injects(exec_id: str) -> None:
    again = ask.replay(exec_id, overrides={"arguments.look_up": {"key": "b"}})
    assert again.wait() == "I saw b is known"
    assert ran == [("b", 2)]
    assert len(asked) == 1
    call = next(c for c in KitaruClient().executions.get(again.exec_id).checkpoints if c.name == "look_up")
    assert [i.preview for i in call.inputs] == ["{'key': 'b'}"]


def test_a_result_is_given_instead(exec_id: str) -> None:
    assert ask.replay(exec_id, overrides={"checkpoint.look_up": "nothing"}).wait() == "I saw nothing"
    assert (ran, len(asked)) == ([], 1)
    assert ask.replay(exec_id, overrides={"checkpoint.desk.model#2": "my words"}).wait() == "my words"
    assert (ran, len(asked)) == ([], 1)
    wrong = ask.replay(exec_id, overrides={"checkpoint.desk.model#2": {"role": "assistant", "content": "my words"}})
    with pytest.raises(KitaruUserCodeError, match=r"answer of a chat model can't be .* expected its text, or"):
        wrong.wait()


def test_a_chat_model_is_asked_something_else(exec_id: str) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "tool", "content": "a hint", "tool_call_id": "c1"}]
    again = ask.replay(exec_id, overrides={"arguments.desk.model#2": {"messages": messages}})
    assert again.wait() == "I saw a hint"
    assert [[m.text for m in found] for found in asked] == [["hi", "a hint"]]
    wrong = ask.replay(exec_id, overrides={"arguments.desk.model#2": {"messages": [{"said": "hi"}]}})
    with pytest.raises(KitaruUserCodeError, match=r"messages of 'desk.model' can't be"):
        wrong.wait()


def test_a_run_begins_with_another_input(exec_id: str) -> None:
    given = {"input": {"messages": [("user", "another question")]}}
    again = ask.replay(exec_id, overrides={"arguments.desk": given})
    assert again.wait() == "I saw a is known"
    assert asked[0][0].text == "another question"


def test_a_node_takes_no_arguments_and_says_so_before_anything_runs(exec_id: str) -> None:
    with pytest.raises(KitaruUsageError, match=r"'desk.tools' is of type graph_node and takes no other"):
        ask.replay(exec_id, overrides={"arguments.desk.tools": {"state": {}}})
    assert asked == []
