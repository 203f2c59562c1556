"""Workers as processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

from kitaru_nb.config import Settings
from kitaru_nb.core.create import created_event
from kitaru_nb.core.runners import WorkerStatus
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruUsageError
from kitaru_nb.stacks.definition import Stack

#: Of how many executions a process remembers how their workers ended.
KEPT = 1000
#: Seconds that a cancelled worker has to let go.
GRACE = 10.0


class ProcessRunner:
    """Starts ``python -m kitaru_nb.worker EXECUTION``, detached: it outlives the process that started it."""

    def __init__(self, stack: Stack | None = None) -> None:
        """A runner of ``stack`` (None: a built-in one). Raises `KitaruUsageError` for options: there are none."""
        if stack is not None and stack.options:
            raise KitaruUsageError(
                f"Stack {stack.name!r} gives its runner the option {next(iter(stack.options))!r}; "
                "the runner 'process' has none.",
                fix="leave out --option",
            )
        if stack is not None and stack.secrets:
            raise KitaruUsageError(
                f"Stack {stack.name!r} names secrets; "
                "workers of the runner 'process' see this machine's own variables.",
                fix="leave out --secret, and export the variable",
            )
        self._environment = stack.environment if stack is not None else {}

    def submit(self, runtime: Runtime, exec_id: str) -> str:
        """Start a worker; the path of its output. Raises `KitaruBackendError` when the home can't be written."""
        folder = runtime.home / "workers"
        path = folder / f"{exec_id}.log"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            output = path.open("ab")
        except OSError as error:
            raise KitaruBackendError(
                f"The output of a worker can't be written to {path}: {error}",
                fix=f"make {folder} writable, then: kitaru executions resume {exec_id}",
            ) from error
        with output:
            process = subprocess.Popen(
                [sys.executable, "-m", "kitaru_nb.worker", exec_id],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | environment(runtime.settings) | self._environment,
                cwd=_folder_of(runtime, exec_id),
                start_new_session=True,
            )
        _children.setdefault(exec_id, []).append((process, path, time.time()))
        return str(path)

    def status(self, exec_id: str) -> WorkerStatus:
        """Of the newest worker that this process started; ``none`` for those of others."""
        if exec_id not in _children:
            return WorkerStatus("none")
        process, output, begun_at = _children[exec_id][-1]
        code = process.poll()
        state: Literal["running", "ended"] = "running" if code is None else "ended"
        return WorkerStatus(state, code, begun_at=begun_at, output=str(output))

    def cancel(self, exec_id: str) -> None:
        """SIGTERM, and SIGKILL after `GRACE` seconds. Only workers that this process started are reached."""
        for process, _, _ in _children.get(exec_id, ()):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()

    def logs(self, exec_id: str) -> str:
        """All that workers of the execution printed, where this process started one."""
        path = self.status(exec_id).output
        return Path(path).read_text(errors="replace") if path else ""


def reap() -> None:
    """Ask every worker that this process started whether it ended, so that none stays a zombie; forget old ones."""
    for workers in list(_children.values()):
        for worker in list(workers):
            if worker[0].poll() is not None and worker is not workers[-1]:
                workers.remove(worker)
    for exec_id in list(_children)[:-KEPT]:
        if all(process.poll() is not None for process, _, _ in _children[exec_id]):
            _children.pop(exec_id)


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
        "KITARU_STACK": "local",  # what the worker starts itself it runs itself
    }


#: Kept so that finished workers are reaped and none is warned about while it still runs.
_children: dict[str, list[tuple[subprocess.Popen[bytes], Path, float]]] = {}
