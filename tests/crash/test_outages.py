"""An artifact store that is away for a while: the execution is interrupted, and goes on when the store is back."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crash.flows import bulky, leaf, ran
from kitaru_nb import KitaruArtifactError, KitaruStorageError, checkpoint, flow, save
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import Outcome, advance, refuse
from kitaru_nb.core.create import create_execution, create_replay
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.model import Event, ExecutionStatus

#: What `trouble` does: a test puts it here.
breaks: list[Callable[[], None]] = []


@checkpoint
def trouble(value: int) -> int:
    """The store goes away, unless it did before."""
    ran()
    if breaks:
        breaks.pop()()
    return value


@flow
def write_output(value: int) -> int:
    return leaf(len(bulky(trouble(value))), 1)


@flow
def write_saved(value: int) -> int:
    save("report", str(trouble(value)) * 20_000)
    return leaf(value, 1)


@flow
def write_result(value: int) -> str:
    return str(leaf(1, trouble(value))) * 20_000


@flow
async def write_in_a_group(value: int) -> int:
    trouble(value)
    async with asyncio.TaskGroup() as group:
        texts = [group.create_task(asyncio.to_thread(bulky, value + n)) for n in range(2)]
    return sum(len(text.result()) for text in texts)


@flow
def read_output(value: int) -> int:
    return leaf(len(bulky(value)), trouble(value))


def interrupt() -> None:
    """As Ctrl-C does."""
    raise KeyboardInterrupt


FLOWS = [write_output, write_saved, write_result, write_in_a_group]


class Store:
    """The artifact store of a home. ``kind``: what is wrong with it while it is `away`."""

    def __init__(self, home: Path, kind: str) -> None:
        self.folder, self.kind = home / "artifacts", kind
        self._patch = pytest.MonkeyPatch()

    def away(self) -> None:
        """From now on nothing can be written (nor read, where the folder is gone)."""
        if self.kind == "gone":
            self.folder.mkdir(exist_ok=True)
            self.folder.rename(self.folder.with_name("elsewhere"))
            self.folder.write_text("not a folder")
            return
        number = errno.ENOSPC if self.kind == "full" else errno.EACCES
        opened = Path.open

        def refuse_to_write(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
            if "x" in mode and self.folder in path.parents:
                raise OSError(number, os.strerror(number))
            return opened(path, mode, *args, **options)

        self._patch.setattr(Path, "open", refuse_to_write)

    def back(self) -> None:
        """All is well again."""
        if self.kind == "gone":
            self.folder.unlink()
            self.folder.with_name("elsewhere").rename(self.folder)
        self._patch.undo()


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setattr("kitaru_nb.core.run.STARTED_AFTER", 60.0)  # so that histories are the same each time
    return Runtime(Settings(tmp_path / "home", durability="process"))


@pytest.fixture
def side_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRASH_RAN", str(tmp_path / "ran"))
    return tmp_path / "ran"


def runtime_logs(history: list[Event]) -> str:
    """What the execution's own log says, outside of checkpoints."""
    lines = [line for event in history if event.kind == "log.lines" and not event.key for line in event.body["lines"]]
    return "".join(text for *_, text in lines)


def check_interrupted(runtime: Runtime, exec_id: str, outcome: Outcome) -> None:
    """Nothing failed; the record says why it stopped, and that nobody wanted it."""
    assert outcome.status is ExecutionStatus.INTERRUPTED
    assert isinstance(outcome.error, KitaruStorageError)
    assert runtime.journal.execution(exec_id).status is ExecutionStatus.INTERRUPTED
    history = runtime.journal.history(exec_id)
    assert not {"execution.failed", "checkpoint.failed"} & {event.kind for event in history}
    assert history[-1].kind == "execution.paused"
    assert history[-1].body["outage"] is True
    assert "artifact store" in history[-1].body["reason"]
    assert "artifact store" in runtime_logs(history)


@pytest.mark.parametrize("kind", ["gone", "full", "refused"])
@pytest.mark.parametrize("flow", FLOWS, ids=[each.name for each in FLOWS])
def test_a_store_that_is_away_fails_no_execution_and_what_was_finished_is_not_done_again(
    runtime: Runtime, side_file: Path, kind: str, flow: Any
) -> None:
    store = Store(runtime.home, kind)
    exec_id = create_execution(runtime, flow, {"value": 3}).exec_id
    breaks[:] = [store.away]
    check_interrupted(runtime, exec_id, advance(runtime, exec_id, flow, poll_seconds=0.0))
    before = side_file.read_text().split()
    check_interrupted(runtime, exec_id, advance(runtime, exec_id, flow, poll_seconds=0.0))  # still away
    store.back()
    outcome = advance(runtime, exec_id, flow, poll_seconds=0.0)
    assert outcome.status is ExecutionStatus.COMPLETED
    trouble_again = [key for key in side_file.read_text().split() if key == before[0]]
    assert len(trouble_again) == 1
    runtime.journal.close()


def test_what_was_recorded_is_read_again_when_the_store_is_back(runtime: Runtime, side_file: Path) -> None:
    store = Store(runtime.home, "gone")
    exec_id = create_execution(runtime, read_output, {"value": 3}).exec_id
    breaks[:] = [interrupt]
    assert advance(runtime, exec_id, read_output, poll_seconds=0.0).status is ExecutionStatus.INTERRUPTED
    store.away()
    check_interrupted(runtime, exec_id, advance(runtime, exec_id, read_output, poll_seconds=0.0))
    store.back()
    assert advance(runtime, exec_id, read_output, poll_seconds=0.0).value == 10 * 20_000 + 3
    assert len(side_file.read_text().split()) == 4  # bulky once, trouble twice, leaf
    runtime.journal.close()


def test_a_replay_that_cannot_read_its_override_is_interrupted_and_not_failed(
    runtime: Runtime, side_file: Path
) -> None:
    store = Store(runtime.home, "gone")
    breaks.clear()
    original = create_execution(runtime, read_output, {"value": 3}).exec_id
    advance(runtime, original, read_output, poll_seconds=0.0)
    overrides = {"arguments.leaf": {"branch": 10**20_000}}
    replay = create_replay(runtime, original, overrides=overrides, flow=read_output).exec_id
    store.away()
    with pytest.raises(KitaruStorageError):
        advance(runtime, replay, read_output, poll_seconds=0.0)
    history = runtime.journal.history(replay)
    assert [event.kind for event in history] == ["execution.created", "execution.claimed", "execution.paused"]
    store.back()
    assert advance(runtime, replay, read_output, poll_seconds=0.0).value == 10 * 10**20_000 + 3
    runtime.journal.close()


def test_a_worker_that_cannot_fetch_its_flow_leaves_the_execution_for_the_next_one(runtime: Runtime) -> None:
    exec_id = create_execution(runtime, write_output, {"value": 3}).exec_id
    refuse(runtime, exec_id, KitaruStorageError("The artifact store could not be read."))
    assert runtime.journal.execution(exec_id).status is ExecutionStatus.INTERRUPTED
    refuse(runtime, exec_id, KitaruArtifactError("Its flow is damaged."))
    assert runtime.journal.execution(exec_id).status is ExecutionStatus.FAILED
    runtime.journal.close()
