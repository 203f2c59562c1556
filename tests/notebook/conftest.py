"""One notebook, in this process: each kernel is a fresh IPython shell on the same home and the same file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from notebookkit import Notebook


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KITARU_NOTEBOOK", str(tmp_path / "study.ipynb"))
    monkeypatch.setenv("KITARU_USER", "ana")
    monkeypatch.delenv("KITARU_EXECUTION", raising=False)
    monkeypatch.delenv("KITARU_CI", raising=False)
    main = sys.modules["__main__"]
    found = Notebook(tmp_path)
    try:
        yield found
    finally:
        found.shut_down()
        sys.modules["__main__"] = main
