"""The engine without I/O: history + call → effects, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from core.bench import Bench
from kitaru_nb.core import engine as e
from kitaru_nb.core.context import Frame
from kitaru_nb.core.engine import Call, Engine, Input, ReplayPlan, WaitRequest
from kitaru_nb.core.retry import Retry
from kitaru_nb.errors import KitaruDivergenceError, KitaruFencedError
from kitaru_nb.model import Event


def event(kind: str, key: str = "", seq: int = 1, **body: Any) -> Event:
    """One recorded event."""
    return Event("kr-1", kind, key, 1.0, body, None, seq)


def completed(key: str, name: str = "work", **body: Any) -> Event:
    """A completed call."""
    return event("checkpoint.completed", key, name=name, **body)


def failed(key: str, *, final: bool, **body: Any) -> Event:
    """A failed attempt."""
    return event("checkpoint.failed", key, name="work", final=final, failure={}, **body)


class Remembered(Exception):
    """What a call's work makes of a recorded failure."""


class Work:
    """Enough of a call's work for the engine."""

    def recorded_failure(self, event: Event) -> Exception:
        """The exception again."""
        return Remembered(event.key)


def make_call(call_id: str = "c1", *, place: int | None = None, attempt: int = 1, **options: Any) -> Call:
    """A call of ``work`` on the main line of a flow."""
    frame = Frame(None, "", "", attempt=attempt)  # type: ignore[arg-type]
    inputs = [Input("x", 1, options.pop("token", "json:1"))]
    return Call(call_id, options.pop("name", "work"), Work(), frame, inputs, Retry(), place=place, **options)


def steps(generator: Any, results: Mapping[str, Sequence[Any]]) -> tuple[list[str], Any]:
    """Perform the effects with canned results, an exception among them is thrown: (what was done, outcome)."""
    queues = {name: list(values) for name, values in results.items()}
    done: list[str] = []
    result: Any = None
    try:
        effect = next(generator)
        while True:
            name = type(effect).__name__
            done.append(describe(effect))
            result = queues[name].pop(0) if queues.get(name) else None
            effect = generator.throw(result) if isinstance(result, BaseException) else generator.send(result)
    except StopIteration as stop:
        return done, stop.value
    except Exception as error:
        return done, error


def describe(effect: e.Effect) -> str:
    """An effect in a few words."""
    match effect:
        case e.Invoke() | e.Complete():
            return f"{type(effect).__name__} {effect.attempt}"
        case e.Fail():
            return f"Fail {effect.attempt} {'final' if effect.retry_in is None else 'again'}"
        case e.Load() | e.Adopt():
            return f"{type(effect).__name__} {effect.donor.exec_id}/{effect.donor.event.key}"
        case e.Answer():
            return f"Answer {effect.value} {effect.via}"
    return type(effect).__name__


ONCE_MORE = Retry(attempts=1, delay=0)
OLD = {"c1": completed("c1", code="v1")._replace(exec_id="kr-0")}


@pytest.mark.parametrize(
    ("history", "plan", "options", "results", "expected"),
    [
        pytest.param([], None, {}, {"Invoke": ["value"]}, ["Invoke 1", "Complete 1"], id="a new call runs"),
        pytest.param([completed("c1")], None, {}, {}, ["Load kr-1/c1"], id="a completed call is loaded"),
        pytest.param(
            [failed("c1", final=False)], None, {}, {}, ["Invoke 2", "Complete 2"], id="attempts go on counting"
        ),
        pytest.param(
            [],
            None,
            {"retry": ONCE_MORE},
            {"Invoke": [ValueError(), "value"]},
            ["Invoke 1", "Fail 1 again", "Sleep", "Invoke 2", "Complete 2"],
            id="a failed attempt is tried again",
        ),
        pytest.param(
            [],
            None,
            {"retry": ONCE_MORE},
            {"Invoke": [ValueError(), ValueError()]},
            ["Invoke 1", "Fail 1 again", "Sleep", "Invoke 2", "Fail 2 final"],
            id="until there are no retries left",
        ),
        pytest.param(
            [failed("c1", final=False)],
            None,
            {"retry": ONCE_MORE},
            {"Invoke": [ValueError()]},
            ["Invoke 2", "Fail 2 final"],
            id="failures before an interruption count",
        ),
        pytest.param([failed("c1", final=True)], None, {}, {}, [], id="a final failure is raised again"),
        pytest.param(
            [failed("c1", final=True), event("execution.failed")],
            None,
            {"retry": ONCE_MORE},
            {"Invoke": [ValueError()]},
            ["Invoke 2", "Fail 2 again", "Sleep", "Invoke 3", "Complete 3"],
            id="a retry of the execution forgives it, with all its retries",
        ),
        pytest.param(
            [failed("c1", final=True, parent="p"), failed("p", final=False)],
            None,
            {},
            {},
            ["Invoke 2", "Complete 2"],
            id="the next attempt of its parent forgives it",
        ),
        pytest.param(
            [failed("c1", final=True, parent="p"), failed("p", final=False, parent="g"), failed("other", final=False)],
            None,
            {},
            {},
            ["Invoke 2", "Complete 2"],
            id="and no other call's",
        ),
        pytest.param(
            [], None, {"cache_key": "k"}, {"Find": [None]}, ["Find", "Invoke 1", "Complete 1"], id="a cache miss runs"
        ),
        pytest.param(
            [],
            None,
            {"cache_key": "k"},
            {"Find": [e.Donor("kr-0", completed("c9"))]},
            ["Find", "Adopt kr-0/c9", "Load kr-0/c9"],
            id="a cache hit is adopted",
        ),
        pytest.param(
            [],
            ReplayPlan("kr-0", donors=OLD),
            {"code": "v1", "cache_key": "k"},
            {},
            ["Adopt kr-0/c1", "Load kr-0/c1"],
            id="a replay adopts what its original recorded",
        ),
        pytest.param(
            [],
            ReplayPlan("kr-0", donors=OLD),
            {"code": "v2", "cache_key": "k"},
            {},
            ["Invoke 1", "Complete 1"],
            id="unless its code changed; no other cache applies",
        ),
        pytest.param(
            [],
            ReplayPlan("kr-0", donors=OLD, rerun=frozenset({"c1"})),
            {"code": "v1"},
            {},
            ["Invoke 1", "Complete 1"],
            id="or it is to run again",
        ),
        pytest.param(
            [],
            ReplayPlan("kr-0", donors=OLD, rerun=frozenset({"c1"}), overrides={"c1": completed("mine")}),
            {"code": "v2"},
            {},
            ["Adopt kr-0/mine", "Load kr-0/mine"],
            id="an override comes before both",
        ),
        pytest.param(
            [],
            ReplayPlan("kr-0", overrides={"c9": completed("mine")}, override_places={("work", 2): "c9"}),
            {"place": 2},
            {},
            ["Adopt kr-0/mine", "Load kr-0/mine"],
            id="and is found by its place when its inputs changed",
        ),
        pytest.param(
            [],
            ReplayPlan("kr-0", overrides={"c9": completed("mine")}, override_places={("work", 2): "c9"}),
            {"place": 1},
            {},
            ["Invoke 1", "Complete 1"],
            id="not at another place",
        ),
    ],
)
def test_what_a_call_leads_to(
    history: list[Event], plan: ReplayPlan | None, options: dict[str, Any], results: Any, expected: list[str]
) -> None:
    call = make_call(place=options.pop("place", None), code=options.pop("code", None))
    for name, value in options.items():
        setattr(call, name, value)
    done, _ = steps(Engine("kr-1", history, plan).call(call), results)
    assert done == expected


def test_a_final_failure_is_the_exception_that_was_recorded() -> None:
    _, outcome = steps(Engine("kr-1", [failed("c1", final=True)]).call(make_call()), {})
    assert isinstance(outcome, Remembered)


def test_a_lost_lease_is_no_failure_of_the_call() -> None:
    lost = KitaruFencedError("gone")
    done, outcome = steps(Engine("kr-1").call(make_call()), {"Complete": [lost]})
    assert done == ["Invoke 1", "Complete 1"]
    assert outcome is lost


RECORDED = completed("c0", place=0, inputs=[["x", "json:0", "0", []]])


@pytest.mark.parametrize(
    ("call", "diverges"),
    [
        pytest.param(make_call(place=0), True, id="other inputs at its place"),
        pytest.param(make_call(place=1), False, id="another place"),
        pytest.param(make_call(place=None), False, id="no place: a concurrent call"),
        pytest.param(make_call("c0", place=0), False, id="the very call"),
        pytest.param(make_call(place=0, name="other"), False, id="another checkpoint"),
        pytest.param(make_call(place=0, attempt=2), False, id="a further attempt of its parent"),
    ],
)
def test_when_a_call_diverges(call: Call, diverges: bool) -> None:
    engine = Engine("kr-1", [RECORDED])
    done, outcome = steps(engine.call(call), {})
    assert isinstance(outcome, KitaruDivergenceError) is diverges
    assert (engine.divergence is not None) is diverges
    assert (done == []) is diverges


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ([["x", "t1", "1", []]], [Input("x", 2, "t2")], "input 'x' was 1, now it is 2"),
        ([["x", "t", "1", []], ["y", "t1", "1", []]], [Input("x", 1, "t"), Input("y", 2, "t2")], "input 'y' was 1"),
        ([], [Input("x", 2, "t2")], "input 'x' is new"),
        ([["x", "t", "1", []]], [], "input 'x' is gone"),
    ],
)
def test_the_first_difference_is_named(before: Any, now: Any, words: str) -> None:
    assert words in e.first_difference(before, now)


def ask(question: str = "ok?") -> WaitRequest:
    """A wait of a flow."""
    return WaitRequest("w1", "approve", question, {}, {}, None, None, Frame(None, "", ""))  # type: ignore[arg-type]


ASKED = event("wait.created", "w1", name="approve", question="ok?")
ANSWERED = event("wait.resolved", "w1", value=True, by="ann", via="cli")
KNOWN: dict[str, Any] = {"answers": {"w1": {"value": True, "by": "ann"}}, "questions": {"w1": "ok?"}}


@pytest.mark.parametrize(
    ("history", "plan", "expected"),
    [
        pytest.param([], None, ["Ask", "Park"], id="a new wait is asked"),
        pytest.param([ASKED], None, ["Park"], id="an asked one is polled for"),
        pytest.param([ASKED, ANSWERED], None, [], id="an answered one is over"),
        pytest.param([], ReplayPlan("kr-0"), ["Ask", "Park"], id="a replay asks what its original didn't"),
        pytest.param(
            [], ReplayPlan("kr-0", **KNOWN), ["Ask", "Answer True reused from kr-0"], id="and takes an old answer"
        ),
        pytest.param(
            [completed("c1", reused={})],
            ReplayPlan("kr-0", **KNOWN),
            ["Ask", "Answer True reused from kr-0"],
            id="also after calls that were reused",
        ),
        pytest.param([completed("c1")], ReplayPlan("kr-0", **KNOWN), ["Ask", "Park"], id="not after one that ran"),
        pytest.param([failed("c1", final=True)], ReplayPlan("kr-0", **KNOWN), ["Ask", "Park"], id="or failed"),
        pytest.param(
            [completed("c1", reused={}, overridden=True)],
            ReplayPlan("kr-0", **KNOWN),
            ["Ask", "Park"],
            id="or was overridden",
        ),
        pytest.param(
            [],
            ReplayPlan("kr-0", **(KNOWN | {"questions": {"w1": "sure?"}})),
            ["Ask", "Park"],
            id="not for another question",
        ),
        pytest.param(
            [completed("c1")],
            ReplayPlan("kr-0", **KNOWN, wait_overrides={"approve": False}),
            ["Ask", "Answer False override of kr-0"],
            id="an override is taken in any case",
        ),
    ],
)
def test_what_a_wait_leads_to(history: list[Event], plan: ReplayPlan | None, expected: list[str]) -> None:
    done, _ = steps(Engine("kr-1", history, plan).wait(ask()), {})
    assert done == expected


def test_another_question_on_an_answered_wait_diverges() -> None:
    engine = Engine("kr-1", [ASKED, ANSWERED])
    _, outcome = steps(engine.wait(ask("really?")), {})
    assert isinstance(outcome, KitaruDivergenceError)
    assert engine.divergence is outcome


def test_equal_calls_differ_by_number_and_others_by_name_scope_inputs_or_id(bench: Bench) -> None:
    engine = Engine("kr-1")
    outer, inner = Frame(None, "", ""), Frame(None, "c1", "c1")  # type: ignore[arg-type]
    one, two = [Input("x", 1, "json:1")], [Input("x", 2, "json:2")]
    ids = [
        engine.identify(outer, "work", one)[0],
        engine.identify(outer, "work", one)[0],
        engine.identify(outer, "other", one)[0],
        engine.identify(outer, "work", two)[0],
        engine.identify(inner, "work", one)[0],
        engine.identify(outer, "work", one, "x")[0],
        engine.identify(outer, "work", two, "x")[0],
    ]
    assert len(set(ids)) == len(ids)
    again = Engine("kr-1")
    fresh = Frame(None, "", "")  # type: ignore[arg-type]
    assert again.identify(fresh, "work", two)[0] == ids[3]
    assert [again.identify(fresh, "work", one)[0] for _ in range(2)] == ids[:2]


def test_places_count_by_name_on_the_main_line_only() -> None:
    engine = Engine("kr-1")
    frame = Frame(None, "", "")  # type: ignore[arg-type]
    places = [engine.identify(frame, name, [])[1] for name in ("a", "a", "b")]
    frame.line = (0, 0)  # as seen from another thread
    assert [*places, engine.identify(frame, "a", [])[1]] == [0, 1, 0, None]
    loose = Frame(None, "", "", strict=False)  # type: ignore[arg-type]
    assert engine.identify(loose, "a", [])[1] is None


def test_inputs_are_traced_to_who_made_them_or_their_parts() -> None:
    engine = Engine("kr-1")
    engine.produced("t1", "c1")
    engine.produced("t2", "input:topic")
    engine.produced(None, "c9")
    inputs = [Input("a", 0, "t1"), Input("b", 0, "t9", ["t2", "t1", "t2"]), Input("c", 0, None), Input("d", 0, "t8")]
    assert engine.trace(inputs) == [["c1"], ["input:topic", "c1"], [], []]


def test_a_cancel_request_stands_until_the_execution_failed() -> None:
    request = event("execution.cancel", by="ann")
    assert Engine("kr-1", [request]).cancel is request
    assert Engine("kr-1", [request, event("execution.failed")]).cancel is None
