"""Fixtures: a folder with a notebook, a home of its own, and one cache of locks and environments for all tests."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from kitaru_nb.client import KitaruClient
from kitaru_nb.core.handle import FlowHandle
from kitaru_nb.core.runtime import default_runtime
from kitaru_nb.model import Deployment
from kitaru_nb.promote.checks import Evidence, Refused
from kitaru_nb.promote.notebooks import snapshot_notebook
from kitaru_nb.promote.snapshot import Snapshot
from kitaru_nb.stacks.process import _children

SECONDS = 150.0


def code(source: str, *tags: str, count: int | None = None) -> Any:
    """A code cell."""
    made = nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)} if tags else {})
    made.execution_count = count
    return made


def text(source: str) -> Any:
    """A text cell."""
    return nbformat.v4.new_markdown_cell(source)


class Desk:
    """A folder with notebooks and modules, and the client that promotes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "brief.ipynb"

    @property
    def client(self) -> KitaruClient:
        return KitaruClient(default_runtime())

    def write(self, *cells: Any, name: str = "brief.ipynb") -> Path:
        """Write a notebook; texts are code cells."""
        made = [code(c) if isinstance(c, str) else c for c in cells]
        for number, cell in enumerate(made, 1):
            cell["id"] = f"cell-{number}"
        path = self.folder / name
        nbformat.write(nbformat.v4.new_notebook(cells=made), path)
        return path

    def file(self, name: str, content: str) -> Path:
        """Write a file beside the notebook."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return path

    def snapshot(self, *cells: Any, evidence: Evidence | None = None) -> Snapshot:
        """The snapshot of a notebook with these cells."""
        return snapshot_notebook(self.client.runtime, self.write(*cells), evidence=evidence)

    def refusals(self, *cells: Any, evidence: Evidence | None = None) -> list[tuple[int | None, str]]:
        """(cell, message) of all that keeps a notebook with these cells from being promoted."""
        try:
            self.snapshot(*cells, evidence=evidence)
        except Refused as refused:
            return [(r.cell, r.message) for r in refused.refusals if r.fix]
        return []

    def promote(self, *cells: Any, **options: Any) -> Deployment:
        """Promote a notebook with these cells."""
        return self.client.deployments.create(self.write(*cells), **options)

    def until(self, handle: FlowHandle[Any], *statuses: str) -> str:
        """The status of an execution once it is one of these. Fails after a while, with what its worker said."""
        end = time.monotonic() + SECONDS
        while (status := handle.status.value) not in statuses:
            assert time.monotonic() < end, f"{status}\n{self.said(handle)}"
            time.sleep(0.05)
        return status

    def until_true(self, asked: Callable[[], bool]) -> None:
        """Return once ``asked`` is true."""
        end = time.monotonic() + SECONDS
        while not asked():
            assert time.monotonic() < end
            time.sleep(0.05)

    def said(self, handle: FlowHandle[Any]) -> str:
        """What the workers of an execution printed."""
        log = default_runtime().home / "workers" / f"{handle.exec_id}.log"
        return log.read_text() if log.exists() else ""

    def done(self, handle: FlowHandle[Any]) -> Any:
        """The result of an execution."""
        try:
            return handle.wait(timeout=SECONDS)
        except Exception as error:
            raise AssertionError(f"{error}\n{self.said(handle)}") from error

    def value(self, handle: FlowHandle[Any], name: str) -> Any:
        """A variable that an execution of a notebook recorded."""
        return self.client.artifacts.get(f"{handle.exec_id}/{name}").load()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def desk(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name in ("KITARU_EXECUTION", "KITARU_NOTEBOOK", "KITARU_JOURNAL", "KITARU_STORE", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KITARU_CACHE", str(cache))
    monkeypatch.setenv("KITARU_DURABILITY", "process")
    monkeypatch.setenv("KITARU_USER", "ana")
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    main, path = sys.modules["__main__"], list(sys.path)
    yield Desk(folder)
    sys.modules["__main__"], sys.path[:] = main, path
    for process, *_ in (worker for workers in _children.values() for worker in workers):
        process.wait(timeout=SECONDS)
    default_runtime().journal.close()


@pytest.fixture
def tiny_lock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Snapshots that lock nothing: for tests of what has nothing to do with environments."""
    from kitaru_nb.promote import functions, notebooks
    from kitaru_nb.promote.environment import Lock

    def use() -> None:
        for module in (functions, notebooks):
            monkeypatch.setattr(module, "lock_environment", lambda roots: Lock("", {}, {}))

    return use
