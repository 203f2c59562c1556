"""Workers as processes of this machine."""

from __future__ import annotations

import os
import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import Field

from kitaru_nb.config import Settings
from kitaru_nb.core.create import created_event
from kitaru_nb.core.places import VARIABLE, Places, end
from kitaru_nb.core.runners import Job, WorkerStatus
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruUsageError
from kitaru_nb.stacks.definition import Options, Stack
from kitaru_nb.stacks.queueing import Queue, Task, drop, foremen, queues, start

#: Of how many executions a process remembers how their workers ended, and the home has their output.
KEPT = 1000
#: Seconds between two looks at what output is old.
SWEEP_EVERY = 600.0
#: Seconds that a cancelled worker has to let go.
GRACE = 10.0


class ProcessOptions(Options):
    """What the runner ``process`` takes.

    Attributes:
        workers: how many run on this machine at once; what is submitted beyond that queues.
    """

    workers: int = Field(default=max(8, 4 * (os.cpu_count() or 1)), ge=1)


class ProcessRunner:
    """Starts ``python -m kitaru_nb.worker EXECUTION``, detached: it outlives the process that started it."""

    def __init__(self, stack: Stack | None = None) -> None:
        """A runner of ``stack`` (None: a built-in one).

        Raises:
            KitaruUsageError: the stack names secrets, or an option that can't be.
        """
        if stack is not None and stack.secrets:
            raise KitaruUsageError(
                f"Stack {stack.name!r} names secrets; "
                "workers of the runner 'process' see this machine's own variables.",
                fix="leave out --secret, and export the variable",
            )
        self.options = ProcessOptions.of(stack) if stack is not None else ProcessOptions()
        self._environment = stack.environment if stack is not None else {}

    def submit(self, runtime: Runtime, exec_id: str, job: Job | None = None) -> str:
        """Start a worker, now or when one of those that run has ended; the path of its output.

        Raises:
            KitaruBackendError: the home can't be written.
        """
        folder = runtime.home / "workers"
        places = Places(runtime.home, self.options.workers)
        variables = os.environ | environment(runtime.settings) | self._environment
        variables.pop(VARIABLE, None)
        task = Task(exec_id, _folder_of(runtime, exec_id), job.name if job is not None else None)
        path = _output(folder, task.key)
        try:
            with places.locked():
                if places.free() and not queues(folder, task.key):
                    process = start(places, task, variables)
                    _children.setdefault(task.key, []).append((process, path, time.time()))
                else:
                    Queue(places, variables).add(task)
                    _queued[task.key] = folder
            _sweep(folder, places)
        except OSError as error:
            raise KitaruBackendError(
                f"The output of a worker can't be written to {path}: {error}",
                fix=f"make {folder} writable, then: kitaru executions resume {exec_id}",
            ) from error
        return str(path)

    def status(self, exec_id: str, job: Job | None = None) -> WorkerStatus:
        """Of the newest worker that this process asked for; ``none`` for those of others."""
        key = _key(exec_id, job)
        if (folder := _queued.get(key)) is not None:
            if queues(folder, key):
                return WorkerStatus("starting", output=str(_output(folder, key)))
            if places := Places(folder.parent).of(key):
                newest = max(place.begun_at for place in places)
                return WorkerStatus("running", begun_at=newest, output=str(_output(folder, key)))
            if key not in _children:
                return WorkerStatus("ended", begun_at=time.time(), output=str(_output(folder, key)))
        if key not in _children:
            return WorkerStatus("none")
        process, output, begun_at = _children[key][-1]
        code = process.poll()
        state: Literal["running", "ended"] = "running" if code is None else "ended"
        return WorkerStatus(state, code, begun_at=begun_at, output=str(output))

    def cancel(self, exec_id: str, job: Job | None = None) -> None:
        """SIGTERM, and SIGKILL after `GRACE` seconds. Only workers that this process asked for are reached."""
        mine = _key(exec_id, job)
        for key in [k for k in (*_queued, *_children) if k == mine or (job is None and k.startswith(f"{mine}."))]:
            self._cancel(key)

    def _cancel(self, key: str) -> None:
        if (folder := _queued.get(key)) is not None:
            places = Places(folder.parent)
            with places.locked():  # or its foreman may be starting it at this moment
                drop(folder, key)
                living = places.of(key)
            for place in living:
                end(place, GRACE)
        for process, _, _ in _children.get(key, ()):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()

    def logs(self, exec_id: str, job: Job | None = None) -> str:
        """All that workers of the execution printed, where this process asked for one."""
        path = self.status(exec_id, job).output
        return Path(path).read_text(errors="replace") if path and Path(path).exists() else ""


def lost(exec_id: str) -> float | None:
    """When the newest worker that this process started for an execution began, if it has ended; else None."""
    if exec_id not in _children:
        return None
    process, _, begun_at = _children[exec_id][-1]
    return None if process.poll() is None else begun_at


def reap() -> None:
    """Ask every worker that this process started whether it ended, so that none stays a zombie; forget old ones."""
    for workers in list(_children.values()):
        for worker in list(workers):
            if worker[0].poll() is not None and worker is not workers[-1]:
                workers.remove(worker)
    for exec_id in list(_children)[:-KEPT]:
        if all(process.poll() is not None for process, _, _ in _children[exec_id]):
            _children.pop(exec_id)
    for exec_id, folder in list(_queued.items())[:-KEPT]:
        if not queues(folder, exec_id):
            del _queued[exec_id]
    foremen[:] = [foreman for foreman in foremen if foreman.poll() is None]


def _key(exec_id: str, job: Job | None) -> str:
    return Task(exec_id, None, job.name if job is not None else None).key


def _sweep(folder: Path, places: Places) -> None:
    """Now and then, remove the output of all but the last workers; who runs or queues keeps it."""
    if time.monotonic() < _swept.get(folder, -SWEEP_EVERY) + SWEEP_EVERY:
        return
    _swept[folder] = time.monotonic()
    with suppress(OSError):  # another time, then
        written = sorted((f.stat().st_mtime, f.path) for f in os.scandir(folder) if _OUTPUT.fullmatch(f.name))
        for _, path in written[:-KEPT]:
            key = Path(path).stem
            if not places.of(key) and not queues(folder, key):
                os.unlink(path)


#: Names of files of output: ``kr-ID.log``, ``kr-ID.JOB.log``.
_OUTPUT = re.compile(r"kr-[^/]+\.log")
#: Folder of workers → when it was swept.
_swept: dict[Path, float] = {}


def _output(folder: Path, key: str) -> Path:
    return folder / f"{key}.log"


def _folder_of(runtime: Runtime, exec_id: str) -> str | None:
    """Where the execution was started, if that still exists: relative paths mean the same there."""
    folder = created_event(runtime, exec_id).body["ref"].get("cwd")
    return folder if folder and Path(folder).is_dir() else None


def environment(settings: Settings) -> dict[str, str]:
    """The settings as environment variables, so that another process works with the same journal and store."""
    return {
        "KITARU_HOME": str(settings.home),
        "KITARU_JOURNAL": settings.journal_url,
        "KITARU_STORE": settings.store_url,
        "KITARU_INLINE_MAX_BYTES": str(settings.inline_max_bytes),
        "KITARU_DURABILITY": settings.durability,
        "KITARU_TRUST_PICKLE": str(settings.trust_pickle).lower(),
        "KITARU_LEASE_SECONDS": str(settings.lease_seconds),
        "KITARU_EXECUTOR": settings.executor,
        "KITARU_STACK": "local",  # what the worker starts itself it runs itself
    }


#: Kept so that finished workers are reaped and none is warned about while it still runs.
_children: dict[str, list[tuple[subprocess.Popen[bytes], Path, float]]] = {}
#: Executions whose workers a foreman starts → the folder of workers.
_queued: dict[str, Path] = {}
