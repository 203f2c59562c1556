"""A home, a side file and a folder for the SDK's subprocess."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where tools note that they ran."""
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KITARU_TEST_SIDE", str(tmp_path / "side.txt"))
    monkeypatch.setenv("KITARU_TEST_CLAUDE", str(tmp_path))
    # Compiled modules of the SDK are big, and every worker loads them: only the first process compiles.
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(Path(tempfile.gettempdir()) / f"kitaru-bytecode-{os.getuid()}"))
    (tmp_path / "side.txt").touch()
    return tmp_path / "side.txt"
