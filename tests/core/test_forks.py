"""Flows whose code forks processes: these end, and write nothing into an execution that isn't theirs."""

from __future__ import annotations

import multiprocessing
import os
import sys
from typing import Any

import pytest

from core.bench import Bench
from kitaru_nb import KitaruContextError, checkpoint, flow, save

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # of Python 3.12 and later
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork"),
]
FORKS: Any = multiprocessing.get_context("fork") if hasattr(os, "fork") else None


@checkpoint
def double(number: int) -> int:
    print(f"doubling {number}")
    return 2 * number


def saves(number: int) -> str:
    """Which error it gets, in a forked process."""
    try:
        save("number", number)
    except KitaruContextError as error:
        return type(error).__name__
    return "saved"


def ends() -> None:
    """What a process of one's own may do."""
    print("child")


def test_a_process_that_a_checkpoint_forks_ends(bench: Bench) -> None:
    @checkpoint
    def forking() -> int | None:
        process = FORKS.Process(target=ends)
        process.start()
        process.join(60)
        code: int | None = process.exitcode
        process.kill()
        return code

    @flow
    def working() -> int | None:
        return forking()

    assert bench.run(working).wait() == 0


def test_a_process_forked_beside_a_flow_ends(bench: Bench) -> None:
    @flow
    def beside() -> int:
        return double(1)

    handle = bench.run(beside)
    process = FORKS.Process(target=sys.exit, args=(3,))
    process.start()
    process.join(60)
    assert process.exitcode == 3
    assert handle.wait() == 2


def test_checkpoints_that_forked_processes_call_are_plain_calls(bench: Bench) -> None:
    @checkpoint
    def forking() -> list[int]:
        with FORKS.Pool(2) as pool:
            found: list[int] = pool.map(double, range(3))
        return found

    @flow
    def working() -> list[list[int]]:
        return [forking(), [double(number) for number in range(3)]]

    handle = bench.run(working)
    assert handle.wait() == [[0, 2, 4], [0, 2, 4]]
    assert [call.name for call in bench.get(handle).checkpoints] == ["forking", "double", "double", "double"]


def test_what_a_forked_process_would_save_is_refused_there_and_not_lost_in_silence(bench: Bench) -> None:
    @checkpoint
    def forking() -> list[str]:
        with FORKS.Pool(1) as pool:
            found: list[str] = pool.map(saves, [1])
        return found

    @flow
    def saving() -> list[str]:
        return forking()

    assert bench.run(saving).wait() == ["KitaruContextError"]
