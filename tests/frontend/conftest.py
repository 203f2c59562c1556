"""Pages built from the sources as they are; one browser and its pages for all tests, a server for each."""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browsing import Pages
from playwright.sync_api import Browser, Page
from stub import World, serving

from tests.browsers import be_patient, chromium

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    be_patient(items, Path(__file__).parent)


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    """What is tested is what the sources say now."""
    runpy.run_path(str(ROOT / "labextension" / "hatch_build.py"))["FrontEnd"](ROOT).build()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def pages(browser: Browser) -> Pages:
    return Pages(browser)


Opener = Callable[..., Page]


@pytest.fixture
def open_page(pages: Pages, world: World) -> Iterator[Opener]:
    """Open a place of the dashboard."""
    with serving(world) as address:
        yield lambda place, **size: pages.open(f"{address}/#/{place}", address, **size)
        faults = pages.done()
    assert faults == []


@pytest.fixture
def picture() -> Callable[[Page, str], None]:
    """Take a screenshot into the folder ``KITARU_PICTURES``, where somebody wants to look."""
    folder = os.environ.get("KITARU_PICTURES")

    def take(page: Page, name: str) -> None:
        if folder:
            page.screenshot(path=str(Path(folder) / f"{name}.png"))

    return take
