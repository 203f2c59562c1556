"""Artifacts in the dashboard: trees of JSON, long texts, pictures, and two of them compared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import samples
from playwright.sync_api import Page, expect
from stub import World

Opener = Callable[..., Page]
Picture = Callable[[Page, str], None]


def artifact(world: World, content: bytes, **fields: Any) -> None:
    """Give the checkpoint ``load`` one artifact with ``content``."""
    made = samples.artifact("load", "output", "…", **fields)
    world.contents[made.artifact_id] = content
    world.calls = [replace(c, artifacts=(made,)) if c.call_id == "load" else c for c in world.calls]


def test_json_is_a_tree_and_its_numbers_stay_exact(open_page: Opener, world: World, picture: Picture) -> None:
    content = json.dumps({"name": "x", "list": list(range(300)), "deep": {"a": {"b": None}}}).encode()
    artifact(world, content, size=len(content))
    page = open_page(f"executions/{samples.EXEC}?node=load")
    page.get_by_role("button", name="Load all").click()
    page.get_by_role("button", name=re.compile(r"^list.*300")).click()
    expect(page.get_by_role("button", name="200 more")).to_be_visible()
    picture(page, "json")
    artifact(world, b'{"big": 12345678901234567890}', size=29)
    page.reload()
    page.get_by_role("button", name="Load all").click()
    expect(page.locator(".kt-artifact")).to_contain_text("12345678901234567890")


def test_ten_megabytes_of_text_and_deep_json_do_not_freeze_the_page(open_page: Opener, world: World) -> None:
    artifact(world, b"word " * 2_000_000, size=10_000_000, media_type="text/plain; charset=utf-8")
    page = open_page(f"executions/{samples.EXEC}?node=load")
    page.get_by_role("button", name="Load all").click()
    expect(page.get_by_role("button", name=re.compile(r"Load more \(9\.7 MB left\)"))).to_be_visible()
    assert len(page.locator(".kt-artifact pre").inner_text()) < 30_000
    deep = b"[" * 100_000 + b"]" * 100_000
    artifact(world, deep, size=len(deep))
    page.reload()
    page.get_by_role("button", name="Load all").click()
    expect(page.locator(".kt-artifact")).to_contain_text("[")
    page.get_by_role("tab", name="Inputs").click()
    expect(page.get_by_role("tab", name="Inputs")).to_have_attribute("aria-selected", "true")


def test_a_picture_is_shown_from_its_preview_and_in_full(open_page: Opener, world: World) -> None:
    figure = next(a for a in world.artifacts() if a.name == "figure")
    world.contents[figure.artifact_id] = samples.picture()
    page = open_page(f"executions/{samples.EXEC}?node=chart")
    image = page.locator(".kt-image")
    expect(image).to_have_js_property("naturalWidth", 400)
    page.get_by_role("button", name="Load all").click()
    expect(page.get_by_role("button", name="Load all")).to_have_count(0)
    expect(image).to_have_js_property("naturalWidth", 400)


def test_two_artifacts_are_compared(open_page: Opener, world: World) -> None:
    first, second = [a for a in world.artifacts() if a.producing_call in ("t1", "t2")]
    world.contents |= {first.artifact_id: b'{"a": 1, "b": 2}', second.artifact_id: b'{"a": 1, "b": 3}'}
    page = open_page(f"executions/{samples.EXEC}")
    page.get_by_role("tab", name="Artifacts").click()
    for row in (page.locator("li", has_text="what search made"), page.locator("li", has_text="what read_page made")):
        row.get_by_role("checkbox").check()
    expect(page.locator(".kt-diff-left")).to_contain_text('"b": 2')
    expect(page.locator(".kt-diff-right")).to_contain_text('"b": 3')
