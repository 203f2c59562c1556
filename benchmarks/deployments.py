"""A thousand invocations of one deployment at once, on the process runner: they queue, and none is lost.

python -m benchmarks.deployments [NUMBER]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.model import ExecutionStatus
from kitaru_nb.stacks.process import ProcessOptions

NUMBER = 1_000
FLOWS = """\
from kitaru_nb import checkpoint, flow

@checkpoint
def one(n: int) -> int:
    return n + 1

@flow
def f(n: int) -> int:
    return one(n)
"""


def main() -> None:
    """Print the table. The floor is a Python that imports the worker's modules and ends, as many at a time."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else NUMBER
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KITARU_CACHE"] = f"{folder}/cache"
        runtime = Runtime(Settings(Path(folder) / "home"))
        client = KitaruClient(runtime)
        (Path(folder) / "flows.py").write_text(FLOWS)
        client.deployments.create(f"{folder}/flows.py:f")
        client.deployments.invoke("f", inputs={"n": 0}).wait(timeout=300)  # builds the environment
        begun = time.perf_counter()
        handles = [client.deployments.invoke("f", inputs={"n": n}) for n in range(number)]
        queued = time.perf_counter() - begun
        results = [handle.wait(timeout=7_200) for handle in handles]
        finished = time.perf_counter() - begun
        assert results == [n + 1 for n in range(number)]
        rows = runtime.journal.executions(limit=number + 10)
        assert len(rows) == number + 1
        assert all(row.status is ExecutionStatus.COMPLETED and row.epoch == 1 for row in rows)
        workers = ProcessOptions().workers
        bare = floor(min(number, 100), workers)
        runtime.journal.close()
    print(f"{number} invocations, {workers} workers at once; all completed, each was started once")
    print(f"{'milliseconds for each':36}{'here':>8}{'floor':>8}{'ratio':>8}")
    print(f"{'queued':36}{queued / number * 1e3:8.1f}")
    each = finished / number
    print(f"{'finished':36}{each * 1e3:8.0f}{bare * 1e3:8.0f}{each / bare:8.1f}")


def floor(number: int, workers: int) -> float:
    """Seconds of a process that only loads what a worker needs, so many at a time."""
    command = [sys.executable, "-c", "import kitaru_nb.worker"]
    begun = time.perf_counter()
    running: list[subprocess.Popen[bytes]] = []
    for _ in range(number):
        running.append(subprocess.Popen(command))
        while len(running) >= workers:
            running = [process for process in running if process.poll() is None]
            time.sleep(0.005)
    for process in running:
        process.wait()
    return (time.perf_counter() - begun) / number


if __name__ == "__main__":
    main()
