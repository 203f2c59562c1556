"""Fixtures: a home of its own for each test, the command, and flows that ran before it is called."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.flow import Flow
from kitaru_nb.core.runtime import default_runtime
from kitaru_nb.stacks.process import _children
from kitaru_nb.surfaces.cli import app


@dataclass(frozen=True)
class Result:
    """What a call of the command gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)

    @property
    def widest(self) -> int:
        """Length of the longest line of standard output."""
        return max(map(len, self.out.splitlines()), default=0)


class Kitaru:
    """The command, called in this process."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *arguments: str) -> Result:
        found = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        return Result(found.exit_code, found.stdout, found.stderr)


@pytest.fixture
def kitaru(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kitaru]:
    """The command, with a home in a temporary folder."""
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "KITARU_JOURNAL", "KITARU_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KITARU_DURABILITY", "process")
    monkeypatch.setenv("KITARU_USER", "tester")
    yield Kitaru(tmp_path / "home")
    for process, *_ in (worker for workers in _children.values() for worker in workers):
        process.wait(timeout=60)  # or it would be reported as one that still runs
    default_runtime().journal.close()


Ran = Callable[..., str]


@pytest.fixture
def ran(kitaru: Kitaru) -> Ran:
    """Runs a flow here until it ends or lets go; the execution's id. What goes on with it later is a fresh process."""

    def run(flow: Flow[..., Any], *args: Any) -> str:
        runtime = default_runtime()
        exec_id = create_execution(runtime, flow, flow.bind(args, {})).exec_id
        advance(runtime, exec_id, flow, poll_seconds=0.0)
        return exec_id

    return run
