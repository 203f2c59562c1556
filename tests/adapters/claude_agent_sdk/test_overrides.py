"""A replay begins inside a run: it goes on in the session as it was at that call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapters.claude_agent_sdk import agents
from adapters.endpoint import RecordedEndpoint
from kitaru_nb import KitaruClient, KitaruUsageError, KitaruUserCodeError
from kitaru_nb.testing.adapter.script import say, side_by_side, use

CHARGE = "mcp__bank__charge"


def charged(endpoint: RecordedEndpoint, *amounts: int) -> str:
    endpoint.script("rent", *(use(CHARGE, amount=amount) for amount in amounts), say("Charged."))
    handle = agents.ask.run("Take the rent")
    assert handle.wait(timeout=120) == "Charged."
    return handle.exec_id


def replayed(exec_id: str, **options: Any) -> Any:
    return KitaruClient().executions.replay(exec_id, **options)


def test_a_replay_and_its_own_replay_begin_inside_the_session(endpoint: RecordedEndpoint, side: Path) -> None:
    exec_id = charged(endpoint, 1, 2)
    once = replayed(exec_id, overrides={"checkpoint.charge#1": {"charged": "nothing"}})
    assert once.wait(timeout=120) == "Charged."
    assert side.read_text().split() == ["charge-1", "charge-2"]
    assert endpoint.paid == 5
    twice = replayed(once.exec_id, overrides={"arguments.charge#2": {"amount": 8}})
    assert twice.wait(timeout=120) == "Charged."
    assert side.read_text().split() == ["charge-1", "charge-2", "charge-8"]
    assert endpoint.paid == 6
    shown = str(endpoint.requests()[-1].body["messages"])
    assert [shown.count(text) for text in ("charged 1", "charged 2", "charged 8")] == [0, 0, 1]
    assert shown.count('{"charged": "nothing"}') == 1
    run, *tools = KitaruClient().executions.get(twice.exec_id).checkpoints
    assert [(t.name, t.parent, t.inputs[0].preview) for t in tools] == [("charge", run.call_id, "{'amount': 8}")]


def test_what_is_given_for_a_run_is_its_answer_and_a_later_one_begins_without_its_session(
    endpoint: RecordedEndpoint,
) -> None:
    endpoint.script("my name is Ana", say("Hello Ana."))
    endpoint.script("who am I", say("I don't know."))
    handle = agents.ask_twice.run("Hi, my name is Ana", "Now, who am I?")
    handle.wait(timeout=120)
    again = replayed(handle.exec_id, overrides={"checkpoint.teller#1": "Nobody told me."})
    assert again.wait(timeout=120) == ["Nobody told me.", "I don't know."]
    assert endpoint.paid == 3
    assert "Ana" not in str(endpoint.requests()[-1].body["messages"])


def test_a_run_begins_anew_with_another_prompt(endpoint: RecordedEndpoint, side: Path) -> None:
    exec_id = charged(endpoint, 1)
    endpoint.script("nothing", say("Nothing taken."))
    again = replayed(exec_id, overrides={"arguments.teller": {"prompt": "Take nothing"}})
    assert again.wait(timeout=120) == "Nothing taken."
    assert side.read_text().split() == ["charge-1"]
    assert "Take the rent" not in str(endpoint.requests()[-1].body["messages"])


def test_what_a_session_cannot_do_is_refused_before_the_agent_runs(endpoint: RecordedEndpoint, side: Path) -> None:
    endpoint.script("both", side_by_side(use(CHARGE, amount=1), use(CHARGE, amount=2)), say("Charged."))
    handle = agents.ask.run("Take both")
    handle.wait(timeout=120)
    given: dict[str, Any] = {"checkpoint.charge#1": "nothing", "arguments.charge#2": {"amount": 3}}
    with pytest.raises(KitaruUserCodeError, match="2 calls inside one run of 'teller' were given another outcome"):
        replayed(handle.exec_id, overrides=given).wait(timeout=120)
    with pytest.raises(KitaruUserCodeError, match="made these calls side by side, so they can't all be made again"):
        replayed(handle.exec_id, from_=["charge#1", "charge#2"]).wait(timeout=120)
    with pytest.raises(KitaruUsageError, match=r"takes no other 'model'. Inputs are: prompt"):
        replayed(handle.exec_id, overrides={"arguments.teller": {"model": "other"}})
    assert side.read_text().split() in (["charge-1", "charge-2"], ["charge-2", "charge-1"])
    assert endpoint.paid == 2
