"""``notebooks/promotion.ipynb``, as its reader goes through it: it waits, is answered, promoted, invoked."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.promote.conftest import Desk

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "promotion.ipynb"


def test_the_promotion_notebook(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(shutil.copy(NOTEBOOK, desk.folder))
    monkeypatch.setenv("JPY_SESSION_NAME", str(path))
    monkeypatch.setenv("KITARU_CI", "1")
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=240, startup_timeout=240, resources={"metadata": {"path": str(desk.folder)}}
    )
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            if "%wait approve" in cell.source and cell.cell_type == "code":
                with pytest.raises(CellExecutionError, match="waiting for an answer to 'approve'"):
                    client.execute_cell(cell, index)
                latest = desk.client.executions.latest(status="waiting")
                desk.client.executions.input(latest.exec_id, value=True)
            client.execute_cell(cell, index)
    said = [shown(cell) for cell in notebook.cells if cell.cell_type == "code"]
    assert any("brief: what would ship" in text for text in said)
    assert any("brief v1 is deployed" in text and "2 checkpoints gave what was recorded" in text for text in said)
    assert said[-3:-1] == ["'Publish this?\\nFact 1 about dunes.'", "'Fact 1 about dunes.'"]
    assert said[-1] == "[('brief@v1', ('default', 'prod'))]"


def shown(cell: Any) -> str:
    """Text of a cell's outputs."""
    return "\n".join(str(o.get("data", {}).get("text/plain", "")) for o in cell.outputs)
