"""A trivial durable checkpoint against the floor: one bare SQLite commit of the same bytes, taken in turns with it.

python -m benchmarks.checkpoint [FOLDER]

FOLDER (default: the system's temporary folder) decides the disk.
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from kitaru_nb import checkpoint, flow
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.flow import Flow
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError
from kitaru_nb.journal.sqlite import SqliteJournal

ROUNDS = 1_000
PARALLEL = 512
INSERT = "insert into journal (exec_id, kind, key, at, body, blob, cache_key) values (?, ?, ?, ?, ?, ?, ?)"
Durability = Literal["power", "process"]


def nothing() -> None:
    """No floor."""


#: What the flows below call before each checkpoint; the floor's commit while a measurement runs.
floor: Callable[[], object] = nothing


@checkpoint
def trivial(i: int) -> int:
    """The smallest unit of work."""
    return i


@checkpoint
async def trivial_async(i: int) -> int:
    """The same as a coroutine."""
    return i


@flow
def one_by_one(rounds: int) -> list[tuple[float, float]]:
    """(seconds of the floor, seconds of a checkpoint) for each round."""
    taken = []
    for i in range(rounds):
        start = time.perf_counter()
        floor()
        between = time.perf_counter()
        trivial(i)
        taken.append((between - start, time.perf_counter() - between))
    return taken


@flow
async def one_by_one_async(rounds: int) -> list[tuple[float, float]]:
    """As `one_by_one`, with coroutines."""
    taken = []
    for i in range(rounds):
        start = time.perf_counter()
        floor()
        between = time.perf_counter()
        await trivial_async(i)
        taken.append((between - start, time.perf_counter() - between))
    return taken


@flow
def side_by_side(count: int) -> list[tuple[float, float]]:
    """As `one_by_one` for a `.map`: one measurement, seconds per checkpoint."""
    start = time.perf_counter()
    for _ in range(count):
        floor()
    between = time.perf_counter()
    trivial.map(range(count)).results()
    return [((between - start) / count, (time.perf_counter() - between) / count)]


def main(folder: str | None = None) -> None:
    """Print the table."""
    print(f"{'trivial checkpoint':36}{'µs':>8}{'floor':>8}{'ratio':>7}")
    for durability in ("power", "process"):
        report("sequential", one_by_one, ROUNDS, durability, folder)
        report("sequential, async", one_by_one_async, ROUNDS, durability, folder)
        report(f".map of {PARALLEL}", side_by_side, PARALLEL, durability, folder)


def report(label: str, measured: Flow[..., Any], rounds: int, durability: Durability, folder: str | None) -> None:
    """Run ``measured`` and print one line."""
    with tempfile.TemporaryDirectory(dir=folder) as home:
        runtime = Runtime(Settings(Path(home), durability=durability))
        row = warm_up(runtime, measured)
        connection = bare(Path(home) / "floor.db", durability)
        count = CommitCount(runtime)
        taken = run(runtime, measured, rounds, lambda: connection.execute(INSERT, row))
        lowest, ours = (statistics.median(column) for column in zip(*taken, strict=True))
        commits = f", {count.commits() / rounds:.2f} commits each" if len(taken) == 1 else ""
        label = f"{label}, {durability}"
        print(f"{label:36}{ours * 1e6:8.0f}{lowest * 1e6:8.0f}{ours / lowest:7.2f}{commits}")
        connection.close()
        runtime.journal.close()


def run(
    runtime: Runtime, measured: Flow[..., Any], rounds: int, commit: Callable[[], object]
) -> list[tuple[float, float]]:
    """Perform an execution of ``measured`` in this thread, with ``commit`` as the floor; what it returned."""
    global floor
    floor = commit
    execution = create_execution(runtime, measured, {next(iter(measured.signature.parameters)): rounds})
    outcome = advance(runtime, execution.exec_id, measured, poll_seconds=0)
    if outcome.error is not None:
        raise outcome.error
    return outcome.value  # type: ignore[no-any-return]


def warm_up(runtime: Runtime, measured: Flow[..., Any]) -> tuple[Any, ...]:
    """Run a few rounds; the row that one checkpoint became."""
    run(runtime, measured, 100, nothing)
    journal = runtime.journal
    assert isinstance(journal, SqliteJournal)
    with sqlite3.connect(journal.path) as connection:
        columns = INSERT.partition("(")[2].partition(")")[0]
        rows = connection.execute(
            f"select {columns} from journal where kind = 'checkpoint.completed' limit 1 offset 50"
        )
        return tuple(rows.fetchone())


def bare(path: Path, durability: Durability) -> sqlite3.Connection:
    """A database with the journal's columns and nothing else: no index, no constraint."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute(f"pragma synchronous={'full' if durability == 'power' else 'normal'}")
    connection.execute("create table journal (seq integer primary key, exec_id, kind, key, at, body, blob, cache_key)")
    return connection


class CommitCount:
    """Counts the transactions of a runtime's journal from now on, in SQLite's own words."""

    def __init__(self, runtime: Runtime) -> None:
        if not isinstance(runtime.journal, SqliteJournal):
            raise KitaruBackendError(f"{runtime.journal.url} is no SQLite journal.")
        self._commits = 0
        self._connection = runtime.journal._connections.writer()
        self._connection.set_trace_callback(self._see)

    def _see(self, statement: str) -> None:
        # What begins outside a transaction begins one, or is one.
        self._commits += not self._connection.in_transaction

    def commits(self) -> int:
        """How many there were."""
        return self._commits


if __name__ == "__main__":
    main(*sys.argv[1:2])
