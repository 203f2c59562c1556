"""The panel in the widget managers of VS Code and Colab: no server to ask, no subshells, frames of foreign origin."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostkit import HostPage, Name, bundled, opened, served
from labkit import Lab, faults
from playwright.sync_api import Browser, expect

from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.runtime import Runtime

BY_HAND = "Run the notebook’s cell again, or Run All, to go on."
BUTTONS = re.compile("^(Approve|Reject)$")
DECIDE = """\
from pydantic import BaseModel, Field
from kitaru_nb import wait
class Reader(BaseModel):
    name: str
class Decision(BaseModel):
    publish: bool
    copies: int = Field(ge=1, le=5)
    reader: Reader
decision = wait("decide", schema=Decision, question="How shall it be published?")"""
STANDS_STILL = "import os, time\nwhile not os.path.exists({gate!r}):\n    time.sleep(0.02)"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The pages of the front ends at two addresses: what is around the outputs, and their frames."""
    folder = bundled(tmp_path_factory.mktemp("hosts"))
    with served(folder) as around, served(folder) as inside:
        yield around, inside


@pytest.fixture
def client(lab: Lab) -> Iterator[KitaruClient]:
    """What another process sees and does."""
    runtime = Runtime(Settings(Path(lab.environment["KITARU_HOME"])))
    yield KitaruClient(runtime)
    runtime.journal.close()


def is_dark(host: HostPage) -> bool:
    """Whether the panel's ground is dark and its words are light."""
    found: list[str] = host.frame.evaluate(
        "() => { const { color, backgroundColor } = getComputedStyle(document.querySelector('.kt-panel'));"
        " return [color, backgroundColor] }"
    )
    words, ground = (sum(int(n) for n in re.findall(r"\d+", colour)[:3]) for colour in found)
    return words > 3 * 128 > ground


def stands_still(host: HostPage, gate: Path) -> None:
    """Keep the kernel busy until the file is there."""
    host.begin(STANDS_STILL.format(gate=str(gate)))


def treeitem(panel: Any, name: str) -> Any:
    """A node of the panel's graph."""
    return panel.get_by_role("treeitem", name=re.compile(name))


@pytest.mark.parametrize("name", ["vscode", "colab"])
def test_lineage_is_live_while_a_cell_runs_and_answers_count(
    lab: Lab,
    browser: Browser,
    pages: tuple[str, str],
    client: KitaruClient,
    pictures: Path,
    tmp_path: Path,
    name: Name,
) -> None:
    with opened(browser, lab, pages, name) as host:
        panel = host.outputs.locator(".kt-panel")
        assert host.run("%load_ext kitaru_nb") == "ok"
        # The next cell runs before the page has drawn anything, as in a Run All.
        gate = tmp_path / "measured"
        host.begin("%kitaru panel")
        host.begin(f"%%checkpoint measure\n{STANDS_STILL.format(gate=str(gate))}\nspeed = 6.5")
        expect(treeitem(panel, "^measure, .*running")).to_be_visible()
        gate.touch()
        expect(treeitem(panel, "^measure, .*completed")).to_be_visible()

        approve = 'approved = %wait approve --question "Publish {speed} knots?"'
        assert host.run(approve) == "error"
        expect(panel.get_by_text("Publish 6.5 knots?")).to_be_visible()
        host.page.screenshot(path=str(pictures / f"{name}-light.png"))
        assert not is_dark(host)
        host.theme(dark=True)
        assert is_dark(host)
        assert faults(host.frame, ".kt-panel") == []
        assert faults(host.frame, ".output:not(.widget)") == []
        host.page.screenshot(path=str(pictures / f"{name}-dark.png"))
        host.theme(dark=False)

        gate = tmp_path / "free"
        stands_still(host, gate)
        panel.get_by_role("button", name="Approve").click()
        expect(panel.get_by_text("Not confirmed yet")).to_be_visible()
        exec_id = client.executions.latest().exec_id
        expect(panel.get_by_text(f"kitaru executions input {exec_id} --wait approve --value true")).to_be_visible()
        gate.touch()
        expect(panel.get_by_text(BY_HAND)).to_be_visible()
        assert [(w.name, w.value, w.via) for w in client.executions.get(exec_id).waits] == [
            ("approve", True, "notebook")
        ]
        assert host.run(approve) == "ok"

        assert host.run(DECIDE) == "error"
        question = panel.get_by_role("region", name="Question: decide")
        question.get_by_label("Yes").check()
        question.get_by_label("copies").fill("9")
        question.get_by_label("name").fill("Ana")
        question.get_by_role("button", name="Send").click()
        expect(question.get_by_text("At most 5.")).to_be_visible()
        question.get_by_label("copies").fill("2")
        question.get_by_role("button", name="Send").click()
        expect(question.get_by_text(BY_HAND)).to_be_visible()
        decided = client.executions.get(exec_id).waits[-1]
        assert decided.value == {"publish": True, "copies": 2, "reader": {"name": "Ana"}}
        assert host.run(DECIDE) == "ok"

        assert host.run("last = %wait last") == "error"
        form = host.outputs.locator("section").last
        expect(panel.get_by_role("button", name=BUTTONS)).to_have_count(2)
        expect(form.get_by_role("button", name=BUTTONS)).to_have_count(2)
        client.executions.input(exec_id, value=False, wait="last")
        expect(panel.get_by_role("button", name=BUTTONS)).to_have_count(0)
        expect(form.get_by_role("button", name=BUTTONS)).to_have_count(0)
        expect(form.get_by_text("answered false")).to_be_visible()
        assert host.faults == []
