"""Commands in a home of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from kitaru_nb.surfaces.cli import app


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of the commands, which isn't there yet."""
    for name in ("KITARU_JOURNAL", "KITARU_STORE", "KITARU_STACK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def kitaru(*arguments: str, code: int = 0) -> str:
    """What a command prints; it ends with this code."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == code, done.output
    return done.output
