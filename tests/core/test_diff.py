"""What a comparison says of calls that one of two executions took over from the other."""

from __future__ import annotations

import pytest

from core.bench import Bench
from kitaru_nb import checkpoint, flow


@checkpoint
def fetch(n: int) -> int:
    return n


@checkpoint
def gather(n: int) -> int:
    return fetch(n) + fetch(n + 1)


@checkpoint
def tell(n: int) -> str:
    return f"{n} found"


@flow
def report(n: int) -> str:
    return tell(gather(n))


@pytest.fixture
def original(bench: Bench) -> str:
    handle = bench.bind(report).run(1)
    assert handle.wait() == "3 found"
    return handle.exec_id


def rows(bench: Bench, left: str, right: str) -> list[tuple[str, str, str]]:
    return [(c.selector, c.change, c.why) for c in bench.executions.diff(left, right).calls]


def test_calls_inside_a_reused_call_are_reused_too_and_not_missing(bench: Bench, original: str) -> None:
    again = bench.bind(report).replay(original, from_="tell")
    assert again.wait() == "3 found"
    expected = [
        ("gather", "same", "reused"),
        ("gather › fetch", "same", "reused"),
        ("gather › fetch#2", "same", "reused"),
        ("tell", "same", ""),
    ]
    assert rows(bench, original, again.exec_id) == expected
    assert sorted(rows(bench, again.exec_id, original)) == sorted(expected)
    diff = bench.executions.diff(original, again.exec_id)
    assert diff.differing == ()
    inside = diff.calls[1]
    assert (inside.left, inside.right) == ("1", "1")
    assert inside.seconds[0] == inside.seconds[1] is not None


def test_calls_inside_a_call_whose_outcome_was_given_are_missing(bench: Bench, original: str) -> None:
    again = bench.bind(report).replay(original, overrides={"checkpoint.gather": 7})
    assert again.wait() == "7 found"
    assert rows(bench, original, again.exec_id) == [
        ("gather", "output", "ran again"),
        ("gather › fetch", "only_left", ""),
        ("gather › fetch#2", "only_left", ""),
        ("tell", "output", "inputs: n"),
    ]


def test_calls_inside_a_call_that_ran_again_are_compared_one_by_one(bench: Bench, original: str) -> None:
    again = bench.bind(report).replay(original, from_="fetch#2")
    assert again.wait() == "3 found"
    assert rows(bench, original, again.exec_id) == [
        ("gather", "same", ""),
        ("gather › fetch", "same", "reused"),
        ("gather › fetch#2", "same", ""),
        ("tell", "same", "reused"),
    ]
