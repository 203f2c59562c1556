"""Run a notebook without a front end, through the same cell engine: in a kernel process of its own.

The kernel gets every cell's metadata (tags, id) with its request, as JupyterLab sends it; nbclient sends none.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import queue
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client import AsyncKernelClient, AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from kitaru_nb.core.create import created_event, pack_inputs, read_inputs, write_created
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruLeaseError, KitaruRuntimeError, KitaruUsageError
from kitaru_nb.journal.fold import pack_artifact, unpack_artifact
from kitaru_nb.model import ExecutionStatus

_SKIP_TAGS = ("skip", "skip-execution", "injected-parameters")
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


class CellClient(AsyncKernelClient):  # type: ignore[misc]
    """A kernel client that sends the metadata of the cell with its execute request."""

    cell_metadata: Mapping[str, Any] = {}

    def execute(self, code: str, **options: Any) -> str:
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


class CellByCell(NotebookClient):  # type: ignore[misc]
    """nbclient, telling the kernel which cell it runs and the caller how far it is."""

    on_progress: OnProgress | None = None
    total = 0
    done = 0

    async def async_execute_cell(self, cell: Any, cell_index: int, **options: Any) -> Any:
        """Execute one cell. Raises `CellExecutionError`."""
        if cell.cell_type != "code" or not cell.source.strip() or is_skipped(cell):
            return cell
        self.kc.cell_metadata = {**cell.metadata, "cellId": cell.get("id")}
        self.done += 1
        self._tell(cell, "running")
        try:
            result = await super().async_execute_cell(cell, cell_index, **options)
        except CellExecutionError as error:
            self._tell(cell, "waiting" if error.ename == "Paused" else "failed")
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
    notebook = read_notebook(path)
    values = parse_parameters(notebook, parameters, path)
    blob = bytearray()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    snapshot = runtime.store.write(nbformat.writes(notebook), name="notebook", kind="blob")
    target = (output or path.with_suffix(".executed.ipynb")).absolute()
    ref = {
        "kind": "notebook",
        "path": str(path.absolute()),
        "interactive": False,
        "notebook": pack_artifact(snapshot, blob),
        "output": str(target),
    }
    body = {"ref": ref, "inputs": pack_inputs(runtime, values, blob)}
    execution = write_created(runtime, path.stem, "local", body, blob, key=key)
    return go_on(runtime, execution.exec_id, on_progress=on_progress)


def go_on(runtime: Runtime, exec_id: str, *, on_progress: OnProgress | None = None) -> NotebookOutcome:
    """Go on with the execution of a notebook until it ends or waits; finished checkpoints are reused.

    Raises:
        KitaruLeaseError: another worker runs it.
        KitaruRuntimeError: its kernel died.
    """
    while True:
        execution = runtime.journal.execution(exec_id)
        created = created_event(runtime, exec_id)
        ref = created.body["ref"]
        output = Path(ref["output"])
        if execution.status in (ExecutionStatus.COMPLETED, ExecutionStatus.CANCELLED):
            return NotebookOutcome(exec_id, execution.status, output, "it has ended already")
        if execution.status is ExecutionStatus.RUNNING:
            raise KitaruLeaseError(f"{exec_id} is run by another worker.", fix=f"kitaru executions get {exec_id}")
        source = runtime.store.read(unpack_artifact(ref["notebook"], created.blob, exec_id))
        notebook = nbformat.reads(source, as_version=4)
        inject(notebook, read_inputs(runtime, created))
        reason = asyncio.run(_run_cells(runtime, exec_id, notebook, Path(ref["path"]), on_progress))
        write_notebook(notebook, output)
        status = runtime.journal.execution(exec_id).status
        if status is ExecutionStatus.WAITING and not runtime.journal.waits(exec_id=exec_id):
            continue  # answered while the kernel let go
        return NotebookOutcome(exec_id, status, output, reason)


async def _run_cells(
    runtime: Runtime, exec_id: str, notebook: Any, path: Path, on_progress: OnProgress | None
) -> str:
    with tempfile.TemporaryDirectory(prefix="kitaru-") as sockets:
        manager = AsyncKernelManager(client_class=f"{__name__}.CellClient")
        manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        if os.name == "posix":
            manager.transport, manager.ip = "ipc", f"{sockets}/k"  # no port for others on this machine
        return await _run_in(manager, runtime, exec_id, notebook, path, on_progress)


async def _run_in(
    manager: AsyncKernelManager,
    runtime: Runtime,
    exec_id: str,
    notebook: Any,
    path: Path,
    on_progress: OnProgress | None,
) -> str:
    folder = path.parent if path.parent.is_dir() else Path.cwd()
    client = CellByCell(
        notebook,
        km=manager,
        timeout=None,
        store_widget_state=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.on_progress = on_progress
    client.total = sum(c.cell_type == "code" and bool(c.source.strip()) and not is_skipped(c) for c in notebook.cells)
    async with client.async_setup_kernel(cwd=str(folder), env=environment(runtime, exec_id, path)):
        try:
            return await _cells(client, notebook)
        except DeadKernelError as error:
            raise KitaruRuntimeError(
                f"The kernel of {exec_id} died; finished checkpoints are kept.",
                fix=f"kitaru executions resume {exec_id}",
            ) from error
        finally:
            # nbclient ends only kernels that it started itself.
            await manager.shutdown_kernel(now=not await manager.is_alive())


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
    kernel = client.kc
    kernel.cell_metadata = {}
    message = kernel.execute(source, silent=True, store_history=False)
    while True:
        try:
            reply = await kernel.get_shell_msg(timeout=1.0)
        except queue.Empty:
            if not await client.km.is_alive():
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
        "KITARU_EXECUTION": exec_id,
        "KITARU_NOTEBOOK": str(path),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


# notebooks as files


def read_notebook(path: Path) -> Any:
    """A notebook, in format 4. Raises `KitaruUsageError` for anything else."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        there = ", ".join(sorted(p.name for p in path.parent.glob("*.ipynb"))[:5]) or "none"
        raise KitaruUsageError(f"There is no file {path}. Notebooks in {path.parent}: {there}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise KitaruUsageError(f"{path} can't be read: {error}.") from error
    try:
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, ValueError, AttributeError, KeyError) as error:
        raise KitaruUsageError(
            f"{path} is no notebook: {str(error).splitlines()[0][:200]}. Expected a Jupyter notebook (.ipynb, JSON).",
            fix="kitaru run notebook.ipynb",
        ) from error
    return notebook


def write_notebook(notebook: Any, path: Path) -> None:
    """Write the executed copy, whole or not at all. Raises `KitaruBackendError`."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_text(nbformat.writes(notebook), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise KitaruBackendError(
            f"The executed copy can't be written to {path}: {error.strerror}.", fix="kitaru run ... --output PATH"
        ) from error


def is_skipped(cell: Any) -> bool:
    """Whether a cell's tags or first line say that it isn't to be run."""
    tags = cell.metadata.get("tags", ())
    if "injected-parameters" in tags and cell.metadata.get("kitaru", {}).get("injected"):
        return False
    return any(tag in tags for tag in _SKIP_TAGS) or cell.source.lstrip().startswith("#| eval: false")


def title_of(cell: Any) -> str:
    """How a cell is called in progress lines: its checkpoint's name, else its first line."""
    first = cell.source.strip().splitlines()[0]
    return first[:60]


def parameters_of(notebook: Any) -> dict[str, tuple[str | None, Any]]:
    """Name → (annotation, default) of each assignment in the cell tagged ``parameters``."""
    found: dict[str, tuple[str | None, Any]] = {}
    for cell in notebook.cells:
        if cell.cell_type != "code" or "parameters" not in cell.metadata.get("tags", ()):
            continue
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[node.target.id] = (ast.unparse(node.annotation), literal(node.value))
            elif isinstance(node, ast.Assign):
                found.update({t.id: (None, literal(node.value)) for t in node.targets if isinstance(t, ast.Name)})
    return found


def literal(node: ast.expr | None) -> Any:
    """The value of a literal; None for other expressions."""
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def parse_parameters(notebook: Any, given: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Values of the types that the notebook's parameters have. Raises `KitaruUsageError`."""
    known = parameters_of(notebook)
    values = {}
    for name, text in given.items():
        if name not in known:
            there = ", ".join(known) or "none (no cell is tagged 'parameters')"
            raise KitaruUsageError(
                f"{path.name} has no parameter {name!r}. Parameters are: {there}.",
                fix=f"kitaru run {path.name}" + (f" -p {next(iter(known))}=..." if known else ""),
            )
        annotation, default = known[name]
        kind = annotation or (type(default).__name__ if default is not None else "")
        values[name] = parse_parameter(name, text, kind)
    return values


def parse_parameter(name: str, text: str, kind: str) -> Any:
    """``text`` as a value of the named type. Raises `KitaruUsageError`."""
    if kind == "str":
        return text
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    plain = {"int": int, "float": float, "bool": bool, "list": list, "dict": dict}
    expected = plain.get(kind.partition("[")[0])
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if expected is not None and type(value) is not expected:
        raise KitaruUsageError(f"Parameter {name} is {text!r}; expected {kind}.", fix=f"-p {name}=...")
    return value


def inject(notebook: Any, values: Mapping[str, Any]) -> None:
    """Put the given values into a cell after the one tagged ``parameters``."""
    if not values:
        return
    source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    metadata = {"tags": ["injected-parameters"], "kitaru": {"injected": True}}
    cell = nbformat.v4.new_code_cell(source, metadata=metadata, id="kitaru-parameters")
    at = next(i for i, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", ()))
    notebook.cells.insert(at + 1, cell)
