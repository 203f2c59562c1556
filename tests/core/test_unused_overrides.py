"""A replay that was given something for a call or a wait that never came says so when it has ended."""

from __future__ import annotations

from typing import Any

import pytest

from core.bench import Bench, forget, let_go
from kitaru_nb import Paused, checkpoint, flow, wait


class Trip:
    """A flow whose way depends on what its first call says."""

    def __init__(self) -> None:
        self.stop = False

        @checkpoint
        def plan(where: str) -> str:
            return where

        @checkpoint
        def fly(hours: int) -> str:
            return f"{hours} hours in the air"

        @flow
        def trip(where: str) -> str:
            if plan(where) == "home":
                return "at home"
            flown = [fly(1), fly(2)]
            if self.stop:
                raise Paused("the power is gone")
            return ", ".join(flown) if wait("board", schema=bool, timeout=0) else "missed"

        self.trip = trip


def original(bench: Bench, trip: Trip) -> str:
    handle = bench.run(trip.trip, "Rome")
    assert bench.complete(handle, board=True) == "1 hours in the air, 2 hours in the air"
    return str(handle.exec_id)


def warnings(bench: Bench, exec_id: str) -> list[str]:
    return [line.message for line in bench.executions.logs(exec_id) if line.level == "WARNING"]


@pytest.mark.parametrize(
    ("given", "missed"),
    [
        ({"checkpoint.fly#2": "by train"}, "checkpoint.fly#2"),
        ({"arguments.fly#1": {"hours": 9}}, "arguments.fly"),
        ({"wait.board": False}, "wait.board"),
        ({"checkpoint.fly": "x", "wait.board": True}, None),
    ],
    ids=["result", "arguments", "answer", "several"],
)
def test_what_never_came_is_told_in_the_log_and_where_the_flow_ran(
    bench: Bench, capfd: pytest.CaptureFixture[str], given: dict[str, Any], missed: str | None
) -> None:
    trip = Trip()
    exec_id = original(bench, trip)
    if missed is None:
        given = {name.replace("fly", "fly#1"): value for name, value in given.items()}
        missed = "checkpoint.fly, wait.board"
    again = bench.bind(trip.trip).replay(exec_id, overrides={"checkpoint.plan": "home", **given})
    assert again.wait() == "at home"
    told = (
        f"kitaru: {again.exec_id} was given {missed}, but nothing asked for that: the replay went another way than "
        f"{exec_id}.\n  see: kitaru executions diff {exec_id} {again.exec_id}"
    )
    assert "\n".join(warnings(bench, again.exec_id)) == told
    assert told in capfd.readouterr().err


def test_what_was_used_is_not_told_of_not_even_after_a_resume(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    trip = Trip()
    exec_id = original(bench, trip)
    trip.stop = True
    # Other inputs: the calls have other ids than those that the overrides were made for.
    given = {"arguments.fly#1": {"hours": 9}, "checkpoint.fly#2": "by train", "wait.board": True}
    again = bench.bind(trip.trip).replay(exec_id, overrides=given, where="Oslo")
    let_go(again)
    forget(again)
    trip.stop = False
    assert bench.finish(again.exec_id, trip.trip) == "9 hours in the air, by train"
    assert warnings(bench, again.exec_id) == []
    assert "was given" not in capfd.readouterr().err
