"""On one machine only so many workers run at once; the others queue, and none is lost."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kitaru_nb import checkpoint, flow
from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.flow import Flow
from kitaru_nb.core.handle import FlowHandle
from kitaru_nb.core.places import Places
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError
from kitaru_nb.model import ExecutionStatus
from kitaru_nb.stacks.definition import parse_stack
from kitaru_nb.stacks.process import ProcessRunner, environment, reap
from kitaru_nb.stacks.queueing import Task, foremen, start

SECONDS = 90.0


@checkpoint
def stay(folder: str, name: str, seconds: float) -> None:
    """Notes when it came and went. It stays while there is a file ``hold``."""
    begun = time.time()
    while Path(folder, "hold").exists():
        time.sleep(0.02)
    time.sleep(seconds)
    Path(folder, f"{name}.ran").write_text(f"{begun} {time.time()}")


@flow
def work(folder: str, name: str, seconds: float = 0.3) -> str:
    stay(folder, name, seconds)
    return name


@flow
def parent(folder: str) -> str:
    """Waits for an execution that needs a place too."""
    runtime = Runtime(Settings(Path(folder) / "home"))
    child = begin(runtime, work, folder=folder, name="child", seconds=0.0)
    runner(1).submit(runtime, child)
    return str(FlowHandle[str](runtime, child).wait(timeout=SECONDS))


def runner(workers: int) -> ProcessRunner:
    return ProcessRunner(parse_stack("here", {"options": {"workers": workers}}, "test"))


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    found = Runtime(Settings(tmp_path / "home", durability="process"))
    yield found
    until(lambda: reap() or not foremen, "the end of the foremen")
    found.journal.close()


def until(condition: Callable[[], Any], what: str) -> Any:
    ends = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < ends, f"{what} didn't come to be"
        time.sleep(0.02)
    return found


def begin(runtime: Runtime, chosen: Flow[..., Any], **inputs: Any) -> str:
    return create_execution(runtime, chosen, inputs).exec_id


def test_what_is_submitted_beyond_the_limit_queues_and_runs_in_order(runtime: Runtime, tmp_path: Path) -> None:
    few, hold = runner(2), tmp_path / "hold"
    hold.touch()
    ids = [begin(runtime, work, folder=str(tmp_path), name=str(n)) for n in range(6)]
    for exec_id in ids:
        few.submit(runtime, exec_id)
    assert [few.status(exec_id).state for exec_id in ids] == ["running"] * 2 + ["starting"] * 4
    few.submit(runtime, ids[-1])  # queues already
    assert len(list((runtime.home / "workers" / "queue").glob("*/*.task"))) == 4
    hold.unlink()
    handles = [FlowHandle[str](runtime, exec_id) for exec_id in ids]
    assert [handle.wait(timeout=SECONDS) for handle in handles] == list("012345")
    times = [tuple(map(float, (tmp_path / f"{n}.ran").read_text().split())) for n in range(6)]
    assert max(sum(begun <= at < ended for begun, ended in times) for at, _ in times) <= 2
    # When one begins, all before it have begun, and at most one of these goes on.
    assert all(sum(ended > at for _, ended in times[:n]) <= 1 for n, (at, _) in enumerate(times))
    assert all(runtime.journal.execution(exec_id).epoch == 1 for exec_id in ids)
    until(lambda: not list((runtime.home / "workers" / "queue").iterdir()), "an empty queue")
    until(lambda: not any(Places(runtime.home).of(exec_id) for exec_id in ids), "free places")


def test_a_worker_that_waits_for_another_execution_gives_its_place_up(runtime: Runtime, tmp_path: Path) -> None:
    exec_id = begin(runtime, parent, folder=str(tmp_path))
    runner(1).submit(runtime, exec_id)
    assert FlowHandle[str](runtime, exec_id).wait(timeout=SECONDS) == "child"


def test_killed_workers_and_a_killed_foreman_hold_nobody_up(runtime: Runtime, tmp_path: Path) -> None:
    one = runner(1)
    ids = [begin(runtime, work, folder=str(tmp_path), name=str(n), seconds=600.0 if n == 0 else 0.0) for n in range(3)]
    for exec_id in ids:
        one.submit(runtime, exec_id)
    foremen[-1].kill()
    foremen[-1].wait()
    assert one.status(ids[1]).state == "ended"  # nobody would start it: it may be submitted again
    (place,) = Places(runtime.home).of(ids[0])
    os.kill(place.owner.pid, signal.SIGKILL)
    until(lambda: not Places(runtime.home).of(ids[0]), "the death")
    for exec_id in ids[1:]:
        one.submit(runtime, exec_id)
        assert FlowHandle[str](runtime, exec_id).wait(timeout=SECONDS) == str(ids.index(exec_id))


def test_one_that_queues_can_be_cancelled(runtime: Runtime, tmp_path: Path) -> None:
    one = runner(1)
    first, second = (begin(runtime, work, folder=str(tmp_path), name=name, seconds=600.0) for name in "ab")
    one.submit(runtime, first)
    one.submit(runtime, second)
    one.cancel(second)
    assert one.status(second).state == "ended"
    assert one.logs(second) == ""
    until(lambda: runtime.journal.execution(first).status is ExecutionStatus.RUNNING, "the first runs")
    one.cancel(first)
    assert KitaruClient(runtime).executions.get(second).status is ExecutionStatus.PENDING


def test_one_whose_worker_is_being_started_at_this_moment_can_be_cancelled(runtime: Runtime, tmp_path: Path) -> None:
    one, places = runner(1), Places(runtime.home, 1)
    (tmp_path / "hold").touch()
    first, second = (begin(runtime, work, folder=str(tmp_path), name=name) for name in "ab")
    one.submit(runtime, first)
    one.submit(runtime, second)
    cancelling = threading.Thread(target=one.cancel, args=(second,))
    with places.locked():  # as the foreman, who has read the task
        cancelling.start()
        cancelling.join(0.3)
        worker = start(places, Task(second, None), os.environ | environment(runtime.settings))
    cancelling.join()
    assert worker.wait(SECONDS) != 0
    assert places.of(second) == []
    one.cancel(first)


def test_a_full_disk_leaves_nothing_in_the_queue_that_holds_others_up(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, hold = runner(1), tmp_path / "hold"
    hold.touch()
    first, refused, last = (begin(runtime, work, folder=str(tmp_path), name=name) for name in "abc")
    one.submit(runtime, first)
    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", no_space_for(".task"))
        with pytest.raises(KitaruBackendError, match="No space left"):
            one.submit(runtime, refused)
    one.submit(runtime, last)
    hold.unlink()
    assert FlowHandle[str](runtime, last).wait(timeout=SECONDS) == "c"
    assert runtime.journal.execution(refused).status is ExecutionStatus.PENDING


def no_space_for(suffix: str) -> Callable[..., int]:
    """`Path.write_text` on a disk that is full when the file has been made."""
    write = Path.write_text

    def writing(path: Path, text: str, *args: Any, **kwargs: Any) -> int:
        if path.suffix not in (suffix, ".new"):
            return write(path, text, *args, **kwargs)
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return writing


def test_files_that_a_loss_of_power_cut_off_hold_nobody_up(runtime: Runtime, tmp_path: Path) -> None:
    one, hold = runner(1), tmp_path / "hold"
    hold.touch()
    first, second = (begin(runtime, work, folder=str(tmp_path), name=name) for name in "ab")
    places = runtime.home / "workers" / "places"
    places.mkdir(parents=True)
    (places / "kr-gone-1.taken").touch()
    one.submit(runtime, first)
    one.submit(runtime, second)
    (queue,) = (runtime.home / "workers" / "queue").iterdir()
    (queue / "0-kr-gone.task").touch()
    hold.unlink()
    assert FlowHandle[str](runtime, second).wait(timeout=SECONDS) == "b"
    assert not (places / "kr-gone-1.taken").exists()
