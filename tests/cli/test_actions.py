"""``kitaru executions``: answering, replaying, retrying, resuming, cancelling. Workers are processes of their own."""

from __future__ import annotations

import importlib
import re
import time
from io import StringIO
from pathlib import Path
from threading import Event

import pytest
from pydantic import BaseModel

from cli import flows
from cli.conftest import Kitaru, Ran
from cli.terminal import typed as typed_at_a_terminal
from kitaru_nb import KitaruClient
from kitaru_nb.surfaces.commands.actions import typed
from kitaru_nb.surfaces.commands.questions import ask


def taken_up(exec_id: str, epoch: int) -> None:
    """Wait until a worker has claimed the execution for the ``epoch``-th time."""
    journal = KitaruClient().runtime.journal
    while journal.execution(exec_id).epoch < epoch:
        Event().wait(0.02)


def followed(exec_id: str) -> None:
    """Wait until the worker that goes on with an execution has ended or lets go."""
    taken_up(exec_id, 2)
    for _ in KitaruClient().executions.follow(exec_id):
        pass


def test_an_answer_starts_a_fresh_worker_and_says_where_its_output_goes(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.brief, "cats")
    result = kitaru("executions", "input", exec_id, "--value", "true", "--by", "anna")
    assert result.code == 0
    assert result.out.splitlines()[0] == "Answered."
    assert f"its output goes to {kitaru.home / 'workers' / exec_id}.log" in result.out
    assert f"watch: kitaru executions logs {exec_id} --follow" in result.out
    followed(exec_id)
    out = kitaru("executions", "get", exec_id).out
    assert "result     'published notes on cats'" in out
    assert "✓ wait approve: answered true by anna (cli)" in out


def test_a_wrong_answer_is_refused_with_a_right_one_and_the_wait_stays(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.brief, "cats")
    result = kitaru("executions", "input", exec_id, "--value", "maybe")
    assert result.code == 1
    assert "Expected true or false" in result.err
    assert f"fix: kitaru executions input {exec_id} --wait approve --value true" in result.err
    assert kitaru("executions", "get", exec_id, "--json").json["item"]["waits"][0]["status"] == "pending"


def test_the_second_answer_is_told_who_was_first(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.brief, "cats")
    kitaru("executions", "input", exec_id, "--value", "false", "--by", "anna")
    result = kitaru("executions", "input", exec_id, "--value", "true")
    assert result.code == 1
    assert "anna answered false (through cli)" in result.err
    followed(exec_id)


def test_an_answer_without_a_value_shows_the_question_and_the_line_to_type(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.brief, "cats")
    result = kitaru("executions", "input", exec_id)
    assert result.code == 1
    assert "Publish notes on cats?" in result.err
    assert f"fix: kitaru executions input {exec_id} --wait approve --value true" in result.err


def test_an_aborted_wait_is_closed(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.brief, "cats")
    assert kitaru("executions", "input", exec_id, "--abort").out.startswith("The wait is closed.")
    followed(exec_id)
    assert "wait approve: aborted by tester" in kitaru("executions", "get", exec_id).out


def test_contradicting_answers_are_wrong_usage(kitaru: Kitaru, ran: Ran) -> None:
    result = kitaru("executions", "input", ran(flows.brief, "cats"), "--value", "true", "--abort")
    assert result.code == 2
    assert "--interactive" in result.err


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("true", {"type": "boolean"}, True),
        ("5", {"type": "integer"}, 5),
        ("5", {"type": "string"}, "5"),
        ('{"a": 1}', {"type": "string"}, '{"a": 1}'),
        ('{"a": 1}', {"type": "object"}, {"a": 1}),
        ("red", {"enum": ["red"]}, "red"),
        ("not {json", None, "not {json"),
    ],
)
def test_a_typed_value_is_json_unless_a_text_is_asked_for(text: str, schema: dict[str, object], value: object) -> None:
    assert typed(text, schema) == value


def test_a_person_at_a_terminal_is_asked_by_the_schema_until_the_answer_fits(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.survey)
    code, shown = typed_at_a_terminal(
        ["executions", "input", exec_id, "--interactive"],
        ("Tone (1-2)", "3"),
        ("none of them", ""),
        ("Tone (1-2)", "cool"),
        ("Stars (a whole number)", "many"),
        ("Stars (a whole number)", "4"),
        ("Give remark", "n"),
    )
    assert (code, "How was it?" in shown, "many is no such value" in shown) == (0, True, True), shown
    followed(exec_id)
    item = kitaru("executions", "get", exec_id, "--json").json["item"]
    assert {w["name"]: w["value"] for w in item["waits"]}["review"] == {"tone": "cool", "stars": 4, "remark": "none"}
    assert item["waits"][1]["name"] == "note"


def test_fields_of_one_type_are_asked_by_their_own_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Address(BaseModel):
        street: str

    class Order(BaseModel):
        bill_to: Address
        ship_to: Address

    schema = Order.model_json_schema()
    monkeypatch.setattr("sys.stdin", StringIO("Mole 1\nQuay 2\n"))
    answer = {"bill_to": {"street": "Mole 1"}, "ship_to": {"street": "Quay 2"}}
    assert ask("order", schema, schema) == answer
    asked = capsys.readouterr().out
    assert asked.index("bill_to:") < asked.index("Street") < asked.index("ship_to:")
    assert "Address" not in asked


def test_interactive_without_a_terminal_is_refused_with_the_other_way(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.survey)
    result = kitaru("executions", "input", exec_id, "--interactive")
    assert result.code == 1
    assert f"fix: kitaru executions input {exec_id} --value VALUE" in result.err


def test_a_dry_run_shows_the_plan_and_starts_nothing(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.nested, "cats")
    result = kitaru("executions", "replay", exec_id, "--from", "publish", "--dry-run")
    assert result.code == 0
    assert re.search(r"● runs again +publish", result.out)
    assert re.search(r"↺ reused +research", result.out)
    assert "1,052 tokens, $0.0123" in result.out
    assert kitaru("executions", "list", "--json").json["count"] == 1


def test_a_replay_is_followed_to_its_end_and_shows_what_ran(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.nested, "cats")
    result = kitaru("executions", "replay", exec_id, "--from", "publish")
    assert result.code == 0
    assert "result: 'published notes on cats'" in result.out
    assert "✓ publish" in result.err
    assert "↺ 1 checkpoint reused" in result.err


def test_a_replay_takes_inputs_and_overrides_and_answers_75_when_it_waits(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.brief, "cats")
    waiting = kitaru("executions", "replay", exec_id, "--args", '{"topic": "owls"}')
    assert waiting.code == 75
    assert "Publish notes on owls?" in waiting.out
    overridden = kitaru(
        *("executions", "replay", exec_id, "--set", "topic=owls", "--override", "wait.approve=true"),
        *("--overrides", '{"checkpoint.research": "other notes"}', "--json"),
    )
    assert overridden.code == 0
    assert overridden.json["item"]["result"]["preview"]["text"] == "'published other notes'"


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 1, "--from research"),
        (["--from", "nope"], 1, "Available: research, approve (wait)"),
        (["--set", "subject=x"], 1, "--set topic=VALUE"),
        (["--set", "topic"], 2, "--set NAME=VALUE"),
        (["--args", "topic"], 2, "is not JSON"),
        (["--overrides", "[1]"], 2, "expected an object"),
        (["--override", "research=1"], 1, "checkpoint.research"),
        (["--set", "scope=x"], 1, "no input 'scope'"),
        (["--override", "arguments.research=1"], 1, "expected a mapping with some of its inputs: topic"),
        (["--from", "research", "--scope", "all"], 2, "downstream"),
    ],
)
def test_a_replay_that_cannot_be_says_what_to_type(
    kitaru: Kitaru, ran: Ran, options: list[str], code: int, words: str
) -> None:
    result = kitaru("executions", "replay", ran(flows.brief, "cats"), *options)
    assert result.code == code
    assert words in result.err.replace("\n", " ")
    assert code == 2 or "\n  fix: " in result.err


def test_a_replay_with_other_arguments_shows_its_plan_and_runs(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.brief, "cats")
    kitaru("executions", "input", exec_id, "--value", "true")
    given = ("executions", "replay", exec_id, "--override", 'arguments.research={"topic": "owls"}')
    plan = kitaru(*given, "--dry-run")
    assert "arguments" in plan.out
    assert kitaru(*given, "--dry-run", "--json").json["item"]["arguments"] == ["research"]
    result = kitaru(*given, "--override", "wait.approve=true", "--json")
    assert result.code == 0
    assert "owls" in result.json["item"]["result"]["preview"]["text"]


def test_a_detached_replay_answers_at_once_with_the_new_id(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.nested, "cats")
    item = kitaru("executions", "replay", exec_id, "--from", "agent", "--no-wait", "--json").json["item"]
    assert item["exec_id"] != exec_id
    assert item["status"] in ("pending", "running", "completed")
    taken_up(item["exec_id"], 1)
    assert list(KitaruClient().executions.follow(item["exec_id"]))


def test_a_retry_that_fails_again_exits_1_and_one_that_heals_exits_0(kitaru: Kitaru, ran: Ran, tmp_path: Path) -> None:
    missing = tmp_path / "letter"
    exec_id = ran(flows.fragile, str(missing))
    again = kitaru("executions", "retry", exec_id)
    assert again.code == 1
    assert "✗ deliver" in again.err
    assert f"fix: kitaru executions retry {exec_id}" in again.out
    missing.write_text("dear reader")
    healed = kitaru("executions", "retry", exec_id)
    assert healed.code == 0
    assert "result: 'dear reader'" in healed.out
    assert "research" not in healed.err  # it had completed, so it did not run again


def test_what_has_not_failed_is_not_retried(kitaru: Kitaru, ran: Ran) -> None:
    result = kitaru("executions", "retry", ran(flows.nested, "cats"))
    assert result.code == 1
    assert "only a failed execution is retried" in result.err
    assert "\n  fix: " in result.err


def test_resuming_what_still_waits_shows_the_line_that_answers(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.brief, "cats")
    result = kitaru("executions", "resume", exec_id)
    assert result.code == 1
    assert f"fix: kitaru executions input {exec_id} --wait approve --value true" in result.err


def test_resume_needs_an_id_or_due(kitaru: Kitaru) -> None:
    assert kitaru("executions", "resume").code == 2
    assert kitaru("executions", "resume", "kr-0", "--due").code == 2


def test_resume_due_lets_the_clock_answer_what_is_due_and_nothing_else(kitaru: Kitaru, ran: Ran) -> None:
    ran(flows.brief, "cats")
    exec_id = ran(flows.nap)
    while not KitaruClient().runtime.journal.waits(due_before=time.time()):
        Event().wait(0.02)
    result = kitaru("executions", "resume", "--due")
    assert result.out.startswith(f"The clock answered 1 wait.\n{exec_id}\n")
    followed(exec_id)
    assert kitaru("executions", "get", exec_id, "--json").json["item"]["status"] == "completed"
    assert kitaru("executions", "resume", "--due", "--json").json["count"] == 0


def test_a_worker_that_dies_before_it_begins_is_told_with_its_last_words(
    kitaru: Kitaru, ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exec_id = ran(flows.fragile, str(tmp_path / "nothing"))
    (tmp_path / "sitecustomize.py").write_text("import os, sys\nprint('no room', flush=True)\nos._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = kitaru("executions", "retry", exec_id)
    assert result.code == 1
    assert "ended with code 3 before it took the execution up" in result.err
    assert "no room" in result.err
    assert f"\n  fix: kitaru executions retry {exec_id}" in result.err


def test_code_that_is_gone_is_told_with_what_to_do(
    kitaru: Kitaru, ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "shortlived.py"
    module.write_text("from kitaru_nb import flow\n@flow\ndef gone():\n    raise ValueError('once')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    exec_id = ran(importlib.import_module("shortlived").gone)
    module.unlink()
    result = kitaru("executions", "retry", exec_id)
    assert result.code == 1
    assert "Module 'shortlived' can't be imported" in result.out
    assert f"  fix: kitaru executions retry {exec_id}" in result.out


def test_a_cancelled_execution_is_over(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.brief, "cats")
    result = kitaru("executions", "cancel", exec_id)
    assert (result.code, result.out) == (0, f"⊘ cancelled  {exec_id}\n")
    again = kitaru("executions", "cancel", exec_id)
    assert again.code == 1
    assert "\n  fix: " in again.err
