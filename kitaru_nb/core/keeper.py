"""One background thread per process looks after every running execution: late events, leases, cancel requests."""

from __future__ import annotations

import atexit
import os
import threading
import time
from typing import TYPE_CHECKING

from kitaru_nb.errors import KitaruBackendError, Paused

if TYPE_CHECKING:
    from kitaru_nb.core.run import Run

TICK = 0.05


class Keeper:
    """Ticks every 50 ms while there is an execution to look after; the thread ends with the last one."""

    def __init__(self) -> None:
        self._registered = False
        self.reset()

    def reset(self) -> None:
        """Look after nothing: the runs of a forked process are its parent's."""
        self._runs: set[Run] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, run: Run) -> None:
        """Look after ``run`` from now on."""
        with self._lock:
            self._runs.add(run)
            if not self._registered:
                atexit.register(self.stop)
                self._registered = True
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, name="kitaru-keeper", daemon=True)
                self._thread.start()

    def remove(self, run: Run) -> None:
        """No longer look after ``run``."""
        with self._lock:
            self._runs.discard(run)

    def stop(self) -> None:
        """Look after nothing more, at the end of the process: a thread that is writing then would crash Python."""
        with self._lock:
            self._runs.clear()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)

    def _watch(self) -> None:
        while True:
            time.sleep(TICK)
            with self._lock:
                runs = list(self._runs)
                if not runs:
                    self._thread = None
                    return
            now = time.monotonic()
            for run in runs:
                tick(run, now)


def tick(run: Run, now: float) -> None:
    """One look after one run. A lost lease ends it; storage that is gone for the moment is tried again."""
    try:
        run.tick(now)
    except Paused:
        return  # the lease is lost, and the run knows
    except KitaruBackendError:
        # The run itself meets the same error at its next commit and reports it; the keeper only must not die of it.
        return
    except BaseException as error:
        # Whatever it is, the other runs are still looked after; this one can't keep its lease, so it must stop.
        run.interrupt("fenced", f"{run.exec_id} lost its upkeep: {error}")


keeper = Keeper()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=keeper.reset)
