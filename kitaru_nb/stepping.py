"""Executing a notebook cell by cell, on a kernel of its own: nbclient, telling the kernel which cell it runs."""

from __future__ import annotations

import queue
from typing import Any

from kitaru_nb.cells.notebook import OnProgress, Progress, title_of, will_run
from kitaru_nb.cells.quick_import import without_grammars
from kitaru_nb.errors import KitaruLeaseError, KitaruRuntimeError

with without_grammars():
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

_BEGIN = """\
from kitaru_nb.surfaces.notebook.extension import load_ipython_extension
load_ipython_extension(get_ipython())
del load_ipython_extension
get_ipython().kitaru_session.ensure_run()
"""
_FINISH = "get_ipython().kitaru_session.finish()"


class CellByCell(NotebookClient):
    """nbclient, telling the kernel which cell it runs and the caller how far it is."""

    on_progress: OnProgress | None = None
    done = 0

    async def run_cells(self) -> str:
        """Execute all cells; why it ended before the last, or "".

        Raises:
            KitaruLeaseError: another worker runs it.
            KitaruRuntimeError: the kernel can't begin or end the execution.
            RuntimeError: the kernel died.
        """
        await self.hidden(_BEGIN)
        try:
            for index, cell in enumerate(self.nb.cells):
                await self.async_execute_cell(cell, index)
        except CellExecutionError as error:
            if error.ename == "Paused":
                return str(error.evalue)
            await self.hidden(_FINISH)
            return f"{error.ename}: {error.evalue}"
        await self.hidden(_FINISH)
        return ""

    async def hidden(self, source: str) -> None:
        """Execute code that isn't part of the notebook. Raises `KitaruRuntimeError` with what it said."""
        kernel: Any = self.kc
        manager: Any = self.km
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
            total = sum(will_run(one) for one in self.nb.cells)
            self.on_progress(Progress(self.done, total, title_of(cell), status))
