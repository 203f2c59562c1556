"""Notebook 7: the panel and the badges work as in JupyterLab, and an answer in the panel lets the notebook go on."""

from __future__ import annotations

import re
from pathlib import Path

from labkit import Lab, Notebook7Page
from playwright.sync_api import Browser, expect
from waiting_notebook import LAST, answers, write

PANEL = LAST + 1


def test_the_panel_in_notebook_7_takes_an_answer_and_the_notebook_goes_on(
    extended_lab: Lab, browser: Browser, pictures: Path
) -> None:
    write(extended_lab, "seven", panel=True)
    page = Notebook7Page(browser, extended_lab, "seven.ipynb")
    page.run_all()
    page.run_cell(PANEL)
    panel = page.outputs_of(PANEL).locator(".kt-panel")
    expect(panel.get_by_role("treeitem", name=re.compile("^measure, "))).to_be_visible()
    page.expect_badges("", "fresh", "fresh", "waiting")
    page.picture(pictures / "notebook7-waiting.png")
    panel.get_by_role("button", name="Approve").click()
    expect(panel.get_by_text("The notebook goes on.")).to_be_visible()
    expect(page.outputs_of(LAST)).to_contain_text("final 6.5 knots: True")
    expect(panel.get_by_role("treeitem", name=re.compile("^publish, "))).to_be_visible()
    assert answers(extended_lab, "seven") == [("approve", True, "jupyter")]
    page.picture(pictures / "notebook7-done.png")
    page.close()
