"""Runs of the real agent, whose model is the recorded endpoint: recorded once, on its session, with approvals."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from adapters.claude_agent_sdk import agents
from adapters.claude_agent_sdk.agents import until
from adapters.endpoint import RecordedEndpoint
from kitaru_nb import KitaruClient, KitaruUsageError, KitaruUserCodeError, flow
from kitaru_nb.core.run import Run
from kitaru_nb.errors import KitaruBackendError
from kitaru_nb.surfaces.adapters.claude_agent_sdk import ClaudeRunRequest, KitaruClaudeRunner
from kitaru_nb.surfaces.adapters.claude_sessions import JournalSessions
from kitaru_nb.testing.adapter.script import say, side_by_side, use

CHARGE, PAY = "mcp__bank__charge", "mcp__bank__pay"


def calls(exec_id: str) -> list[Any]:
    return list(KitaruClient().executions.get(exec_id).checkpoints)


def test_a_run_and_its_tool_calls_are_checkpoints(endpoint: RecordedEndpoint, side: Path) -> None:
    endpoint.script("rent", use(CHARGE, amount=1), use(CHARGE, amount=2), say("Charged twice."))
    handle = agents.ask.run("Take the rent")
    assert handle.wait(timeout=120) == "Charged twice."
    run, *tools = calls(handle.exec_id)
    assert (run.name, run.checkpoint_type) == ("teller", "agent_run")
    assert [(t.name, t.checkpoint_type, t.parent) for t in tools] == [("charge", "tool_call", run.call_id)] * 2
    assert [t.inputs[0].preview for t in tools] == ["{'amount': 1}", "{'amount': 2}"]
    assert (run.metadata["input_tokens"], run.metadata["output_tokens"]) == (120, 21)
    assert endpoint.paid == 3
    assert side.read_text().split() == ["charge-1", "charge-2"]


def test_that_a_tool_was_asked_for_is_in_the_journal_before_it_begins(
    endpoint: RecordedEndpoint, side: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed in the tool would ask the model again otherwise, and get another call with another id. So
    for tools of our own as for those that the SDK's subprocess runs by itself."""
    monkeypatch.setattr(Run, "tick", lambda *_: None)  # what is only held stays held
    known = []

    def look(_: str) -> None:
        kept = KitaruClient().executions.latest().list_artifacts()
        said = str([artifact.load() for artifact in kept if artifact.name == "transcript"])
        known.append([f"'name': '{name}'" in said for name in (CHARGE, "Bash")])

    monkeypatch.setattr(agents, "note", look)
    began, seen = side.with_name("began"), side.with_name("seen")
    command = f"touch {began}; until [ -e {seen} ]; do sleep 0.05; done"
    endpoint.script("rent", use(CHARGE, amount=1), use("Bash", command=command, description="wait"), say("Charged."))
    handle = agents.ask_with_bash.run("Take the rent")
    until(began.exists)
    look("Bash")
    seen.touch()
    assert handle.wait(timeout=120) == "Charged."
    assert known == [[True, False], [True, True]]


def test_no_tool_begins_while_the_journal_cannot_be_reached(
    endpoint: RecordedEndpoint, side: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(*_: Any) -> None:
        raise KitaruBackendError("The journal is away.")

    monkeypatch.setattr(JournalSessions, "mirrored", unreachable)
    calls = side_by_side(use(CHARGE, amount=1), use("Bash", command=f"echo bash >>{side}", description="write"))
    endpoint.script("rent", calls, say("It can't be done now."))
    assert agents.ask_with_bash.run("Take the rent").wait(timeout=120) == "It can't be done now."
    assert side.read_text() == ""
    assert str(endpoint.requests()[-1].body["messages"]).count("The journal is away.") == 2


def test_a_later_run_goes_on_with_the_session_and_its_replay_with_what_was_said_before_it(
    endpoint: RecordedEndpoint,
) -> None:
    endpoint.script("my name is Ana", say("Hello Ana."))
    endpoint.script("who am I", say("You are Ana."))
    handle = agents.ask_twice.run("Hi, my name is Ana", "Now, who am I?")
    assert handle.wait(timeout=120) == ["Hello Ana.", "You are Ana."]
    assert "my name is Ana" in str(endpoint.requests()[-1].body["messages"])
    one, two = calls(handle.exec_id)
    assert one.metadata["session"] == two.metadata["session"]
    assert two.parent_call_ids == (one.call_id,)
    assert (one.metadata["input_tokens"], two.metadata["input_tokens"]) == (40, 40)
    assert two.metadata["cost"] == pytest.approx(one.metadata["cost"])
    again = KitaruClient().executions.replay(handle.exec_id, from_="teller#2")
    assert again.wait(timeout=120) == ["Hello Ana.", "You are Ana."]
    assert endpoint.paid == 3
    asked = str(endpoint.requests()[-1].body["messages"])
    assert asked.count("who am I") == 1
    assert "You are Ana" not in asked


def test_a_failing_tool_is_a_failed_checkpoint_and_the_agent_is_told(endpoint: RecordedEndpoint) -> None:
    endpoint.script("break", use("mcp__bank__breaks"), say("It is broken."))
    handle = agents.ask.run("break it")
    assert handle.wait(timeout=120) == "It is broken."
    _, broken = calls(handle.exec_id)
    assert (broken.name, broken.status) == ("breaks", "failed")
    assert "no such table" in str(broken.failure)
    assert "no such table" in str(endpoint.requests()[-1].body["messages"])


def test_run_sync_works_where_a_loop_runs_and_outside_a_flow_nothing_is_recorded(endpoint: RecordedEndpoint) -> None:
    endpoint.script("hello", say("Hello."))

    async def cell() -> Any:
        return agents.runner().run_sync("hello")

    result = asyncio.run(cell())
    assert (result.status, result.text, result.places) == ("completed", "Hello.", ())
    assert KitaruClient().executions.list() == []


def waiting(handle: Any) -> list[Any]:
    """The open waits, once the execution has let go."""
    with pytest.raises(Exception, match="waits"):
        handle.wait(timeout=120)
    return [w for w in KitaruClient().executions.get(handle.exec_id).waits if w.status == "pending"]


def test_of_two_payments_asked_for_at_once_none_happens_without_its_own_approval_and_a_replay_has_it(
    endpoint: RecordedEndpoint, side: Path
) -> None:
    client = KitaruClient()
    endpoint.script("both", side_by_side(use(PAY, amount=1), use(PAY, amount=2)), say("Done."))
    handle = agents.approved.run("Settle both")
    [wait] = waiting(handle)
    assert side.read_text() == ""
    first = wait.metadata["arguments"]["amount"]
    assert wait.question == f'teller wants to call mcp__bank__pay with {{"amount": {first}}}'
    client.executions.input(handle.exec_id, wait=wait.name, value=True)
    assert client.executions.handle(handle.exec_id).wait(timeout=120) == "Done."
    assert side.read_text().split() == [f"pay-{first}"]
    paid = endpoint.paid
    again = client.executions.replay(handle.exec_id, from_="pay")
    assert again.wait(timeout=120) == "Done."
    assert side.read_text().split() == [f"pay-{first}"] * 2
    assert endpoint.paid == paid + 1


def test_a_hook_of_ones_own_may_defer_and_is_not_asked_again_about_what_was_decided(
    endpoint: RecordedEndpoint, side: Path
) -> None:
    endpoint.script("rent", use(CHARGE, amount=1), say("Charged."))
    handle = agents.hooked.run("Take the rent")
    [wait] = waiting(handle)
    KitaruClient().executions.input(handle.exec_id, wait=wait.name, value=True)
    assert KitaruClient().executions.handle(handle.exec_id).wait(timeout=120) == "Charged."
    assert side.read_text().split() == ["hook", "hook", "charge-1"]


def test_what_is_no_result_of_a_run_is_refused_at_once() -> None:
    for wrong in (
        lambda: ClaudeRunRequest.start("Go on", session="session-1"),  # type: ignore[arg-type]
        lambda: ClaudeRunRequest.resume("result"),  # type: ignore[arg-type]
        lambda: flow(lambda: agents.runner().wait_for_approval("result")).run().wait(),  # type: ignore[arg-type]
    ):
        with pytest.raises((KitaruUsageError, KitaruUserCodeError), match="is a str; expected the result of a run"):
            wrong()
    with pytest.raises(KitaruUsageError, match="name=3 can't be"):
        KitaruClaudeRunner(agents.options(), name=3)  # type: ignore[arg-type]
