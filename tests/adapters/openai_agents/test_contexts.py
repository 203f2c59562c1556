"""What tools do to a run's context is there after a resume, although they don't run again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from agents import Agent, RunContextWrapper, Runner, function_tool
from pydantic import BaseModel

from kitaru_nb import KitaruRunner, OpenAICapturePolicy, flow
from tests.adapters.openai_agents.conftest import Executions
from tests.adapters.openai_agents.fakes import Script, call, say


@dataclass
class Cart:
    """``bank`` can't be kept."""

    bank: Any = field(default_factory=lambda: open(__file__))  # noqa: SIM115 (closed by the test)
    items: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Slotted:
    items: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)


class Typed(BaseModel):
    items: list[str] = []
    count: int = 0


@function_tool
def put(context: RunContextWrapper[Any], item: str) -> str:
    """Put an item into the cart."""
    cart = context.context
    if isinstance(cart, dict):
        cart.pop("empty", None)
        cart.setdefault("items", []).append(item)
        return "put"
    cart.items.append(item)
    if isinstance(cart, Slotted):
        cart.tags.add(item)
    if isinstance(cart, Typed):
        cart.count = len(cart.items)
    return "put"


def shopping() -> Script:
    """Two tools side by side, then one."""
    side_by_side = [call("put", "c1", item="tea"), call("put", "c2", item="milk")]
    return Script([side_by_side, [call("put", "c3", item="jam")], [say("done")]])


def told(cart: Any) -> Any:
    return cart.items if isinstance(cart, Cart) else cart


@pytest.mark.parametrize("how", ["plain", "calls", "runner_call"])
@pytest.mark.parametrize(
    "make", [Cart, Slotted, Typed, lambda: {"empty": True}], ids=["object", "slots", "model", "dict"]
)
def test_a_resumed_run_leaves_the_context_as_it_was_left_before(how: Any, make: Callable[[], Any]) -> None:
    model = shopping()
    seen: list[Any] = []

    @flow(retries=1)
    async def shop() -> None:
        cart = make()
        helper = Agent(name="helper", model=model, tools=[put])
        if how == "plain":
            await Runner.run(helper, "x", context=cart)
        else:
            await KitaruRunner(helper, checkpoint_strategy=how).run("x", context=cart)
        seen.append(told(cart))
        if isinstance(cart, Cart):
            cart.bank.close()
        if len(seen) == 1:
            raise ValueError("once")

    shop.run().wait()
    first, resumed = seen
    assert resumed == first
    assert len(model.asked) == 3
    assert (first if isinstance(first, list) else dict_of(first)["items"]) == ["tea", "milk", "jam"]


def dict_of(cart: Any) -> dict[str, Any]:
    return cart if isinstance(cart, dict) else {"items": cart.items}


def test_instructions_that_tell_the_context_are_the_same_when_a_run_goes_on() -> None:
    model = shopping()
    model.turns.insert(2, ValueError("the connection is gone"))

    @flow(retries=1)
    async def shop() -> str:
        helper = Agent(
            name="helper", model=model, tools=[put], instructions=lambda context, _: f"Bought: {context.context.items}"
        )
        return str((await Runner.run(helper, "x", context=Typed())).final_output)

    assert shop.run().wait() == "done"
    assert [asked.instructions for asked in model.asked] == [
        "Bought: []",
        "Bought: ['tea', 'milk']",
        "Bought: ['tea', 'milk', 'jam']",
        "Bought: ['tea', 'milk', 'jam']",
    ]


def test_of_tools_side_by_side_the_last_to_end_has_the_last_word_on_a_resume_too() -> None:
    ended = asyncio.Event()

    @function_tool
    async def pick(context: RunContextWrapper[dict[str, str]], item: str) -> str:
        """Pick; the first that is called ends last."""
        if item == "first":
            await ended.wait()
        context.context["picked"] = item
        ended.set()
        return item

    model = Script([[call("pick", "c1", item="first"), call("pick", "c2", item="second")], [say("done")]])
    seen: list[Any] = []

    @flow(retries=1)
    async def choose() -> None:
        context: dict[str, str] = {}
        await Runner.run(Agent(name="helper", model=model, tools=[pick]), "x", context=context)
        seen.append(context)
        if len(seen) == 1:
            raise ValueError("once")

    choose.run().wait()
    assert seen == [{"picked": "first"}, {"picked": "first"}]


def test_changes_are_seen_with_their_names_only(executions: Executions) -> None:
    """Values are nobody's to look at where prompts are redacted."""

    @flow
    async def shop() -> None:
        runner = KitaruRunner(
            Agent(name="helper", model=shopping(), tools=[put]), capture=OpenAICapturePolicy(redact=lambda *_: "…")
        )
        await runner.run("x", context=Typed())

    handle = shop.run()
    handle.wait()
    kept = [artifact for one in executions.calls(handle) for artifact in one.artifacts if artifact.kind == "context"]
    assert [artifact.preview["text"] for artifact in kept] == ["changed items, count"] * 4
