"""What is done through the API: answers, replays, resumes, cancels; by whom is recorded."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kitaru_nb.client import KitaruClient
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.model import Event
from kitaru_nb.surfaces.operations.base import Role
from tests.http import flows
from tests.http.httpkit import Direct, Ran, stop_clock, until


def ended(direct: Direct, exec_id: str) -> dict[str, object]:
    """The execution, once it has ended."""

    def look() -> dict[str, object] | None:
        found = direct.json("GET", f"executions/{exec_id}")
        return found if found["status"] in ("completed", "failed", "cancelled") else None

    found = until(look, f"the end of {exec_id}")
    assert isinstance(found, dict)
    return found


def test_an_answer_starts_a_worker_and_says_who_gave_it(ran: Ran, direct: Direct) -> None:
    exec_id = ran(flows.brief, "x")
    started = direct.json("POST", f"executions/{exec_id}/waits/approve/resolve", {"value": True}, name="bo")
    assert started["exec_id"] == exec_id
    found = ended(direct, exec_id)
    assert found["result"]["preview"]["text"] == "'published: notes on x'"  # type: ignore[index]
    assert [(w["resolved_by"], w["via"]) for w in found["waits"]] == [("bo", "http")]  # type: ignore[attr-defined]


def test_an_answer_that_doesnt_fit_is_refused_and_the_wait_stays(ran: Ran, direct: Direct) -> None:
    exec_id = ran(flows.reviewed)
    path = f"executions/{exec_id}/waits/review/resolve"
    error = direct.json("POST", path, {"value": {"verdict": "maybe"}}, expect=422)["error"]
    assert error["type"] == "KitaruWaitValidationError"
    assert "verdict" in error["message"]
    assert direct.json("GET", "waits/count") == {"pending": 1}
    direct.json("POST", path, {"value": {"verdict": "fix", "comment": "shorter"}})
    assert ended(direct, exec_id)["result"]["preview"]["text"] == "'fix: shorter'"  # type: ignore[index]


def test_of_two_who_answer_at_once_one_wins_and_the_other_is_told_who(ran: Ran, direct: Direct) -> None:
    exec_id = ran(flows.twice)  # the second wait keeps the worker from ending it

    def answer(name: str) -> tuple[int, dict[str, dict[str, object]]]:
        import json

        found = direct("POST", f"executions/{exec_id}/waits/first/resolve", {"value": name == "bo"}, name=name)
        assert isinstance(found.body, bytes)
        return found.status, json.loads(found.body)

    with ThreadPoolExecutor(2) as pool:
        answers = dict(zip(("bo", "cy"), pool.map(answer, ("bo", "cy")), strict=True))
    (winner,) = [name for name, (status, _) in answers.items() if status == 200]
    (loser,) = [name for name, (status, _) in answers.items() if status == 409]
    error = answers[loser][1]["error"]
    assert error["type"] == "KitaruConflictError"
    assert error["details"] == {"answered_by": winner, "via": "http", "value": winner == "bo", "aborted": False}
    assert winner in str(error["message"])


def test_an_aborted_wait_fails_the_flow_and_says_who_did_it(ran: Ran, direct: Direct) -> None:
    exec_id = ran(flows.brief)
    direct.json("POST", f"executions/{exec_id}/waits/approve/abort", {}, name="bo")
    found = ended(direct, exec_id)
    assert found["status"] == "failed"
    assert found["waits"][0]["resolved_by"] == "bo"  # type: ignore[index]
    assert found["waits"][0]["via"] == "http"  # type: ignore[index]


def test_a_replay_is_planned_then_made_in_the_callers_name(ran: Ran, direct: Direct, runtime: Runtime) -> None:
    exec_id = ran(flows.said, "x")
    plan = direct.json("POST", f"executions/{exec_id}/replay/plan", {"from": ["research"]}, role=Role.VIEW)
    assert plan["runs"] == ["research"]
    started = direct.json("POST", f"executions/{exec_id}/replay", {"from": ["research"]}, name="bo")
    assert started["exec_id"] != exec_id
    assert ended(direct, started["exec_id"])["original_exec_id"] == exec_id
    assert runtime.journal.history(started["exec_id"])[0].body["by"] == "bo"


def test_a_replay_takes_inputs_of_any_name_and_overrides(ran: Ran, direct: Direct) -> None:
    exec_id = ran(flows.said, "x")
    body = {"inputs": {"text": "y"}, "overrides": {"checkpoint.research": "given"}}
    started = direct.json("POST", f"executions/{exec_id}/replay", body)
    assert ended(direct, started["exec_id"])["result"]["preview"]["text"] == "'given'"  # type: ignore[index]


def test_a_failed_execution_is_retried_in_the_callers_name(ran: Ran, direct: Direct, runtime: Runtime) -> None:
    exec_id = ran(flows.failing)
    direct.json("POST", f"executions/{exec_id}/retry", {}, name="bo")
    (event,) = [e for e in runtime.journal.history(exec_id) if e.kind == "execution.retry"]
    assert event.body == {"by": "bo"}
    refused = direct.json("POST", f"executions/{ran(flows.many)}/retry", {}, expect=409)
    assert "only a failed execution" in refused["error"]["message"]


def test_an_execution_is_cancelled_once(ran: Ran, direct: Direct, runtime: Runtime) -> None:
    exec_id = ran(flows.brief)
    assert direct.json("POST", f"executions/{exec_id}/cancel", {}, name="bo")["status"] == "cancelled"
    assert runtime.journal.history(exec_id)[-1].body == {"by": "bo"}
    direct.json("POST", f"executions/{exec_id}/cancel", {}, expect=409)
    direct.json("POST", f"executions/{exec_id}/resume", {}, expect=409)


def test_an_answered_execution_is_resumed_in_the_callers_name(ran: Ran, direct: Direct, runtime: Runtime) -> None:
    exec_id = ran(flows.brief)
    (wait,) = runtime.journal.waits(exec_id=exec_id)
    answer = {"value": False, "by": "ana", "via": "client"}
    runtime.journal.append(exec_id, [Event(exec_id, "wait.resolved", wait.wait_id, time.time(), answer)])
    direct.json("POST", f"executions/{exec_id}/resume", {}, name="bo")
    (event,) = [e for e in runtime.journal.history(exec_id) if e.kind == "execution.resume"]
    assert event.body == {"by": "bo"}


def test_a_waiting_execution_isnt_resumed_before_the_answer(ran: Ran, direct: Direct) -> None:
    error = direct.json("POST", f"executions/{ran(flows.brief)}/resume", {}, expect=409)["error"]
    assert "still waits for 'approve'" in error["message"]
    assert error["fix"].startswith("kitaru executions input")


SCRIPT = """\
from kitaru_nb import flow

@flow
def greet(name: str = "you") -> str:
    return f"hello {name}"

not_a_flow = 1
"""
NOTEBOOK = """\
{"cells": [{"cell_type": "code", "id": "a", "metadata": {"tags": ["parameters"]}, "source": "n = 1", "outputs": [],
"execution_count": null}], "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
"nbformat": 4, "nbformat_minor": 5}
"""


def test_a_flow_of_a_file_is_started_in_a_process_of_its_own(direct: Direct, tmp_path: Path, runtime: Runtime) -> None:
    (tmp_path / "hello.py").write_text(SCRIPT)
    body = {"target": "hello.py:greet", "inputs": {"name": "ana"}, "key": "monday"}
    started = direct.json("POST", "executions", body, name="bo")
    assert ended(direct, started["exec_id"])["result"]["preview"]["text"] == "'hello ana'"  # type: ignore[index]
    assert runtime.journal.history(started["exec_id"])[0].body["by"] == "bo"
    assert direct.json("POST", "executions", body)["exec_id"] == started["exec_id"]


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("missing.py:flow", 404, "no file 'missing.py'"),
        ("../escape.py:flow", 400, "outside the folder"),
        ("/etc/passwd:flow", 400, "outside the folder"),
        ("hello.py", 400, "expected notebook.ipynb or file.py:flow"),
        ("hello.py:", 400, "expected notebook.ipynb or file.py:flow"),
        ("a\0b.ipynb", 400, "expected notebook.ipynb or file.py:flow"),
        ("hello.py:not_a_flow", 404, "has no flow 'not_a_flow'. Its flows are: greet."),
        ("hello.py:absent", 404, "has no flow 'absent'. Its flows are: greet."),
        ("hello.py:greet", 400, "It takes greet"),
        ("broken.py:flow", 409, "broken.py: SyntaxError"),
    ],
)
def test_what_cant_be_started_is_said(direct: Direct, tmp_path: Path, target: str, status: int, said: str) -> None:
    (tmp_path / "hello.py").write_text(SCRIPT)
    (tmp_path / "broken.py").write_text("def :")
    error = direct.json("POST", "executions", {"target": target, "inputs": {"nobody": 1}}, expect=status)["error"]
    assert said in error["message"]
    assert direct.json("GET", "executions")["items"] == []


def test_a_notebook_is_started_with_its_parameters(direct: Direct, tmp_path: Path) -> None:
    (tmp_path / "small.ipynb").write_text(NOTEBOOK)
    started = direct.json("POST", "executions", {"target": "small.ipynb", "inputs": {"n": 3}})
    found = ended(direct, started["exec_id"])
    assert (found["status"], found["inputs"]) == ("completed", {"n": "3"})
    refused = direct.json("POST", "executions", {"target": "small.ipynb", "inputs": {"m": 3}}, expect=400)
    assert "m" in refused["error"]["message"]


def test_no_role_does_what_is_beyond_it(ran: Ran, direct: Direct, runtime: Runtime) -> None:
    exec_id = ran(flows.brief)
    acts = {
        f"executions/{exec_id}/waits/approve/resolve": {"value": True},
        f"executions/{exec_id}/waits/approve/abort": {},
        f"executions/{exec_id}/replay": {"from": ["research"]},
        f"executions/{exec_id}/resume": {},
        f"executions/{exec_id}/retry": {},
        f"executions/{exec_id}/cancel": {},
        "executions": {"target": "hello.py:greet"},
        "doctor": {},
    }
    before = len(runtime.journal.tail(0))
    for path, body in acts.items():
        error = direct.json("POST", path, body, expect=403, role=Role.VIEW)["error"]
        assert "has the role view" in error["message"]
    direct.json("POST", "executions", {"target": "hello.py:greet"}, expect=403, role=Role.OPERATE)
    direct.json("POST", "doctor", {}, expect=403, role=Role.WORK)
    assert len(runtime.journal.tail(0)) == before
    assert KitaruClient(runtime).executions.pending_waits(exec_id)


def test_answers_come_no_faster_than_a_person_gives_them(ran: Ran, direct: Direct) -> None:
    path = f"executions/{ran(flows.brief)}/waits/approve/resolve"
    stop_clock(direct.api.desk.answers)
    statuses = [direct("POST", path, {"value": "wrong"}).status for _ in range(31)]
    assert statuses == [422] * 30 + [429]
    refused = direct("POST", path, {"value": "wrong"})
    assert refused.headers["retry-after"] == "1"
    assert direct("POST", path, {"value": "wrong"}, name="somebody else").status == 422
    assert direct("GET", "waits").status == 200
