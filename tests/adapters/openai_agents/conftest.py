"""What the tests of this adapter share: a home of their own, and no exporter of traces."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import set_trace_processors

from kitaru_nb import KitaruClient
from kitaru_nb.core.local import threads


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))
    set_trace_processors([])
    yield
    for local in list(threads.values()):
        assert local.ended.wait(30), f"{local.exec_id} still runs: {[t.name for t in threading.enumerate()]}"


class Executions:
    """Short ways to look at what was recorded."""

    def __init__(self) -> None:
        self.client = KitaruClient()

    def calls(self, handle: Any) -> list[Any]:
        return list(self.client.executions.get(handle.exec_id).checkpoints)

    def names(self, handle: Any) -> list[str]:
        return [call.selector for call in self.calls(handle)]

    def waits(self, handle: Any, count: int = 1) -> list[Any]:
        """The pending waits, as soon as there are that many."""
        deadline = time.monotonic() + 30
        while len(found := self.client.executions.pending_waits(handle.exec_id)) < count:
            assert time.monotonic() < deadline, f"{len(found)} waits, expected {count}: {handle.status}"
            time.sleep(0.02)
        return list(found)

    def answer(self, handle: Any, wait: str, value: Any) -> None:
        self.client.executions.input(handle.exec_id, wait=wait, value=value)


@pytest.fixture
def executions() -> Executions:
    return Executions()
