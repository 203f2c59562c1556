"""Replay: chosen calls and what depends on them run again, the rest is reused."""

from __future__ import annotations

from typing import Any

import pytest

from core.bench import Bench, forget, let_go
from kitaru_nb import (
    KitaruNotFoundError,
    KitaruUsageError,
    KitaruUserCodeError,
    KitaruWaitingError,
    KitaruWaitValidationError,
    Paused,
    checkpoint,
    flow,
    log,
    wait,
)


class Newsroom:
    """A flow with a fan-out, an f-string, a nested agent and two waits; what it returns can be changed in between."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.version = 1
        self.style = "plain"

        @checkpoint
        def research(topic: str) -> str:
            self.ran.append("research")
            log(tokens=100, cost=0.01)
            return f"notes v{self.version} on {topic}"

        @checkpoint
        def outline(topic: str) -> str:
            self.ran.append("outline")
            log(input_tokens=20, output_tokens=5)
            return f"outline of {topic}"

        @checkpoint
        def draft(notes: str, part: int) -> str:
            self.ran.append(f"draft {part}")
            return f"draft {part} of {notes}"

        @checkpoint
        def edit(prompt: str) -> str:
            self.ran.append("edit")
            return f"{self.style} edit of <{prompt}>"

        @flow
        def news(topic: str, length: str = "short") -> str:
            notes, plan = research(topic), outline(topic)
            drafts = [draft(notes, part) for part in (1, 2)]
            edited = edit(f"{length}: {' + '.join(drafts)} / {plan}")
            ok = wait("approve", question="Publish?", timeout=0)
            return f"{edited} {ok}"

        self.news = news

    def since(self) -> list[str]:
        """What ran since the last look."""
        ran, self.ran = self.ran, []
        return ran


@pytest.fixture
def room() -> Newsroom:
    return Newsroom()


@pytest.fixture
def original(bench: Bench, room: Newsroom) -> str:
    """A completed execution."""
    handle = bench.run(room.news, "agents")
    bench.complete(handle, approve=True)
    room.since()
    return handle.exec_id


def replayed(bench: Bench, room: Newsroom, exec_id: str, answer: Any = None, **options: Any) -> tuple[str, Any]:
    """(id, result) of a replay; its wait is answered with ``answer`` where it is asked again."""
    handle = bench.bind(room.news).replay(exec_id, **options)
    if answer is not None:
        with pytest.raises(KitaruWaitingError):
            handle.wait()
        bench.answer(handle, answer)
    return handle.exec_id, handle.wait()


def test_a_root_and_what_the_lineage_puts_downstream_run_again(bench: Bench, room: Newsroom, original: str) -> None:
    exec_id, value = replayed(bench, room, original, answer=True, from_="research")
    # `edit` got the very same text through an f-string, so it is reused.
    assert room.since() == ["research", "draft 1", "draft 2"]
    assert value == bench.executions.handle(original).wait()
    execution = bench.get(exec_id)
    assert execution.original_exec_id == original
    assert bench.statuses(exec_id) == {
        "research": "completed",
        "outline": "reused",
        "draft": "completed",
        "draft#2": "completed",
        "edit": "reused",
    }


def test_a_value_that_went_through_an_f_string_runs_its_consumer_again_when_it_differs(
    bench: Bench, room: Newsroom, original: str
) -> None:
    room.version = 2
    _, value = replayed(bench, room, original, answer=True, from_="research")
    assert room.since() == ["research", "draft 1", "draft 2", "edit"]
    assert "notes v2" in value
    assert "notes v1" not in value


def test_one_call_of_several_is_selected_by_its_number_or_id(bench: Bench, room: Newsroom, original: str) -> None:
    replayed(bench, room, original, answer=True, from_="draft#2")
    assert room.since() == ["draft 2"]
    replayed(bench, room, original, answer=True, from_="draft#1")
    assert room.since() == ["draft 1"]
    call_id = bench.get(original).checkpoints[1].call_id
    replayed(bench, room, original, answer=True, from_=call_id)
    assert room.since() == ["outline"]


def test_several_roots_run_again(bench: Bench, room: Newsroom, original: str) -> None:
    replayed(bench, room, original, answer=True, from_=["outline", "draft#2"])
    assert room.since() == ["outline", "draft 2"]


def test_an_ambiguous_selector_lists_the_calls_and_an_unknown_one_what_there_is(bench: Bench, original: str) -> None:
    with pytest.raises(KitaruUsageError, match=r"'draft' means 2 calls in kr-\w+: draft#1, draft#2") as ambiguous:
        bench.executions.replay_plan(original, from_="draft")
    assert ambiguous.value.fix == "--from 'draft#2'"
    with pytest.raises(KitaruNotFoundError, match=r"research, outline, draft, draft#2, edit, approve \(wait\)"):
        bench.executions.replay_plan(original, from_="reserch")
    with pytest.raises(KitaruUsageError, match="something to begin with") as nothing:
        bench.executions.replay_plan(original)
    assert nothing.value.fix == f"kitaru executions replay {original} --from research"
    with pytest.raises(KitaruUsageError, match=r"expected 'checkpoint.NAME', 'arguments.NAME' or 'wait.NAME'"):
        bench.executions.replay_plan(original, overrides={"research": 1})


def test_a_replay_of_another_flow_is_refused(bench: Bench, room: Newsroom, original: str) -> None:
    @flow
    def other() -> None: ...

    with pytest.raises(KitaruUsageError, match=r"of flow 'news', not of 'other'\."):
        bench.bind(other).replay(original, from_="research")
    with pytest.raises(KitaruUsageError, match=r"no input 'subject'\. Inputs are: topic, length"):
        bench.bind(room.news).replay(original, subject="x")


def test_new_inputs_run_what_read_them(bench: Bench, room: Newsroom, original: str) -> None:
    _, value = replayed(bench, room, original, answer=True, topic="notebooks")
    assert room.since() == ["research", "outline", "draft 1", "draft 2", "edit"]
    assert "agents" not in value
    _, value = replayed(bench, room, original, answer=True, length="long")
    assert room.since() == ["edit"]
    assert value.startswith("plain edit of <long: draft 1 of notes v1 on agents")


def test_an_overridden_call_does_not_run_and_its_readers_do(bench: Bench, room: Newsroom, original: str) -> None:
    exec_id, value = replayed(bench, room, original, answer=True, overrides={"checkpoint.research": "my notes"})
    assert room.since() == ["draft 1", "draft 2", "edit"]
    assert "draft 1 of my notes" in value
    call = bench.get(exec_id).checkpoints[0]
    assert (call.name, call.status) == ("research", "reused")
    assert bench.client.artifacts.get(f"{exec_id}/research").load() == "my notes"


def test_an_override_holds_for_a_call_whose_inputs_changed_too(bench: Bench, room: Newsroom, original: str) -> None:
    _, value = replayed(
        bench, room, original, answer=True, topic="notebooks", overrides={"checkpoint.research": "my notes"}
    )
    assert room.since() == ["outline", "draft 1", "draft 2", "edit"]
    assert "draft 1 of my notes" in value
    assert "outline of notebooks" in value


def test_one_of_several_calls_is_overridden_by_its_number(bench: Bench, room: Newsroom, original: str) -> None:
    room.version = 2
    _, value = replayed(
        bench, room, original, answer=True, from_="research", overrides={"checkpoint.draft#2": "MY DRAFT"}
    )
    assert room.since() == ["research", "draft 1", "edit"]
    assert "draft 1 of notes v2 on agents + MY DRAFT" in value


def test_a_failed_call_can_be_overridden(bench: Bench) -> None:
    @checkpoint
    def broken(n: int) -> int:
        raise ValueError("down")

    @checkpoint
    def after(n: int) -> int:
        return n + 1

    @flow
    def failing() -> int:
        return after(broken(1))

    handle = bench.run(failing)
    with pytest.raises(KitaruUserCodeError):
        handle.wait()
    assert bench.bind(failing).replay(handle.exec_id, overrides={"checkpoint.broken": 41}).wait() == 42


def test_an_overridden_answer_is_used_and_checked_against_the_schema(
    bench: Bench, room: Newsroom, original: str
) -> None:
    exec_id, value = replayed(bench, room, original, overrides={"wait.approve": False})
    assert room.since() == []
    assert value.endswith("False")
    (asked,) = bench.get(exec_id).waits
    assert asked.via == f"override of {original}"
    with pytest.raises(KitaruWaitValidationError):
        bench.executions.replay_plan(original, overrides={"wait.approve": "maybe"})
    with pytest.raises(KitaruNotFoundError, match=r"Available: wait.approve"):
        bench.executions.replay_plan(original, overrides={"wait.aprove": True})


def test_scope_after_also_runs_all_that_came_later(bench: Bench, room: Newsroom, original: str) -> None:
    replayed(bench, room, original, answer=True, from_="outline", scope="after")
    assert room.since() == ["outline", "draft 1", "draft 2", "edit"]


def test_changed_code_of_a_checkpoint_runs_again(bench: Bench) -> None:
    ran: list[str] = []

    def make(suffix: str) -> Any:
        if suffix == "old":

            @checkpoint
            def work(n: int) -> str:
                ran.append("old")
                return f"old {n}"

        else:

            @checkpoint
            def work(n: int) -> str:
                ran.append("new")
                return f"new {n}"

        @checkpoint
        def other(n: int) -> int:
            ran.append("other")
            return n

        @flow
        def working() -> list[Any]:
            return [work(1), other(2)]

        return working

    handle = bench.run(make("old"))
    assert handle.wait() == ["old 1", 2]
    again = bench.bind(make("new")).replay(handle.exec_id, from_="other")
    assert again.wait() == ["new 1", 2]
    assert ran == ["old", "other", "new", "other"]


def test_the_plan_says_what_runs_and_what_is_saved(bench: Bench, room: Newsroom, original: str) -> None:
    plan = bench.executions.replay_plan(original, from_="research")
    assert plan.runs == ("research", "draft", "draft#2")
    assert plan.enters == ()
    assert plan.reused == ("outline", "edit")
    assert plan.asks == ("approve",)
    assert (plan.tokens_saved, plan.cost_saved) == (25, 0.0)
    assert plan.seconds_saved >= 0
    other = bench.bind(room.news).replay_plan(original, from_="edit", overrides={"checkpoint.outline": "x"})
    assert other.overridden == ("outline",)
    assert (other.tokens_saved, other.cost_saved) == (100, 0.01)
    assert len(bench.executions.list()) == 1  # nothing was started


def test_a_nested_call_enters_its_parent_and_reuses_its_siblings(bench: Bench) -> None:
    ran: list[str] = []

    @checkpoint
    def tool(n: int) -> int:
        ran.append(f"tool {n}")
        return n * 10

    @checkpoint
    def agent(n: int) -> int:
        ran.append("agent")
        return tool(n) + tool(n + 1)

    @checkpoint
    def report(total: int) -> str:
        ran.append("report")
        return f"total of {total} in all"

    @flow
    def working() -> str:
        return report(agent(1000000))

    handle = bench.run(working)
    handle.wait()
    plan = bench.executions.replay_plan(handle.exec_id, from_="tool#2")
    assert (plan.runs, plan.enters, plan.reused) == (("tool#2", "report"), ("agent",), ("tool",))
    ran.clear()
    assert bench.bind(working).replay(handle.exec_id, from_="tool#2").wait() == "total of 20000010 in all"
    assert ran == ["agent", "tool 1000001", "report"]
    ran.clear()
    replayed = bench.bind(working).replay(handle.exec_id, overrides={"checkpoint.tool#2": 1})
    assert replayed.wait() == "total of 10000001 in all"
    assert ran == ["agent", "report"]
    overridden = bench.executions.replay_plan(handle.exec_id, overrides={"checkpoint.agent": 1})
    assert overridden.runs == ("report",)


def test_a_replay_of_a_replay_reuses_what_either_recorded(bench: Bench) -> None:
    ran: list[str] = []

    @checkpoint
    def tool(n: int) -> int:
        ran.append(f"tool {n}")
        return n * 10

    def make(bonus: int) -> Any:
        @checkpoint
        def agent(n: int) -> int:
            ran.append("agent")
            return tool(n) + tool(n + 1) + bonus

        @checkpoint
        def report(total: int) -> str:
            ran.append("report")
            return f"total of {total}"

        @flow
        def working(title: str) -> str:
            return f"{title}: {report(agent(1000000))}"

        return working

    handle = bench.run(make(0), "a")
    handle.wait()
    second = bench.bind(make(0)).replay(handle.exec_id, from_="report")
    second.wait()
    assert bench.statuses(second) == {"agent": "reused", "report": "completed"}
    ran.clear()
    third = bench.bind(make(7)).replay(second.exec_id, title="b")
    assert third.wait() == "b: total of 20000017"
    assert ran == ["agent", "report"]  # the tools' results come from the first of the three
    fourth = bench.bind(make(7)).replay(third.exec_id, from_="agent", scope="after")
    assert fourth.wait() == "b: total of 20000017"


def test_scope_after_in_a_replay_of_a_replay_follows_program_order(bench: Bench, room: Newsroom, original: str) -> None:
    second, _ = replayed(bench, room, original, answer=True, from_="research")
    room.since()
    replayed(bench, room, second, answer=True, from_="outline", scope="after")
    assert room.since() == ["outline", "draft 1", "draft 2", "edit"]


def test_no_other_cache_applies_in_a_replay(bench: Bench) -> None:
    ran: list[int] = []

    @checkpoint(cache=True)
    def read(n: int) -> int:
        ran.append(n)
        return n

    @flow
    def reading() -> int:
        return read(1)

    handle = bench.run(reading)
    handle.wait()
    bench.bind(reading).replay(handle.exec_id, from_="read").wait()
    assert ran == [1, 1]


def test_an_interrupted_replay_goes_on_as_the_replay_that_it_is(bench: Bench) -> None:
    ran: list[str] = []
    cut: list[bool] = []

    @checkpoint
    def first(n: int) -> str:
        ran.append("first")
        return "one"

    @checkpoint
    def second(text: str) -> str:
        ran.append("second")
        return f"{text} two"

    @checkpoint
    def third(n: int) -> str:
        ran.append("third")
        return "three"

    @flow
    def working() -> list[str]:
        a, b = first(1), second("text")
        if cut:
            cut.clear()
            raise Paused("cut off")
        return [a, b, third(3)]

    handle = bench.run(working)
    handle.wait()
    ran.clear()
    cut.append(True)
    again = bench.bind(working).replay(handle.exec_id, from_="second", overrides={"checkpoint.first": "ONE"})
    let_go(again)
    assert ran == ["second"]
    forget(again)
    assert bench.finish(again.exec_id, working) == ["ONE", "text two", "three"]
    assert ran == ["second"]


def test_the_client_replays_with_the_flow_at_hand_here(bench: Bench) -> None:
    ran: list[str] = []

    @checkpoint
    def work() -> str:
        ran.append("work")
        return "done"

    @flow
    def working() -> str:
        if len(ran) == 2:
            return work()
        work()
        raise ValueError("not yet")

    handle = bench.run(working)
    with pytest.raises(KitaruUserCodeError):
        handle.wait()
    with pytest.raises(KitaruUserCodeError):
        bench.executions.replay(handle.exec_id, from_="work").wait()
    assert bench.executions.replay(handle.exec_id, from_="work").wait() == "done"
    assert ran == ["work"] * 3


def test_a_diff_pairs_equal_calls_and_says_why_others_differ(bench: Bench, room: Newsroom, original: str) -> None:
    room.version = 2
    second, _ = replayed(bench, room, original, answer=False, from_="research")
    diff = bench.executions.diff(original, second)
    assert [(c.selector, c.change, c.why) for c in diff.calls] == [
        ("research", "output", "ran again"),
        ("outline", "same", "reused"),
        ("draft", "output", "inputs: notes"),
        ("draft#2", "output", "inputs: notes"),
        ("edit", "output", "inputs: prompt"),
    ]
    assert diff.waits == (("approve", "True", "False"),)
    assert [c.selector for c in diff.differing] == ["research", "draft", "draft#2", "edit"]
