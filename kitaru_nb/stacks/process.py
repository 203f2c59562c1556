"""Workers as processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError


class ProcessRunner:
    """Starts ``python -m kitaru_nb.worker EXECUTION``, detached: it outlives the process that started it."""

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
        settings = runtime.settings
        environment = os.environ | {
            "KITARU_HOME": str(settings.home),
            "KITARU_JOURNAL": settings.journal_url,
            "KITARU_STORE": settings.store_url,
            "KITARU_INLINE_MAX_BYTES": str(settings.inline_max_bytes),
            "KITARU_DURABILITY": settings.durability,
        }
        with output:
            process = subprocess.Popen(
                [sys.executable, "-m", "kitaru_nb.worker", exec_id],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        _children.append((exec_id, path, process))
        return str(path)


def ended_worker(exec_id: str) -> tuple[int, Path] | None:
    """(exit code, file of its output) of the newest worker that this process started for an execution.

    None while it runs, or when this process started none.
    """
    for worked_on, output, process in reversed(_children):
        if worked_on == exec_id:
            code = process.poll()
            return None if code is None else (code, output)
    return None


#: Kept so that finished workers are reaped and none is warned about while it still runs.
_children: list[tuple[str, Path, subprocess.Popen[bytes]]] = []
