"""One browser and two JupyterLabs for all tests of this folder, without and with the extension."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from labkit import Lab, jupyter_lab
from playwright.sync_api import Browser

from tests.browsers import be_patient, chromium


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    be_patient(items, Path(__file__).parent)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    yield from _lab(tmp_path_factory, extended=False)


@pytest.fixture(scope="session")
def extended_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    yield from _lab(tmp_path_factory, extended=True)


def _lab(tmp_path_factory: pytest.TempPathFactory, *, extended: bool) -> Iterator[Lab]:
    root, private = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("private")
    environment = {"KITARU_HOME": str(private / "home"), "KITARU_USER": "ana", "KITARU_CI": ""}
    with jupyter_lab(root, private, environment, extended=extended) as found:
        yield found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots go: ``KITARU_PICTURES``, else a folder of the test."""
    folder = Path(os.environ.get("KITARU_PICTURES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
