"""The tutorial runs, shows what it stores, and pays only for its plain cell the second time."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.endpoint import RecordedEndpoint
from adapters.notebooks import execute, read, shown
from kitaru_nb.testing.adapter.script import say


def test_the_tutorial_runs_and_is_reused(
    endpoint: RecordedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KITARU_NOTEBOOK", str(tmp_path / "llm.ipynb"))
    monkeypatch.setenv("KITARU_CI", "1")
    endpoint.script("about notebooks", say("They show their work."))
    endpoint.script("small robot", say("Pip, Bolt, Nut"))
    for name in ("Pip", "Bolt", "Nut"):
        endpoint.script(f"this name: {name}", say(f"{name} is short."))
    first = shown(execute("llm.ipynb", tmp_path))
    assert first == shown(read("llm.ipynb"))
    assert endpoint.requests()[0].body["stream"]
    assert endpoint.paid == 5
    assert shown(execute("llm.ipynb", tmp_path)) == first
    assert endpoint.paid == 6
