"""``@checkpoint(runtime="isolated")``: each call in a process of its own, started by the execution's runner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from core.bench import Bench, until

from kitaru_nb import KitaruContextError, KitaruStorageError, KitaruUsageError, Retry, checkpoint, flow
from kitaru_nb.core.advance import claim
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.engine import Call, Input
from kitaru_nb.core.function_work import FunctionWork
from kitaru_nb.core.jobs import find_order, perform_job
from kitaru_nb.core.run import Run, recorded_failure
from kitaru_nb.errors import KitaruNotFoundError, KitaruStateError
from kitaru_nb.journal.base import this_process
from kitaru_nb.model import Event, Execution, Lease

SECONDS = 150.0
pytestmark = pytest.mark.timeout(300)


def isolated(of: Any, **options: Any) -> Any:
    """The same checkpoint in jobs of its own."""
    return of.with_options(runtime="isolated", **options)


def run(bench: Bench, body: Any, *args: Any) -> Any:
    """Run a flow with this body to its end; the handle and what it returned."""
    handle = bench.bind(flow(body)).run(*args)
    return handle, handle.wait(SECONDS)


def test_a_call_runs_in_a_process_of_its_own_and_is_recorded_as_any(bench: Bench, program: ModuleType) -> None:
    data = b"x" * 100_000

    async def body() -> Any:
        notes = isolated(program.note).map([1, 2], data=data)
        caught = None
        try:
            isolated(program.refuse)(program.Note("this", 1))
        except program.Refused as error:
            caught = error.note.text, "".join(error.__notes__)
        return await notes, await isolated(program.later)(1), caught

    handle, (notes, later, (refused, trace)) = run(bench, body)
    assert [note.text for note in notes] == ["NOTE 2", "NOTE 4"]
    assert len({os.getpid(), *(note.pid for note in notes)}) == 3
    assert later == 2
    assert refused == "this"
    assert "raise Refused(given)" in trace
    execution = bench.get(handle)
    calls = {call.selector: call for call in execution.checkpoints}
    assert calls["note"].metadata == {"size": 100_000}
    assert {calls["inner"].parent, calls["inner#2"].parent} == {calls["note"].call_id, calls["note#2"].call_id}
    lines = {(entry.checkpoint_name, entry.message) for entry in bench.executions.logs(handle.exec_id)}
    assert {("note", "taking note of 2"), ("note", "number 2"), ("inner", "inside 2")} <= lines
    stored = [path.stat().st_size for path in (bench.home / "artifacts").rglob("*") if path.is_file()]
    assert stored.count(len(data)) == 1


def test_a_job_that_dies_is_seen_recorded_and_survived(bench: Bench, program: ModuleType, tmp_path: Path) -> None:
    told = str(tmp_path / "told")
    handle, made = run(bench, lambda: isolated(program.lose_worker)(told))
    assert made == "child"
    assert program.times(told, "begun") == 2
    # What had finished inside wasn't run again.
    assert program.times(told, "child") == 1
    (call,) = [call for call in bench.get(handle).checkpoints if call.name == "lose_worker"]
    assert [attempt.status for attempt in call.attempts] == ["failed", "completed"]
    assert "brought nothing back" in call.attempts[0].failure.message


def test_cancelling_reaches_the_job(bench: Bench, program: ModuleType, tmp_path: Path) -> None:
    told = tmp_path / "told"
    handle = bench.bind(flow(lambda: isolated(program.stay)(str(told)))).run()
    until(told.exists, SECONDS)
    bench.executions.cancel(handle.exec_id)
    until(lambda: bench.get(handle).status == "cancelled", SECONDS)

    def silent() -> bool:
        before = told.stat().st_size
        time.sleep(0.3)
        return told.stat().st_size == before

    until(silent, SECONDS)


SCRIPT = """
import os, time
from pathlib import Path
from kitaru_nb import checkpoint, flow

@checkpoint(runtime="isolated")
def job(folder):
    with open(Path(folder, "begun"), "a") as file:
        file.write(f"{os.getpid()}\\n")
    while not Path(folder, "enough").exists():
        time.sleep(0.02)
    return "done"

@flow(stack="narrow")
def one(folder):
    return job(folder)

if __name__ == "__main__":
    import sys
    print(one.run(sys.argv[1]).exec_id)
"""


def test_a_worker_that_holds_the_only_place_and_dies_leaves_the_outcome_of_its_job_to_the_next(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KITARU_HOME", str(bench.home))
    (bench.home / "stacks").mkdir(parents=True)
    (bench.home / "stacks" / "narrow.yaml").write_text("runner: process\noptions: {workers: 1}\n")
    script = tmp_path / "one.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=True)
    exec_id = done.stdout.strip()
    until((tmp_path / "begun").exists, SECONDS)  # so the worker gave its place up for its job
    lease = bench.runtime.journal.execution(exec_id).lease
    assert lease is not None
    os.kill(lease.owner.pid, signal.SIGKILL)
    (tmp_path / "enough").touch()
    until(lambda: any(e.kind == "checkpoint.returned" for e in bench.events(exec_id)), SECONDS)
    bench.executions.resume(exec_id)
    until(lambda: bench.get(exec_id).status == "completed", SECONDS)
    assert len((tmp_path / "begun").read_text().split()) == 1
    assert [e.kind for e in bench.events(exec_id)].count("checkpoint.sent") == 1


def test_what_cannot_be_done_in_a_job_says_so(bench: Bench, program: ModuleType) -> None:
    def body() -> None:
        with pytest.raises(KitaruContextError, match="was called inside checkpoint 'ask'"):
            isolated(program.ask)()

    run(bench, body)


def test_a_journal_in_memory_cannot_be_reached_by_a_job(tmp_path: Path, program: ModuleType) -> None:
    def body() -> None:
        with pytest.raises(KitaruUsageError, match="in this process's memory"):
            isolated(program.child)("nowhere")

    run(Bench(tmp_path), body)


def test_code_that_nobody_trusts_is_not_sent(tmp_path: Path, program: ModuleType) -> None:
    bench = Bench(tmp_path / "home", memory=False, trust_pickle=False)

    def body() -> None:
        with pytest.raises(KitaruUsageError, match="don't trust pickles"):
            isolated(program.child)("nowhere")

    run(bench, body)
    bench.runtime.journal.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "gpu"}, "'gpu' is none of"),
        ({"resources": {"cpu": "2"}}, "runs in its flow's process"),
        ({"runtime": "isolated", "resources": {"cpu": 2}}, "cpu can't be 2"),
        ({"runtime": "isolated", "resources": {"gpu": "1"}}, "gpu can't be '1'"),
    ],
)
def test_options_that_cannot_be_are_refused_where_the_checkpoint_is_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(KitaruUsageError, match=message):
        checkpoint(**options)(len)


def ordered(bench: Bench) -> Execution:
    """An execution whose worker asked for a job and waits for it."""

    @checkpoint
    def double(number: int) -> int:
        return number * 2

    @flow
    def nothing() -> None:
        return None

    execution = create_execution(bench.runtime, bench.bind(nothing), {})
    waiting = claim(bench.runtime, execution.exec_id, poll_seconds=0.0)
    call = Call("c0ffee", "double", FunctionWork(double, waiting), waiting.frame, [Input("number", 4, None)], Retry())
    waiting.commit([waiting.submitted.elsewhere.orders.order(double, call, 1, "a job")])
    waiting.abandon()
    return bench.runtime.journal.execution(execution.exec_id)


def test_a_job_is_carried_out_once_and_only_while_somebody_waits_for_it(bench: Bench) -> None:
    execution = ordered(bench)
    journal, exec_id, name = bench.runtime.journal, execution.exec_id, f"c0ffee-{execution.epoch}-1"
    returned = perform_job(bench.runtime, exec_id, name, lambda _: None, "here")
    assert returned.body["outputs"][0]["size"] == 1
    with pytest.raises(KitaruStateError, match="has its outcome already"):
        perform_job(bench.runtime, exec_id, name, lambda _: None, "here")
    with pytest.raises(KitaruNotFoundError, match="no order for a job 'other'"):
        find_order(journal.history(exec_id), exec_id, "other")
    assert execution.lease is not None
    journal.release(execution.lease)
    with pytest.raises(KitaruStateError, match="no longer waits"):
        perform_job(bench.runtime, exec_id, name, lambda _: None, "here")


def test_a_job_whose_worker_has_a_successor_leaves_nothing(bench: Bench) -> None:
    execution = ordered(bench)
    journal, exec_id = bench.runtime.journal, execution.exec_id
    assert execution.lease is not None

    def succeeded(_: Any) -> None:
        journal.release(execution.lease)
        journal.claim(exec_id, this_process())

    with pytest.raises(BaseException, match="another worker advances") as caught:
        perform_job(bench.runtime, exec_id, f"c0ffee-{execution.epoch}-1", succeeded, "here")
    assert type(caught.value).__name__ == "Paused"
    assert not any(e.kind == "checkpoint.returned" for e in journal.history(exec_id))


def test_a_job_that_an_outage_of_the_store_ended_is_done_again_by_the_next_worker(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = ordered(bench)
    journal, exec_id = bench.runtime.journal, execution.exec_id

    def away(*_: Any) -> None:
        raise KitaruStorageError("The artifact store is away.")

    with monkeypatch.context() as patch:
        patch.setattr(FunctionWork, "outputs", away)
        perform_job(bench.runtime, exec_id, f"c0ffee-{execution.epoch}-1", lambda _: None, "here")

    def returned(lease: Lease) -> Event | None:
        run = Run(bench.runtime, exec_id, lease, journal.history(exec_id))
        run.abandon()
        return run.submitted.elsewhere.returned("c0ffee", 1, now=True)

    assert execution.lease is not None
    told = returned(execution.lease)  # who asked for it is told why there is nothing
    assert told is not None
    assert isinstance(recorded_failure(told, trusted=True), KitaruStorageError)
    journal.release(execution.lease)
    assert returned(journal.claim(exec_id, this_process())) is None
