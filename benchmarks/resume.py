"""Resuming an execution with many completed checkpoints, against reading and parsing the same rows bare.

python -m benchmarks.resume [FOLDER]
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.timing import in_turns
from kitaru_nb import Paused, checkpoint, flow
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.journal.sqlite import SqliteJournal

CHECKPOINTS = 1_000
TURNS = 25


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
    """Print the table."""
    with tempfile.TemporaryDirectory(dir=folder) as home:
        runtime = Runtime(Settings(Path(home), durability="process"))
        execution = create_execution(runtime, long_flow, {"count": CHECKPOINTS})
        journal = runtime.journal
        assert isinstance(journal, SqliteJournal)

        def resume() -> None:
            advance(runtime, execution.exec_id, long_flow, poll_seconds=0)

        resume()
        works = {"floor": lambda: read_bare(journal.path, execution.exec_id), "ours": resume}
        print(f"{f'resume of {CHECKPOINTS:,} checkpoints':36}{'µs each':>8}{'floor':>8}{'ratio':>7}")
        for label, clock in (("on the clock", time.perf_counter), ("of the processor", time.process_time)):
            found = in_turns(works, TURNS, clock)
            for statistic in ("median", "quickest"):
                lowest, ours = (getattr(found[side], statistic) / CHECKPOINTS * 1e6 for side in ("floor", "ours"))
                print(f"{f'{statistic}, {label}':36}{ours:8.1f}{lowest:8.1f}{ours / lowest:7.2f}")
        journal.close()


def read_bare(path: Path, exec_id: str) -> list[object]:
    """The floor: the same rows, each parsed."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute(
            "select body, blob from journal where exec_id = ? order by seq", (exec_id,)
        ).fetchall()
    return [json.loads(body) for body, _ in rows]


if __name__ == "__main__":
    main(*sys.argv[1:2])
