"""Run a notebook without a front end, through the same cell engine: in a kernel process of its own.

The kernel gets every cell's metadata (tags, id) with its request, as JupyterLab sends it; nbclient sends none.
"""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager

from kitaru_nb.cells.notebook import OnProgress, inject, parse_parameters, parsed, read_notebook, written
from kitaru_nb.core.create import created_event, pack_inputs, read_inputs, write_created
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruError, KitaruLeaseError, KitaruRuntimeError
from kitaru_nb.journal.fold import pack_artifact, unpack_artifact
from kitaru_nb.model import Event, Execution, ExecutionStatus
from kitaru_nb.promote.workplace import localised

if TYPE_CHECKING:
    from kitaru_nb.stepping import CellByCell

#: A person's history of lines is not for programs.
_NO_HISTORY = "--HistoryManager.enabled=False"
#: It may not have come as far as to begin a session.
_PAUSE = "getattr(get_ipython(), 'kitaru_session', None) and get_ipython().kitaru_session.pause({!r})"


@dataclass(frozen=True, slots=True)
class NotebookOutcome:
    """How a run of a notebook ended, and where the executed copy is."""

    exec_id: str
    status: ExecutionStatus
    output: Path
    reason: str


class CellClient(AsyncKernelClient):
    """A kernel client that sends the metadata of the cell with its execute request."""

    cell_metadata: Mapping[str, Any] = {}

    def execute(self, code: str, *_: Any, **options: Any) -> str:
        """As `jupyter_client.KernelClient.execute`, with metadata. Returns the message id."""
        content = {
            "code": code,
            "silent": options.get("silent", False),
            "store_history": options.get("store_history", True),
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,  # we stop; the kernel must take one more request, which ends the execution
        }
        message = self.session.msg("execute_request", content, metadata=dict(self.cell_metadata))
        self.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    async def wait_for_ready(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 (it is Jupyter's)
        """As `jupyter_client.KernelClient.wait_for_ready`, which listens for a moment of silence at the end.

        Raises:
            RuntimeError: the kernel died, or isn't ready after ``timeout`` seconds.
        """
        ends = time.monotonic() + (timeout or float("inf"))
        while True:
            asked = self.kernel_info()
            try:
                await self._until(asked, self.get_shell_msg, 1.0)
                # It hears what all listeners are told: what cells print from now on isn't lost.
                await self._until(asked, self.get_iopub_msg, 0.2)
            except queue.Empty:
                if not await self.is_alive():
                    raise RuntimeError("the kernel died before it was ready") from None
                if time.monotonic() > ends:
                    raise RuntimeError(f"the kernel was not ready after {timeout:g} s") from None
            else:
                return

    async def _until(self, asked: str, get: Callable[..., Any], seconds: float) -> None:
        """Take messages until one that belongs to this request. Raises `queue.Empty` when none came for so long."""
        while (await get(timeout=seconds))["parent_header"].get("msg_id") != asked:
            continue


def run_notebook(
    runtime: Runtime,
    path: Path,
    parameters: Mapping[str, str],
    *,
    output: Path | None = None,
    key: str | None = None,
    on_progress: OnProgress | None = None,
) -> NotebookOutcome:
    """Run a notebook from the beginning as a new execution (or, with a known ``key``, go on with that one).

    Args:
        parameters: values, as typed, for the assignments of the cell tagged ``parameters``.
        output: where the executed copy goes; default ``NAME.executed.ipynb`` beside the notebook.

    Raises:
        KitaruUsageError: no such file, not a notebook, or a parameter that the notebook doesn't have.
    """
    execution = begin(runtime, path, parameters, output=output, key=key)
    return go_on(runtime, execution.exec_id, on_progress=on_progress)


def begin(
    runtime: Runtime, path: Path, parameters: Mapping[str, str], *, output: Path | None = None, key: str | None = None
) -> Execution:
    """A pending execution of a notebook, for a worker to go on with. Arguments and errors as in `run_notebook`."""
    notebook = read_notebook(path)
    values = parse_parameters(notebook, parameters, path)
    blob = bytearray()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    text = written(notebook)
    snapshot = runtime.store.write(text, name="notebook", kind="blob")
    target = (output or path.with_suffix(".executed.ipynb")).absolute()
    ref = {
        "kind": "notebook",
        "path": str(path.absolute()),
        "interactive": False,
        "notebook": pack_artifact(snapshot, blob),
        "output": str(target),
    }
    body = {"ref": ref, "inputs": pack_inputs(runtime, values, blob)}
    return write_created(runtime, path.stem, "local", body, blob, key=key)


def go_on(runtime: Runtime, exec_id: str, *, on_progress: OnProgress | None = None) -> NotebookOutcome:
    """Go on with the execution of a notebook until it ends or waits; finished checkpoints are reused.

    In the main thread, SIGTERM and SIGINT are durable pauses: the kernel ends, the lease is given back, the status of
    the outcome is ``interrupted``.

    Raises:
        KitaruLeaseError: another worker runs it.
        KitaruRuntimeError: its kernel died, or could not be started.
        KitaruBackendError: the executed copy can't be written.
    """
    while True:
        execution = runtime.journal.execution(exec_id)
        created = localised(runtime, created_event(runtime, exec_id))
        ref = created.body["ref"]
        output = Path(ref["output"])
        if execution.status in (ExecutionStatus.COMPLETED, ExecutionStatus.CANCELLED):
            return NotebookOutcome(exec_id, execution.status, output, "it has ended already")
        if execution.status is ExecutionStatus.RUNNING:
            raise KitaruLeaseError(f"{exec_id} is run by another worker.", fix=f"kitaru executions get {exec_id}")
        reason = asyncio.run(_run_cells(runtime, created, output, Path(ref["path"]), on_progress))
        status = runtime.journal.execution(exec_id).status
        if status is ExecutionStatus.WAITING and not runtime.journal.waits(exec_id=exec_id):
            continue  # answered while the kernel let go
        return NotebookOutcome(exec_id, status, output, reason)


def _source_of(runtime: Runtime, created: Event) -> str:
    """Text of the notebook: of its snapshot in the work folder, else as it was when the execution began."""
    ref = created.body["ref"]
    if "source" in ref:
        return Path(ref["source"]).read_text(encoding="utf-8")
    return str(runtime.store.read(unpack_artifact(ref["notebook"], created.blob, created.exec_id)))


async def _run_cells(runtime: Runtime, created: Event, output: Path, path: Path, on_progress: OnProgress | None) -> str:
    """Run the notebook in a kernel of its own; why it ended before the last cell, or ""."""
    exec_id = created.exec_id
    folder = path.parent if path.parent.is_dir() else Path.cwd()
    client: CellByCell | None = None
    with tempfile.TemporaryDirectory(prefix="kitaru-") as sockets, _pausable() as pause:
        manager = AsyncKernelManager(client_class=f"{__name__}.CellClient")
        spec: Any = manager.kernel_spec
        spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", _NO_HISTORY]
        manager.connection_file = f"{sockets}/kernel.json"
        if os.name == "posix":
            manager.transport, manager.ip = "ipc", f"{sockets}/k"  # no port for others on this machine
        try:
            # First of all, because it takes longest: what follows is loaded and written while the kernel starts.
            await manager.start_kernel(cwd=str(folder), env=environment(runtime, exec_id, path))
            client = _client(runtime, created, manager, folder)
            client.on_progress = on_progress
            write_notebook(client.nb, output)  # where it can't be written, nothing has run in vain
            try:
                await client.async_start_new_kernel_client()
                return await client.run_cells()
            finally:
                write_notebook(client.nb, output)
        except (RuntimeError, asyncio.CancelledError) as error:
            if pause.asked:
                return f"paused by {pause.asked}; nothing is lost"
            if isinstance(error, KitaruError | asyncio.CancelledError):
                raise
            raise KitaruRuntimeError(
                f"The kernel of {exec_id} died; finished checkpoints are kept.",
                fix=f"kitaru executions resume {exec_id}",
            ) from error
        finally:
            await _end_kernel(manager, client, told=pause.asked)
            if pause.asked:
                _note_pause(runtime, exec_id, pause.asked)


def _client(runtime: Runtime, created: Event, manager: AsyncKernelManager, folder: Path) -> CellByCell:
    """What executes the notebook of an execution, with its inputs."""
    from kitaru_nb.stepping import CellByCell  # loads nbclient, while the kernel starts

    notebook = parsed(_source_of(runtime, created))
    inject(notebook, read_inputs(runtime, created))
    resources = {"metadata": {"path": str(folder)}}
    return CellByCell(notebook, km=manager, timeout=None, store_widget_state=False, resources=resources)


async def _end_kernel(manager: Any, client: CellByCell | None, *, told: str) -> None:
    """End the kernel gently, so that it gives its lease back; one that runs a cell leaves that first.

    Args:
        told: the signal that ends it, or "". The record of the pause names it.
    """
    if client is None or client.kc is None:  # no cell ran
        if manager.has_kernel:
            await manager.shutdown_kernel(now=True)
        return
    alive = manager.has_kernel and await manager.is_alive()
    if alive and told:
        await manager.interrupt_kernel()
        if await _until_idle(client.kc):
            await client.hidden(_PAUSE.format(told))
    client.kc.stop_channels()
    if alive:
        # What shutdown_kernel() does, without its interrupt: the kernel is idle and would report a KeyboardInterrupt.
        manager.stop_restarter()
        await manager.request_shutdown()
        await manager.finish_shutdown()
        await manager.cleanup_resources()
    elif manager.has_kernel:
        await manager.shutdown_kernel(now=True)


async def _until_idle(kernel: Any) -> bool:
    """Wait until the kernel has left the cell that it runs, a few seconds at most; False: it is deaf."""
    message = kernel.kernel_info()
    try:
        while (await kernel.get_shell_msg(timeout=5.0))["parent_header"].get("msg_id") != message:
            continue
    except queue.Empty:
        return False
    return True


def _note_pause(runtime: Runtime, exec_id: str, told: str) -> None:
    """Record the pause for a kernel that died before it could: a deaf one was killed."""
    if runtime.journal.execution(exec_id).status is not ExecutionStatus.INTERRUPTED:
        return
    last = runtime.journal.history(exec_id)[-1]
    if last.kind != "execution.paused":
        body = {"reason": f"the worker got {told}", "signal": told}
        runtime.journal.append(exec_id, [Event(exec_id, "execution.paused", "", time.time(), body)])


class _Pause:
    """Cancels a task when the process is told to end; ``asked`` is the signal's name then."""

    asked = ""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task

    def __call__(self, number: signal.Signals) -> None:
        if not self.asked:
            self.asked = number.name
            self._task.cancel()


@contextmanager
def _pausable() -> Iterator[_Pause]:
    """Within the block SIGTERM and SIGINT cancel the running task, once; but only in the main thread."""
    task = asyncio.current_task()
    assert task is not None
    pause, loop = _Pause(task), asyncio.get_running_loop()
    listened: list[signal.Signals] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        with suppress(NotImplementedError, RuntimeError, ValueError):  # not on Windows, nor in other threads
            loop.add_signal_handler(number, pause, number)
            listened.append(number)
    try:
        yield pause
    finally:
        for number in listened:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])


def environment(runtime: Runtime, exec_id: str, path: Path) -> dict[str, str]:
    """Environment of the kernel: the same journal and store, and which execution it advances."""
    settings = runtime.settings
    return os.environ | {
        "KITARU_HOME": str(settings.home),
        "KITARU_JOURNAL": settings.journal_url,
        "KITARU_STORE": settings.store_url,
        "KITARU_INLINE_MAX_BYTES": str(settings.inline_max_bytes),
        "KITARU_DURABILITY": settings.durability,
        "KITARU_EXECUTION": exec_id,
        "KITARU_NOTEBOOK": str(path),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


# notebooks as files


def write_notebook(notebook: Any, path: Path) -> None:
    """Write the executed copy, whole or not at all. Raises `KitaruBackendError`."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_text(written(notebook), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise KitaruBackendError(
            f"The executed copy can't be written to {path}: {error.strerror}.", fix="kitaru run ... --output PATH"
        ) from error
