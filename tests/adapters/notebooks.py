"""Runs a tutorial of ``notebooks/`` as its reader does, against the recorded endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"

Notebook = Any


def read(name: str) -> Notebook:
    """A tutorial as it is stored."""
    return nbformat.read(FOLDER / name, as_version=4)


def execute(name: str, folder: Path) -> Notebook:
    """Run all cells in a fresh kernel, in ``folder``."""
    notebook = read(name)
    # Pieces of a streamed text come as one output, however quickly they came.
    client = NotebookClient(notebook, timeout=120, coalesce_streams=True, resources={"metadata": {"path": str(folder)}})
    asyncio.run(client.async_execute())
    return notebook


def shown(notebook: Notebook) -> list[list[str]]:
    """What each code cell shows, as text."""
    return [[_text(output) for output in cell.outputs] for cell in notebook.cells if cell.cell_type == "code"]


def _text(output: Mapping[str, Any]) -> str:
    return str(output.get("text") or output.get("data", {}).get("text/plain", ""))
