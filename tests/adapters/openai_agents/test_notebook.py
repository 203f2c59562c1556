"""The tutorial runs up to the approval, goes on after the answer, shows what it stores, and pays nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from nbclient.exceptions import CellExecutionError

from adapters.endpoint import RecordedEndpoint
from adapters.notebooks import execute, read, shown
from kitaru_nb import KitaruClient
from kitaru_nb.testing.adapter.script import say, use

NAME = "openai_agents.ipynb"


def test_the_tutorial_runs_and_is_reused(
    endpoint: RecordedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KITARU_NOTEBOOK", str(tmp_path / NAME))
    monkeypatch.setenv("KITARU_CI", "1")
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
    endpoint.script("Where is", use("look_up", order="7"), say("It was lost."))
    endpoint.script("money back", use("refund", order="7", amount=20), say("You get 20 back."))
    with pytest.raises(CellExecutionError, match="waiting for an answer to 'refund'"):
        execute(NAME, tmp_path)
    assert endpoint.paid == 3
    client = KitaruClient()
    exec_id = client.executions.latest().exec_id
    client.executions.input(exec_id, wait="refund", value={"approve": True, "message": None})
    first = shown(execute(NAME, tmp_path))
    assert first == shown(read(NAME))
    assert endpoint.paid == 4
    assert shown(execute(NAME, tmp_path)) == first
    assert endpoint.paid == 4
