"""Approvals: asked in waits, decided by call id, acted on once, and never by mistake."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from agents import Agent, RunContextWrapper, Runner, function_tool

from kitaru_nb import (
    KitaruExecutionError,
    KitaruRunner,
    KitaruUsageError,
    OpenAIApprovalDecision,
    OpenAIRunRequest,
    OpenAIRunResult,
    build_resume_request,
    flow,
    wait,
    wait_for_approval,
    wait_for_approval_async,
    wait_for_approvals,
    wait_for_approvals_async,
)
from tests.adapters.openai_agents.conftest import Executions
from tests.adapters.openai_agents.fakes import Script, call, say

paid: list[int] = []


@pytest.fixture(autouse=True)
def _nothing_paid() -> None:
    paid.clear()


@function_tool(needs_approval=True)
def pay(amount: int) -> str:
    """Pay."""
    paid.append(amount)
    return f"paid {amount}"


@dataclass
class Desk:
    till: int


@function_tool(needs_approval=True)
def pay_out(context: RunContextWrapper[Desk], amount: int) -> str:
    """Pay."""
    paid.append(context.context.till)
    return "paid"


def paying(*amounts: int) -> Script:
    return Script([[call("pay", f"c{n}", amount=n) for n in amounts], [say("done")]])


@pytest.mark.parametrize("strategy", ["calls", "runner_call"])
@pytest.mark.parametrize(
    "value", [True, {"approve": True}, {"approve": True, "message": None}], ids=["bool", "short", "long"]
)
def test_an_approved_tool_runs_after_the_answer(strategy: Any, value: Any, executions: Executions) -> None:
    model = paying(5)

    @flow
    def review(case: str) -> str:
        runner = KitaruRunner(Agent(name="reviewer", model=model, tools=[pay]), checkpoint_strategy=strategy)
        result = runner.run_sync(OpenAIRunRequest.start(case))
        if result.status == "interrupted":
            result = runner.run_sync(wait_for_approval(result, name="approve_tool", timeout=600))
        return str(result.final_output)

    handle = review.run("case")
    (wait,) = executions.waits(handle)
    assert wait.question == "reviewer wants to call pay(amount=5). Allow it?"
    assert wait.metadata == {"agent": "reviewer", "tool": "pay", "call_id": "c5", "arguments": {"amount": 5}}
    assert paid == []
    executions.answer(handle, "approve_tool", value)
    assert handle.wait() == "done"
    assert paid == [5]
    assert model.asked[-1].results == {"c5": "paid 5"}


def test_a_wrong_answer_is_refused_and_the_wait_stays(executions: Executions) -> None:
    model = paying(5)

    @flow
    def review() -> str:
        runner = KitaruRunner(Agent(name="reviewer", model=model, tools=[pay]))
        return str(runner.run_sync(wait_for_approval(runner.run_sync("x"), name="ok")).final_output)

    handle = review.run()
    executions.waits(handle)
    for wrong in ("yes", 1, {"message": "no"}, {"approve": "yes"}, {"approve": True, "amount": 9}):
        with pytest.raises(KitaruUsageError):
            executions.answer(handle, "ok", wrong)
    executions.answer(handle, "ok", {"approve": False, "message": "too much"})
    assert handle.wait() == "done"
    assert paid == []
    assert model.asked[-1].results == {"c5": "too much"}


def test_several_calls_are_asked_at_once_and_decided_each_by_its_own_answer(executions: Executions) -> None:
    model = paying(1, 2, 3)

    @flow
    def review() -> str:
        runner = KitaruRunner(Agent(name="reviewer", model=model, tools=[pay]))
        result = runner.run_sync("x")
        assert [one.call_id for one in result.interruptions] == ["c1", "c2", "c3"]
        return str(runner.run_sync(wait_for_approvals(result, denial_message="not today")).final_output)

    handle = review.run()
    waits = executions.waits(handle, 3)
    assert sorted(wait.name for wait in waits) == ["reviewer:c1", "reviewer:c2", "reviewer:c3"]
    executions.answer(handle, "reviewer:c3", True)
    executions.answer(handle, "reviewer:c1", False)
    executions.answer(handle, "reviewer:c2", {"approve": False, "message": "no"})
    assert handle.wait() == "done"
    assert paid == [3]
    assert model.asked[-1].results == {"c1": "not today", "c2": "no", "c3": "paid 3"}


def test_asynchronous_flows_wait_without_blocking(executions: Executions) -> None:
    model = paying(1, 2)

    @flow
    async def review() -> str:
        runner = KitaruRunner(Agent(name="reviewer", model=model, tools=[pay]))
        result = await runner.run("x")
        result = await runner.run(await wait_for_approval_async(result, call_id="c2", name="second"))
        assert (result.status, paid) == ("interrupted", [2])
        return str((await runner.run(await wait_for_approvals_async(result, name="rest"))).final_output)

    handle = review.run()
    executions.waits(handle)
    executions.answer(handle, "second", True)
    assert executions.waits(handle)[0].name == "rest"
    executions.answer(handle, "rest", True)
    assert handle.wait() == "done"
    assert sorted(paid) == [1, 2]


@pytest.mark.parametrize("strategy", ["calls", "runner_call"])
def test_resuming_one_approval_twice_pays_once(strategy: Any) -> None:
    model = paying(5)

    @flow
    def review() -> list[str]:
        runner = KitaruRunner(Agent(name="reviewer", model=model, tools=[pay]), checkpoint_strategy=strategy)
        request = build_resume_request(runner.run_sync("x"), approve=True)
        first = runner.run_sync(request).final_output
        model.turns.append([say("again")])
        return [str(first), str(runner.run_sync(request).final_output)]

    assert review.run().wait() == ["done", "again"]
    assert paid == [5]


@pytest.mark.parametrize("strategy", ["calls", "runner_call"])
def test_a_crash_after_the_payment_does_not_pay_again(strategy: Any) -> None:
    model = paying(5)
    model.turns[1:] = [ValueError("the connection is gone"), [say("done")]]

    @flow(retries=1)
    def review() -> str:
        runner = KitaruRunner(Agent(name="reviewer", model=model, tools=[pay]), checkpoint_strategy=strategy)
        return str(runner.run_sync(build_resume_request(runner.run_sync("x"), approve=True)).final_output)

    assert review.run().wait() == "done"
    assert paid == [5]


def test_usage_is_told_for_each_segment_and_for_all() -> None:
    model = paying(5)
    results: list[OpenAIRunResult] = []

    @flow
    def review() -> None:
        runner = KitaruRunner(Agent(name="reviewer", model=model, tools=[pay]), cost_calculator=lambda *_: 0.25)
        results.append(runner.run_sync("x"))
        results.append(runner.run_sync(build_resume_request(results[0], approve=True)))

    review.run().wait()
    assert [r.usage.total_tokens for r in results] == [47, 47]
    assert [r.usage_total.total_tokens for r in results] == [47, 94]
    assert [r.estimated_cost_usd for r in results] == [0.25, 0.25]
    assert results[1].cost_total_usd == 0.5


def test_approvals_of_an_agent_used_as_a_tool_reach_the_outer_run(executions: Executions) -> None:
    inner_model = Script([[call("pay", "inner_1", amount=7)], [say("inner done")]])
    outer_model = Script([[call("cashier", "outer_1", input="pay 7")], [say("all done")]])

    @flow
    def review() -> str:
        inner = Agent(name="cashier", model=inner_model, tools=[pay])
        outer = Agent(name="boss", model=outer_model, tools=[inner.as_tool("cashier", "pays")])
        runner = KitaruRunner(outer)
        result = runner.run_sync("x")
        assert [(one.agent, one.tool_name) for one in result.interruptions] == [("cashier", "pay")]
        return str(runner.run_sync(wait_for_approvals(result, name="ok")).final_output)

    handle = review.run()
    executions.waits(handle)
    executions.answer(handle, "ok", True)
    assert handle.wait() == "all done"
    assert paid == [7]
    assert (len(inner_model.asked), len(outer_model.asked)) == (2, 2)
    names = [c.name for c in executions.calls(handle)]
    assert names == ["boss", "boss.model", "cashier.model", "boss", "pay", "cashier.model", "boss.model"]


def test_a_policy_that_looks_at_arguments_still_protects() -> None:
    """The SDK refuses to decide on arguments that don't fit; a wrapper around the tool must not undo that."""

    async def big(context: Any, arguments: dict[str, Any], call_id: str) -> bool:
        return int(arguments.get("amount", 0)) > 100

    @function_tool(needs_approval=big)
    def transfer(amount: int = 500) -> str:
        paid.append(amount)
        return "transferred"

    def statuses() -> list[str]:
        found = []
        for arguments in ({}, {"amount": 5}, {"amount": 900}):
            model = Script([[call("transfer", "c1", **arguments)], [say("done")]])
            found.append(KitaruRunner(Agent(name="bank", model=model, tools=[transfer])).run_sync("x").status)
        return found

    bare = statuses()
    amounts = list(paid)
    paid.clear()
    assert flow(statuses).run().wait() == bare
    assert paid == amounts


# states that must not go on


def interrupted(agent: Agent[Any]) -> OpenAIRunResult:
    return KitaruRunner(agent).run_sync("x")


def approve_with(agent: Agent[Any], result: OpenAIRunResult, **options: Any) -> OpenAIRunResult:
    return KitaruRunner(agent, **options).run_sync(build_resume_request(result, approve=True))


def test_a_changed_tool_is_not_called_with_what_was_approved() -> None:
    result = interrupted(Agent(name="reviewer", model=paying(5), tools=[pay]))

    def other(amount: str, reason: str) -> str:
        """Pay."""
        paid.append(0)
        return "paid"

    changed = function_tool(name_override="pay", needs_approval=True)(other)
    with pytest.raises(KitaruUsageError, match="'pay', whose parameters have changed"):
        approve_with(Agent(name="reviewer", model=paying(5), tools=[changed]), result)
    with pytest.raises(KitaruUsageError, match="waits for tool 'pay' of agent 'reviewer', which has no such tool"):
        approve_with(Agent(name="reviewer", model=paying(5)), result)
    with pytest.raises(KitaruUsageError, match="knows an agent 'reviewer' that 'auditor' no longer reaches"):
        approve_with(Agent(name="auditor", model=paying(5), tools=[pay]), result)
    assert paid == []


def test_other_instructions_and_further_tools_are_no_obstacle() -> None:
    result = interrupted(Agent(name="reviewer", model=paying(5), tools=[pay]))

    @function_tool
    def more() -> str:
        return "more"

    changed = Agent(name="reviewer", instructions="New.", model=Script([[say("ok")]]), tools=[more, pay])
    assert approve_with(changed, result).final_output == "ok"
    assert paid == [5]


def test_a_state_of_a_newer_sdk_is_refused_before_anything_runs() -> None:
    agent = Agent(name="reviewer", model=paying(5), tools=[pay])
    result = interrupted(agent)
    assert result.pending_state is not None
    newer = replace(
        result, pending_state=replace(result.pending_state, run_state_schema="9.1", agents_sdk_version="99.0")
    )
    with pytest.raises(KitaruUsageError, match=r"written by openai-agents 99.0 \(state 9.1\)"):
        approve_with(agent, newer)
    other = replace(result, pending_state=replace(result.pending_state, agents_sdk_version="0.1.0"))
    with pytest.raises(KitaruUsageError, match="strict_sdk_version=True"):
        approve_with(agent, other, strict_sdk_version=True)
    assert paid == []
    assert approve_with(agent, other).final_output == "done"


def test_decisions_that_can_not_be_meant_are_refused() -> None:
    result = interrupted(Agent(name="reviewer", model=paying(1, 2), tools=[pay]))
    state = result.pending_state
    decision = OpenAIApprovalDecision
    for decisions, problem in (
        ({"c9": True}, "'c9' isn't pending.*c1 .pay., c2 .pay."),
        ({"c1": "yes"}, "approve='yes' is no decision"),
        ([decision(5)], "interruption_index=5 means none of the 2 pending calls"),
        (decision(), "interruption_index=None means none of the 2"),
        ([decision(0), decision(call_id="c1")], "c1 was decided twice"),
        ([], "No decision was given"),
        ([True], "True is no decision"),
    ):
        with pytest.raises(KitaruUsageError, match=problem):
            OpenAIRunRequest.resume(state, decisions)  # type: ignore[arg-type]
    with pytest.raises(KitaruUsageError, match="nothing to resume"):
        OpenAIRunRequest.resume(None, decision(0))
    with pytest.raises(KitaruUsageError, match=r"'c9' isn't pending\. Pending: 0: c1"):
        build_resume_request(result, approve=True, call_id="c9")
    assert paid == []


def test_a_completed_run_has_nothing_to_approve() -> None:
    result = KitaruRunner(Agent(name="reviewer", model=Script([[say("hi")]]))).run_sync("x")
    with pytest.raises(KitaruUsageError, match="is completed; there is nothing to approve"):
        wait_for_approval(result)
    with pytest.raises(KitaruUsageError, match="was given the result of a run"):
        OpenAIRunRequest.start(result)  # type: ignore[arg-type]


def test_waiting_inside_a_tool_ends_the_run_instead_of_confusing_the_model() -> None:
    @function_tool
    def careful() -> str:
        return str(wait("really"))

    model = Script([[call("careful", "c1")], [say("never said")]])

    @flow
    async def ask() -> str:
        return str((await Runner.run(Agent(name="helper", model=model, tools=[careful]), "x")).final_output)

    with pytest.raises(KitaruExecutionError, match=r"wait\('really'\) was called inside checkpoint 'careful'"):
        ask.run().wait()
    assert len(model.asked) == 1


def test_a_context_comes_back_through_the_users_functions() -> None:
    options: dict[str, Any] = {
        "context_serializer": lambda desk: {"till": desk.till},
        "context_deserializer": lambda data: Desk(**data),
    }

    def agent() -> Agent[Any]:
        return Agent(name="reviewer", model=Script([[say("done")]]), tools=[pay_out])

    first = Agent(name="reviewer", model=Script([[call("pay_out", "c1", amount=1)]]), tools=[pay_out])
    result = KitaruRunner(first, **options).run_sync("x", context=Desk(3))
    request = build_resume_request(result, approve=True)
    assert KitaruRunner(agent(), **options).run_sync(request).final_output == "done"
    assert KitaruRunner(agent(), **options).run_sync(request, context=Desk(4)).final_output == "done"
    assert paid == [3, 4]
    again = Agent(name="reviewer", model=Script([[call("pay_out", "c1", amount=1)]]), tools=[pay_out])
    with pytest.raises(KitaruUsageError, match="can't be kept"):
        KitaruRunner(again, strict_context=True).run_sync("x", context=Desk(3))
