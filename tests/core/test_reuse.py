"""Results of other executions, and executions found again by their key."""

from __future__ import annotations

import itertools
import linecache
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from core.bench import Bench, Shop, forget, let_go, until
from kitaru_nb import KitaruUserCodeError, Paused, checkpoint, flow
from kitaru_nb.core.launch import run_on_thread

READER = """
from kitaru_nb import checkpoint, flow
FACTOR = {factor}

def helper(n):
    return n * {factor}

@checkpoint(cache=True)
def read(n, client=None):
    log(n)
    return helper(n) + FACTOR

def log(n):
    with open("ran.txt", "a") as file:
        file.write(str(n))

@flow
def reading(n, client=None):
    return read(n, client)
"""


@pytest.fixture
def read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a program that is written to a file first, as an editor does: its result, and all that ran so far."""
    monkeypatch.chdir(shop.folder)
    seconds = itertools.count()

    def run(source: str, *inputs: Any) -> tuple[Any, str]:
        path = shop.write("reader.py", source)
        os.utime(path, (next(seconds),) * 2)  # two files of one size may be written within one tick of the clock
        linecache.checkcache()
        namespace: dict[str, Any] = {"__name__": "reader"}
        exec(compile(source, str(path), "exec"), namespace)
        value = shop.bench.run(namespace["reading"], *inputs).wait()
        return value, (shop.folder / "ran.txt").read_text()

    return run


def test_equal_code_and_inputs_reuse_the_result_of_another_execution(read: Callable[..., Any]) -> None:
    assert read(READER.format(factor=3), 2) == (9, "2")
    assert read(READER.format(factor=3), 2) == (9, "2")
    assert read("# a comment\n" + READER.format(factor=3), 2) == (9, "2")
    assert read(READER.format(factor=3), 5) == (18, "25")


def test_an_edited_helper_is_a_miss(read: Callable[..., Any]) -> None:
    assert read(READER.format(factor=3), 2) == (9, "2")
    assert read(READER.format(factor=3).replace("n * 3", "n * 4"), 2) == (11, "22")
    assert read(READER.format(factor=3).replace("FACTOR = 3", "FACTOR = 5"), 2) == (11, "222")
    assert read(READER.format(factor=3), 2) == (9, "222")


def test_an_input_that_can_not_be_identified_is_never_reused(bench: Bench) -> None:
    ran: list[int] = []

    @checkpoint(cache=True)
    def read(client: object) -> int:
        ran.append(1)
        return 1

    @flow
    def reading() -> int:
        return read(threading.Lock())

    for _ in range(2):
        bench.run(reading).wait()
    assert ran == [1, 1]


def test_code_that_can_not_be_found_is_never_reused(bench: Bench) -> None:
    ran: list[int] = []
    namespace: dict[str, Any] = {"ran": ran}
    exec("def read(n):\n    ran.append(n)\n    return n", namespace)
    reader = checkpoint(cache=True)(namespace["read"])

    @flow
    def reading() -> int:
        return reader(1)  # type: ignore[no-any-return]

    for _ in range(2):
        bench.run(reading).wait()
    assert ran == [1, 1]


def test_without_cache_every_execution_runs_and_run_can_ask_for_it(read: Callable[..., Any], shop: Shop) -> None:
    source = READER.format(factor=3).replace("cache=True", "")
    read(source, 2)
    assert read(source, 2) == (9, "22")
    cached = source.replace("@flow", "@flow(cache=True)")
    assert read(cached, 2) == (9, "222")
    assert read(cached, 2) == (9, "222")


def test_what_was_reused_says_from_where(bench: Bench) -> None:
    @checkpoint(cache=True)
    def read(n: int) -> int:
        return n

    @flow
    def reading() -> int:
        return read(1)

    first = bench.run(reading)
    first.wait()
    second = bench.run(reading)
    second.wait()
    (call,) = bench.get(second).checkpoints
    assert call.status == "reused"
    assert call.original_exec_id == first.exec_id
    assert bench.client.artifacts.list(second.exec_id)[0].load() == 1


# key


def test_one_key_is_one_execution(bench: Bench) -> None:
    ran: list[int] = []

    @flow
    def order(n: int) -> int:
        ran.append(n)
        return n

    first = bench.bind(order, key="order-1").run(1)
    assert first.wait() == 1
    again = bench.bind(order, key="order-1").run(1)
    assert again.exec_id == first.exec_id
    assert again.wait() == 1
    other = bench.bind(order, key="order-2").run(1)
    assert other.exec_id != first.exec_id
    other.wait()
    assert ran == [1, 1]


def test_the_key_of_an_interrupted_execution_continues_it(bench: Bench) -> None:
    ran: list[str] = []
    cut = [True]

    @checkpoint
    def step() -> str:
        ran.append("step")
        return "step"

    @flow
    def order() -> str:
        step()
        if cut:
            cut.clear()
            raise Paused("cut off")
        return "done"

    first = bench.bind(order, key="k").run()
    let_go(first)
    forget(first)
    again = bench.bind(order, key="k").run()
    assert again.exec_id == first.exec_id
    assert again.wait() == "done"
    assert ran == ["step"]


def test_an_execution_that_a_thread_advances_gets_no_second_one(bench: Bench) -> None:
    go_on = threading.Event()

    @flow
    def order() -> str:
        assert go_on.wait(60)
        return "done"

    bound = bench.bind(order, key="k")
    first, second = bound.run(), bound.run()
    assert first.local is not None
    assert run_on_thread(bench.runtime, first.exec_id, bound) is first.local
    go_on.set()
    assert first.wait() == second.wait() == "done"
    assert bench.kinds(first).count("execution.claimed") == 1


def test_many_threads_with_one_key_start_one_execution(disk: Bench) -> None:
    ran: list[str] = []
    everybody = threading.Barrier(8)
    handles: list[Any] = []

    @checkpoint
    def pay() -> str:
        ran.append("paid")
        return "receipt"

    @flow
    def order() -> str:
        return pay()

    def start() -> None:
        everybody.wait()
        handles.append(disk.bind(order, key="k").run())

    starters = [threading.Thread(target=start) for _ in range(8)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert len({h.exec_id for h in handles}) == 1
    assert {h.wait() for h in handles} == {"receipt"}
    assert ran == ["paid"]


ORDER = """
import sys
from pathlib import Path
from kitaru_nb import checkpoint, flow

@checkpoint
def pay():
    with open("paid.txt", "a") as file:
        file.write("paid\\n")
    return "receipt"

@flow
def order():
    return pay()

if __name__ == "__main__":
    Path(f"ready-{sys.argv[1]}").touch()
    sys.stdin.readline()
    print(order.with_options(key="k").run().wait())
"""


def test_many_processes_with_one_key_start_one_execution(shop: Shop) -> None:
    script = shop.write("order.py", ORDER)
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(n)],
            cwd=shop.folder,
            env=shop.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(3)
    ]
    until(lambda: len(list(shop.folder.glob("ready-*"))) == 3)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [out.strip() for out, _ in outputs] == ["receipt"] * 3, outputs
    assert (shop.folder / "paid.txt").read_text() == "paid\n"
    assert len(shop.bench.executions.list()) == 1


def test_the_key_of_a_failed_execution_tries_it_again(bench: Bench) -> None:
    tries: list[int] = []

    @flow
    def order() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("no")
        return "done"

    first = bench.bind(order, key="k").run()
    with pytest.raises(KitaruUserCodeError):
        first.wait()
    assert bench.bind(order, key="k").run().wait() == "done"
