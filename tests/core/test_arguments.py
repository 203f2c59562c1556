"""Replay with other arguments: a call runs again with inputs that the flow didn't give it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from core.bench import Bench
from kitaru_nb import (
    KitaruExecutionError,
    KitaruNotFoundError,
    KitaruUsageError,
    KitaruUserCodeError,
    Paused,
    checkpoint,
    flow,
    wait,
)
from kitaru_nb.core.context import current
from kitaru_nb.core.engine import Call
from kitaru_nb.surfaces.detail import plan_blocks


class Kitchen:
    """A flow of three calls, one of them inside another; what ran is noted with its arguments."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.stop = False

        @checkpoint
        def shop(what: str, amount: int = 1) -> list[str]:
            self.ran.append(f"shop {what} {amount}")
            return [what] * amount

        @checkpoint
        def chop(thing: str) -> str:
            self.ran.append(f"chop {thing}")
            return f"chopped {thing}"

        @checkpoint
        def cook(things: list[str]) -> str:
            self.ran.append(f"cook {len(things)}")
            return " and ".join(chop(thing) for thing in things)

        @checkpoint
        def serve(dish: str) -> str:
            if self.stop:
                raise Paused("the power is gone")
            self.ran.append("serve")
            return f"{dish}, served"

        @flow
        def dinner(what: str) -> str:
            return serve(cook(shop(what)))

        self.dinner = dinner

    def since(self) -> list[str]:
        """What ran since the last look."""
        ran, self.ran = self.ran, []
        return ran


@pytest.fixture
def kitchen() -> Kitchen:
    return Kitchen()


@pytest.fixture
def original(bench: Bench, kitchen: Kitchen) -> str:
    """A completed execution."""
    handle = bench.run(kitchen.dinner, "leek")
    assert handle.wait() == "chopped leek, served"
    assert kitchen.since() == ["shop leek 1", "cook 1", "chop leek", "serve"]
    return handle.exec_id


def test_a_call_runs_with_other_arguments_and_so_does_all_that_read_it(
    bench: Bench, kitchen: Kitchen, original: str
) -> None:
    handle = bench.bind(kitchen.dinner).replay(original, overrides={"arguments.shop": {"amount": 2}})
    assert handle.wait() == "chopped leek and chopped leek, served"
    assert kitchen.since() == ["shop leek 2", "cook 2", "chop leek", "chop leek", "serve"]
    shop = bench.executions.checkpoint(handle.exec_id, "shop")
    assert {i.name: i.preview for i in shop.inputs} == {"what": "'leek'", "amount": "2"}
    assert {i.name: i.sources for i in shop.inputs} == {"what": ("input:what",), "amount": ()}
    body = next(e.body for e in bench.events(handle) if e.key == shop.call_id)
    assert body["overridden_inputs"] == ["amount"]


def test_a_call_inside_another_runs_with_other_arguments(bench: Bench, kitchen: Kitchen, original: str) -> None:
    handle = bench.bind(kitchen.dinner).replay(original, overrides={"arguments.chop": {"thing": "kale"}})
    assert handle.wait() == "chopped kale, served"
    assert kitchen.since() == ["cook 1", "chop kale", "serve"]
    assert bench.statuses(handle)["shop"] == "reused"


def test_any_value_that_can_be_kept_may_be_an_argument(bench: Bench, kitchen: Kitchen, original: str) -> None:
    handle = bench.bind(kitchen.dinner).replay(original, overrides={"arguments.cook": {"things": ["a", "b"]}})
    assert handle.wait() == "chopped a and chopped b, served"


def test_a_resume_of_the_replay_keeps_to_the_arguments(bench: Bench, kitchen: Kitchen, original: str) -> None:
    kitchen.stop = True
    handle = bench.bind(kitchen.dinner).replay(original, overrides={"arguments.shop": {"what": "kale"}})
    with pytest.raises(KitaruExecutionError, match="was interrupted"):
        handle.wait()
    assert kitchen.since() == ["shop kale 1", "cook 1", "chop kale"]
    kitchen.stop = False
    assert bench.finish(handle.exec_id, kitchen.dinner) == "chopped kale, served"
    assert kitchen.since() == ["serve"]


def test_an_interrupted_call_runs_again_with_the_same_other_arguments(
    bench: Bench, kitchen: Kitchen, original: str
) -> None:
    kitchen.stop = True
    handle = bench.bind(kitchen.dinner).replay(original, overrides={"arguments.serve": {"dish": "soup"}})
    with pytest.raises(KitaruExecutionError, match="was interrupted"):
        handle.wait()
    kitchen.stop = False
    assert bench.finish(handle.exec_id, kitchen.dinner) == "soup, served"


def test_the_call_is_found_when_what_came_before_it_is_new(bench: Bench, kitchen: Kitchen, original: str) -> None:
    handle = bench.bind(kitchen.dinner).replay(
        original, overrides={"arguments.cook": {"things": ["a"]}}, inputs={"what": "corn"}
    )
    assert handle.wait() == "chopped a, served"
    assert kitchen.since() == ["shop corn 1", "cook 1", "chop a", "serve"]


def test_a_failed_call_can_be_given_better_arguments(bench: Bench) -> None:
    @checkpoint
    def divide(by: int) -> float:
        return 1 / by

    @flow
    def sums() -> float:
        return divide(0)

    handle = bench.run(sums)
    with pytest.raises(KitaruUserCodeError, match="ZeroDivisionError"):
        handle.wait()
    assert bench.bind(sums).replay(handle.exec_id, overrides={"arguments.divide": {"by": 4}}).wait() == 0.25


def test_the_result_is_no_answer_for_the_arguments_that_the_flow_gave(bench: Bench) -> None:
    @checkpoint(cache=True)
    def double(n: int) -> int:
        return 2 * n

    @flow
    def sums(n: int) -> int:
        return double(n)

    first = bench.run(sums, 1)
    assert first.wait() == 2
    assert bench.bind(sums).replay(first.exec_id, overrides={"arguments.double": {"n": 10}}).wait() == 20
    again = bench.run(sums, 1)
    assert again.wait() == 2
    assert bench.statuses(again) == {"double": "reused"}


def test_the_plan_shows_what_gets_other_arguments(bench: Bench, original: str) -> None:
    plan = bench.executions.replay_plan(original, overrides={"arguments.cook": {"things": []}})
    assert plan.arguments == ("cook",)
    assert plan.runs == ("cook", "chop", "serve")
    assert plan.reused == ("shop",)
    assert any("arguments" in str(block) and "cook" in str(block) for block in plan_blocks(plan))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"arguments.shop": 3}, r"arguments of 'shop' are 3; expected a mapping .*: what, amount"),
        ({"arguments.shop": {}}, "expected a mapping"),
        ({"arguments.shop": {"price": 3}}, r"'shop' has no input 'price'\. Inputs are: what, amount"),
        ({"arguments.": {"price": 3}}, "'arguments.NAME'"),
        ({"arguments.chop": {"thing": "x"}, "checkpoint.cook": "soup"}, "'chop' was given other .* never run"),
    ],
    ids=["no mapping", "nothing", "unknown input", "no name", "inside an overridden call"],
)
def test_arguments_that_cannot_be_are_refused_before_anything_runs(
    bench: Bench, kitchen: Kitchen, original: str, overrides: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(KitaruUsageError, match=message) as caught:
        bench.bind(kitchen.dinner).replay(original, overrides=overrides)
    assert caught.value.fix
    assert kitchen.since() == []
    assert len(bench.executions.list()) == 1


def test_an_unknown_call_is_told_from_those_that_there_are(bench: Bench, original: str) -> None:
    with pytest.raises(KitaruNotFoundError, match="Available: shop, cook, chop, serve"):
        bench.executions.replay_plan(original, overrides={"arguments.fry": {"x": 1}})


def test_a_wait_has_no_arguments(bench: Bench) -> None:
    @flow
    def asking() -> bool:
        return wait("approve", timeout=0)

    handle = bench.run(asking)
    bench.complete(handle, approve=True)
    with pytest.raises(KitaruUsageError, match="'approve' is a wait") as caught:
        bench.executions.replay_plan(handle.exec_id, overrides={"arguments.approve": {"x": 1}})
    assert caught.value.fix == "overrides={'wait.approve': value}"


class Fixed:
    """A work that can't run with anything else: it has no ``with_arguments``."""

    def __init__(self, value: int) -> None:
        self.value = value

    def invoke(self, call: Call, attempt: int) -> int:
        return self.value

    def outputs(self, run: Any, call: Call, value: Any) -> tuple[list[Any], dict[str, Any]]:
        ids = {"artifact_id": f"{run.exec_id}/{call.call_id}/{call.name}", "producing_call": call.call_id}
        return [run.store.write(value, name=call.name, exec_id=run.exec_id, **ids)], {}

    def restore(self, run: Any, call: Call, artifacts: Any, event: Any) -> Any:
        return run.store.read(artifacts[0])


def test_a_work_that_takes_no_arguments_says_so(bench: Bench) -> None:
    from kitaru_nb.core.engine import Input
    from kitaru_nb.core.retry import Retry

    @flow
    def fixed() -> int:
        frame = current.get()
        assert frame is not None
        inputs = [Input("n", 1, frame.run.store.token(1))]
        call_id, place = frame.run.engine.identify(frame, "fixed", inputs)
        work: Any = Fixed(1)
        call = Call(call_id, "fixed", work, frame, inputs, Retry(), place=place)
        return frame.run.call(call)  # type: ignore[no-any-return]

    handle = bench.run(fixed)
    assert handle.wait() == 1
    with pytest.raises(KitaruUserCodeError, match="'fixed' can't run with other arguments"):
        bench.bind(fixed).replay(handle.exec_id, overrides={"arguments.fixed": {"n": 2}}).wait()


def test_inputs_may_have_the_names_of_options(bench: Bench) -> None:
    @flow
    def mail(from_: str, scope: str) -> str:
        return f"{from_} {scope}"

    first = bench.run(mail, "ann", "all")
    assert first.wait() == "ann all"
    again = bench.bind(mail).replay(first.exec_id, inputs={"from_": "bob", "scope": "some"})
    assert again.wait() == "bob some"
    with pytest.raises(KitaruUsageError, match="'n' was given twice"):
        bench.executions.replay(first.exec_id, inputs={"n": 1}, n=2)
