"""The tree of an agent's calls in JupyterLab: it grows while the cell runs, and comes back with a reused cell."""

from __future__ import annotations

from pathlib import Path

import nbformat
from labkit import Lab, NotebookPage
from playwright.sync_api import Browser, expect

AGENTS = Path(__file__).parents[1] / "notebook"
CELLS = [
    f"%load_ext kitaru_nb\nimport sys\nsys.path.insert(0, {str(AGENTS)!r})\nimport pretend_agent",
    "%%checkpoint research\nprint('A line that the cell prints.')\n"
    "notes = pretend_agent.run('knots', searches=3)\n"
    "for n in range(40):\n    pretend_agent.search(f'archive {n}')\n"
    "try:\n    pretend_agent.search('a page that is gone', fails=True)\nexcept ValueError:\n    pass\n"
    "pretend_agent.gate_file = '{gate}'\nanswer = pretend_agent.run('ships', searches=2)\nnotes",
    "%%checkpoint meeting\nheard = await pretend_agent.run_side_by_side(['ana', 'bo', 'cy'])\nheard",
]


def test_an_agents_calls_are_shown_while_the_cell_runs_and_when_it_is_reused(
    lab: Lab, browser: Browser, pictures: Path
) -> None:
    name = "calls"
    gate = lab.root / f"{name}.gate"
    cells = [nbformat.v4.new_code_cell(source.replace("{gate}", str(gate))) for source in CELLS]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), lab.root / f"{name}.ipynb")
    page = NotebookPage(browser, lab, f"{name}.ipynb")
    page.run_cell(0)
    page.begin_cell(1)
    tree = page.outputs_of(1).locator("details").first
    expect(tree).to_contain_text("researcher.model")
    expect(tree).to_contain_text("calls more")
    expect(page.outputs_of(1).locator("details")).to_have_count(1)
    page.picture_in_both_themes(pictures / f"{name}-running.png")
    gate.touch()
    page.idle()
    expect(page.outputs_of(1)).to_contain_text("✓ research → answer, n, notes")
    page.run_cell(2)
    expect(page.outputs_of(2)).to_contain_text("ana.model")
    page.picture_in_both_themes(pictures / f"{name}-done.png")
    page.end_kernel()
    page.start_kernel()
    page.run_all()
    expect(page.outputs_of(1)).to_contain_text("reused")
    expect(page.outputs_of(1)).to_contain_text("not paid again")
    expect(page.outputs_of(1).get_by_text("calls ·")).to_have_count(1)
    page.picture_in_both_themes(pictures / f"{name}-reused.png")
    page.close()
