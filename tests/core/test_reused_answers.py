"""Answers that a replay has from its original are what the original's flow got."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import pytest

from core.bench import Bench
from kitaru_nb import KitaruWaitingError, checkpoint, flow, wait, wait_async


@checkpoint
def note(text: str) -> str:
    return text


SCHEMAS = {"bool": bool, "str": str, "int": int, "literal": Literal["a", "b"], "list": list[int]}


@pytest.mark.parametrize("schema", list(SCHEMAS))
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_what_the_clock_resolved_is_none_in_a_replay_and_in_a_replay_of_that(
    bench: Bench, schema: str, is_async: bool
) -> None:
    kind: Any = SCHEMAS[schema]
    soon = timedelta(milliseconds=1)

    @flow(name="asking")
    def asking() -> str:
        return note(f"got {wait('veto', schema=kind, until=soon)!r}")

    @flow(name="asking")
    async def asking_async() -> str:
        return note(f"got {await wait_async('veto', schema=kind, until=soon)!r}")

    chosen = bench.bind(asking_async if is_async else asking)
    handle = chosen.run()
    for _ in range(2):
        assert handle.wait(timeout=60) == "got None"
        handle = chosen.replay(handle.exec_id, from_="note")
    assert handle.wait(timeout=60) == "got None"
    (asked,) = bench.get(handle).waits
    assert (asked.resolved_by, asked.value) == ("clock", None)


def test_a_wait_is_reused_when_nothing_before_it_is_new(bench: Bench) -> None:
    ran: list[str] = []

    @checkpoint
    def early(n: int) -> int:
        ran.append("early")
        return n

    @checkpoint
    def late(n: int) -> int:
        ran.append("late")
        return n

    @flow
    def asking() -> list[Any]:
        return [early(1), wait("one", timeout=0), late(2), wait("two", timeout=0)]

    handle = bench.run(asking)
    assert bench.complete(handle, one=True, two=True) == [1, True, 2, True]
    plan = bench.executions.replay_plan(handle.exec_id, from_="late")
    assert plan.asks == ("two",)
    again = bench.bind(asking).replay(handle.exec_id, from_="late")
    with pytest.raises(KitaruWaitingError, match="'two'"):
        again.wait()
    first = bench.get(again).waits[0]
    assert (first.name, first.resolved_by, first.via) == ("one", "ann", f"reused from {handle.exec_id}")
    whole = bench.bind(asking).replay(handle.exec_id, from_="early")
    with pytest.raises(KitaruWaitingError, match="'one'"):
        whole.wait()


def test_an_old_answer_does_not_count_when_something_before_it_turned_out_new(bench: Bench) -> None:
    """Code changed, which the plan doesn't look at; the question is the same, but what it is about isn't."""

    def make(text: str) -> Any:
        @checkpoint
        def write() -> str:
            return text

        @checkpoint
        def send(text: str) -> str:
            return f"sent {text}"

        @flow
        def mailing() -> str:
            letter = write()
            wait("approve", question="Send?", timeout=0)
            return send(letter)

        return mailing

    handle = bench.run(make("kind letter"))
    bench.complete(handle, approve=True)
    assert bench.executions.replay_plan(handle.exec_id, from_="send").asks == ()
    same = bench.bind(make("kind letter")).replay(handle.exec_id, from_="send")
    assert same.wait() == "sent kind letter"
    changed = bench.bind(make("rude letter")).replay(handle.exec_id, from_="send")
    with pytest.raises(KitaruWaitingError, match=r"Send\?"):
        changed.wait()
