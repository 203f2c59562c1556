"""The JupyterLab extension in a real JupyterLab: badges, side panel, inbox, and going on after an answer."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from labkit import Lab, NotebookPage
from playwright.sync_api import Browser, expect
from waiting_notebook import LAST, WAIT, answers, kernel_of, write

DONE = "final 6.5 knots: True"


def open_and_run_to_the_wait(lab: Lab, browser: Browser, name: str, *, dark: bool = False) -> NotebookPage:
    write(lab, name)
    page = NotebookPage(browser, lab, f"{name}.ipynb", dark=dark)
    page.run_all()
    expect(page.outputs_of(WAIT).get_by_role("button", name="Approve")).to_be_visible()
    return page


def test_a_notebook_goes_on_by_itself_after_an_answer_in_the_side_panel(
    extended_lab: Lab, browser: Browser, pictures: Path
) -> None:
    name = "extension"
    page = open_and_run_to_the_wait(extended_lab, browser, name, dark=True)
    page.expect_badges("", "fresh", "fresh", "waiting", "", "")
    side = page.open_side_panel("kitaru:panel")
    expect(side.get_by_role("treeitem", name="measure")).to_be_visible()
    expect(side.get_by_text("Publish a mean of 6.5 knots?")).to_be_visible()
    page.picture(pictures / f"{name}-waiting.png")
    side.get_by_role("button", name="Approve").click()
    expect(page.outputs_of(LAST)).to_contain_text(DONE)
    page.idle()
    page.expect_badges("", "fresh", "fresh", "", "fresh")  # it went on from the wait: the cells above didn't run again
    assert answers(extended_lab, name) == [("approve", True, "jupyter")]
    page.picture(pictures / f"{name}-done.png")
    page.command("docmanager:save")
    page.close()
    again = NotebookPage(browser, extended_lab, f"{name}.ipynb")
    page.page.evaluate("() => window.jupyterapp.shell.activateById('kitaru-panel')")
    expect(side.get_by_role("treeitem", name="measure")).to_be_visible()  # known by what its file says
    again.close()


def test_an_answer_in_the_cells_own_form_lets_the_notebook_go_on(extended_lab: Lab, browser: Browser) -> None:
    page = open_and_run_to_the_wait(extended_lab, browser, "form")
    page.outputs_of(WAIT).get_by_role("button", name="Approve").click()
    expect(page.outputs_of(LAST)).to_contain_text(DONE)
    assert answers(extended_lab, "form") == [("approve", True, "notebook")]
    page.close()


def test_an_approval_in_the_inbox_counts_while_the_kernel_is_dead_and_a_new_one_goes_on(
    extended_lab: Lab, browser: Browser, pictures: Path
) -> None:
    page = open_and_run_to_the_wait(extended_lab, browser, "killed")
    killed = kernel_of(extended_lab, "killed")
    inbox = page.open_side_panel("kitaru:inbox")
    inbox.get_by_role("button", name="Publish a mean of 6.5 knots?").click()
    os.kill(killed, signal.SIGKILL)
    inbox.get_by_role("button", name="Approve").click()
    expect(inbox.get_by_text("The notebook goes on.")).to_be_visible()
    page.picture(pictures / "killed-approved.png")
    assert answers(extended_lab, "killed") == [("approve", True, "jupyter")]
    # Jupyter starts a dead kernel again under its old id; the notebook must not go on as if its variables were there.
    expect(page.outputs_of(LAST)).to_contain_text(DONE)
    assert kernel_of(extended_lab, "killed") != killed
    page.expect_badges("", "cached", "cached")
    page.close()


def test_the_inbox_is_counted_across_notebooks(extended_lab: Lab, browser: Browser) -> None:
    first = open_and_run_to_the_wait(extended_lab, browser, "one")
    first.close()
    second = open_and_run_to_the_wait(extended_lab, browser, "two")
    inbox = second.open_side_panel("kitaru:inbox")
    expect(inbox.get_by_role("button", name="Publish a mean of 6.5 knots?")).to_have_count(2)
    expect(second.page.locator('[data-kitaru-pending="2"]')).to_have_count(1)
    for flow in ("one", "two"):
        inbox.get_by_role("button", name=flow).first.click()
        inbox.get_by_role("button", name="Reject").click()
        expect(inbox.get_by_text("Answered: false")).to_be_visible()
    expect(second.page.locator("[data-kitaru-pending]")).to_have_count(0)
    second.close()
