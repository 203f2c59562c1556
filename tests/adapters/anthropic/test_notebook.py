"""The tutorial runs, shows what it stores, and pays nothing the second time."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.endpoint import RecordedEndpoint
from adapters.notebooks import execute, read, shown
from kitaru_nb.testing.adapter.script import say, use


def test_the_tutorial_runs_and_is_reused(
    endpoint: RecordedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KITARU_NOTEBOOK", str(tmp_path / "anthropic.ipynb"))
    monkeypatch.setenv("KITARU_CI", "1")
    endpoint.script("order 7", use("look_up", order="7"), say("It was sent yesterday."))
    first = shown(execute("anthropic.ipynb", tmp_path))
    assert first == shown(read("anthropic.ipynb"))
    assert endpoint.paid == 2
    assert shown(execute("anthropic.ipynb", tmp_path)) == first
    assert endpoint.paid == 2
