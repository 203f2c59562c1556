"""Measuring in turns, so that what else the machine does meanwhile hits both sides alike."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


def disturbance() -> str:
    """What is wrong with measuring now, or ""."""
    if not hasattr(os, "getloadavg"):
        return ""
    load = os.getloadavg()[0]
    return f"Something else runs here (load {load:.1f}): times are too long. Mind the ratios." if load > 0.5 else ""


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long ``work`` takes."""
    start = clock()
    work()
    return clock() - start


class Taken(NamedTuple):
    """Seconds of one work over all its turns. The quickest turn is what it takes when nothing else runs."""

    median: float
    quickest: float


def in_turns(
    works: Mapping[str, Callable[[], Any]], turns: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Taken]:
    """How long each work takes by ``clock``; they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(turns):
        for name, work in works.items():
            taken[name].append(seconds(work, clock))
    return {name: Taken(statistics.median(each), min(each)) for name, each in taken.items()}
