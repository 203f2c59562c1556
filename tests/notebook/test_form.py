"""The form of a wait: controls made from the schema, and what they answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import pytest
from notebookkit import Notebook

from kitaru_nb.errors import KitaruBackendError
from kitaru_nb.surfaces.notebook.form import Form


def form_of(notebook: Notebook, schema: str) -> Form:
    """The form of the wait that a cell has just asked."""
    notebook.ok("from pydantic import BaseModel\nfrom typing import Literal, Optional\nimport datetime")
    notebook.run(f"answer = %wait ask --schema {schema!r}")
    session = notebook.session
    exec_id = notebook.execution.exec_id
    [wait] = notebook.client.executions.pending_waits()
    return Form(session.runtime, exec_id, wait, "<b>head</b>", "foot")


def found(box: Any, kind: type) -> list[Any]:
    """All controls of a kind, in order."""
    inside = [w for child in getattr(box, "children", ()) for w in found(child, kind)]
    return [box, *inside] if type(box) is kind else inside


def press(form: Form, label: str) -> None:
    [button] = [b for b in found(form.box, widgets.Button) if b.description == label]
    button.click()


def values(notebook: Notebook) -> list[tuple[Any, str | None, str | None]]:
    return [(w.value, w.resolved_by, w.via) for w in notebook.execution.waits if w.status == "resolved"]


@pytest.mark.parametrize(
    ("schema", "label", "value"),
    [
        ("bool", "Approve", True),
        ("bool", "Reject", False),
        ("Literal['red', 'green']", "green", "green"),
        ("Literal[1, 2]", "2", 2),
        ("Literal['only']", "only", "only"),
    ],
)
def test_one_press_of_a_button_answers(notebook: Notebook, schema: str, label: str, value: Any) -> None:
    form = form_of(notebook, schema)
    press(form, label)
    assert values(notebook) == [(value, "ana", "notebook")]
    assert found(form.box, widgets.Button) == []
    text = "".join(w.value for w in found(form.box, widgets.HTML))
    assert "answered" in text
    assert "Run this cell again" in text


@pytest.mark.parametrize(
    ("label", "message", "value"),
    [
        ("Approve", "", {"approve": True, "message": None}),
        ("Reject", " too <b>dear ", {"approve": False, "message": "too <b>dear"}),
    ],
)
def test_an_approval_is_a_button_with_a_message_if_one_likes(
    notebook: Notebook, label: str, message: str, value: Any
) -> None:
    notebook.ok("from kitaru_nb.surfaces.adapters.approvals import Approval")
    form = form_of(notebook, "Approval | bool")
    found(form.box, widgets.Text)[0].value = message
    press(form, label)
    assert values(notebook) == [(value, "ana", "notebook")]
    assert "too <b>" not in "".join(w.value for w in found(form.box, widgets.HTML))


def test_a_text_is_typed_and_sent(notebook: Notebook) -> None:
    form = form_of(notebook, "str")
    found(form.box, widgets.Textarea)[0].value = "42 reasons\nand more"
    press(form, "Send")
    assert values(notebook)[0][0] == "42 reasons\nand more"


def test_a_wrong_number_is_told_and_the_form_stays(notebook: Notebook) -> None:
    form = form_of(notebook, "int")
    [field] = found(form.box, widgets.Text)
    field.value = "<b>many"
    press(form, "Send")
    assert values(notebook) == []
    assert "&lt;b&gt;many" in form.problem.value
    assert "expected a whole number" in form.problem.value
    field.value = "7"
    press(form, "Send")
    assert values(notebook)[0][0] == 7


def test_an_object_has_a_field_for_each_of_its_own(notebook: Notebook) -> None:
    notebook.ok(
        "from pydantic import BaseModel\nfrom typing import Literal, Optional\n"
        "class Sub(BaseModel):\n    n: int = 1\n"
        "class Review(BaseModel):\n    ok: bool\n    tone: Literal['warm', 'cold']\n    note: str = 'fine'\n"
        "    score: Optional[float] = None\n    count: int\n    sub: Sub"
    )
    form = form_of(notebook, "Review")
    [box] = found(form.box, widgets.Checkbox)
    [tone] = found(form.box, widgets.Dropdown)
    note, score, count, n = found(form.box, widgets.Text)
    box.value, tone.value, count.value = True, 1, "3"
    assert (note.value, score.value, n.value) == ("fine", "", "1")
    press(form, "Send")
    expected = {"ok": True, "tone": "cold", "note": "fine", "score": None, "count": 3, "sub": {"n": 1}}
    assert values(notebook)[0][0] == expected
    notebook.ok("answer = %wait ask --schema 'Review'")
    assert notebook.ns["answer"].score is None


def test_what_has_no_field_is_typed_as_json(notebook: Notebook) -> None:
    form = form_of(notebook, "list[int]")
    [area] = found(form.box, widgets.Textarea)
    area.value = "[1, "
    press(form, "Send")
    assert "no JSON" in form.problem.value
    area.value = '[1, "x"]'
    press(form, "Send")
    assert "ask" in form.problem.value
    area.value = "[1, 2]"
    press(form, "Send")
    assert values(notebook)[0][0] == [1, 2]


def test_a_press_after_somebody_elses_answer_tells_who_it_was(notebook: Notebook) -> None:
    form = form_of(notebook, "bool")
    notebook.client.executions.input(notebook.execution.exec_id, value=False, by="bo <b>", via="cli")
    press(form, "Approve")
    text = "".join(w.value for w in found(form.box, widgets.HTML))
    assert "bo &lt;b&gt; answered false (through cli)" in text
    assert found(form.box, widgets.Button) == []


def test_a_form_is_shown_where_widgets_are_live_with_the_card_as_its_fallback(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", str(notebook.folder / "study.ipynb"))
    ran = notebook.run("ok = %wait approve --question 'Go?'")
    [bundle] = ran.bundles
    assert set(bundle["data"]) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    assert "Go?" in bundle["data"]["text/html"]


def shown_by(form: Form) -> str:
    """Waits until the form has no buttons; its words then."""
    until(lambda: not found(form.box, widgets.Button))
    return "".join(w.value for w in found(form.box, widgets.HTML))


class Watched:
    """How many are told of news by a journal, which can't tell any while ``deaf``; how many forms are kept up."""

    def __init__(self, notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
        self.deaf = False
        self.count = 0
        self._before = threading.enumerate()
        self._journal = notebook.session.runtime.journal
        self._watch = self._journal.watch
        monkeypatch.setattr(self._journal, "watch", self.watch)

    def watch(self, on_news: Callable[[], None], *, exec_id: str | None = None) -> Callable[[], None]:
        if self.deaf:
            raise KitaruBackendError("No connection.")
        end = self._watch(on_news, exec_id=exec_id)
        self.count += 1

        def ended() -> None:
            end()
            self.count -= 1

        return ended

    def wait_for(self, forms: int) -> None:
        """Until so many forms are kept up, and told of news."""
        until(lambda: len(self._threads()) == forms == self.count)

    def _threads(self) -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name == "kitaru-form" and t not in self._before]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert true()


@pytest.mark.parametrize("deaf", [False, True], ids=["the journal tells", "the journal can't tell"])
def test_an_answer_that_is_given_elsewhere_takes_the_buttons_away(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch, deaf: bool
) -> None:
    monkeypatch.setattr("kitaru_nb.surfaces.notebook.form.LOOK", 0.01 if deaf else 3600)
    form = form_of(notebook, "bool")
    watched = Watched(notebook, monkeypatch)
    watched.deaf = deaf
    form.watch()
    notebook.client.executions.input(notebook.execution.exec_id, value=False, by="bo", via="cli")
    said = shown_by(form)
    assert "bo answered false (through cli)" in said
    assert "Run this cell again" in said
    watched.wait_for(0)


def test_a_question_that_nobody_asks_any_more_has_no_buttons(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kitaru_nb.surfaces.notebook.form.LOOK", 3600)
    form = form_of(notebook, "bool")
    form.watch()
    notebook.client.executions.cancel(notebook.execution.exec_id)
    assert "Nobody asks this any more" in shown_by(form)


def test_a_cell_that_asks_again_and_again_leaves_one_form_that_is_kept_up(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", str(notebook.folder / "study.ipynb"))
    watched = Watched(notebook, monkeypatch)
    for _ in range(20):
        notebook.run("ok = %wait approve")
    watched.wait_for(1)
    notebook.run("sure = %wait really")
    watched.wait_for(2)
    notebook.client.executions.input(notebook.execution.exec_id, value=True, wait="approve")
    watched.wait_for(1)
    notebook.client.executions.input(notebook.execution.exec_id, value=True, wait="really")
    watched.wait_for(0)


@pytest.mark.parametrize("name", ["KITARU_CI", "nothing"])
def test_no_form_without_a_person_before_it(notebook: Notebook, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if name == "KITARU_CI":
        monkeypatch.setenv("JPY_SESSION_NAME", str(notebook.folder / "study.ipynb"))
    monkeypatch.setenv(name, "1")
    [bundle] = notebook.run("ok = %wait approve").bundles
    assert "application/vnd.jupyter.widget-view+json" not in bundle["data"]


def test_what_a_model_wrote_is_escaped(notebook: Notebook) -> None:
    notebook.ok("text = '<script>alert(1)</script>'")
    ran = notebook.run("ok = %wait approve --question '{text}'")
    assert "<script>" not in ran.html
    assert "&lt;script&gt;" in ran.html
