"""Graphs: nodes recorded once, interrupts as waits, fan-out, subgraphs, streams, refusals."""

from __future__ import annotations

import operator
import threading
import time
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, RetryPolicy, Send, interrupt
from pydantic import BaseModel

from kitaru_nb import KitaruClient, KitaruContextError, KitaruExecutionError, KitaruUsageError, flow
from kitaru_nb.surfaces.adapters.langgraph import (
    KitaruGraphRunner,
    LangGraphRunRequest,
    wait_for_interrupts,
    wait_for_interrupts_async,
)


class Once:
    """Fails the first time that it is called."""

    def __init__(self) -> None:
        self.called = 0

    def __call__(self) -> None:
        self.called += 1
        if self.called == 1:
            raise ConnectionError("breaks off once")


class State(TypedDict, total=False):
    topic: str
    notes: Annotated[list[str], operator.add]
    verdict: Any


def named(exec_id: str, name: str) -> list[Any]:
    return [call for call in KitaruClient().executions.get(exec_id).checkpoints if call.name == name]


def answer(exec_id: str, *values: Any) -> None:
    """Answer the pending waits, in the order of their names."""
    client = KitaruClient()
    deadline = time.monotonic() + 60
    while len(pending := client.executions.pending_waits(exec_id)) < len(values):
        assert time.monotonic() < deadline, pending
        time.sleep(0.02)
    for wait, value in zip(sorted(pending, key=lambda wait: wait.name), values, strict=True):
        client.executions.input(exec_id, wait=wait.wait_id, value=value)


def test_a_resumed_run_enters_no_finished_node_again() -> None:
    ran: list[str] = []
    once = Once()

    def plan(state: State) -> State:
        ran.append("plan")
        return {"notes": [f"plan {state['topic']}"]}

    def write(state: State) -> State:
        ran.append("write")
        once()
        return {"notes": [f"wrote {len(state['notes'])}"]}

    builder = StateGraph(State)
    builder.add_sequence([plan, write])
    builder.add_edge(START, "plan")
    runner = KitaruGraphRunner(builder.compile(), name="writer")

    @flow(retries=1)
    def go() -> Any:
        return runner.invoke({"topic": "x"}).output

    handle = go.run()
    assert handle.wait() == {"topic": "x", "notes": ["plan x", "wrote 1"]}
    assert ran == ["plan", "write", "write"]
    (run,), (plans,), (writes,) = (named(handle.exec_id, n) for n in ("writer", "writer.plan", "writer.write"))
    assert run.checkpoint_type == "agent_run"
    assert (plans.parent, writes.parent) == (run.call_id, run.call_id)
    assert plans.call_id in writes.parent_call_ids


def test_nodes_that_are_sent_their_own_state_keep_it_side_by_side() -> None:
    ran: list[str] = []
    once = Once()

    def dig(state: State) -> State:
        ran.append(state["topic"])
        time.sleep(0.02 * (3 - "abc".index(state["topic"])))
        return {"notes": [f"dug {state['topic']}"]}

    def gather(state: State) -> State:
        once()
        return {"notes": ["end"]}

    builder = StateGraph(State)
    builder.add_node(dig)
    builder.add_node(gather)
    builder.add_conditional_edges(START, lambda state: [Send("dig", {"topic": t}) for t in "abc"], ["dig"])
    builder.add_edge("dig", "gather")
    runner = KitaruGraphRunner(builder.compile(), name="miner")

    @flow(retries=1)
    async def go() -> Any:
        return (await runner.ainvoke({"topic": "all"})).output["notes"]

    assert go.run().wait() == ["dug a", "dug b", "dug c", "end"]
    assert sorted(ran) == ["a", "b", "c"]


def asking(ran: list[Any]) -> KitaruGraphRunner:
    def draft(state: State) -> State:
        ran.append("draft")
        return {"notes": ["draft"]}

    def review(state: State) -> State:
        verdict = interrupt({"question": "publish?", "notes": state["notes"]})
        ran.append(verdict)
        return {"verdict": verdict}

    def publish(state: State) -> State:
        ran.append("publish")
        return {"notes": ["published"]}

    builder = StateGraph(State)
    for node in (draft, review, publish):
        builder.add_node(node)
    builder.add_edge(START, "draft")
    builder.add_edge("draft", "review")
    builder.add_conditional_edges("review", lambda state: "publish" if state["verdict"] else END, ["publish", END])
    return KitaruGraphRunner(builder.compile(), name="desk")


def test_an_interrupt_is_a_wait_and_its_answer_goes_to_the_node() -> None:
    ran: list[Any] = []
    runner = asking(ran)

    @flow
    def go() -> Any:
        result = runner.invoke({"topic": "x"})
        while result.status == "interrupted":
            result = runner.invoke(wait_for_interrupts(result, schema=bool))
        return result.output

    handle = go.run()
    answer(handle.exec_id, True)
    assert handle.wait() == {"topic": "x", "notes": ["draft", "published"], "verdict": True}
    assert ran == ["draft", True, "publish"]
    (wait,) = KitaruClient().executions.get(handle.exec_id).waits
    assert wait.name == "desk"
    assert wait.metadata["value"] == {"question": "publish?", "notes": ["draft"]}
    assert wait.schema == {"type": "boolean"}


def test_an_answer_that_is_given_twice_acts_once() -> None:
    ran: list[Any] = []
    runner = asking(ran)

    @flow
    def go() -> list[Any]:
        request = wait_for_interrupts(runner.invoke({"topic": "x"}))
        return [runner.invoke(request).status for _ in range(2)]

    handle = go.run()
    answer(handle.exec_id, "yes")
    assert handle.wait() == ["completed", "completed"]
    assert ran == ["draft", "yes", "publish"]


def test_another_answer_in_a_replay_goes_another_way() -> None:
    ran: list[Any] = []
    runner = asking(ran)

    @flow
    def go() -> Any:
        result = runner.invoke({"topic": "x"})
        return runner.invoke(wait_for_interrupts(result, schema=bool)).output["notes"]

    handle = go.run()
    answer(handle.exec_id, True)
    assert handle.wait() == ["draft", "published"]
    assert KitaruClient().executions.replay(handle.exec_id, overrides={"wait.desk": False}).wait() == ["draft"]
    assert ran == ["draft", True, "publish", False]


def test_several_questions_are_asked_at_once_and_what_was_done_before_is_not_done_again() -> None:
    ran: list[str] = []

    async def ask(state: State) -> State:
        from kitaru_nb.surfaces.adapters.base import Operation, perform_async

        async def think() -> str:
            ran.append(f"think {state['topic']}")
            return f"idea {state['topic']}"

        idea = await perform_async(Operation[str]("idea", "model_call", {"topic": state["topic"]}), think)
        verdict = interrupt(f"{idea}?")
        return {"notes": [f"{idea}: {verdict}"]}

    builder = StateGraph(State)
    builder.add_node(ask)
    builder.add_conditional_edges(START, lambda state: [Send("ask", {"topic": t}) for t in "ab"], ["ask"])
    runner = KitaruGraphRunner(builder.compile(), name="panel")

    @flow
    async def go() -> Any:
        result = await runner.ainvoke({"topic": "all"})
        assert [found.value for found in result.interrupts] == ["idea a?", "idea b?"]
        result = await runner.ainvoke(await wait_for_interrupts_async(result))
        return result.output["notes"]

    handle = go.run()
    answer(handle.exec_id, "good", "bad")
    assert handle.wait() == ["idea a: good", "idea b: bad"]
    assert sorted(ran) == ["think a", "think b"]
    assert sorted(wait.name for wait in KitaruClient().executions.get(handle.exec_id).waits) == ["panel:1", "panel:2"]


def test_nodes_of_a_subgraph_are_recorded_and_may_ask() -> None:
    ran: list[Any] = []
    once = Once()

    def look(state: State) -> State:
        ran.append("look")
        return {"notes": ["looked"]}

    def decide(state: State) -> State:
        return {"notes": [f"decided {interrupt('which?')}"]}

    inner = StateGraph(State)
    inner.add_sequence([look, decide])
    inner.add_edge(START, "look")

    def finish(state: State) -> State:
        once()
        return {"verdict": "done"}

    outer = StateGraph(State)
    outer.add_node("study", inner.compile())
    outer.add_node(finish)
    outer.add_edge(START, "study")
    outer.add_edge("study", "finish")
    runner = KitaruGraphRunner(outer.compile(), name="lab")

    @flow(retries=1)
    def go() -> Any:
        result = runner.invoke({"topic": "x", "notes": []})
        return runner.invoke(wait_for_interrupts(result)).output

    handle = go.run()
    answer(handle.exec_id, "left")
    assert handle.wait() == {"topic": "x", "notes": ["looked", "decided left"], "verdict": "done"}
    assert ran == ["look"]
    assert len(named(handle.exec_id, "lab.study.look")) == 1


def test_chunks_come_while_the_graph_runs_and_the_run_is_recorded() -> None:
    ran: list[str] = []
    once, read = Once(), threading.Event()

    def first(state: State) -> State:
        ran.append("first")
        return {"notes": ["1"]}

    def second(state: State) -> State:
        assert read.wait(60)
        ran.append("second")
        return {"notes": ["2"]}

    builder = StateGraph(State)
    builder.add_sequence([first, second])
    builder.add_edge(START, "first")
    runner = KitaruGraphRunner(builder.compile(), name="counter")
    seen: list[list[Any]] = []

    @flow(retries=1)
    async def go() -> Any:
        stream = runner.astream({"topic": "x"}, stream_mode=["updates", "values"])
        seen.append([])
        async for chunk in stream:
            seen[-1].append(chunk)
            if chunk == ("updates", {"first": {"notes": ["1"]}}):
                read.set()
        once()
        return stream.result.output["notes"]

    assert go.run().wait() == ["1", "2"]
    live, again = seen
    assert ran == ["first", "second"]
    assert live[-1] == ("values", {"topic": "x", "notes": ["1", "2"]})
    assert again == []


def test_messages_keep_their_ids_in_a_resumed_run() -> None:
    asked: list[list[str | None]] = []
    once = Once()

    def speak(state: MessagesState) -> dict[str, Any]:
        asked.append([message.id for message in state["messages"]])
        return {"messages": [AIMessage("hello")]}

    def forget(state: MessagesState) -> dict[str, Any]:
        return {"messages": [RemoveMessage(id=str(state["messages"][0].id))]}

    def end(state: MessagesState) -> dict[str, Any]:
        once()
        return {"messages": [("user", "bye")]}

    builder = StateGraph(MessagesState)
    builder.add_sequence([speak, forget, end])
    builder.add_edge(START, "speak")
    runner = KitaruGraphRunner(builder.compile(), name="talk")

    @flow(retries=1)
    def go() -> list[str]:
        output = runner.invoke({"messages": [("user", "hi")]}).output
        return [str(message.content) for message in output["messages"]]

    assert go.run().wait() == ["hello", "bye"]
    assert len(asked) == 1


class Note(BaseModel):
    text: str


@dataclass
class Typed:
    seen: set[str] = field(default_factory=set)
    note: Note | None = None


def test_states_are_typed_live_and_from_the_record() -> None:
    once = Once()

    def write(state: Typed) -> dict[str, Any]:
        return {"seen": state.seen | {"x"}, "note": Note(text="typed")}

    def check(state: Typed) -> dict[str, Any]:
        assert (state.seen, state.note) == ({"x"}, Note(text="typed"))
        once()
        return {}

    builder = StateGraph(Typed)
    builder.add_sequence([write, check])
    builder.add_edge(START, "write")
    runner = KitaruGraphRunner(builder.compile(), name="typed")

    @flow(retries=1)
    def go() -> Any:
        return runner.invoke(Typed()).output

    assert go.run().wait() == {"seen": {"x"}, "note": Note(text="typed")}


def test_commands_choose_the_way_and_retries_of_the_graph_hold() -> None:
    once = Once()
    ran: list[str] = []

    def choose(state: State) -> Command[Any]:
        ran.append("choose")
        return Command(update={"notes": ["chosen"]}, goto="right")

    def right(state: State) -> State:
        ran.append("right")
        once()
        return {"notes": ["right"]}

    builder = StateGraph(State)
    builder.add_node("choose", choose, destinations=("right",))
    policy = RetryPolicy(max_attempts=2, initial_interval=0.01, retry_on=ConnectionError)
    builder.add_node("right", right, retry_policy=policy)
    builder.add_edge(START, "choose")
    runner = KitaruGraphRunner(builder.compile(), name="way")

    @flow
    def go() -> Any:
        return runner.invoke({"topic": "x"}).output["notes"]

    assert go.run().wait() == ["chosen", "right"]
    assert ran == ["choose", "right", "right"]


def test_a_conversation_goes_on_in_a_later_run() -> None:
    def speak(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"heard {len(state['messages'])}")]}

    builder = StateGraph(MessagesState)
    builder.add_node(speak)
    builder.add_edge(START, "speak")
    runner = KitaruGraphRunner(builder.compile(), name="talk")

    @flow
    def go() -> list[str]:
        first = runner.invoke({"messages": [HumanMessage("hi")]})
        second = runner.invoke(LangGraphRunRequest.start({"messages": [HumanMessage("again")]}, thread=first.thread))
        return [str(message.content) for message in second.output["messages"]]

    assert go.run().wait() == ["hi", "heard 1", "again", "heard 3"]


def test_a_breakpoint_goes_on_without_an_answer() -> None:
    ran: list[str] = []

    def first(state: State) -> State:
        ran.append("first")
        return {"notes": ["1"]}

    def second(state: State) -> State:
        ran.append("second")
        return {"notes": ["2"]}

    builder = StateGraph(State)
    builder.add_sequence([first, second])
    builder.add_edge(START, "first")
    runner = KitaruGraphRunner(builder.compile(interrupt_before=["second"]), name="steps")

    @flow
    def go() -> Any:
        result = runner.invoke({"topic": "x"})
        assert (result.status, result.next, result.interrupts) == ("interrupted", ["second"], [])
        with pytest.raises(KitaruUsageError, match="breakpoint before second"):
            wait_for_interrupts(result)
        return runner.invoke(LangGraphRunRequest.resume(result)).output["notes"]

    assert go.run().wait() == ["1", "2"]
    assert ran == ["first", "second"]


def test_outside_a_flow_the_graph_runs_and_resumes_without_a_record() -> None:
    ran: list[Any] = []
    runner = asking(ran)
    result = runner.invoke({"topic": "x"})
    assert result.status == "interrupted"
    assert runner.invoke(LangGraphRunRequest.resume(result, True)).output["notes"] == ["draft", "published"]
    assert KitaruClient().executions.list() == []


def test_what_cannot_be_is_refused_before_anything_runs() -> None:
    builder = StateGraph(State)
    builder.add_node("only", lambda state: {})
    builder.add_edge(START, "only")
    with pytest.raises(KitaruUsageError, match=r"expected a compiled graph.*\n.*builder.compile\(\)"):
        KitaruGraphRunner(builder)
    runner = asking([])
    result = runner.invoke({"topic": "x"})
    with pytest.raises(KitaruUsageError, match="expected a LangGraphRunRequest"):
        runner.invoke(result)
    with pytest.raises(KitaruUsageError, match=r"Answers were given for \['nobody', 'other'\]"):
        LangGraphRunRequest.resume(
            type(result)(**{**result.__dict__, "interrupts": [*result.interrupts, *result.interrupts]}),
            {"nobody": 1, "other": 2},
        )
    with pytest.raises(KitaruContextError, match="outside a flow"):
        wait_for_interrupts(result)
    done = KitaruGraphRunner(builder.compile()).invoke({"topic": "x"})
    with pytest.raises(KitaruUsageError, match="run that is completed"):
        LangGraphRunRequest.resume(done, True)


def test_a_node_that_fails_fails_the_run_with_its_own_words() -> None:
    def fail(state: State) -> State:
        raise ValueError("no such topic")

    builder = StateGraph(State)
    builder.add_node(fail)
    builder.add_edge(START, "fail")
    runner = KitaruGraphRunner(builder.compile(), name="failing")

    @flow
    def go() -> Any:
        return runner.invoke({"topic": "x"})

    with pytest.raises(KitaruExecutionError, match="no such topic"):
        go.run().wait()
