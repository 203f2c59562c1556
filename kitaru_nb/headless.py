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
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kitaru_nb.cells.notebook import inject, parse_parameters, parsed, read_notebook, title_of, will_run
from kitaru_nb.cells.quick_import import without_grammars
from kitaru_nb.core.create import created_event, pack_inputs, read_inputs, write_created
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruError, KitaruLeaseError, KitaruRuntimeError
from kitaru_nb.journal.fold import pack_artifact, unpack_artifact
from kitaru_nb.model import Event, Execution, ExecutionStatus
from kitaru_nb.promote.workplace import localised

with without_grammars():
    import nbformat
    from jupyter_client.asynchronous.client import AsyncKernelClient
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

_BEGIN = """\
from kitaru_nb.surfaces.notebook.extension import load_ipython_extension
load_ipython_extension(get_ipython())
del load_ipython_extension
get_ipython().kitaru_session.ensure_run()
"""
_FINISH = "get_ipython().kitaru_session.finish()"


@dataclass(frozen=True, slots=True)
class Progress:
    """A cell begins (``status`` running) or has ended. ``index`` counts code cells from 1."""

    index: int
    total: int
    name: str
    status: str


@dataclass(frozen=True, slots=True)
class NotebookOutcome:
    """How a run of a notebook ended, and where the executed copy is."""

    exec_id: str
    status: ExecutionStatus
    output: Path
    reason: str


OnProgress = Callable[[Progress], None]


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


class CellByCell(NotebookClient):
    """nbclient, telling the kernel which cell it runs and the caller how far it is."""

    on_progress: OnProgress | None = None
    total = 0
    done = 0

    async def async_execute_cell(self, cell: Any, cell_index: int, *_: Any, **options: Any) -> Any:
        """Execute one cell. Raises `CellExecutionError`."""
        if not will_run(cell):
            return cell
        kernel: Any = self.kc
        kernel.cell_metadata = {**cell.metadata, "cellId": cell.get("id")}
        self.done += 1
        self._tell(cell, "running")
        try:
            result = await super().async_execute_cell(cell, cell_index, **options)
        except CellExecutionError as error:
            self._tell(cell, "waiting" if error.ename == "Paused" else "failed")
            raise
        except DeadKernelError:
            self._tell(cell, "failed")
            raise
        self._tell(cell, "done")
        return result

    def _tell(self, cell: Any, status: str) -> None:
        if self.on_progress is not None:
            self.on_progress(Progress(self.done, self.total, title_of(cell), status))


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
    text = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
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
        notebook = parsed(_source_of(runtime, created))
        inject(notebook, read_inputs(runtime, created))
        write_notebook(notebook, output)  # where it can't be written, nothing has run in vain
        try:
            reason = asyncio.run(_run_cells(runtime, exec_id, notebook, Path(ref["path"]), on_progress))
        finally:
            write_notebook(notebook, output)
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


async def _run_cells(runtime: Runtime, exec_id: str, notebook: Any, path: Path, on_progress: OnProgress | None) -> str:
    """Run the notebook in a kernel of its own; why it ended before the last cell, or ""."""
    folder = path.parent if path.parent.is_dir() else Path.cwd()
    with tempfile.TemporaryDirectory(prefix="kitaru-") as sockets, _pausable() as pause:
        manager = AsyncKernelManager(client_class=f"{__name__}.CellClient")
        spec: Any = manager.kernel_spec
        spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        manager.connection_file = f"{sockets}/kernel.json"
        if os.name == "posix":
            manager.transport, manager.ip = "ipc", f"{sockets}/k"  # no port for others on this machine
        resources = {"metadata": {"path": str(folder)}}
        client = CellByCell(notebook, km=manager, timeout=None, store_widget_state=False, resources=resources)
        client.on_progress = on_progress
        client.total = sum(will_run(cell) for cell in notebook.cells)
        try:
            await client.async_start_new_kernel(cwd=str(folder), env=environment(runtime, exec_id, path))
            await client.async_start_new_kernel_client()
            return await _cells(client, notebook)
        except (DeadKernelError, RuntimeError, asyncio.CancelledError) as error:
            if pause.asked:
                return f"paused by {pause.asked}; nothing is lost"
            if isinstance(error, KitaruError | asyncio.CancelledError):
                raise
            raise KitaruRuntimeError(
                f"The kernel of {exec_id} died; finished checkpoints are kept.",
                fix=f"kitaru executions resume {exec_id}",
            ) from error
        finally:
            await _end_kernel(manager, client, interrupted=bool(pause.asked))


async def _end_kernel(manager: Any, client: CellByCell, *, interrupted: bool) -> None:
    """End the kernel gently, so that it gives its lease back; one that runs a cell leaves that first."""
    alive = manager.has_kernel and await manager.is_alive()
    if alive and interrupted:
        await manager.interrupt_kernel()
        await _until_idle(client.kc)
    if client.kc is not None:
        client.kc.stop_channels()
    if not manager.has_kernel:
        return
    if alive:
        # What shutdown_kernel() does, without its interrupt: the kernel is idle and would report a KeyboardInterrupt.
        manager.stop_restarter()
        await manager.request_shutdown()
        await manager.finish_shutdown()
        await manager.cleanup_resources()
    else:
        await manager.shutdown_kernel(now=True)


async def _until_idle(kernel: Any) -> None:
    """Wait until the kernel has left the cell that it runs, a few seconds at most."""
    if kernel is None:
        return
    message = kernel.kernel_info()
    with suppress(queue.Empty):  # deaf: it will be killed
        while (await kernel.get_shell_msg(timeout=5.0))["parent_header"].get("msg_id") != message:
            continue


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


async def _cells(client: CellByCell, notebook: Any) -> str:
    """Execute all cells; why it ended before the last, or ""."""
    await hidden(client, _BEGIN)
    try:
        for index, cell in enumerate(notebook.cells):
            await client.async_execute_cell(cell, index)
    except CellExecutionError as error:
        if error.ename == "Paused":
            return str(error.evalue)
        await hidden(client, _FINISH)
        return f"{error.ename}: {error.evalue}"
    await hidden(client, _FINISH)
    return ""


async def hidden(client: CellByCell, source: str) -> None:
    """Execute code that isn't part of the notebook. Raises `KitaruRuntimeError` with what it said."""
    kernel: Any = client.kc
    manager: Any = client.km
    kernel.cell_metadata = {}
    message = kernel.execute(source, silent=True, store_history=False)
    while True:
        try:
            reply = await kernel.get_shell_msg(timeout=1.0)
        except queue.Empty:
            if not await manager.is_alive():
                raise DeadKernelError("Kernel died") from None
            continue
        if reply["parent_header"].get("msg_id") == message:
            break
    content = reply["content"]
    if content["status"] != "ok":
        kind = KitaruLeaseError if content.get("ename") == "KitaruLeaseError" else KitaruRuntimeError
        raise kind(f"{content.get('ename')}: {content.get('evalue')}")


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
        temporary.write_text(nbformat.writes(notebook), encoding="utf-8")  # type: ignore[no-untyped-call]
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise KitaruBackendError(
            f"The executed copy can't be written to {path}: {error.strerror}.", fix="kitaru run ... --output PATH"
        ) from error
