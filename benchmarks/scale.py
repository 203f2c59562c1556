"""Many executions, and one with many checkpoints, read through the client.

The floor of a first look at an execution is to read its rows and to parse each.

python -m benchmarks.scale [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.journal import fill
from benchmarks.resume import read_bare
from benchmarks.timing import in_turns
from kitaru_nb import KitaruClient, checkpoint, flow
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.runtime import Runtime

EXECUTIONS = 100_000
CHECKPOINTS = 10_000
TURNS = 7


@checkpoint
def step(i: int) -> int:
    """The smallest unit of work."""
    return i


@flow
def long_flow(count: int) -> int:
    """Many checkpoints."""
    return sum(step(i) for i in range(count))


def main(folder: str | None = None) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(dir=folder) as home:
        runtime = Runtime(Settings(Path(home), durability="process"))
        client = KitaruClient(runtime)
        exec_id = create_execution(runtime, long_flow, {"count": CHECKPOINTS}).exec_id
        advance(runtime, exec_id, long_flow, poll_seconds=0)
        fill(Path(home) / "journal.db", EXECUTIONS)
        last = client.executions.list()[-1].exec_id
        executions, checkpoints = f"of {EXECUTIONS:,} executions", f"of an execution with {CHECKPOINTS:,} checkpoints"
        floor, first = f"floor {checkpoints}: rows read and parsed", f"graph {checkpoints}, first look"
        works: dict[str, Callable[[], object]] = {
            f"first page {executions}": client.executions.list,
            f"second page {executions}": lambda: client.executions.list(before=last),
            f"waiting {executions}": lambda: client.executions.list(status="waiting"),
            f"status {checkpoints}": lambda: runtime.journal.execution(exec_id),
            floor: lambda: read_bare(Path(home) / "journal.db", exec_id),
            first: lambda: KitaruClient(runtime).executions.graph(exec_id),
            f"page {checkpoints}, first look": lambda: KitaruClient(runtime).executions.checkpoints(exec_id),
            f"all details {checkpoints}, first look": lambda: KitaruClient(runtime).executions.get(exec_id),
            f"graph {checkpoints}": lambda: client.executions.graph(exec_id),
            f"page {checkpoints}": lambda: client.executions.checkpoints(exec_id),
            f"header {checkpoints}": lambda: client.executions.get(exec_id, details=False),
            f"all details {checkpoints}": lambda: client.executions.get(exec_id),
        }
        print(f"{'milliseconds':68}{'median':>8}{'quickest':>9}")
        found = in_turns(works, TURNS)
        for name, taken in found.items():
            print(f"{name:68}{taken.median * 1e3:8.1f}{taken.quickest * 1e3:9.1f}")
        ratios = [getattr(found[first], each) / getattr(found[floor], each) for each in ("median", "quickest")]
        print(f"{f'{first}, ratio to the floor':68}{ratios[0]:8.2f}{ratios[1]:9.2f}")
        runtime.journal.close()


if __name__ == "__main__":
    main(*sys.argv[1:2])
