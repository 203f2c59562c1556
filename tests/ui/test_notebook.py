"""A notebook in JupyterLab, as a person sees it: run it, answer, run it again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
from labkit import Lab, NotebookPage
from playwright.sync_api import Browser, expect

CELLS = [
    "%load_ext kitaru_nb",
    "side = '{side}'\ndef count(word):\n    with open(side, 'a') as file:\n        file.write(word + '\\n')",
    "%%checkpoint research\ncount('research')\n"
    "notes = 'A knot was tied in the log line every 47 feet and 3 inches.'\nnotes",
    "%%checkpoint draft\nimport asyncio\ncount('draft')\nawait asyncio.sleep(0)\n"
    "text = f'Why is it called a knot? {{notes}}'\ntext",
    "{wait}",
    "%%checkpoint publish\ncount('publish')\nfinal = (approved, len(text))",
    "print('final', final)",
]
APPROVE = 'approved = %wait approve --question "Publish this post?\\n\\n{text}"'
REVIEW = (
    "from typing import Literal\nfrom pydantic import BaseModel\nfrom kitaru_nb import wait\n"
    "class Review(BaseModel):\n    tone: Literal['warm', 'dry'] = 'warm'\n    stars: int\n    remark: str = ''\n"
    "    publish: bool = True\n"
    "approved = wait('review', question=f'What do you think?\\n\\n{text}', schema=Review).stars"
)


def write(lab: Lab, name: str, wait: str = APPROVE) -> Path:
    """A notebook in the lab's folder; where its side effects are counted."""
    side = lab.root / f"{name}.txt"
    sources = [CELLS[0], CELLS[1].format(side=side), CELLS[2], CELLS[3].format(), wait, CELLS[5], CELLS[6]]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), lab.root / f"{name}.ipynb")
    return side


def answer_elsewhere(lab: Lab, value: object) -> None:
    """Another process answers the newest pending wait."""
    program = (
        "import json, sys\nfrom kitaru_nb import KitaruClient\nclient = KitaruClient()\n"
        "wait = client.executions.pending_waits()[-1]\n"
        "client.executions.input(wait.exec_id, value=json.loads(sys.argv[1]), by='bo', via='cli')"
    )
    subprocess.run([sys.executable, "-c", program, json.dumps(value)], env=os.environ | lab.environment, check=True)


def ran(side: Path) -> list[str]:
    return side.read_text().split()


def test_run_all_stops_at_the_form_and_goes_on_after_its_button(lab: Lab, browser: Browser, pictures: Path) -> None:
    name = "approve"
    side = write(lab, name)
    page = NotebookPage(browser, lab, f"{name}.ipynb")
    page.run_all()
    form = page.outputs_of(4)
    expect(form.get_by_role("button", name="Approve")).to_be_visible()
    expect(form).to_contain_text("Publish this post?")
    expect(form).to_contain_text("waiting for an answer to 'approve'")
    page.idle()  # the kernel is free while the question is open
    assert page.texts()[5:] == ["", ""]
    page.picture_in_both_themes(pictures / f"{name}-waiting.png")
    form.get_by_role("button", name="Approve").click()
    expect(form.get_by_text("answered: true")).to_be_visible()
    expect(form.get_by_role("button")).to_have_count(0)
    page.picture(pictures / f"{name}-answered.png")
    page.run_all()
    expect(page.outputs_of(6).get_by_text("final (True,")).to_be_visible()
    page.picture_in_both_themes(pictures / f"{name}-done.png")
    assert ran(side) == ["research", "draft", "publish"]
    page.close()


def test_an_answer_from_elsewhere_while_the_kernel_is_gone(lab: Lab, browser: Browser, pictures: Path) -> None:
    side = write(lab, "elsewhere")
    page = NotebookPage(browser, lab, "elsewhere.ipynb")
    page.run_all()
    expect(page.outputs_of(4).get_by_role("button", name="Reject")).to_be_visible()
    page.end_kernel()
    answer_elsewhere(lab, False)
    page.start_kernel()
    page.run_all()
    expect(page.outputs_of(6).get_by_text("final (False,")).to_be_visible()
    assert ran(side) == ["research", "draft", "publish"]
    page.picture(pictures / "elsewhere-done.png")
    page.close()


def test_a_form_with_fields_tells_what_is_wrong_and_takes_what_is_right(
    lab: Lab, browser: Browser, pictures: Path
) -> None:
    write(lab, "review", REVIEW)
    page = NotebookPage(browser, lab, "review.ipynb")
    page.run_all()
    form = page.outputs_of(4)
    send = form.get_by_role("button", name="Send")
    expect(send).to_be_visible()
    stars = form.get_by_label("stars")
    stars.fill("many")
    send.click()
    expect(form.get_by_text("expected a whole number")).to_be_visible()
    page.picture(pictures / "review-wrong.png")
    stars.fill("5")
    form.get_by_label("tone").select_option("dry")
    send.click()
    expect(form.get_by_text("answered:")).to_be_visible()
    page.run_all()
    expect(page.outputs_of(6).get_by_text("final (5,")).to_be_visible()
    page.close()
