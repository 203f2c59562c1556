"""Fixtures: a home for each test, flows that ran in it, the API in this process, and a server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.flow import Flow
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.stacks.process import _children
from kitaru_nb.surfaces.http.api import Api
from kitaru_nb.surfaces.operations.base import Desk
from tests.http.httpkit import SECONDS, Direct, Ran, Served


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    """Settings with a home in a temporary folder."""
    found = Runtime(Settings(tmp_path / "home", durability="process"))
    yield found
    for process, *_ in (worker for workers in _children.values() for worker in workers):
        process.wait(timeout=SECONDS)  # or it would be reported as one that still runs
    found.journal.close()


@pytest.fixture
def ran(runtime: Runtime) -> Ran:
    """Runs a flow here until it ends or lets go; the execution's id. Workers that go on with it are fresh processes."""

    def run(flow: Flow[..., Any], *args: Any) -> str:
        exec_id = create_execution(runtime, flow, flow.bind(args, {})).exec_id
        advance(runtime, exec_id, flow, poll_seconds=0.0)
        return exec_id

    return run


@pytest.fixture
def direct(runtime: Runtime, tmp_path: Path) -> Direct:
    """The API in this process."""
    return Direct(Api(Desk(KitaruClient(runtime), "server", tmp_path)))


@pytest.fixture
def served(runtime: Runtime, tmp_path: Path) -> Iterator[Served]:
    """A server on loopback, with a token for each role."""
    found = Served(runtime, tmp_path)
    found.start()
    yield found
    found.close()
