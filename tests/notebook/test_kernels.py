"""Through real kernels: deaths, interrupts, two at once, nbclient and nbval."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.runtime import Runtime

SETUP = """
%load_ext kitaru_nb
import asyncio, os, time
from kitaru_nb import checkpoint

def count(word):
    with open("side.txt", "a") as side:
        side.write(word + "\\n")

@checkpoint
def step(n):
    count(f"step{n}")
    return n

@checkpoint
async def astep(n):
    count(f"step{n}")
    return n

def hang():
    open("hangs", "w").close()
    while stop:
        time.sleep(0.01)

async def ahang():
    open("hangs", "w").close()
    while stop:
        await asyncio.sleep(0.01)
"""
CELLS = {
    "sync": "%%checkpoint agent --in step\na = step(1) + step(2)\nhang()\nb = a + step(3)",
    "async": "%%checkpoint agent --in astep\na = sum(await asyncio.gather(astep(1), astep(2)))\n"
    "await ahang()\nb = a + await astep(3)",
}


class Kernel:
    """A kernel process and its client."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.manager = KernelManager(connection_file=str(folder / f"kernel-{time.monotonic_ns()}.json"))
        self.manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager.start_kernel(cwd=str(folder), env=os.environ | environment)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def begin(self, source: str) -> str:
        message: str = self.client.execute(source)
        return message

    def asked(self, source: str, *, ahead: float = 0.0, **given: Any) -> dict[str, Any]:
        """A request that isn't sent yet, of a front end whose clock is so many seconds ahead."""
        content = {"code": source, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        message: dict[str, Any] = self.client.session.msg("execute_request", content, **given)
        message["header"]["date"] += timedelta(seconds=ahead)
        return message

    def send(self, message: dict[str, Any]) -> str:
        self.client.shell_channel.send(message)
        sent: str = message["header"]["msg_id"]
        return sent

    def end(self, message: str) -> tuple[dict[str, Any], str]:
        """The reply of a request, and the text that it showed."""
        while True:
            reply = self.client.get_shell_msg(timeout=120)
            if reply["parent_header"].get("msg_id") == message:
                break
        shown = ""
        while True:
            told = self.client.get_iopub_msg(timeout=120)
            if told["parent_header"].get("msg_id") != message:
                continue
            content = told["content"]
            shown += content.get("text", "") or content.get("data", {}).get("text/plain", "")
            shown += "\n".join(content.get("traceback", ()))
            if content.get("execution_state") == "idle":
                return reply["content"], re.sub(r"\x1b\[[\d;]*m", "", shown)

    def run(self, source: str) -> tuple[dict[str, Any], str]:
        return self.end(self.begin(source))

    def ok(self, source: str) -> str:
        reply, shown = self.run(source)
        assert reply["status"] == "ok", shown
        return shown

    def stop(self) -> None:
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)


class Desk:
    """A folder with a notebook, on which kernels come and go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "KITARU_HOME": str(folder / "home"),
            "KITARU_NOTEBOOK": str(folder / "study.ipynb"),
            "KITARU_USER": "ana",
        }
        self.kernels: list[Kernel] = []

    def kernel(self) -> Kernel:
        self.kernels.append(Kernel(self.folder, self.environment))
        return self.kernels[-1]

    @property
    def client(self) -> KitaruClient:
        return KitaruClient(Runtime(Settings(self.folder / "home")))

    @property
    def counted(self) -> list[str]:
        return (self.folder / "side.txt").read_text().split()

    def until_it_hangs(self, kernel: Kernel) -> None:
        deadline = time.monotonic() + 120
        while not (self.folder / "hangs").exists():
            assert time.monotonic() < deadline
            assert kernel.manager.is_alive()
            time.sleep(0.02)
        (self.folder / "hangs").unlink()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = Desk(tmp_path)
    yield found
    for kernel in found.kernels:
        kernel.stop()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_killed_kernel_loses_nothing_that_was_finished(desk: Desk, kind: str) -> None:
    first = desk.kernel()
    first.ok(SETUP + "\nstop = True")
    first.begin(CELLS[kind])
    desk.until_it_hangs(first)
    first.manager.signal_kernel(signal.SIGKILL)
    second = desk.kernel()
    second.ok(SETUP + "\nstop = False")
    second.ok(CELLS[kind])
    assert second.ok("print(b)").strip() == "6"
    assert sorted(desk.counted) == ["step1", "step2", "step3"]
    [execution] = desk.client.executions.list()
    assert str(desk.client.executions.get(execution.exec_id).checkpoints[0].status) == "completed"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_interrupted_cell_goes_on_where_it_was(desk: Desk, kind: str) -> None:
    kernel = desk.kernel()
    kernel.ok(SETUP + "\nstop = True")
    message = kernel.begin(CELLS[kind])
    desk.until_it_hangs(kernel)
    kernel.manager.interrupt_kernel()
    reply, shown = kernel.end(message)
    assert reply["ename"] in ("KeyboardInterrupt", "CancelledError")
    assert "agent was interrupted" in shown
    assert "kitaru_nb/" not in shown
    kernel.ok("stop = False")
    kernel.ok(CELLS[kind])
    assert kernel.ok("print(b)").strip() == "6"
    assert sorted(desk.counted) == ["step1", "step2", "step3"]


def test_the_second_kernel_of_a_notebook_is_refused_until_the_first_has_ended(desk: Desk) -> None:
    first, second = desk.kernel(), desk.kernel()
    first.ok("%load_ext kitaru_nb")
    second.ok("%load_ext kitaru_nb")
    first.ok("%%checkpoint a\nx = 1")
    reply, shown = second.run("%%checkpoint a\nx = 1")
    assert reply["ename"] == "KitaruLeaseError"
    assert "Another kernel works on this notebook." in shown
    assert "fix: %kitaru new" in shown
    first.manager.shutdown_kernel()
    assert "✓ a → x" in second.ok("%%checkpoint a\nx = 1")
    [execution] = desk.client.executions.list()
    statuses = [c.status for c in desk.client.executions.get(execution.exec_id).checkpoints]
    assert statuses == ["completed"]


def test_a_second_kernel_may_begin_an_execution_of_its_own(desk: Desk) -> None:
    first, second = desk.kernel(), desk.kernel()
    for kernel in (first, second):
        kernel.ok("%load_ext kitaru_nb")
    first.ok("%%checkpoint a\nx = 1")
    second.ok("%kitaru new")
    second.ok("%%checkpoint a\nx = 1")
    first.ok("%%checkpoint b\ny = 1")
    assert len(desk.client.executions.list()) == 2


def test_cell_ids_and_tags_of_the_request_reach_the_session(desk: Desk) -> None:
    kernel = desk.kernel()
    kernel.ok("%load_ext kitaru_nb")
    message = kernel.asked("x = 1", metadata={"tags": ["step:draft"], "cellId": "abc"})
    _, shown = kernel.end(kernel.send(message))
    assert "✓ draft → x" in shown


@pytest.mark.parametrize("ahead", [-3600.0, 0.0, 3600.0], ids=["clock behind", "same clock", "clock ahead"])
def test_a_cell_of_the_same_run_all_that_arrives_after_the_wait_has_stopped_it_does_not_run(
    desk: Desk, ahead: float
) -> None:
    """By whatever the front end's clock says; what a person asks for since then runs."""
    kernel = desk.kernel()
    before = [kernel.asked(source, ahead=ahead) for source in ("%load_ext kitaru_nb", "ok = %wait approve", "x = 1")]
    loads, waits, late = before
    assert kernel.end(kernel.send(loads))[0]["status"] == "ok"
    assert kernel.end(kernel.send(waits))[0]["ename"] == "Paused"
    reply, shown = kernel.end(kernel.send(late))
    assert reply["ename"] == "Paused"
    assert "asked for before the notebook began to wait; run it after the answer" in shown
    reply, shown = kernel.end(kernel.send(kernel.asked("print('x' in globals())", ahead=ahead)))
    assert (reply["status"], shown.strip()) == ("ok", "False")


def notebook_of(*sources: str) -> Any:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


ASKING = (
    "%load_ext kitaru_nb",
    "%%checkpoint draft\nprint('thinking')\ntext = 'a post'\ntext",
    "ok = %wait approve --question 'Publish {text}?'",
    "%%checkpoint publish\nfinal = (text, ok)",
    "print(final)",
)


def execute(notebook: Any, folder: Path) -> None:
    client = NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(folder)}})
    client.execute()


def test_run_all_of_nbclient_ends_at_a_wait_and_goes_on_after_the_answer(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in desk.environment.items():
        monkeypatch.setenv(name, value)
    notebook = notebook_of(*ASKING)
    with pytest.raises(CellExecutionError) as caught:
        execute(notebook, desk.folder)
    assert caught.value.ename == "Paused"
    assert caught.value.evalue == "waiting for an answer to 'approve'; the cells below run after it"
    assert notebook.cells[2].outputs[-1].traceback == [f"‖ {caught.value.evalue}"]
    assert notebook.cells[3].execution_count is None
    nbformat.validate(notebook)
    execution = desk.client.executions.latest()
    assert (str(execution.status), execution.lease) == ("waiting", None)
    desk.client.executions.input(execution.exec_id, value=True)
    again = notebook_of(*ASKING)
    execute(again, desk.folder)
    assert again.cells[4].outputs[0].text == "('a post', True)\n"


def test_stored_outputs_compare_equal_when_everything_is_reused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (desk.environment | {"KITARU_CI": "1"}).items():
        monkeypatch.setenv(name, value)
    sources = (*ASKING[:2], "%%checkpoint more\n[1, text]", "%kitaru status")
    notebook = notebook_of(*sources, "%kitaru lineage")
    execute(notebook, desk.folder)
    path = desk.folder / "study.ipynb"
    nbformat.write(notebook, path)
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(path)]
    ended = subprocess.run(command, cwd=desk.folder, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stdout


def test_loading_is_quick_imports_nothing_heavy_and_has_no_effect(desk: Desk) -> None:
    program = (
        "import sys, time\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "from traitlets.config import Config\n"
        "config = Config(); config.HistoryManager.enabled = False\n"
        "shell = InteractiveShell.instance(config=config)\n"
        "began = time.process_time()\n"
        "import asyncio, ipykernel.ipkernel\n"
        "there = time.process_time()\n"
        "shell.run_cell('%load_ext kitaru_nb')\n"
        "print((time.process_time() - there) / (there - began))\n"
        "print(sorted(n for n in 'pydantic pandas numpy rich openai agents ipywidgets nbformat nbclient'.split()"
        " if n in sys.modules))"
    )
    ratios = []  # to what a kernel imports anyway: how many seconds that takes is the machine's affair
    # As installed: with bytecode, wherever this folder may be written to.
    cached = {"PYTHONPYCACHEPREFIX": str(desk.folder / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}
    for _ in range(3):
        ended = subprocess.run(
            [sys.executable, "-c", program],
            cwd=desk.folder,
            env=os.environ | desk.environment | cached,
            capture_output=True,
            text=True,
            timeout=120,
        )
        ratio, heavy = ended.stdout.splitlines()
        ratios.append(float(ratio))
        assert heavy == "[]"
    assert not (desk.folder / "home").exists()
    assert min(ratios[1:]) < 2, ratios  # the first one wrote the bytecode
