"""Checkpoints on the workers of a Dask cluster.

Dask runs a task again by itself when its worker, or the worker that holds its result, is gone. A checkpoint may have
effects, so that must not go unseen: the scheduler lets each attempt begin once (`BeginOnce`), and an attempt that was
lost ends with `KitaruWorkerLostError`, which the execution records and its own retries take up.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from typing import Any

from distributed import Client, KilledWorker, SchedulerPlugin, Security, get_worker
from distributed.utils import sync

from kitaru_nb.artifacts.store import ArtifactStore
from kitaru_nb.config import Settings, shown
from kitaru_nb.core.away import AwayRun
from kitaru_nb.core.executors import Address, Task
from kitaru_nb.core.recording import perform_task, store_of
from kitaru_nb.errors import KitaruBackendError, KitaruUsageError, KitaruWorkerLostError, Paused
from kitaru_nb.model import Artifact, Event

#: Seconds until a scheduler must have answered.
CONNECT = 10.0


class BeginOnce(SchedulerPlugin):
    """Part of the scheduler: a worker that begins an attempt is told who began it before ("": nobody)."""

    name = "kitaru-begin-once"
    idempotent = True

    async def start(self, scheduler: Any) -> None:
        """Answer to ``kitaru_begin``."""
        self._begun: dict[str, str] = {}
        scheduler.handlers["kitaru_begin"] = self.begin

    def begin(self, key: str, worker: str) -> str:
        """Who began this before, or ""."""
        before = self._begun.get(key, "")
        self._begun.setdefault(key, worker)
        return before

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """What the client no longer asks for won't be begun again."""
        if finish == "forgotten":
            self._begun.pop(key, None)


# on a worker


def carry_out(task: Task) -> list[Event]:
    """Run one task; what it caused, the outcome last.

    Raises:
        KitaruWorkerLostError: another worker had begun it.
    """
    worker = get_worker()
    before = sync(worker.loop, worker.scheduler.kitaru_begin, key=task.key, worker=worker.address)
    if before != "":
        lost = f"it began on the worker {before}, which is gone, or its result is" if before else "the scheduler is new"
        raise _lost(task, lost)

    def begun(run: AwayRun) -> None:
        _running[task.key] = run

    try:
        return perform_task(task, f"the Dask worker {worker.address}", begun)
    except Paused as pause:
        raise _lost(task, str(pause)) from pause  # nobody waits for it, but Dask needs an outcome
    finally:
        _running.pop(task.key, None)


def interrupt(keys: list[str]) -> None:
    """Stop tasks that run here: their user code gets `Paused` at its next bytecode."""
    for key in keys:
        if (run := _running.get(key)) is not None:
            run.interrupt("paused", "the flow no longer waits for it")


def read_probe(settings: Settings, probe: Artifact) -> str | None:
    """Why this worker can't use the artifact store, or None."""
    try:
        store_of(settings).read(probe)
    except Exception as error:  # whatever it is, the driver tells it
        return str(error)
    return None


#: What this worker runs: key of a task → its run. Changed by single, atomic steps.
_running: dict[str, AwayRun] = {}


# in the flow's process


class DaskExecutor:
    """Runs tasks on a cluster, connected when the first one comes."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.where = f"the Dask cluster {address.place}" if address.place else "the Dask cluster of this machine"
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._cluster: subprocess.Popen[str] | None = None
        self._checked: set[Settings] = set()
        self._guarded = False
        self._stopping: list[str] = []

    def start(self, task: Task) -> Future[list[Event]]:
        client: Any = self._connected(task.settings)
        future: Future[list[Event]] = Future()
        inner: Future[list[Event]] = _pool(client).submit(carry_out, task, key=task.key)

        def cancelled(_: Future[list[Event]]) -> None:
            if future.cancelled() and not inner.done():
                self._stop(client, task.key)
                inner.cancel()

        def ended(_: Future[list[Event]]) -> None:
            if not future.set_running_or_notify_cancel():
                return
            if inner.cancelled():
                error: BaseException | None = _lost(task, "the cluster was restarted, or dropped its work")
            elif isinstance(error := inner.exception(), KilledWorker):
                error = _lost(task, str(error))
            if error is None:
                future.set_result(inner.result())
                return
            if isinstance(error, KitaruWorkerLostError):
                self._guarded = False  # it may have been the scheduler
            future.set_exception(error)

        future.add_done_callback(cancelled)
        inner.add_done_callback(ended)
        return future

    def _stop(self, client: Any, key: str) -> None:
        """Interrupt a task on its worker, together with others that are cancelled at this moment."""
        client.loop.add_callback(self._stop_soon, client, key)  # nothing else of a loop is for other threads

    async def _stop_soon(self, client: Any, key: str) -> None:
        self._stopping.append(key)
        if len(self._stopping) > 1:
            return  # the first of them asks for all
        await asyncio.sleep(0.05)
        keys, self._stopping = self._stopping, []
        await client.run(interrupt, keys, on_error="ignore")

    def check(self, settings: Settings) -> str:
        client: Any = self._connected(settings)
        count = len(client.nthreads())
        return f"{client.scheduler.address} with {count} worker{'s' if count != 1 else ''}"

    def pool(self) -> Any:
        """The connected cluster as an executor of `concurrent.futures`."""
        return _pool(self._client)

    @property
    def place(self) -> str | None:
        """Address of the scheduler, while connected."""
        return str(self._client.scheduler.address) if self._client is not None and self._client.scheduler else None

    def close(self) -> None:
        """Disconnect, and end the cluster if it is of this machine. It begins anew when needed."""
        with self._lock:
            client, self._client = self._client, None
            cluster, self._cluster = self._cluster, None
            self._checked.clear()
        if client is not None:
            client.close(timeout=2)
        if cluster is not None:
            try:
                cluster.communicate(timeout=CONNECT)  # its standard input ends
            except subprocess.TimeoutExpired:
                cluster.kill()
                cluster.communicate()

    def _connected(self, settings: Settings) -> Client:
        with self._lock:
            if self._client is not None and self._client.status != "running":
                self._client.close(timeout=2)
                self._client = None
            if self._client is None:
                self._client = self._connect(settings.home)
                self._checked.clear()
                self._guarded = False
            if not self._guarded:
                self._client.register_plugin(BeginOnce())
                self._guarded = True
            if settings not in self._checked:
                _check_workers(self._client, settings, self.where)
                self._checked.add(settings)
            return self._client

    def _connect(self, home: Path) -> Client:
        place, security = self._place(home)
        try:
            client = Client(place, timeout=CONNECT, security=security, set_as_default=False, name="kitaru")
        except (OSError, TimeoutError) as error:
            raise KitaruBackendError(
                f"The Dask scheduler at {place} doesn't answer: {error}.",
                fix=f"start it (dask scheduler, then: dask worker {place}), or: executor: dask",
            ) from error
        try:
            _check_versions(client, self.where)
        except BaseException:
            client.close(timeout=2)
            raise
        return client

    def _place(self, home: Path) -> tuple[str, Security | None]:
        options = self.address.options
        if self.address.kind == "dask+tls":
            security = Security(
                tls_ca_file=options.get("ca"),
                tls_client_cert=options.get("cert"),
                tls_client_key=options.get("key"),
                require_encryption=True,
            )
            return f"tls://{self.address.place}", security
        if self.address.place:
            return f"tcp://{self.address.place}", None
        return self._start_cluster(home, options.get("workers", "0"), options.get("threads", "0")), None

    def _start_cluster(self, home: Path, workers: str, threads: str) -> str:
        if self._cluster is not None and self._cluster.poll() is None:
            self._cluster.communicate()
        command = [sys.executable, "-m", "kitaru_nb.stacks.dask_cluster", workers, threads]
        output = home / "workers" / "dask.log"
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("ab") as errors:
            self._cluster = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        assert self._cluster.stdout is not None
        place = self._cluster.stdout.readline().strip()
        if not place:
            raise KitaruBackendError(
                f"The Dask cluster of this machine didn't start (code {self._cluster.wait()}); see {output}.",
                fix="python -m kitaru_nb.stacks.dask_cluster 1 1",
            )
        return place


@lru_cache(maxsize=8)
def _executor(kind: str, place: str, options: tuple[tuple[str, str], ...], _pid: int) -> DaskExecutor:
    executor = DaskExecutor(Address(kind, place, dict(options)))
    atexit.register(executor.close)
    return executor


def executor_at(address: Address) -> DaskExecutor:
    """The executor of this process at an address, always the same one."""
    return _executor(address.kind, address.place, tuple(sorted(address.options.items())), os.getpid())


def _pool(client: Any) -> Any:
    # No pure calls, which Dask would run once for equal arguments, and no retries, which are the checkpoint's.
    return client.get_executor(pure=False, retries=0)


def _lost(task: Task, why: str) -> KitaruWorkerLostError:
    return KitaruWorkerLostError(f"Checkpoint {task.order.body['name']!r} was lost by its Dask cluster: {why}.")


def _check_versions(client: Client, where: str) -> None:
    """Raise `KitaruUsageError` where a part of the cluster can't run what this process sends."""
    found: Any = client.get_versions(packages=["kitaru_nb"])
    parts = {f"the worker {address}": each for address, each in found["workers"].items()}
    parts["the scheduler"] = found["scheduler"]
    mine, expected = _version(found["client"])
    for name, each in parts.items():
        python, version = _version(each)
        if python != mine:
            raise KitaruUsageError(
                f"On {where}, {name} runs Python {python}, and this process Python {mine}; code travels only between "
                "equal minor versions.",
                fix=f"start scheduler and workers with Python {mine}",
            )
        if version != expected:
            raise KitaruUsageError(
                f"On {where}, {name} has kitaru-nb {version or 'not installed'}; expected {expected}, as here.",
                fix=f"pip install 'kitaru-nb[dask]=={expected}'  # for scheduler and workers",
            )


def _version(part: Any) -> tuple[str, str | None]:
    """(Python's minor version, that of this package) of a part of the cluster."""
    return ".".join(str(part["host"]["python"]).split(".")[:2]), part["packages"].get("kitaru_nb")


def _check_workers(client: Client, settings: Settings, where: str) -> None:
    """Raise `KitaruUsageError` where a worker can't read what this process puts into the artifact store."""
    store = ArtifactStore(settings.store_url, inline_max_bytes=0, durability="process")
    probe = store.write("kitaru", name="probe")
    for worker, why in client.run(read_probe, settings, probe).items():
        if why is not None:
            raise KitaruUsageError(
                f"On {where}, the worker {worker} can't read the artifact store {shown(settings.store_url)}: {why}",
                fix="a store that the workers reach: --store s3://BUCKET/FOLDER, or a folder that they share",
            )
