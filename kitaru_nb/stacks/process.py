"""Workers as processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from kitaru_nb.config import Settings
from kitaru_nb.core.create import created_event
from kitaru_nb.core.runners import Ended
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
        with output:
            process = subprocess.Popen(
                [sys.executable, "-m", "kitaru_nb.worker", exec_id],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | environment(runtime.settings),
                cwd=_folder_of(runtime, exec_id),
                start_new_session=True,
            )
        _children.setdefault(exec_id, []).append((process, path, time.time()))
        return str(path)

    def running(self, exec_id: str) -> bool:
        """Whether a worker that this process started for the execution is alive."""
        return any(process.poll() is None for process, _, _ in _children.get(exec_id, ()))

    def ended(self, exec_id: str) -> Ended | None:
        """How the newest worker that this process started ended; None while it runs, and for those of others."""
        if exec_id not in _children:
            return None
        process, output, begun_at = _children[exec_id][-1]
        code = process.poll()
        return None if code is None else Ended(code, begun_at, str(output))


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
    }


#: Kept so that finished workers are reaped and none is warned about while it still runs.
_children: dict[str, list[tuple[subprocess.Popen[bytes], Path, float]]] = {}
