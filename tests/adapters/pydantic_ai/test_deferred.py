"""Deferred tools and approvals are waits, one for each call."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pydantic_ai import Agent, ApprovalRequired, CallDeferred, DeferredToolRequests, RunContext
from pydantic_ai.tools import ToolDenied

from adapters.pydantic_ai.scripted import Script, use
from kitaru_nb import KitaruClient, KitaruContextError, KitaruExecutionError, KitaruUsageError, flow
from kitaru_nb.surfaces.adapters.pydantic_ai import KitaruAgent, wait_for_deferred, wait_for_deferred_async


def cashier(script: Script, paid: list[int]) -> KitaruAgent[None, Any]:
    agent: Agent[None, Any] = Agent(script.model, name="cashier", output_type=[str, DeferredToolRequests])

    @agent.tool_plain(requires_approval=True)
    def pay(amount: int) -> str:
        """Pay."""
        paid.append(amount)
        return f"paid {amount}"

    @agent.tool
    def transfer(ctx: RunContext[None], amount: int) -> str:
        """Pay, above 10 with approval."""
        if amount > 10 and not ctx.tool_call_approved:
            raise ApprovalRequired(metadata={"limit": 10})
        paid.append(amount)
        return f"transferred {amount}"

    @agent.tool_plain
    def render(page: str) -> str:
        """Somebody else does it."""
        raise CallDeferred

    return KitaruAgent(agent)


def answer(exec_id: str, **values: Any) -> None:
    """Answer the waits whose names end so."""
    client = KitaruClient()
    deadline = time.monotonic() + 60
    while len(pending := client.executions.pending_waits(exec_id)) < len(values):
        assert time.monotonic() < deadline, pending
        time.sleep(0.02)
    for wait in pending:
        (value,) = (value for key, value in values.items() if wait.name.endswith(key))
        client.executions.input(exec_id, wait=wait.wait_id, value=value)


def test_several_calls_of_one_turn_are_decided_each_by_itself() -> None:
    turn = [use("pay", "c1", amount=5), use("pay", "c2", amount=500), use("transfer", "c3", amount=50)]
    script, paid = Script([*turn, use("render", "c4", page="1")], "done"), []
    agent = cashier(script, paid)

    @flow
    def settle() -> str:
        result = agent.run_sync("settle")
        assert isinstance(result.output, DeferredToolRequests)
        decisions = wait_for_deferred(result)
        assert decisions.approvals == {"c1": True, "c2": ToolDenied("too much"), "c3": True}
        assert decisions.calls == {"c4": {"pixels": [1, 2]}}
        return str(agent.run_sync(message_history=result.all_messages(), deferred_tool_results=decisions).output)

    handle = settle.run()
    denied = {"approve": False, "message": "too much"}
    answer(handle.exec_id, c1=True, c2=denied, c3={"approve": True}, c4={"pixels": [1, 2]})
    assert handle.wait() == "done"
    assert sorted(paid) == [5, 50]
    told = repr(script.asked[1])
    assert all(text in told for text in ("paid 5", "too much", "transferred 50", "pixels"))
    waits = KitaruClient().executions.get(handle.exec_id).waits
    assert sorted(wait.name for wait in waits) == [f"cashier:c{n}" for n in (1, 2, 3, 4)]
    first = next(wait for wait in waits if wait.name == "cashier:c3")
    assert first.question == "May cashier call transfer(amount=50)?"
    assert first.metadata["arguments"] == {"amount": 50}
    assert first.metadata["metadata"] == {"limit": 10}


def test_a_resumed_run_reads_the_decision() -> None:
    script = Script(use("pay", "c1", amount=5), "done")
    agent = cashier(script, [])

    @flow
    async def settle() -> str:
        result = await agent.run("settle")
        decisions = await wait_for_deferred_async(result, name="boss")
        return str((await agent.run(message_history=result.all_messages(), deferred_tool_results=decisions)).output)

    handle = settle.run()
    answer(handle.exec_id, boss=True)
    assert handle.wait() == "done"
    execution = KitaruClient().executions.get(handle.exec_id)
    first, second = (call for call in execution.checkpoints if call.name == "cashier")
    (wait,) = execution.waits
    assert first.call_id in second.parent_call_ids
    sources = {given.name: list(given.sources) for given in second.inputs}
    assert sources["deferred_tool_results"] == [f"wait:{wait.wait_id}"]


def test_one_approval_that_is_used_twice_acts_once() -> None:
    script, paid = Script(use("pay", "c1", amount=5), "done"), []
    agent = cashier(script, paid)

    @flow
    def settle() -> list[str]:
        result = agent.run_sync("settle")
        decisions = wait_for_deferred(result)
        history = result.all_messages()
        return [str(agent.run_sync(message_history=history, deferred_tool_results=decisions).output) for _ in range(2)]

    handle = settle.run()
    answer(handle.exec_id, c1=True)
    assert handle.wait() == ["done", "done"]
    assert paid == [5]


def test_another_decision_in_a_replay_goes_another_way() -> None:
    script, paid = Script(use("pay", "c1", amount=5), "done"), []
    agent = cashier(script, paid)

    @flow
    def settle() -> str:
        result = agent.run_sync("settle")
        decisions = wait_for_deferred(result)
        return str(agent.run_sync(message_history=result.all_messages(), deferred_tool_results=decisions).output)

    handle = settle.run()
    answer(handle.exec_id, c1=True)
    handle.wait()
    again = KitaruClient().executions.replay(
        handle.exec_id, overrides={"wait.cashier:c1": {"approve": False, "message": "no longer"}}
    )
    assert again.wait() == "done"
    assert paid == [5]
    assert "no longer" in repr(script.asked[-1])


def test_a_flow_that_breaks_off_after_the_decision_asks_nobody_again() -> None:
    script, paid, tries = Script(use("pay", "c1", amount=5), [ConnectionError("lost"), "done"]), [], []
    agent = cashier(script, paid)

    @flow(retries=1)
    def settle() -> str:
        tries.append(1)
        result = agent.run_sync("settle")
        decisions = wait_for_deferred(result)
        return str(agent.run_sync(message_history=result.all_messages(), deferred_tool_results=decisions).output)

    handle = settle.run()
    answer(handle.exec_id, c1=True)
    assert handle.wait() == "done"
    assert (len(tries), paid, len(script.asked)) == (2, [5], 3)


def test_an_agent_with_the_capability_alone_goes_on_after_an_approval() -> None:
    from kitaru_nb.surfaces.adapters.pydantic_ai import KitaruDurability

    script, paid = Script(use("pay", "c1", amount=5), "done"), []
    agent: Agent[None, Any] = Agent(
        script.model, name="plain", output_type=[str, DeferredToolRequests], capabilities=[KitaruDurability()]
    )

    @agent.tool_plain(requires_approval=True)
    def pay(amount: int) -> str:
        """Pay."""
        paid.append(amount)
        return f"paid {amount}"

    @flow
    async def settle() -> str:
        result = await agent.run("settle")
        decisions = await wait_for_deferred_async(result)
        return str((await agent.run(message_history=result.all_messages(), deferred_tool_results=decisions)).output)

    handle = settle.run()
    answer(handle.exec_id, c1=True)
    assert handle.wait() == "done"
    assert (paid, len(script.asked)) == ([5], 2)


def test_there_must_be_something_to_decide() -> None:
    agent = cashier(Script("done"), [])

    @flow
    def settle() -> None:
        wait_for_deferred(agent.run_sync("settle"))

    with pytest.raises(KitaruExecutionError, match="expected the result of a run that ended with DeferredToolRequests"):
        settle.run().wait()
    with pytest.raises(KitaruContextError, match="outside a flow"):
        wait_for_deferred(DeferredToolRequests())

    @flow
    def nothing() -> None:
        wait_for_deferred(DeferredToolRequests())

    with pytest.raises((KitaruUsageError, KitaruExecutionError), match="nothing to decide"):
        nothing.run().wait()
