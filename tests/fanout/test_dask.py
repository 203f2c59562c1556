"""Submitted checkpoints on a Dask cluster whose workers are processes of this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from core.bench import Bench, until

from fanout.program_text import LOCAL
from kitaru_nb import (
    KitaruContextError,
    KitaruSerializationError,
    KitaruUsageError,
    KitaruUserCodeError,
    checkpoint,
    flow,
)
from kitaru_nb.stacks.dask_executor import DaskExecutor

SECONDS = 120.0
pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(300)]


def run(bench: Bench, body: Any, *args: Any, executor: str = LOCAL) -> Any:
    """Run a flow with this body to its end; the handle and what it returned."""
    handle = bench.bind(flow(body), executor=executor).run(*args)
    return handle, handle.wait(SECONDS)


def test_a_map_runs_on_the_workers_and_is_recorded_here(bench: Bench, program: ModuleType) -> None:
    data = b"x" * 100_000

    def body() -> Any:
        return program.note.map(range(6), data=data).results()

    handle, notes = run(bench, body)
    assert [note.text for note in notes] == [f"NOTE {2 * n}" for n in range(6)]
    assert all(type(note) is program.Note for note in notes)
    assert os.getpid() not in {note.pid for note in notes}
    execution = bench.get(handle)
    calls = [call for call in execution.checkpoints if call.name == "note"]
    assert [call.metadata for call in calls] == [{"size": 100_000}] * 6
    # What runs inside is recorded too, as a child.
    inner = [call for call in execution.checkpoints if call.name == "inner"]
    assert {call.parent for call in inner} == {call.call_id for call in calls}
    lines = {(entry.checkpoint_name, entry.source, entry.message) for entry in bench.executions.logs(handle.exec_id)}
    assert ("note", "stdout", "taking note of 3") in lines
    assert ("note", "logging", "number 3") in lines
    assert ("inner", "stdout", "inside 3") in lines
    # The large input was stored once, for all of them.
    stored = [path for path in (bench.home / "artifacts").rglob("*") if path.is_file()]
    assert [path.stat().st_size for path in stored].count(len(data)) == 1


def test_what_is_recorded_is_not_run_again(bench: Bench, program: ModuleType, tmp_path: Path) -> None:
    told = str(tmp_path / "told")

    def body() -> Any:
        program.child.submit(told).result()
        if not (tmp_path / "mended").exists():
            raise ValueError("mend me")
        return "done"

    handle = bench.bind(flow(body), executor=LOCAL).run()
    with pytest.raises(KitaruUserCodeError, match="mend me"):
        handle.wait(SECONDS)
    (tmp_path / "mended").touch()
    bench.executions.retry(handle.exec_id)
    assert handle.wait(SECONDS) == "done"
    assert program.times(told, "child") == 1


def test_async_checkpoints_products_and_futures_as_inputs(bench: Bench, program: ModuleType) -> None:
    async def body() -> Any:
        sums = program.add.product([1, 2], [10, 20])
        total = program.add.submit(sums[0], program.later.submit(1))
        return await sums, await total, await asyncio.gather(program.later(5), program.later.submit(6))

    assert run(bench, body)[1] == ([11, 21, 12, 22], 13, [6, 7])


def test_an_exception_keeps_its_type_its_attributes_and_its_traceback(bench: Bench, program: ModuleType) -> None:
    def body() -> Any:
        try:
            program.refuse.submit(program.Note("this", 1)).result()
        except program.Refused as error:
            return str(error), "".join(error.__notes__)

    handle, (message, notes) = run(bench, body)
    assert message == "this is refused"
    assert "raise Refused(given)" in notes
    assert "On the Dask worker tcp://127.0.0.1:" in notes
    (call,) = bench.get(handle).checkpoints
    assert call.status == "failed"
    assert "raise Refused(given)" in call.attempts[0].failure.traceback


def test_a_failed_attempt_is_tried_again_on_the_workers(bench: Bench, program: ModuleType, tmp_path: Path) -> None:
    handle, tries = run(bench, lambda: program.second_time.submit(str(tmp_path / "told")).result())
    assert tries == 2
    (call,) = bench.get(handle).checkpoints
    assert [attempt.status for attempt in call.attempts] == ["failed", "completed"]


def test_a_lost_worker_is_seen_recorded_and_survived(bench: Bench, program: ModuleType, tmp_path: Path) -> None:
    told = str(tmp_path / "told")
    handle, made = run(bench, lambda: program.lose_worker.submit(told).result())
    assert made == "child"
    # Never more often than the journal says: Dask itself ran nothing again.
    assert program.times(told, "begun") == 2
    (call,) = [call for call in bench.get(handle).checkpoints if call.name == "lose_worker"]
    assert [attempt.status for attempt in call.attempts] == ["failed", "completed"]
    assert call.attempts[0].failure.exception_type == "kitaru_nb.errors.KitaruWorkerLostError"
    assert [e.key for e in bench.events(handle) if e.kind == "checkpoint.completed"].count(call.call_id) == 1


SCRIPT = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
from kitaru_nb import checkpoint, flow

@dataclass
class Item:
    number: int

@checkpoint
def item(given, folder):
    with open(Path(folder, "told"), "a") as file:
        file.write(f"{given.number}\\n")
    while given.number == 4 and not Path(folder, "enough").exists():
        time.sleep(0.02)
    return Item(given.number * 10)

@flow(executor=sys.argv[1] if len(sys.argv) > 1 else None)
def items(folder):
    return [made.number for made in item.map([Item(n) for n in range(5)], folder=folder).results()]

if __name__ == "__main__":
    print(items.run(sys.argv[2]).exec_id, flush=True)
"""


def test_a_script_travels_by_value_and_its_crash_loses_nothing_that_was_finished(
    bench: Bench, program: ModuleType, cluster: DaskExecutor, tmp_path: Path
) -> None:
    run(bench, lambda: program.later.submit(1).result())  # the cluster runs
    place = cluster.place
    assert place is not None
    script, told = tmp_path / "items.py", tmp_path / "told"
    script.write_text(SCRIPT)
    environment = os.environ | {"KITARU_HOME": str(bench.home), "KITARU_DURABILITY": "process"}
    address = place.replace("tcp://", "dask://")

    def finished() -> int:
        return sum(e.kind == "checkpoint.completed" for e in bench.runtime.journal.history(exec_id))

    with subprocess.Popen(
        [sys.executable, str(script), address, str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        exec_id = process.stdout.readline().strip()
        try:
            until(lambda: finished() == 4, SECONDS)
        finally:
            process.send_signal(signal.SIGKILL)
    (tmp_path / "enough").touch()
    bench.executions.resume(exec_id)
    until(lambda: bench.get(exec_id).status == "completed", SECONDS)
    assert bench.runtime.store.read(bench.get(exec_id).result) == [0, 10, 20, 30, 40]
    assert told.read_text().split().count("1") == 1


def test_cancelling_reaches_what_runs_on_a_worker(bench: Bench, program: ModuleType, tmp_path: Path) -> None:
    told = tmp_path / "told"
    handle = bench.bind(flow(lambda: program.stay.submit(str(told)).result()), executor=LOCAL).run()
    until(told.exists, SECONDS)
    bench.executions.cancel(handle.exec_id)
    until(lambda: bench.get(handle).status == "cancelled", SECONDS)

    def silent() -> bool:
        before = told.stat().st_size
        threading.Event().wait(0.5)
        return told.stat().st_size == before

    until(silent, SECONDS)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        pytest.param(lambda p: p.ask.submit(), KitaruContextError, "inside checkpoint 'ask'", id="a wait"),
        pytest.param(lambda p: p.look_up.submit("kr-0"), KitaruContextError, "asked the journal", id="the journal"),
        pytest.param(lambda p: p.leave.submit(), KitaruUserCodeError, r"sys\.exit\(3\)", id="sys.exit"),
        pytest.param(
            lambda p: p.later.submit(threading.Lock()), KitaruSerializationError, "Input 'number' of", id="an input"
        ),
        pytest.param(lambda p: p.later.submit("one"), TypeError, "str", id="user code"),
    ],
)
def test_what_cannot_be_done_on_a_worker_says_so(
    bench: Bench, program: ModuleType, call: Any, error: type[Exception], message: str
) -> None:
    def body() -> Any:
        with pytest.raises(error, match=message):
            call(program).result()

    run(bench, body)


def test_code_that_refers_to_what_cannot_travel_is_refused_before_anything_runs(bench: Bench) -> None:
    lock = threading.Lock()

    @checkpoint
    def guarded() -> None:
        with lock:
            raise AssertionError("never run")

    def body() -> None:
        with pytest.raises(KitaruSerializationError, match=r"code of checkpoint 'guarded' can't travel"):
            guarded.submit().result()

    run(bench, body)


def test_a_store_that_the_workers_do_not_reach_is_found_before_anything_runs(
    tmp_path: Path, program: ModuleType
) -> None:
    bench = Bench(tmp_path, store="memory://fanout")

    def body() -> None:
        with pytest.raises(KitaruUsageError, match="can't read the artifact store memory://fanout"):
            program.later.submit(1).result()

    run(bench, body)
