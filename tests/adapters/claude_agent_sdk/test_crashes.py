"""The process dies in the middle of a run, wherever that is; a fresh one goes on within the same session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.endpoint import RecordedEndpoint
from kitaru_nb import KitaruClient
from kitaru_nb.testing.adapter.script import say, side_by_side, use

CHARGE, PAY = "mcp__bank__charge", "mcp__bank__pay"
TESTS = Path(__file__).parents[2]


def begin(flow: str, prompt: str, dies: str = "") -> subprocess.Popen[bytes]:
    """Run a flow in a process of its own, which dies when a tool of this name is called."""
    program = f"from adapters.claude_agent_sdk import agents\nagents.{flow}.run({prompt!r}).wait()"
    environment = os.environ | {"PYTHONPATH": str(TESTS), "KITARU_TEST_DIES": dies}
    return subprocess.Popen([sys.executable, "-c", program], env=environment)


def go_on() -> str:
    """A fresh worker takes up the only execution; its result."""
    client = KitaruClient()
    exec_id = client.executions.latest().exec_id
    client.executions.resume(exec_id)
    answer: str = client.executions.handle(exec_id).wait(timeout=200)
    return answer


def asked_after_the_crash(endpoint: RecordedEndpoint) -> int:
    """How often the resumed run asked the model. (The dead process's subprocess may ask once more before it ends.)"""
    return sum("Continue from where you left off" in str(r.body["messages"][-1]) for r in endpoint.requests())


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


def test_a_tool_in_flight_is_called_again_and_nothing_else(endpoint: RecordedEndpoint, side: Path) -> None:
    endpoint.script("rent", use(CHARGE, amount=1), use(CHARGE, amount=2), say("Charged twice."))
    assert begin("ask", "Take the rent", dies="charge-2").wait(120) == 9
    assert go_on() == "Charged twice."
    assert side.read_text().split() == ["charge-1", "charge-2", "charge-2"]
    assert asked_after_the_crash(endpoint) == 1
    found = KitaruClient().executions.get(KitaruClient().executions.latest().exec_id).checkpoints
    assert sorted((call.name, call.status) for call in found) == [
        ("charge", "completed"),
        ("charge", "completed"),
        ("teller", "completed"),
    ]


def test_of_tools_called_side_by_side_the_finished_ones_keep_their_results(
    endpoint: RecordedEndpoint, side: Path
) -> None:
    endpoint.script("both", side_by_side(use(CHARGE, amount=1), use(CHARGE, amount=2)), say("Charged both."))
    assert begin("ask", "Take both", dies="charge-2").wait(120) == 9
    assert go_on() == "Charged both."
    assert side.read_text().split() == ["charge-1", "charge-2", "charge-2"]
    assert asked_after_the_crash(endpoint) == 1
    shown = str(endpoint.requests()[-1].body["messages"])
    assert "charged 1" in shown
    assert "charged 2" in shown


def test_a_model_call_in_flight_is_made_again_and_no_tool(endpoint: RecordedEndpoint, side: Path) -> None:
    endpoint.script("rent", use(CHARGE, amount=1), use(CHARGE, amount=2), say("Charged twice."))
    endpoint.script("Continue from where you left off", say("Charged twice."))
    endpoint.hold(after=2)
    worker = begin("ask", "Take the rent")
    endpoint.wait_held(seconds=200)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    endpoint.let_go()
    assert go_on() == "Charged twice."
    assert side.read_text().split() == ["charge-1", "charge-2"]
    shown = str(endpoint.requests()[-1].body["messages"])
    assert shown.count("charged 1") == shown.count("charged 2") == 1


def test_an_approved_payment_happens_once_although_its_worker_died_right_after_it(
    endpoint: RecordedEndpoint, side: Path
) -> None:
    endpoint.script("bill", use(PAY, amount=5), say("Paid."))
    worker = begin("approved", "Settle the bill")
    worker.wait(120)
    client = KitaruClient()
    exec_id = client.executions.latest().exec_id
    [wait] = [w for w in client.executions.get(exec_id).waits if w.status == "pending"]
    endpoint.script("Continue from where you left off", say("Paid."))
    endpoint.hold(after=0)
    client.executions.input(exec_id, wait=wait.name, value=True)
    endpoint.wait_held(seconds=200)  # the payment has been made, and the model is to be told
    dead = client.executions.get(exec_id).lease
    assert dead is not None
    os.kill(dead.owner.pid, signal.SIGKILL)
    os.waitpid(dead.owner.pid, 0)
    endpoint.let_go()
    assert side.read_text().split() == ["pay-5"]
    assert go_on() == "Paid."
    assert side.read_text().split() == ["pay-5"]
