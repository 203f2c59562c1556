"""``%kitaru panel``: in a real JupyterLab with and without the server's extension, and in a shell without widgets."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from labkit import Lab, NotebookPage
from playwright.sync_api import Browser, expect
from waiting_notebook import LAST, WAIT, answers, kernel_of, write

from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.surfaces.notebook.panel import Panel, Watch, still
from tests.http import flows

PANEL = LAST + 1


def shown_panel(page: NotebookPage) -> Any:
    """The panel below the last cell. A Run All that stops at the wait doesn't get there."""
    page.run_cell(PANEL)
    panel = page.outputs_of(PANEL).locator(".kt-panel")
    expect(panel.get_by_role("treeitem", name=re.compile("^measure, "))).to_be_visible()
    return panel


def test_an_answer_in_the_panel_counts_while_the_kernel_stands_still(
    extended_lab: Lab, browser: Browser, pictures: Path
) -> None:
    write(extended_lab, "panel", panel=True)
    page = NotebookPage(browser, extended_lab, "panel.ipynb")
    page.run_all()
    panel = shown_panel(page)
    page.picture(pictures / "panel-waiting.png")
    kernel = kernel_of(extended_lab, "panel")
    os.kill(kernel, signal.SIGSTOP)
    try:
        panel.get_by_role("button", name="Approve").click()
        expect(panel.get_by_text("The notebook goes on.")).to_be_visible()
        assert answers(extended_lab, "panel") == [("approve", True, "jupyter")]
    finally:
        os.kill(kernel, signal.SIGCONT)
    expect(page.outputs_of(LAST)).to_contain_text("final 6.5 knots: True")
    expect(panel.get_by_role("treeitem", name=re.compile("^publish, "))).to_be_visible()
    page.picture(pictures / "panel-done.png")
    page.close()


def test_the_panel_asks_the_kernel_where_no_server_answers_also_while_a_cell_runs(
    lab: Lab, browser: Browser, pictures: Path
) -> None:
    write(lab, "kernel", panel=True)
    page = NotebookPage(browser, lab, "kernel.ipynb")
    page.run_all()
    panel = shown_panel(page)
    gate = lab.root / "kernel.gate"
    page.page.evaluate(
        "code => { window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute({code}) }",
        f"import time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.05)",
    )
    page.page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'busy'"
    )
    try:
        panel.get_by_role("button", name="Approve").click()
        expect(panel.get_by_text("Run the notebook’s cell again, or Run All, to go on.")).to_be_visible()
        assert answers(lab, "kernel") == [("approve", True, "notebook")]
        page.picture(pictures / "kernel-panel-busy.png")
    finally:
        gate.touch()
    page.run_cell(WAIT)
    page.run_cell(WAIT + 1)
    expect(panel.get_by_role("treeitem", name=re.compile("^publish, "))).to_be_visible()
    page.picture(pictures / "kernel-panel-done.png")
    page.close()


# the kernel's side, without a front end


class Sent(Panel):
    """A panel that keeps what it would send."""

    def send(self, content: Any, buffers: Any = None) -> None:
        self.__dict__.setdefault("told", []).append((content, buffers))

    def ask(self, **request: Any) -> tuple[int, Any, Any]:
        """Status, body and bytes of the answer."""
        asked = self.__dict__["asked"] = self.__dict__.get("asked", 0) + 1
        self._heard(self, {"kitaru": "request", "id": f"v-{asked}", **request}, [])
        content, buffers = self.__dict__["told"].pop()
        assert (content["kitaru"], content["id"]) == ("answer", f"v-{asked}")
        return content["status"], content["body"], buffers


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    found = Runtime(Settings(tmp_path / "home", durability="process", inline_max_bytes=0))
    yield found
    found.journal.close()


@pytest.fixture
def waiting(runtime: Runtime) -> str:
    exec_id = create_execution(runtime, flows.brief, {"topic": "knots"}).exec_id
    advance(runtime, exec_id, flows.brief, poll_seconds=0.0)
    return exec_id


@pytest.fixture
def panel(runtime: Runtime, waiting: str) -> Iterator[Sent]:
    found = Sent(runtime, lambda: waiting)
    yield found
    found.close()


def test_the_kernel_answers_requests_as_the_server_does(panel: Sent, waiting: str, runtime: Runtime) -> None:
    status, body, _ = panel.ask(method="GET", path="waits", query={"status": "pending", "text": "", "cursor": None})
    assert (status, [wait["name"] for wait in body["items"]]) == (200, ["approve"])
    wait = body["items"][0]["wait_id"]
    assert panel.ask(method="GET", path="info")[1]["home"] == panel.home == str(runtime.home)
    path = f"executions/{waiting}/waits/{wait}/resolve"
    status, body, _ = panel.ask(method="POST", path=path, body='{"value": "perhaps"}')
    assert (status, body["error"]["type"]) == (422, "KitaruWaitValidationError")
    assert panel.ask(method="GET", path="executions/kr-000000000000")[0] == 404


def test_a_request_that_comes_by_two_shells_of_the_kernel_is_taken_up_once(
    panel: Sent, waiting: str, runtime: Runtime
) -> None:
    message = {"kitaru": "request", "id": "v-7", "method": "POST", "path": f"executions/{waiting}/cancel", "body": "{}"}
    panel._heard(panel, message, [])
    panel._heard(panel, message, [])
    answers = [content for content, _ in panel.__dict__["told"] if content["kitaru"] == "answer"]
    assert [answer["status"] for answer in answers] == [200]
    assert KitaruClient(runtime).executions.get(waiting).status == "cancelled"


def test_the_kernel_sends_bytes_by_range_beside_the_answer(panel: Sent, waiting: str, runtime: Runtime) -> None:
    artifact = KitaruClient(runtime).executions.get(waiting).checkpoints[0].artifacts[0]
    with runtime.store.open(artifact) as file:
        stored = file.read()
    asked: Mapping[str, Any] = {"method": "GET", "path": "artifact/content", "query": {"id": artifact.artifact_id}}
    assert panel.ask(**asked, range=(2, 5)) == (206, {"total": len(stored)}, [stored[2:5]])
    assert panel.ask(**asked, range=(0, 10_000)) == (200, {"total": len(stored)}, [stored])


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"method": "DELETE", "path": "info"}, "method"),
        ({"method": "GET"}, "path"),
        ({"method": "GET", "path": "artifact/content", "range": "all"}, "range"),
        ({"method": "GET", "path": "events"}, "told of changes"),
    ],
    ids=["method", "no path", "range", "stream"],
)
def test_a_message_that_can_not_be_is_answered_so(panel: Sent, request_: dict[str, Any], said: str) -> None:
    status, body, _ = panel.ask(**request_)
    assert status == 400
    assert said in body["error"]["message"]


def test_changes_are_told_once_a_page_listens_and_the_execution_always(runtime: Runtime, waiting: str) -> None:
    current: list[str | None] = [None]
    panel = Sent(runtime, lambda: current[0])
    panel._watch.stop()
    watch = Watch(panel, runtime, lambda: current[0])
    watch.look()
    assert (panel.execution, panel.__dict__.get("told", [])) == ("", [])
    watch.listened("a view")
    current[0] = waiting
    KitaruClient(runtime).executions.cancel(waiting)
    watch.look()
    assert panel.execution == waiting
    told = [change for content, _ in panel.__dict__["told"] for change in content["changes"]]
    assert {change["exec_id"] for change in told} == {waiting}
    assert told[-1]["status"] == "cancelled"
    watch.look()
    assert len(told) == sum(len(content["changes"]) for content, _ in panel.__dict__["told"])
    panel.close()


def test_what_a_page_would_ask_next_comes_with_the_news(runtime: Runtime, waiting: str) -> None:
    """A kernel that runs a cell hears no question."""
    panel = Sent(runtime, lambda: waiting)
    panel._watch.stop()
    watch = Watch(panel, runtime, lambda: waiting)
    watch.listened("a view")
    KitaruClient(runtime).executions.cancel(waiting)
    watch.look()
    ((content, _),) = panel.__dict__["told"]
    paths = (f"executions/{waiting}", f"executions/{waiting}/graph")
    assert content["answers"] == {path: panel.ask(method="GET", path=path)[1] for path in paths}
    assert content["answers"][paths[0]]["status"] == "cancelled"
    watch.look()
    assert len(panel.__dict__["told"]) == 1
    panel.close()


def test_a_page_that_could_not_say_yet_that_it_listens_is_told_until_it_does_or_leaves(
    runtime: Runtime, waiting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kitaru_nb.surfaces.notebook.panel._AGAIN", 0.0)
    panel = Sent(runtime, lambda: waiting)
    panel._watch.stop()
    watch = Watch(panel, runtime, lambda: waiting)
    told: list[Any] = panel.__dict__.setdefault("told", [])
    for said, times in (("nothing", 0), ("shown", 2), ("listened", 0), ("left", 0)):
        if said == "shown":
            watch.shown()
        elif said != "nothing":
            getattr(watch, said)("a view")
        told.clear()
        watch.look()
        watch.look()
        assert (said, len(told)) == (said, times)
    KitaruClient(runtime).executions.cancel(waiting)
    watch.look()
    assert told == []
    panel.close()


def test_who_leaves_and_listens_again_at_once_misses_nothing(runtime: Runtime, waiting: str) -> None:
    panel = Sent(runtime, lambda: waiting)
    panel._watch.stop()
    watch = Watch(panel, runtime, lambda: waiting)
    watch.listened("a view")
    watch.look()
    KitaruClient(runtime).executions.cancel(waiting)
    watch.left("a view")
    watch.listened("a view")
    watch.look()
    assert panel.__dict__["told"][-1][0]["changes"][-1]["status"] == "cancelled"
    panel.close()


def test_the_panel_reads_well_without_widgets(runtime: Runtime, waiting: str, panel: Sent) -> None:
    data, metadata = panel._repr_mimebundle_()
    assert data["text/plain"].split("\n") == [
        "brief: waiting",
        "  · topic",
        "  ✓ research ← topic",
        "  ‖ approve",
        "‖ approve: Publish?",
        "notes on knots",
        "  here: %kitaru input approve true",
    ]
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "<svg" in data["text/html"]
    assert "%kitaru input approve true" in data["text/html"]
    assert metadata["kitaru"] == {"execution": waiting}


def test_what_a_user_wrote_is_escaped_in_the_still_panel(runtime: Runtime) -> None:
    evil = "<script>alert(1)</script>\u202egnp.exe\x1b[31m"
    exec_id = create_execution(runtime, flows.brief, {"topic": evil}).exec_id
    advance(runtime, exec_id, flows.brief, poll_seconds=0.0)
    plain, html = still(KitaruClient(runtime).executions.get(exec_id))
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert not re.search("[\u202e\x1b]", html + plain)
    assert "\\u202egnp.exe\\x1b[31m" in html


def test_the_still_panel_says_the_same_where_drawings_and_styles_are_taken_out(runtime: Runtime, waiting: str) -> None:
    """As GitHub does with a notebook's outputs."""
    _, html = still(KitaruClient(runtime).executions.get(waiting))
    left = re.sub(r'<svg.*?</svg>| (style|class|id)="[^"]*"', "", html, flags=re.DOTALL)
    words = re.sub(r"<[^>]+>", "\n", left)
    said = [line for line in words.split("\n") if line.strip()]
    assert said[:2] == ["brief", "waiting"]
    assert said[-3:] == ["  · topic", "  ✓ research ← topic", "  ‖ approve"]
    assert "%kitaru input approve true" in said


def test_a_long_execution_is_cut_in_the_text(runtime: Runtime) -> None:
    exec_id = create_execution(runtime, flows.many, {"count": 150}).exec_id
    advance(runtime, exec_id, flows.many, poll_seconds=0.0)
    plain, _ = still(KitaruClient(runtime).executions.get(exec_id))
    assert plain.split("\n")[-1] == "  … 51 more"
    assert len(plain.split("\n")) == 102


def test_a_notebook_without_an_execution_says_so(runtime: Runtime) -> None:
    panel = Sent(runtime, lambda: None)
    assert "no execution yet" in panel._repr_mimebundle_()[0]["text/plain"]
    panel.close()


def test_the_magic_shows_the_still_panel_without_widgets_and_refuses_words(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "shell.run_cell('%load_ext kitaru_nb').raise_error()\n"
        "print('loaded', 'anywidget' in sys.modules, 'ipywidgets' in sys.modules)\n"
        "shell.run_cell('%kitaru panel').raise_error()\n"
        "shell.run_cell('%kitaru panel latest')\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("KITARU_", "JPY_"))}
    environment["KITARU_HOME"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert "loaded False False" in done.stdout, done.stderr
    assert "This notebook has no execution yet" in done.stdout
    assert "%kitaru panel takes nothing, found latest." in done.stdout + done.stderr
