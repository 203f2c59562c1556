"""``.map`` of trivial checkpoints on threads and on Dask, against the bare engine of each.

python -m benchmarks.fanout [COUNT]

The floor of threads is a bare thread pool with one synchronous SQLite commit of the same bytes for each item; that of
Dask is a bare ``submit`` of each item to the same cluster with the same commits. They take turns.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.checkpoint import INSERT, bare, warm_up
from kitaru_nb import checkpoint, flow
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.executors import parse_executor
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.core.submitted import MAX_THREADS
from kitaru_nb.stacks.dask_executor import executor_at

COUNT = 1_000
TURNS = 3
CLUSTER = "dask?workers=2&threads=2"


@checkpoint
def trivial(i: int) -> int:
    """The smallest unit of work."""
    return i


@flow
def fan(count: int) -> float:
    """Seconds that a ``.map`` takes."""
    start = time.perf_counter()
    trivial.map(range(count)).results()
    return time.perf_counter() - start


def plain(i: int) -> int:
    """What `trivial` does."""
    return i


def main(count: int = COUNT) -> None:
    """Print the table."""
    print(f"{f'.map of {count} trivial checkpoints':36}{'s':>8}{'floor':>8}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as home:
        runtime = Runtime(Settings(Path(home)))
        row = warm_up(runtime, fan)
        connection = bare(Path(home) / "floor.db", "power")

        def commits() -> None:
            for _ in range(count):
                connection.execute(INSERT, row)

        def on_threads() -> None:
            with ThreadPoolExecutor(MAX_THREADS) as pool:
                list(pool.map(plain, range(count)))
            commits()

        report("threads", lambda: mapped(runtime, "threads", count), on_threads)
        mapped(runtime, CLUSTER, 4)  # starts the cluster
        executor = executor_at(parse_executor(CLUSTER))
        pool = executor.pool()

        def on_dask() -> None:
            for future in [pool.submit(plain, i) for i in range(count)]:
                future.result()
            commits()

        report(CLUSTER, lambda: mapped(runtime, CLUSTER, count), on_dask)
        executor.close()
        connection.close()
        runtime.journal.close()


def mapped(runtime: Runtime, executor: str, count: int) -> float:
    """Seconds of one ``.map`` in an execution of its own."""
    measured = fan.with_options(executor=executor, runtime=runtime)
    execution = create_execution(runtime, measured, {"count": count})
    outcome = advance(runtime, execution.exec_id, measured, poll_seconds=0)
    if outcome.error is not None:
        raise outcome.error
    return float(outcome.value)


def report(label: str, ours: Callable[[], float], floor: Callable[[], Any]) -> None:
    """Measure both in turns, and print one line."""
    taken: list[float] = []
    lowest: list[float] = []
    for _ in range(TURNS):
        taken.append(ours())
        start = time.perf_counter()
        floor()
        lowest.append(time.perf_counter() - start)
    mine, least = statistics.median(taken), statistics.median(lowest)
    print(f"{label:36}{mine:8.2f}{least:8.2f}{mine / least:7.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
