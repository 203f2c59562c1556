"""Contract: the program in a checkpoint cell of a notebook."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from kitaru_nb.testing.adapter.desk import AdapterSetup, Desk
from kitaru_nb.testing.adapter.script import say, use

#: Name of the kernel whose process is forked.
FORKED = "forked"

TURNS = (use("look_up", key="a"), use("look_up", key="b"), say("fine"))


class NotebookContract(AdapterSetup):
    """An agent in a ``%%checkpoint`` cell."""

    def execute(self, desk: Desk, *, cold: bool = False) -> Any:
        """Run all cells in a fresh kernel (``cold``: one that isn't forked); the executed notebook."""
        import nbformat
        from nbclient import NotebookClient

        make: Any = nbformat.v4

        root = Path(str(importlib.import_module(desk.program).__file__)).parents[desk.program.count(".")]
        sources = (
            f"%load_ext kitaru_nb\nimport os, sys\nsys.path.insert(0, {str(root)!r})\n"
            f"with open({str(desk.folder / 'kernel')!r}, 'w') as file:\n    print(os.getpid(), file=file)",
            f"from {desk.program} import run",
            "%%checkpoint answer\ntext = await run('question')",
            "print(text)",
        )
        notebook = make.new_notebook(cells=[make.new_code_cell(source) for source in sources])
        name = "python3" if cold else FORKED
        where = {"metadata": {"path": str(desk.folder)}}
        # Pieces of a printed text come as one output, however slowly they came.
        client = NotebookClient(notebook, timeout=120, kernel_name=name, coalesce_streams=True, resources=where)
        asyncio.run(client.async_execute())  # on a loop of its own, which is closed at the end
        return notebook

    @pytest.fixture(autouse=True)
    def _notebook_of_its_own(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KITARU_NOTEBOOK", str(desk.folder / "study.ipynb"))

    @pytest.fixture(autouse=True)
    def _forked_kernels(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = desk.folder / "jupyter" / "kernels" / FORKED
        folder.mkdir(parents=True)
        command = desk.forks.command("ipykernel_launcher", "-f", "{connection_file}")
        spec = {"argv": command, "display_name": "Forked", "language": "python"}
        (folder / "kernel.json").write_text(json.dumps(spec))
        monkeypatch.setenv("JUPYTER_PATH", str(desk.folder / "jupyter"))

    def test_a_restarted_kernel_pays_nothing(self, desk: Desk) -> None:
        """The calls are children of the cell; a second Run All reuses the cell."""
        desk.endpoint.script("question", *TURNS)
        assert self.execute(desk, cold=True).cells[3].outputs[0].text == "fine\n"
        exec_id = desk.client.executions.latest().exec_id
        cell = next(call for call in desk.get(exec_id).checkpoints if call.name == "answer")
        self.check_model_calls(desk, exec_id, 3)
        assert all(_inside(desk, exec_id, call, cell.call_id) for call in desk.model_calls(exec_id))
        assert self.execute(desk).cells[3].outputs[0].text == "fine\n"
        assert desk.endpoint.paid == 3
        assert desk.ended == [("look_up", "a"), ("look_up", "b")]

    def test_a_kernel_that_is_killed_in_the_cell_loses_no_finished_call(self, desk: Desk) -> None:
        """A new kernel goes on inside the cell."""
        from nbclient.exceptions import DeadKernelError

        desk.endpoint.script("question", *TURNS)
        desk.endpoint.hold(after=1)
        ends: list[BaseException] = []

        def first() -> None:
            try:
                self.execute(desk)
            except DeadKernelError as error:
                ends.append(error)

        thread = threading.Thread(target=first)
        thread.start()
        desk.endpoint.wait_held()
        os.kill(int((desk.folder / "kernel").read_text()), signal.SIGKILL)
        thread.join(60)
        assert len(ends) == 1
        desk.endpoint.let_go()
        assert self.execute(desk).cells[3].outputs[0].text == "fine\n"
        assert desk.endpoint.paid == 3
        assert desk.ended == [("look_up", "a"), ("look_up", "b")]


def _inside(desk: Desk, exec_id: str, call: Any, outer: str) -> bool:
    parents = {found.call_id: found.parent for found in desk.get(exec_id).checkpoints}
    parent = call.parent
    while parent is not None and parent != outer:
        parent = parents[parent]
    return bool(parent == outer)
