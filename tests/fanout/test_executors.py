"""Addresses of executors, what is refused before anything runs, and what the scheduler is asked."""

from __future__ import annotations

import asyncio
import importlib.util
import platform
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from core.bench import SECONDS, Bench
from tornado.ioloop import IOLoop

import kitaru_nb
from kitaru_nb import Retry, checkpoint, flow
from kitaru_nb.core.advance import advance
from kitaru_nb.core.executors import check_executor, parse_executor
from kitaru_nb.core.orders import archive
from kitaru_nb.core.recording import Recording
from kitaru_nb.core.retry import LOST_WORKERS
from kitaru_nb.core.run import Run
from kitaru_nb.errors import (
    KitaruBackendError,
    KitaruContextError,
    KitaruFeatureNotAvailableError,
    KitaruUsageError,
    KitaruWorkerLostError,
)
from kitaru_nb.model import Event
from kitaru_nb.promote.environment import runtime_for
from kitaru_nb.stacks.dask_executor import BeginOnce, _check_versions, executor_at
from kitaru_nb.stacks.definition import parse_stack


@pytest.mark.parametrize(
    ("text", "kind", "place", "options"),
    [
        ("threads", "threads", "", {}),
        ("dask", "dask", "", {}),
        ("dask?workers=4&threads=2", "dask", "", {"workers": "4", "threads": "2"}),
        ("dask://scheduler:8786", "dask", "scheduler:8786", {}),
        ("dask+tls://10.0.0.1:8786?ca=/a.pem", "dask+tls", "10.0.0.1:8786", {"ca": "/a.pem"}),
    ],
)
def test_an_address_has_its_parts(text: str, kind: str, place: str, options: dict[str, str]) -> None:
    address = parse_executor(text)
    assert (address.kind, address.place, address.options) == (kind, place, options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ray", "there is no such executor"),
        ("threads://here:1", "there is no such executor"),
        ("dask+tls", "there is no such executor"),
        ("tcp://host:8786", "there is no such executor"),
        ("dask://host", "names no host and port"),
        ("dask://:8786", "names no host and port"),
        ("dask://host:8786/path", "names no host and port"),
        ("dask://user:secret@host:8786", "names no host and port"),
        ("dask://host:port", "port"),
        ("dask://host:8786?workers=2", "'workers' is no option"),
        ("dask?ca=x", "'ca' is no option"),
        ("dask?workers=none", "numbers > 0"),
        ("dask?workers=0", "numbers > 0"),
        ("dask?workers", "bad query"),
    ],
)
def test_an_address_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(KitaruUsageError, match=message):
        parse_executor(text)
    with pytest.raises(KitaruUsageError, match=message):
        flow(executor=text)(test_an_address_has_its_parts)
    with pytest.raises(KitaruUsageError, match=message):
        parse_stack("team", {"executor": text}, "a file")


def test_a_missing_package_is_told_before_anything_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "distributed" else found(name))
    with pytest.raises(KitaruFeatureNotAvailableError, match=r"dask\.distributed") as caught:
        check_executor("dask")
    assert caught.value.fix == "pip install 'kitaru-nb[dask]'"
    bench = Bench(tmp_path, executor="dask")
    with pytest.raises(KitaruFeatureNotAvailableError):
        bench.run(flow(lambda: None))
    assert bench.executions.list() == []


def test_a_scheduler_that_does_not_answer_is_named_and_the_execution_can_go_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kitaru_nb.stacks.dask_executor.CONNECT", 0.3)
    with socket.socket() as taken:  # nobody listens there, and nobody else can
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        bench = Bench(tmp_path, executor=f"dask://127.0.0.1:{port}")
        with pytest.raises(KitaruBackendError, match=f"tcp://127.0.0.1:{port} doesn't answer") as caught:
            executor_at(parse_executor(bench.runtime.settings.executor)).check(bench.runtime.settings)
        assert caught.value.fix is not None

        @checkpoint
        def never() -> None:
            raise AssertionError("never run")

        exec_id = bench.create(flow(lambda: never.submit().result()))
        outcome = bench.advance(exec_id, flow(lambda: never.submit().result()))
    assert isinstance(outcome.error, KitaruBackendError)
    assert bench.get(exec_id).status == "failed"


def versions(python: str, kitaru: str | None) -> Any:
    """A client of a cluster with one worker of these versions."""
    mine = {"host": {"python": platform.python_version()}, "packages": {"kitaru_nb": kitaru_nb.__version__}}
    worker = {"host": {"python": python}, "packages": {"kitaru_nb": kitaru}}
    return SimpleNamespace(
        get_versions=lambda packages: {"client": mine, "scheduler": mine, "workers": {"tcp://w:1": worker}}
    )


def test_a_cluster_that_cannot_run_what_is_sent_is_refused() -> None:
    _check_versions(versions(platform.python_version(), kitaru_nb.__version__), "the cluster")
    with pytest.raises(KitaruUsageError, match=r"the worker tcp://w:1 runs Python 3\.8, and this process Python 3\.1"):
        _check_versions(versions("3.8.20.final.0", kitaru_nb.__version__), "the cluster")
    with pytest.raises(KitaruUsageError, match="has kitaru-nb not installed"):
        _check_versions(versions(platform.python_version(), None), "the cluster")


def test_an_attempt_begins_once_until_its_client_forgets_it() -> None:
    plugin, handlers = BeginOnce(), {}
    asyncio.run(plugin.start(SimpleNamespace(handlers=handlers)))
    begin = handlers["kitaru_begin"]
    assert [begin("a", "w1"), begin("b", "w1"), begin("a", "w2")] == ["", "", "w1"]
    plugin.transition("a", "processing", "released")
    assert begin("a", "w3") == "w1"
    plugin.transition("a", "released", "forgotten")
    assert begin("a", "w3") == ""


def test_tasks_that_are_cancelled_by_many_threads_at_once_are_all_interrupted() -> None:
    loop, interrupted, all_of_them = IOLoop(make_current=False), [], threading.Event()

    async def run(function: Any, keys: list[str], on_error: str) -> None:
        interrupted.extend(keys)
        if len(interrupted) == 8:
            all_of_them.set()

    executor = executor_at(parse_executor("dask://nowhere:1"))
    start = threading.Barrier(8)

    def cancel(key: str) -> None:
        start.wait(SECONDS)
        executor._stop(SimpleNamespace(loop=loop, run=run), key)

    cluster = threading.Thread(target=loop.start)
    cluster.start()
    keys = [f"task-{number}" for number in range(8)]
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(cancel, keys))
        assert all_of_them.wait(SECONDS)
    finally:
        loop.add_callback(loop.stop)
        cluster.join()
        loop.close(all_fds=True)
    assert sorted(interrupted) == keys


def test_a_lost_worker_is_no_failure_of_the_checkpoint_but_has_an_end() -> None:
    lost = KitaruWorkerLostError("gone")
    delays = [Retry(delay=0.01).delay_after(lost, n) for n in range(1, LOST_WORKERS + 2)]
    assert [delay is not None for delay in delays] == [True] * LOST_WORKERS + [False]
    assert Retry(10, delay=0.01).delay_after(lost, 10) is not None


def test_equal_modules_are_one_archive() -> None:
    assert archive({"b.py": b"2", "a.py": b"1"}) == archive({"a.py": b"1", "b.py": b"2"})
    assert archive({}) == b""


def test_a_recording_knows_its_own_execution_alone() -> None:
    recording = Recording("kr-a", [Event("kr-a", "checkpoint.completed", "c", 0.0, {})])
    assert recording.append("kr-a", [Event("kr-a", "metadata", "", 0.0, {})]) == 2
    assert [e.kind for e in recording.caused] == ["metadata"]
    assert [e.kind for e in recording.history("kr-a")] == ["checkpoint.completed", "metadata"]
    assert [e.seq for e in recording.history("kr-a", after=1)] == [2]
    assert recording.find("key") is None
    with pytest.raises(KitaruContextError, match="asked the journal"):
        recording.history("kr-b")
    with pytest.raises(KitaruContextError, match="asked the journal"):
        recording.executions()


def test_checkpoints_inside_a_map_may_be_new_to_several_threads_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    start = threading.Barrier(4)

    @checkpoint
    def inside(number: int) -> int:
        return number

    @checkpoint
    def outside(number: int) -> int:
        start.wait(SECONDS)
        return inside(number)

    assert bench.run(flow(lambda: outside.map(range(4)).results())).wait(SECONDS) == [0, 1, 2, 3]


def test_the_executor_of_an_execution_is_that_of_its_start_of_its_flow_or_of_the_settings(tmp_path: Path) -> None:
    def address(bound: Any, *, started: Any) -> str:
        bench = Bench(tmp_path, executor="dask?workers=3")
        exec_id = bench.create(started)
        runs: list[Run] = []
        advance(bench.runtime, exec_id, bound, poll_seconds=0.0, on_run=runs.append)
        return runs[0].submitted.elsewhere.address

    plain = flow(lambda: None)
    mine = plain.with_options(executor="dask?workers=2")
    assert address(plain, started=plain) == "dask?workers=3"
    assert address(mine, started=plain) == "dask?workers=2"
    assert address(mine, started=plain.with_options(executor="threads")) == "threads"


def test_a_locked_environment_has_what_the_executor_needs(tmp_path: Path) -> None:
    settings = Bench(tmp_path, executor="dask://scheduler:8786").runtime.settings
    assert runtime_for(settings) == "kitaru-nb[dask]"
