"""Tutorials that need no model endpoint run as they are stored. The others are tested beside their adapters."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.notebooks import execute, read, shown


@pytest.mark.parametrize("name", ["langgraph.ipynb", "pydantic_ai.ipynb"])
def test_a_tutorial_shows_what_it_stores(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KITARU_NOTEBOOK", str(tmp_path / name))
    monkeypatch.setenv("KITARU_CI", "1")
    assert shown(execute(name, tmp_path)) == shown(read(name))
