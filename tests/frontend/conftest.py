"""Pages built from the sources as they are, one browser for all tests, a server and a page for each."""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from stub import World, serving

ROOT = Path(__file__).parents[2]
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    """What is tested is what the sources say now."""
    runpy.run_path(str(ROOT / "labextension" / "hatch_build.py"))["FrontEnd"](ROOT).build()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path="/usr/bin/chromium", headless=True, args=CHROMIUM_FLAGS)
        yield found
        found.close()


@pytest.fixture
def world() -> World:
    return World()


Opener = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, world: World, tmp_path: Path) -> Iterator[Opener]:
    """Open a place of the dashboard. At the end: no error in the console, nothing blocked, no foreign address asked."""
    pages: list[Page] = []
    faults: list[str] = []
    with serving(world) as address:

        def open_at(place: str, *, dark: bool = False, width: int = 1280, height: int = 1000) -> Page:
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
            )
            pages.append(page)
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on(
                "console", lambda m: faults.append(m.text) if m.type == "error" and "status of" not in m.text else None
            )
            page.on("request", lambda r: faults.append(r.url) if not r.url.startswith((address, "data:")) else None)
            page.goto(f"{address}/#/{place}")
            return page

        yield open_at
        for page in pages:
            page.close()
    assert faults == []


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[Page, str], None]:
    """Take a screenshot: into ``KITARU_PICTURES``, else a folder of the test."""
    folder = Path(os.environ.get("KITARU_PICTURES", tmp_path))

    def take(page: Page, name: str) -> None:
        page.screenshot(path=str(folder / f"{name}.png"))

    return take
