"""The panel's module as a front end loads it: it asks the kernel where no server can be reached."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import samples
from browsing import Pages
from playwright.sync_api import Page, expect
from stub import World, serving

HERE = Path(__file__).parent


@pytest.fixture
def panel(pages: Pages, world: World) -> Iterator[Page]:
    """A page with the panel of an execution, talking to a kernel."""
    with serving(world, HERE) as address:
        yield pages.open(f"{address}/widget.html?execution={samples.EXEC}", address)
        faults = pages.done()
    assert faults == []


def test_the_panel_shows_the_execution_and_takes_an_answer_through_the_kernel(panel: Page, world: World) -> None:
    expect(panel.get_by_role("treeitem", name=re.compile("^load, "))).to_be_visible()
    panel.get_by_role("button", name="Approve").click()
    expect(panel.get_by_text("The execution goes on.")).to_be_visible()
    assert world.posted == [(f"executions/{samples.EXEC}/waits/w-approve/resolve", {"value": True})]
    assert {m["kitaru"] for m in panel.evaluate("model.sent")} == {"request", "listen"}


def test_the_panel_follows_what_the_kernel_tells(panel: Page, world: World) -> None:
    expect(panel.get_by_text("running").first).to_be_visible()
    world.change(samples.EXEC, status=samples.ExecutionStatus.COMPLETED, waits=())
    change = {"seq": 1, "exec_id": samples.EXEC, "kind": "execution.completed", "key": "", "at": 0}
    panel.evaluate("changes => model.tell('msg:custom', {kitaru: 'changes', changes, answers: {}})", [change])
    expect(panel.locator(".kt-head-status")).to_have_text("completed")


def test_a_panel_in_a_narrow_cell_of_a_wide_window_has_one_column(panel: Page) -> None:
    drawing, tree = panel.locator(".kt-drawing"), panel.get_by_role("tree", name="Lineage")
    side = panel.locator(".kt-split-side")
    for width, drawn, columns in ((1200, 1, True), (800, 1, False), (420, 0, False)):
        panel.evaluate("width => { document.getElementById('place').style.width = `${width}px` }", width)
        expect(drawing).to_have_count(drawn)
        expect(tree).to_be_visible()
        # What has its place by script has it a moment later.
        panel.wait_for_function(
            "([tree, side, columns]) => columns"
            " === (side.getBoundingClientRect().left >= tree.getBoundingClientRect().right)",
            arg=[tree.element_handle(), side.element_handle(), columns],
        )
        panel.wait_for_function("width => document.getElementById('place').scrollWidth <= width", arg=width)


def test_what_a_kernel_tells_while_it_hears_nothing_is_shown(panel: Page, world: World) -> None:
    """A cell runs: nobody answers the page, and what it would ask comes with the news."""
    path = f"executions/{samples.EXEC}"
    expect(panel.get_by_text("running").first).to_be_visible()
    panel.evaluate("model.deaf = true")
    change = {"seq": 1, "exec_id": samples.EXEC, "kind": "checkpoint.completed", "key": "", "at": 0}
    for status in ("waiting", "completed"):
        world.change(samples.EXEC, status=samples.ExecutionStatus(status), waits=())
        world.calls = [replace(c, status=status) if c.call_id == "publish" else c for c in world.calls]
        panel.evaluate(
            "async ([path, change]) => { const read = async p => (await fetch(`/api/${p}`)).json();"
            " const answers = {[path]: await read(path), [`${path}/graph`]: await read(`${path}/graph`)};"
            " model.tell('msg:custom', {kitaru: 'changes', changes: [change], answers}) }",
            [path, change],
        )
        expect(panel.locator(".kt-head-status")).to_have_text(status)
        expect(panel.get_by_role("treeitem", name=re.compile(f"^publish, .*{status}"))).to_be_visible()


def test_the_panel_loads_bytes_through_the_kernel(panel: Page, world: World) -> None:
    search = next(a for a in world.artifacts() if a.producing_call == "t1")
    world.contents[search.artifact_id] = b'{"found": [1, 2]}'
    larger = replace(search, size=17, preview={"text": "{…"})
    world.calls = [replace(c, artifacts=(larger,)) if c.call_id == "t1" else c for c in world.calls]
    panel.get_by_role("treeitem", name=re.compile("^search")).click()
    panel.get_by_role("button", name="Load all").click()
    expect(panel.get_by_role("button", name=re.compile("^found.*2"))).to_be_visible()


def test_the_panel_changes_to_the_execution_that_the_notebook_is_on(panel: Page, world: World) -> None:
    expect(panel.get_by_role("heading", name="battery-brief")).to_be_visible()
    panel.evaluate("model.set('execution', 'kr-3m9w00000001')")
    expect(panel.get_by_role("heading", name="invoice-check")).to_be_visible()


def test_a_panel_that_is_closed_leaves_nothing(panel: Page) -> None:
    expect(panel.get_by_role("heading", name="battery-brief")).to_be_visible()
    panel.evaluate("leave()")
    panel.wait_for_function("() => document.getElementById('place').childElementCount === 0")
    panel.wait_for_function("() => [...model.listeners.values()].every(l => l.length === 0)")


def test_what_users_and_models_wrote_is_text_also_where_the_kernel_sends_it(panel: Page, world: World) -> None:
    """Deep and long values, too, leave the page at work."""
    deep = samples.artifact("load", "output", "…", size=200_000)
    text = "text/plain; charset=utf-8"
    long = samples.artifact("chart", samples.HOSTILE, samples.HOSTILE, size=10_000_000, media_type=text)
    world.contents[deep.artifact_id] = b"[" * 100_000 + b"]" * 100_000
    world.contents[long.artifact_id] = (samples.HOSTILE + "word " * 2_000_000).encode()
    made = {"load": (deep,), "chart": (long,)}
    world.calls = [replace(c, artifacts=made.get(c.call_id, c.artifacts)) for c in world.calls]
    world.change(samples.EXEC, flow_name=samples.HOSTILE, waits=(samples.wait(samples.HOSTILE, question="Why?"),))
    change = {"seq": 1, "exec_id": samples.EXEC, "kind": "checkpoint.completed", "key": "", "at": 0}
    panel.evaluate("changes => model.tell('msg:custom', {kitaru: 'changes', changes, answers: {}})", [change])
    expect(panel.get_by_role("heading", name="onerror=").first).to_be_visible()
    for name in ("load", "chart"):
        panel.get_by_role("treeitem", name=re.compile(f"^{name}")).click()
        panel.get_by_role("button", name="Load all").click()
        expect(panel.locator(".kt-artifact")).to_contain_text("[" if name == "load" else "onerror=")
        panel.get_by_role("tab", name="Inputs").click()
        expect(panel.get_by_role("tab", name="Inputs")).to_have_attribute("aria-selected", "true")
    assert panel.evaluate("window.hacked") is None
    assert panel.locator(".kt-panel img, .kt-panel script").count() == 0
    assert panel.evaluate("!/[\\u202e\\u0000\\u001b]/.test(document.body.innerText)")
