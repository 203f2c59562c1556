"""Workers that wait until one of those that run on this machine has ended.

``python -m kitaru_nb.stacks.queueing FOLDER NUMBER`` is the foreman of one queue: it starts its tasks one by one and
ends with the last. It is there only while something queues, has the environment of who submitted, and outlives that.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from kitaru_nb.core.places import VARIABLE, Places, sign, signed_by, write_whole
from kitaru_nb.journal.base import is_dead

_LOOK = 0.05
_TASK = ".task"


@dataclass(frozen=True, slots=True)
class Task:
    """A worker to start: for which execution, in which folder (None: here), for which of its jobs (None: itself)."""

    exec_id: str
    folder: str | None
    job: str | None = None

    @property
    def key(self) -> str:
        """Names its place, its output and its task in the queue."""
        return self.exec_id if self.job is None else f"{self.exec_id}.{self.job}"


def start(places: Places, task: Task, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a worker in a place that is free, while ``places`` are locked. Raises `OSError`."""
    place = places.new(task.key)
    options = [] if task.job is None else ["--job", task.job]
    with (places.folder.parent / f"{task.key}.log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "kitaru_nb.worker", *options, task.exec_id],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**variables, VARIABLE: str(place)},
            cwd=task.folder if task.folder and Path(task.folder).is_dir() else None,
            start_new_session=True,
        )
    sign(place, process.pid)
    return process


class Queue:
    """Tasks of one environment, and their foreman. To be used while ``places`` are locked."""

    def __init__(self, places: Places, variables: Mapping[str, str]) -> None:
        self._places = places
        self._variables = variables
        same = sha256(repr((sys.executable, sorted(variables.items()))).encode()).hexdigest()
        self.folder = places.folder.parent / "queue" / same[:16]

    def add(self, task: Task) -> None:
        """Put a task at the end, unless its execution queues already. Raises `OSError`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if queues(self._places.folder.parent, task.key):
            return
        # Names sort by time.
        write_whole(self.folder / f"{time.time_ns():020}-{task.key}{_TASK}", json.dumps(asdict(task)))
        if not has_foreman(self.folder):
            command = [sys.executable, "-m", __name__, str(self.folder), str(self._places.number)]
            with (self._places.folder.parent / "foreman.log").open("ab") as output:
                foreman = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(self._variables),
                    start_new_session=True,
                )
            foremen.append(foreman)
            sign(self.folder / "foreman", foreman.pid)


#: Kept so that they are reaped, and none is warned about while it still runs.
foremen: list[subprocess.Popen[bytes]] = []


def queues(folder: Path, exec_id: str) -> bool:
    """Whether a task of this execution queues in the folder of workers, and somebody will start it."""
    return any(has_foreman(task.parent) for task in _tasks(folder, exec_id))


def drop(folder: Path, exec_id: str) -> None:
    """Take the tasks of an execution out of their queues."""
    for task in _tasks(folder, exec_id):
        task.unlink(missing_ok=True)


def _tasks(folder: Path, exec_id: str) -> list[Path]:
    return list((folder / "queue").glob(f"*/*-{exec_id}{_TASK}"))


def has_foreman(folder: Path) -> bool:
    """Whether a queue's foreman lives."""
    try:
        return not is_dead(signed_by(folder / "foreman"))
    except FileNotFoundError:
        return False


def lead(folder: Path, places: Places) -> None:
    """Start the tasks of a queue, each as soon as there is a place; return when none is left."""
    running: list[subprocess.Popen[bytes]] = []
    while True:
        with places.locked():
            tasks = sorted(folder.glob(f"*{_TASK}"))
            if not tasks:
                shutil.rmtree(folder)
                return
            if started := places.free():
                with suppress(FileNotFoundError):  # it was cancelled at this moment
                    if (task := _read(tasks[0])) is not None:
                        running.append(start(places, task, os.environ))
                    tasks[0].unlink()
        if not started:
            running = [worker for worker in running if worker.poll() is None]
            time.sleep(_LOOK)


def _read(path: Path) -> Task | None:
    """A task; None where it was cut off (the machine lost its power). Raises `FileNotFoundError`."""
    try:
        return Task(**json.loads(path.read_text()))
    except (ValueError, TypeError):
        return None


if __name__ == "__main__":
    queue = Path(sys.argv[1])
    lead(queue, Places(queue.parents[2], int(sys.argv[2])))
