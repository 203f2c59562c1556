"""Waits in a notebook: a card, a clean stop, an answer from anywhere, and on."""

from __future__ import annotations

from typing import Any

import pytest
from notebookkit import Notebook

from kitaru_nb.client import KitaruClient
from kitaru_nb.errors import KitaruConflictError, KitaruWaitValidationError, Paused

ASK = 'ok = %wait approve --question "Publish {text}?"'
ASK_PLAIN = "from kitaru_nb import wait\nok = wait('approve', question=f'Publish {text}?')"


@pytest.fixture(params=[ASK, ASK_PLAIN], ids=["magic", "function"])
def ask(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def answer(notebook: Notebook, value: Any, **options: Any) -> None:
    """Answer as somebody else does: through a client of another process's making."""
    KitaruClient(type(notebook.session.runtime)(notebook.session.runtime.settings)).executions.input(
        notebook.execution.exec_id, value=value, **options
    )


def test_a_wait_stops_with_a_card_and_one_line(notebook: Notebook, ask: str) -> None:
    notebook.ok("text = 'a post'")
    ran = notebook.run(ask)
    assert isinstance(ran.error, Paused)
    assert ran.traceback == "‖ waiting for an answer to 'approve'; the cells below run after it"
    assert ran.text.splitlines() == [
        "‖ approve: Publish a post?",
        "  answer: true or false",
        "  here:   %kitaru input approve true",
    ]
    assert "ok" not in notebook.ns
    execution = notebook.execution
    assert (str(execution.status), execution.lease) == ("waiting", None)
    [wait] = notebook.client.executions.pending_waits()
    assert (wait.name, wait.question, wait.schema) == ("approve", "Publish a post?", {"type": "boolean"})


def test_after_the_answer_the_notebook_goes_on(notebook: Notebook, ask: str) -> None:
    notebook.ok("text = 'a post'")
    notebook.run(ask)
    answer(notebook, True, by="bo", via="cli")
    notebook.ok(ask)
    assert notebook.ns["ok"] is True
    assert str(notebook.execution.status) == "running"
    notebook.restart()
    notebook.ok("text = 'a post'")
    notebook.ok(ask)
    assert notebook.ns["ok"] is True
    [wait] = notebook.execution.waits
    assert (wait.resolved_by, wait.via) == ("bo", "cli")


def test_the_kernel_may_be_gone_when_the_answer_comes(notebook: Notebook, ask: str) -> None:
    notebook.ok("text = 'a post'")
    notebook.run(ask)
    notebook.restart()
    answer(notebook, False)
    notebook.ok("text = 'a post'")
    notebook.ok(ask)
    assert notebook.ns["ok"] is False


def test_the_answer_can_be_given_in_the_notebook_itself(notebook: Notebook) -> None:
    notebook.ok("text = 'a post'")
    notebook.run(ASK)
    ran = notebook.ok("%kitaru input approve true")
    assert ran.text == "approve is answered: true. Run the waiting cell again, or Run All."
    notebook.ok(ASK)
    [wait] = notebook.execution.waits
    assert (wait.resolved_by, wait.via, wait.value) == ("ana", "notebook", True)


def test_run_all_may_run_the_cell_that_answered_again(notebook: Notebook) -> None:
    notebook.ok("text = 'a post'")
    notebook.run(ASK)
    notebook.ok("%kitaru input approve true")
    notebook.ok(ASK)
    assert notebook.ok("%kitaru input approve true").text == "approve was answered: true."
    ran = notebook.run("%kitaru input approve false")
    assert isinstance(ran.error, KitaruConflictError)
    [wait] = notebook.execution.waits
    assert wait.value is True


def test_a_wrong_answer_is_refused_and_the_wait_stays(notebook: Notebook) -> None:
    notebook.ok("text = 'a post'")
    notebook.run(ASK)
    ran = notebook.run("%kitaru input approve maybe")
    assert isinstance(ran.error, KitaruWaitValidationError)
    assert "Expected true or false. The wait stays open." in ran.traceback
    assert len(notebook.client.executions.pending_waits()) == 1


def test_the_second_answer_is_told_of_the_first(notebook: Notebook) -> None:
    notebook.ok("text = 'a post'")
    notebook.run(ASK)
    answer(notebook, True, by="bo", via="cli")
    ran = notebook.run("%kitaru input approve false")
    assert isinstance(ran.error, KitaruConflictError)
    assert "bo answered true (through cli)" in ran.traceback
    notebook.ok(ASK)
    assert notebook.ns["ok"] is True


def test_a_changed_question_is_asked_anew_and_the_old_one_is_closed(notebook: Notebook) -> None:
    notebook.ok("text = 'one'")
    notebook.run(ASK)
    notebook.ok("text = 'two'")
    assert isinstance(notebook.run(ASK).error, Paused)
    assert [w.question for w in notebook.client.executions.pending_waits()] == ["Publish two?"]
    old = notebook.execution.waits[0]
    assert (old.status, old.resolved_by, old.via) == ("aborted", "ana", "notebook")
    # And back again: what the notebook itself closed can be asked again.
    notebook.ok("text = 'one'")
    assert isinstance(notebook.run(ASK).error, Paused)
    assert [w.question for w in notebook.client.executions.pending_waits()] == ["Publish one?"]
    answer(notebook, True)
    notebook.ok(ASK)
    notebook.restart()
    notebook.ok("text = 'one'")
    notebook.ok(ASK)
    assert notebook.ns["ok"] is True


def test_a_wait_that_is_run_again_unanswered_asks_no_second_time(notebook: Notebook, ask: str) -> None:
    notebook.ok("text = 'one'")
    for _ in range(3):
        assert isinstance(notebook.run(ask).error, Paused)
    assert len(notebook.execution.waits) == 1


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ("str", "a text", "a text"),
        ("int", 3, 3),
        ('"list[int]"', [1, 2], [1, 2]),
        ("\"typing.Literal['a', 'b']\"", "b", "b"),
        ("Review", {"ok": True, "note": "fine"}, "fine"),
    ],
)
def test_an_answer_may_be_of_any_type(notebook: Notebook, schema: str, value: Any, expected: Any) -> None:
    notebook.ok(
        "import typing\nfrom pydantic import BaseModel\nclass Review(BaseModel):\n    ok: bool\n    note: str = ''"
    )
    cell = f"answer = %wait ask --schema {schema}"
    assert isinstance(notebook.run(cell).error, Paused)
    answer(notebook, value)
    notebook.ok(cell)
    found = notebook.ns["answer"]
    assert getattr(found, "note", found) == expected


def test_a_text_answer_is_taken_as_it_is_typed(notebook: Notebook) -> None:
    notebook.run("answer = %wait ask --schema str")
    notebook.ok("%kitaru input ask 42")
    notebook.ok("answer = %wait ask --schema str")
    assert notebook.ns["answer"] == "42"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("%wait", "%wait takes one name, found none"),
        ("%wait two words", "%wait takes one name, found two words"),
        ("%wait a --schema nonsense", "--schema 'nonsense' can't be read"),
        ("%wait a --que x", "'--que' is no option here"),
        ("%wait a --question", "--question needs a value"),
        ("%wait a --timeout soon", "--timeout 'soon'"),
        ('%wait a --question "open', "can't be read"),
    ],
)
def test_a_wrong_wait_line_is_told_in_one_line(notebook: Notebook, line: str, problem: str) -> None:
    ran = notebook.run(line)
    assert problem in ran.traceback
    assert ran.traceback.startswith("KitaruUsageError")
    assert notebook.session.current() is None


def test_a_wait_inside_a_checkpoint_is_refused(notebook: Notebook) -> None:
    ran = notebook.run("%%checkpoint draft\nok = %wait approve")
    assert "wait('approve') was called inside checkpoint 'draft'" in ran.traceback
    assert notebook.client.executions.pending_waits() == []


def test_a_question_may_have_several_lines_and_variables(notebook: Notebook) -> None:
    notebook.ok("text = r'a\\nb'")
    notebook.run('ok = %wait approve --question "Publish?\\n\\n{text} {len(text)}"')
    [wait] = notebook.client.executions.pending_waits()
    assert wait.question == "Publish?\n\na\\nb 4"


def test_several_questions_at_once_stop_once(notebook: Notebook) -> None:
    cell = "import asyncio\nfrom kitaru_nb import wait_async\n"
    cell += "both = await asyncio.gather(wait_async('a'), wait_async('b'))"
    ran = notebook.run(cell)
    assert "waiting for an answer to 'a' and 'b'" in ran.traceback
    assert "‖ a:" in ran.text
    assert "‖ b:" in ran.text
    answer(notebook, True, wait="a")
    answer(notebook, False, wait="b")
    notebook.ok(cell)
    assert notebook.ns["both"] == [True, False]


def test_a_cancelled_execution_is_left_and_a_fresh_one_begins(notebook: Notebook) -> None:
    notebook.ok("%%checkpoint a\nx = 1")
    first = notebook.execution.exec_id
    notebook.session.close()
    notebook.client.executions.cancel(first)
    ran = notebook.ok("%%checkpoint a\nx = 1")
    assert "The execution was cancelled; a fresh one begins." in ran.text
    assert notebook.execution.exec_id != first
    assert str(notebook.client.executions.get(first).status) == "cancelled"


def test_a_cancel_request_ends_the_execution_of_a_live_kernel(notebook: Notebook) -> None:
    notebook.ok("%%checkpoint a\nx = 1")
    first = notebook.execution.exec_id
    notebook.client.executions.cancel(first, by="bo")
    notebook.session.run.look()
    notebook.ok("%%checkpoint b\ny = 1")
    assert notebook.execution.exec_id != first
    assert str(notebook.client.executions.get(first).status) == "cancelled"
