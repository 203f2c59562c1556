"""One program for all tests, and one Dask cluster of two processes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from core.bench import Bench, until

from fanout.program_text import LOCAL, PROGRAM, WORDS
from kitaru_nb.core.executors import parse_executor
from kitaru_nb.core.local import process_end, threads, wait_for_threads
from kitaru_nb.stacks.dask_executor import DaskExecutor, executor_at
from kitaru_nb.stacks.process import _children
from kitaru_nb.stacks.queueing import foremen


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What processes that are killed leave behind is pytest's to remove."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
        yield


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The program, imported here from a folder that no other process has on its path."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "fanout_program.py").write_text(PROGRAM)
    (folder / "fanout_words.py").write_text(WORDS)
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("fanout_program")
    finally:
        sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def cluster() -> Iterator[DaskExecutor]:
    """The cluster behind ``LOCAL``."""
    executor = executor_at(parse_executor(LOCAL))
    yield executor
    executor.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A journal in a file, which jobs reach."""
    bench = Bench(tmp_path / "home", memory=False, durability="process")
    yield bench
    for local in list(threads.values()):
        local.interrupt()
    wait_for_threads()
    for exec_id in threads:
        process_end.told(exec_id)
    threads.clear()
    workers = [process for of_one in _children.values() for process, _, _ in of_one]
    until(lambda: all(process.poll() is not None for process in (*workers, *foremen)))
    bench.runtime.journal.close()
