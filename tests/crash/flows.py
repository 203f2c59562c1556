"""Flows to crash. Each body leaves a line with the id of its call in a side file that outlives the process.

Settings come from the environment, so that they hold for workers in other processes too:

    CRASH_RAN    the side file
    CRASH_GATE   a FIFO; `gated` waits there for somebody to write
    CRASH_FILL   `full` makes the disk full: a path to fill until there is no space, or "limit"
"""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path

from kitaru_nb import Retry, checkpoint, flow, idempotency_key, log, save, wait, wait_async

AT_ONCE = Retry(attempts=2, delay=0)
BIG = 20_000


def ran() -> int:
    """Leave a line; how many lines this call has now. One write in append mode: it is there whole, or not at all."""
    path = os.environ["CRASH_RAN"]
    key = idempotency_key().partition(":")[2]
    descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    try:
        os.write(descriptor, f"{key}\n".encode())
    finally:
        os.close(descriptor)
    return Path(path).read_text().count(f"{key}\n")


@checkpoint
def leaf(branch: int, number: int) -> int:
    """The innermost work."""
    ran()
    return 10 * branch + number


@checkpoint
def limb(number: int) -> int:
    """Work with work inside."""
    ran()
    log(number=number)
    total = leaf(number, 1) + leaf(number, 2)
    save("total", total)
    return total


@checkpoint(retries=AT_ONCE)
def shaky(value: int) -> int:
    """Fails the first time that it runs."""
    if ran() == 1:
        raise ConnectionError("the first attempt fails")
    return value + 1


@checkpoint
def bulky(value: int) -> str:
    """An output that is too big for the journal."""
    ran()
    return str(value) * BIG


@flow
def journey(width: int) -> str:
    """Nested, parallel and waiting parts, a retry, saved values, small and big outputs."""
    totals = limb.map(range(width)).results()
    save("totals", totals)
    value = shaky(sum(totals))
    value += wait("first", question=f"Add to {value}?", schema=int, timeout=0)
    text = bulky(value)
    save("excerpt", text[:9])
    sign = "+" if wait("second", timeout=0) else "-"
    return f"{sign}{leaf(9, len(text))}{text[:9]}"


@checkpoint
async def leaf_async(branch: int, number: int) -> int:
    """The innermost work."""
    ran()
    return 10 * branch + number


@checkpoint
async def limb_async(number: int) -> int:
    """Work with work inside, side by side."""
    ran()
    total = sum(await asyncio.gather(leaf_async(number, 1), leaf_async(number, 2)))
    save("total", total)
    return total


@checkpoint(retries=AT_ONCE)
async def shaky_async(value: int) -> int:
    """Fails the first time that it runs."""
    if ran() == 1:
        raise ConnectionError("the first attempt fails")
    return value + 1


@flow
async def journey_async(width: int) -> str:
    """As `journey`, with coroutines."""
    totals = await asyncio.gather(*(limb_async(number) for number in range(width)))
    save("totals", totals)
    value = await shaky_async(sum(totals))
    value += await wait_async("first", question=f"Add to {value}?", schema=int, timeout=0)
    text = bulky(value)
    sign = "+" if await wait_async("second", timeout=0) else "-"
    return f"{sign}{await leaf_async(9, len(text))}{text[:9]}"


@flow
def asked(value: int) -> int:
    """A checkpoint, and a question."""
    return leaf(1, value) + wait("more", schema=int, timeout=0)


@flow
def stairs(steps: int) -> int:
    """One checkpoint after another, each on the value of the last."""
    value = 0
    for step in range(steps):
        value = leaf(step, value) % 7
    return value


@checkpoint
def gated(value: int) -> int:
    """Waits at the gate, when there is one."""
    ran()
    if gate := os.environ.get("CRASH_GATE"):
        Path(gate).read_text()
    return value


@flow
def guarded(value: int) -> int:
    """A checkpoint before the gate, and one after it."""
    return leaf(2, gated(leaf(1, value)))


@checkpoint
def full(value: int) -> int:
    """Makes the disk full, when that was asked for: its own completion finds no space."""
    ran()
    match os.environ.get("CRASH_FILL"):
        case None:
            pass
        case "limit":
            # Python ignores the signal that comes with it, so that writing fails instead.
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        case path:
            fill(path)
    return value


def fill(path: str) -> None:
    """Write to ``path`` until there is no space left."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


@flow
def crowded(value: int) -> int:
    """Small and big values before and after the disk is full."""
    text = bulky(leaf(1, value))
    return leaf(len(text), full(value))
