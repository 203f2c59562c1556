"""Every view, light and dark: no fault that axe-core finds, and a picture for people to look at."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import samples
from playwright.sync_api import Page, expect
from stub import World

from kitaru_nb.model import Deployment
from kitaru_nb.stacks.views import StackView

Opener = Callable[..., Page]
Picture = Callable[[Page, str], None]
AXE = Path(__file__).parents[2] / "labextension" / "node_modules" / "axe-core" / "axe.min.js"

VIEWS = {
    "executions": ("executions", "120 in all"),
    "execution": (f"executions/{samples.EXEC}", "analyst.model#1"),
    "checkpoint": (f"executions/{samples.EXEC}?node=load", "falling"),
    "agent": (f"executions/{samples.EXEC}?node=agent", "Cell prices fall"),
    "chart": (f"executions/{samples.EXEC}?node=chart", "figure"),
    "question": (f"executions/{samples.EXEC}?node=wait:w-decide", "What shall happen"),
    "inbox": ("inbox", "Where to?"),
    "deployments": ("deployments", "battery-brief"),
    "stacks": ("stacks", "kubernetes"),
    "missing": ("executions/kr-none", "There is no execution"),
}


def faults(page: Page, rules: list[str] | None = None) -> list[str]:
    """What axe-core finds in a page by all rules, or by some; each with the places."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(f"{AXE.read_text()};0")  # evaluated, as a script of the page it would be blocked
    options = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
    found = page.evaluate("options => axe.run(options).then(r => r.violations)", options)
    return [
        f"{v['id']}: {[n['html'][:200] + str(n.get('failureSummary'))[:200] for n in v['nodes'][:4]]}" for v in found
    ]


@pytest.fixture
def rich(world: World) -> World:
    """A world in which every view has something to show."""
    decide = samples.wait("decide", samples.decision_schema(), question="What shall happen with the brief?")
    channel = samples.wait("channel", {"enum": ["mail", "blog", "nowhere"]}, question="Where to?")
    world.change(samples.EXEC, waits=(samples.wait(), decide, channel))
    common = {"stack": "team", "created_at": samples.NOW, "created_by": "ana", "commit_sha": "e12df8301c" * 4}
    schema = {"properties": {"topic": {"type": "string"}, "tone": {"default": "dry"}}, "required": ["topic"]}
    world.deployments = [
        Deployment("battery-brief", 3, "d" * 64, 4096, schema, tags=("default",), commit_dirty=True, **common),
        Deployment("battery-brief", 2, "c" * 64, 4096, schema, tags=("canary", "prod"), kind="function", **common),
    ]
    url = "postgresql://kitaru:${PGPASSWORD}@db/kitaru"
    world.stacks = [
        StackView("local", "thread", None, None, None, None, {}, (), {}, built_in=True, used=False),
        StackView(
            name="team",
            runner="kubernetes",
            journal=url,
            store="s3://bucket",
            inline_max_bytes=0,
            executor="dask",
            options={},
            environment=("REGION",),
            secrets={"KEY": "a/b"},
            built_in=False,
            used=True,
        ),
    ]
    return world


def loaded(page: Page) -> None:
    """Wait until a page has all that it shows."""
    expect(page.locator(".kt-loading")).to_have_count(0)


def looked_at(page: Page, picture: Picture, name: str) -> list[str]:
    """Faults of a page that has loaded all, in both schemes, each with a picture. In the dark only colours differ."""
    loaded(page)
    picture(page, f"{name}-light")
    found = faults(page)
    page.emulate_media(color_scheme="dark")
    picture(page, f"{name}-dark")
    found += [f"dark: {fault}" for fault in faults(page, ["color-contrast"])]
    page.emulate_media(color_scheme="light")
    return found


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_usable_by_everybody_light_and_dark(
    open_page: Opener, rich: World, picture: Picture, view: str
) -> None:
    place, text = VIEWS[view]
    page = open_page(place)
    expect(page.get_by_text(text).first).to_be_visible()
    assert looked_at(page, picture, view) == []


def test_a_form_with_problems_is_usable_by_everybody(open_page: Opener, rich: World, picture: Picture) -> None:
    page = open_page("inbox")
    page.locator(".kt-inbox-row").filter(has_text="decide").click()
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("Choose yes or no.")).to_be_visible()
    assert looked_at(page, picture, "form") == []


def test_the_tabs_of_an_execution_are_usable_by_everybody(open_page: Opener, rich: World, picture: Picture) -> None:
    page = open_page(f"executions/{samples.EXEC}")
    page.get_by_role("button", name="List", exact=True).click()
    found = []
    for tab in ("Logs", "Artifacts", "Compare"):
        page.get_by_role("tab", name=tab).click()
        if tab == "Compare":
            page.get_by_label("Compare with").select_option("kr-3m9w00000004")
            page.get_by_role("button", name=re.compile("^analyst.*ran again")).click()
            expect(page.locator(".kt-diff-left").first).to_be_visible()
        found += looked_at(page, picture, tab.lower())
    assert found == []


def test_the_tabs_of_a_checkpoint_are_usable_by_everybody(open_page: Opener, rich: World, picture: Picture) -> None:
    page = open_page(f"executions/{samples.EXEC}?node=load")
    found = []
    for tab in ("Calls inside", "Inputs", "Attempts", "Details"):
        page.get_by_role("tab", name=tab).click()
        found += looked_at(page, picture, tab.lower().replace(" ", "-"))
    assert found == []


def test_long_names_on_a_telephone_are_broken_or_cut(open_page: Opener, rich: World, picture: Picture) -> None:
    """Nothing is wider than the page; what is wide scrolls in a place of its own."""
    name = "a_long_name_that_has_no_place_to_break_" * 5
    waits = (samples.wait(name, question=name), samples.wait("second", question=name))
    rich.change(samples.EXEC, flow_name=name, deployment=f"{name} v3", inputs={name: name}, waits=waits)
    rich.calls = [replace(call, name=name, selector=f"{name}#{call.call_id}") for call in rich.calls]
    rich.deployments = [replace(d, flow=name, stack=name, tags=(name,), created_by=name) for d in rich.deployments]
    rich.stacks = [replace(s, name=name, store=f"s3://{name}", environment=(name,)) for s in rich.stacks]
    for place in ("executions", f"executions/{samples.EXEC}?node=load", "inbox", "deployments", "stacks"):
        page = open_page(place, width=420, height=844)
        expect(page.get_by_text("a_long_name").first).to_be_visible()
        if place == "inbox":
            page.locator(".kt-inbox-row").first.click()
            expect(page.get_by_role("button", name="Approve")).to_be_visible()
        loaded(page)
        picture(page, f"long-{place.partition('/')[0]}")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), place


def test_a_telephone_shows_the_same(open_page: Opener, rich: World, picture: Picture) -> None:
    page = open_page(f"executions/{samples.EXEC}", width=390, height=844)
    expect(page.get_by_role("button", name="Approve")).to_be_visible()
    loaded(page)
    picture(page, "telephone")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), json.dumps(
        page.evaluate("[...document.querySelectorAll('*')].filter(e => e.scrollWidth > 400).map(e => e.className)")
    )
