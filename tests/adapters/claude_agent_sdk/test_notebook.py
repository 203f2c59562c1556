"""The tutorial: it stops for the approval, goes on in a fresh kernel after it, and pays nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from nbclient.exceptions import CellExecutionError

from adapters.endpoint import RecordedEndpoint
from adapters.notebooks import execute, shown
from kitaru_nb import KitaruClient
from kitaru_nb.testing.adapter.script import say, use


def test_the_tutorial_waits_for_a_person_and_goes_on_in_a_fresh_kernel(
    endpoint: RecordedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KITARU_NOTEBOOK", str(tmp_path / "claude_agent_sdk.ipynb"))
    monkeypatch.setenv("KITARU_CI", "1")
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
    pay_back = use("mcp__shop__pay_back", order=7, amount=40)
    endpoint.script("Order 7", use("mcp__shop__look_up", order=7), pay_back, say("Settled."))
    with pytest.raises(CellExecutionError, match="waiting for an answer to 'pay_back'"):
        execute("claude_agent_sdk.ipynb", tmp_path)
    assert endpoint.paid == 2
    client = KitaruClient()
    [wait] = client.executions.pending_waits()
    assert wait.metadata["arguments"] == {"order": 7, "amount": 40}
    client.executions.input(wait.exec_id, wait=wait.name, value=True)
    outputs = shown(execute("claude_agent_sdk.ipynb", tmp_path))
    assert "2 calls inside\n  ✓ support\n    ✓ look_up" in outputs[2]
    assert "2 calls inside\n  ✓ support\n    ✓ pay_back" in outputs[4]
    assert "'Settled.'" in "".join(outputs[4])
    assert endpoint.paid == 3
