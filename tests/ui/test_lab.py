"""The extension's parts, clicked in a real JupyterLab: badges and their reasons, toolbar, settings, a new kernel."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from labkit import Lab, NotebookPage, faults
from playwright.sync_api import Browser, Response, expect
from waiting_notebook import LAST, answers, write

DONE = "final 6.5 knots: True"
BY_HAND = "Run the notebook’s cell again, or Run All, to go on."
STATES = {
    "cached": ("%%checkpoint cached\ntopic = 'knots'", "the result was reused"),
    "fresh": ("%%checkpoint fresh\nlines = [topic] * 3\nlines", "its result is kept"),
    "stale": ("%%checkpoint stale\nlength = len(topic)", "The cell was edited since it ran."),
    "partial": (
        "%%checkpoint partial\nimport threading\ngate = threading.Lock()",
        "not all that it made could be kept",
    ),
    "failed": ("%%checkpoint failed\nint('a knot')", "ValueError: invalid literal for int()"),
    "waiting": ("approved = %wait approve --question 'Publish?'", "It waits for an answer"),
    "running": (
        "%%checkpoint running\nimport os, time\nwhile not os.path.exists({gate!r}):\n    time.sleep(0.05)",
        "It runs now.",
    ),
}
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\u202egnp.exe\x1b[31m "quoted" &amp;'


def notebook(lab: Lab, name: str, *sources: str) -> None:
    """A notebook of these code cells in the lab's folder."""
    cells = [nbformat.v4.new_code_cell(source) for source in ("%load_ext kitaru_nb", *sources)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), lab.root / f"{name}.ipynb")


def test_each_state_of_a_checkpoint_is_seen_on_its_cell_with_the_reason(
    extended_lab: Lab, browser: Browser, pictures: Path
) -> None:
    gate = extended_lab.root / "states.gate"
    notebook(extended_lab, "states", *(source.replace("{gate!r}", repr(str(gate))) for source, _ in STATES.values()))
    page = NotebookPage(browser, extended_lab, "states.ipynb")
    for index in (0, 1, 1, 2, 3, 4, 5, 6):
        page.run_cell(index)
    page.begin_cell(7)
    page.page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.content.widgets[3].model.sharedModel"
        ".setSource('%%checkpoint stale\\nlength = len(topic) + 1')"
    )
    page.expect_badges("", *STATES)
    side = page.open_side_panel("kitaru:panel")
    expect(side.get_by_role("treeitem", name=re.compile("^running, "))).to_be_visible()
    card = page.page.get_by_role("dialog", name="Why this badge")
    for dark in (False, True):
        page.theme(dark)
        page.page.get_by_role("button", name="Checkpoint is stale. Why?").click()
        expect(card).to_contain_text("stale is stale")
        assert faults(page.page, "#kitaru-panel") == []
        assert faults(page.page, ".kt-why") == []
        page.picture(pictures / f"lab-badges-{'dark' if dark else 'light'}.png")
        page.page.keyboard.press("Escape")
        expect(card).to_have_count(0)
    for state, (_, reason) in STATES.items():
        page.page.get_by_role("button", name=f"Checkpoint is {state}. Why?").click()
        expect(card).to_contain_text(reason)
        page.page.keyboard.press("Escape")
        expect(card).to_have_count(0)
    gate.touch()
    page.expect_badges("", "cached", "fresh", "stale", "partial", "failed", "waiting", "fresh")
    page.page.get_by_role("button", name="Checkpoint is stale. Why?").click()
    card.get_by_role("button", name="Run from here").click()
    page.expect_badges("", "cached", "fresh", "fresh", "partial", "failed")  # which ends the run
    side.get_by_role("button", name="Close without an answer…").click()
    side.get_by_role("button", name="Close it").click()
    expect(side.get_by_text("Closed without an answer")).to_be_visible()
    page.idle()
    page.close()


def choose(page: NotebookPage, setting: str) -> None:
    """Change one of the extension's settings, in JupyterLab's own form for them."""
    page.command("settingeditor:open", {"query": "kitaru"})
    done: list[str] = []

    def is_told(answer: Response) -> bool:
        """JupyterLab saves a setting, reads it again, and then says what has changed."""
        if "settings/kitaru" in answer.url:
            done.append(answer.request.method)
        return "PUT" in done and done[-1] == "GET"

    with page.page.expect_response(is_told):
        page.page.get_by_role("checkbox", name=setting).click()
    page.page.evaluate("() => window.jupyterapp.shell.currentWidget.dispose()")


def test_without_going_on_by_itself_a_notebook_is_resumed_from_the_toolbar_and_promoted_there(
    extended_lab: Lab, browser: Browser, pictures: Path
) -> None:
    write(extended_lab, "toolbar")
    page = NotebookPage(browser, extended_lab, "toolbar.ipynb")
    choose(page, "Go on after an answer")
    page.run_all()
    page.expect_badges("", "fresh", "fresh", "waiting")
    choose(page, "Badges on cells")
    page.expect_badges("", "", "", "", "")
    choose(page, "Badges on cells")
    page.expect_badges("", "fresh", "fresh", "waiting")
    page.tool("kitaru-panel").click()
    side = page.page.locator("#kitaru-panel")
    side.get_by_role("button", name="Approve").click()
    expect(side.get_by_text(BY_HAND)).to_be_visible()
    assert page.texts()[LAST] == ""
    page.picture(pictures / "lab-answered.png")
    page.tool("kitaru-resume").click()
    expect(page.outputs_of(LAST)).to_contain_text(DONE)
    expect(side.get_by_text(BY_HAND)).to_have_count(0)
    page.expect_badges("", "cached", "cached", "", "fresh")
    choose(page, "Go on after an answer")
    page.tool("kitaru-promote").click()
    dialog = page.page.locator(".jp-Dialog")
    expect(dialog).to_contain_text("Promote this notebook as")
    dialog.get_by_role("textbox").fill("tool bar")
    dialog.locator(".jp-mod-accept").click()
    expect(dialog).to_contain_text("Letters, digits")
    dialog.get_by_role("textbox").fill("toolbar")
    dialog.locator(".jp-mod-accept").click()
    expect(dialog).to_contain_text("Tag that shall point to the new version")
    dialog.locator(".jp-mod-accept").click()
    expect(page.page.locator(".kt-promote")).to_contain_text("toolbar v1 is deployed")
    page.picture(pictures / "lab-promoted.png")
    page.page.evaluate("() => window.jupyterapp.shell.currentWidget.dispose()")
    page.close()


def test_after_a_restart_of_the_kernel_an_answer_begins_the_notebook_at_the_top(
    extended_lab: Lab, browser: Browser
) -> None:
    write(extended_lab, "restarted")
    page = NotebookPage(browser, extended_lab, "restarted.ipynb")
    page.run_all()
    page.tool("restart").click()
    with page.page.expect_response(re.compile("/restart")):
        page.page.locator(".jp-Dialog .jp-mod-accept").click()
    page.idle()
    inbox = page.open_side_panel("kitaru:inbox")
    inbox.get_by_role("button", name="Publish a mean of 6.5 knots?").click()
    inbox.get_by_role("button", name="Approve").click()
    expect(inbox.get_by_text("The notebook goes on.")).to_be_visible()
    expect(page.outputs_of(LAST)).to_contain_text(DONE)
    page.expect_badges("", "cached", "cached", "", "fresh")
    assert answers(extended_lab, "restarted") == [("approve", True, "jupyter")]
    page.close()


def test_what_users_and_models_wrote_is_text_in_the_cells_and_in_the_side_panel(
    extended_lab: Lab, browser: Browser, pictures: Path
) -> None:
    notebook(
        extended_lab,
        "hostile",
        f"%%checkpoint read\nprint({HOSTILE!r})\ntext = {HOSTILE!r}\nbig = text + 'word ' * 2_000_000\n"
        "deep = []\nfor _ in range(400):\n    deep = [deep]",
        f"from kitaru_nb import wait\napproved = wait('approve', question={HOSTILE!r} + text)",
    )
    page = NotebookPage(browser, extended_lab, "hostile.ipynb")
    page.run_all()
    expect(page.outputs_of(2)).to_contain_text("onerror=")
    side = page.open_side_panel("kitaru:panel")
    expect(side.get_by_role("region", name="Question: approve")).to_contain_text("onerror=")
    expect(side.locator(".kt-control", has_text="\\u202e").first).to_be_visible()
    side.get_by_role("treeitem", name=re.compile("^read, ")).click()
    for name, shown in (("text", "onerror="), ("big", "word word"), ("deep", "[")):
        artifact = side.locator(".kt-artifact").filter(has_text=name).first
        expect(artifact).to_contain_text(shown)
        if name == "big":
            artifact.get_by_role("button", name="Load all").click()
    expect(side.get_by_role("button", name=re.compile(r"Load more \(9\.7 MB left\)"))).to_be_visible()
    for tab in ("Inputs", "Logs", "Attempts", "Details"):
        side.get_by_role("tab", name=tab).click()
        expect(side.get_by_role("tab", name=tab)).to_have_attribute("aria-selected", "true")
    page.picture(pictures / "lab-hostile.png")
    assert page.page.evaluate("window.hacked") is None
    for place in (side, page.outputs_of(2)):
        assert place.locator("img, script").count() == 0
        assert place.evaluate("place => !/[\\u202e\\u0000\\u001b]/.test(place.innerText)")
    side.get_by_role("button", name="Reject").click()
    expect(side.get_by_text("Answered: false")).to_be_visible()
    page.idle()
    page.close()
