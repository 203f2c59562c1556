"""Resuming an execution with many completed checkpoints, against reading and parsing the same rows bare.

python -m benchmarks.resume [FOLDER]
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kitaru_nb import Paused, checkpoint, flow
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.journal.sqlite import SqliteJournal

CHECKPOINTS = 1_000
TURNS = 15


@checkpoint
def trivial(i: int) -> int:
    """The smallest unit of work."""
    return i


@flow
def long_flow(count: int) -> None:
    """Many checkpoints, and then an interruption, so that it can be resumed again and again."""
    for i in range(count):
        trivial(i)
    raise Paused("the benchmark goes on")


def main(folder: str | None = None) -> None:
    """Print the line."""
    with tempfile.TemporaryDirectory(dir=folder) as home:
        runtime = Runtime(Settings(Path(home), durability="process"))
        execution = create_execution(runtime, long_flow, {"count": CHECKPOINTS})
        journal = runtime.journal
        assert isinstance(journal, SqliteJournal)

        def resume() -> None:
            advance(runtime, execution.exec_id, long_flow, poll_seconds=0)

        resume()
        turns = [(seconds(lambda: read_bare(journal.path, execution.exec_id)), seconds(resume)) for _ in range(TURNS)]
        lowest, ours = (statistics.median(column) / CHECKPOINTS * 1e6 for column in zip(*turns, strict=True))
        print(
            f"resume of {CHECKPOINTS:,} checkpoints: {ours:.1f} µs each, floor {lowest:.1f} µs "
            f"(read and parse the same rows), ratio {ours / lowest:.2f}"
        )
        journal.close()


def read_bare(path: Path, exec_id: str) -> list[object]:
    """The floor: the same rows, each parsed."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute(
            "select body, blob from journal where exec_id = ? order by seq", (exec_id,)
        ).fetchall()
    return [json.loads(body) for body, _ in rows]


def seconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(*sys.argv[1:2])
