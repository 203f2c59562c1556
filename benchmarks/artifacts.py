"""What artifacts cost: small values in microseconds, and a 100 MB array against a bare write + fsync + SHA-256.

python benchmarks/artifacts.py
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kitaru_nb.artifacts import ArtifactStore, preview

ROUNDS = 9
MEGABYTES = 100
SMALL: dict[str, Any] = {
    "int": 5,
    "short str": "hello",
    "small dict": {"topic": "agents", "score": 0.9, "tags": ["a", "b"]},
}


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        small_values(ArtifactStore(folder))
        large_array(Path(folder))


def small_values(store: ArtifactStore) -> None:
    """Microseconds of the calls that each checkpoint makes."""
    print(f"{'µs':12}{'token':>8}{'write':>8}{'read':>8}{'preview':>9}")
    for label, value in SMALL.items():
        artifact = store.write(value, name="x")
        calls: list[Callable[[], Any]] = [
            partial(store.token, value),
            partial(store.write, value, name="x"),
            partial(store.read, artifact),
            partial(preview, value),
        ]
        cells = [f"{min(timeit.repeat(call, number=10_000, repeat=5)) * 100:8.2f}" for call in calls]
        print(f"{label:12}{''.join(cells)}")


def large_array(folder: Path) -> None:
    """Speed of an array relative to the floor, both measured in turns on the same disk."""
    store = ArtifactStore(str(folder / "store"))
    bare_write, ours_write, bare_read, ours_read = [], [], [], []
    for turn in range(ROUNDS):
        array = np.random.default_rng(turn).random(MEGABYTES * 125_000)
        data = array.data.cast("B")
        path = folder / "bare"
        bare_write.append(timed(partial(write_bare, path, data)))
        started = time.perf_counter()
        artifact = store.write(array, name="array")
        ours_write.append(time.perf_counter() - started)
        bare_read.append(timed(partial(read_bare, path)))
        ours_read.append(timed(partial(store.read, artifact)))
        path.unlink()
        Path(store.location(artifact.digest)).unlink()
    for label, bare, ours in (("write", bare_write, ours_write), ("read", bare_read, ours_read)):
        floor, mine = statistics.median(bare), statistics.median(ours)
        print(
            f"{MEGABYTES} MB {label}: floor {floor * 1e3:.0f} ms, here {mine * 1e3:.0f} ms, speed × {floor / mine:.2f}"
        )


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def write_bare(path: Path, data: memoryview) -> None:
    """The floor of a durable, identified write."""
    with path.open("wb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())
    hashlib.sha256(data).hexdigest()


def read_bare(path: Path) -> None:
    """The floor of a verified read into memory of its own."""
    buffer = np.empty(path.stat().st_size, np.uint8).data
    with path.open("rb", buffering=0) as file:
        file.readinto(buffer)
    hashlib.sha256(buffer).hexdigest()


if __name__ == "__main__":
    main()
