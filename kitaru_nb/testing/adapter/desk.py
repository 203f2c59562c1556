"""What a contract test works with: a home, the program under test, worker processes, and the endpoint."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kitaru_nb.client import ExecutionRef, KitaruClient
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.flow import Flow
from kitaru_nb.model import CheckpointCall, ExecutionStatus
from kitaru_nb.stacks.process import ProcessRunner
from kitaru_nb.testing.adapter.script import Endpoint
from kitaru_nb.testing.adapter.tools import SIDE_FILE, Ran, executions_of_tools

SECONDS = 120.0


class Worker:
    """A worker process in a process group of its own, so that killing it kills what it started."""

    def __init__(self, exec_id: str, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kitaru_nb.worker", exec_id],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            text=True,
            start_new_session=True,
        )

    def kill(self) -> None:
        """SIGKILL for all of it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=SECONDS)

    def end(self) -> tuple[int, str]:
        """Wait for its end: exit code and what it said."""
        said, _ = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, said


class Desk:
    """One test's home and program.

    Attributes:
        model_type, tool_type: types under which the adapter records model and tool calls.
    """

    def __init__(self, folder: Path, program: str, endpoint: Endpoint, model_type: str, tool_type: str) -> None:
        self.folder = folder
        self.program = program
        self.endpoint = endpoint
        self.model_type = model_type
        self.tool_type = tool_type
        self.client = KitaruClient()
        self._side_file = Path(os.environ[SIDE_FILE])
        self._workers: list[Worker] = []
        self._created: list[str] = []

    def flow(self, name: str) -> Flow[..., Any]:
        """A flow of the program."""
        found: Flow[..., Any] = getattr(importlib.import_module(self.program), name)
        return found

    def create(self, flow: str, *args: Any) -> str:
        """A pending execution of a flow of the program."""
        program = self.flow(flow)
        exec_id = create_execution(self.client.runtime, program, program.bind(args, {})).exec_id
        self._created.append(exec_id)
        return exec_id

    def worker(self, exec_id: str, **environment: str) -> Worker:
        """Start a process that advances the execution."""
        self._workers.append(Worker(exec_id, environment))
        return self._workers[-1]

    def work(self, exec_id: str, *, code: int = 0) -> None:
        """Advance the execution in a process, which must end with this exit code."""
        found, said = self.worker(exec_id).end()
        assert found == code, said

    def run(self, flow: str, *args: Any) -> tuple[str, Any]:
        """Run a flow in this process: its execution id and its result."""
        handle = self.flow(flow).run(*args)
        return handle.exec_id, handle.wait()

    def get(self, exec_id: str) -> ExecutionRef:
        """The execution as it stands."""
        return self.client.executions.get(exec_id)

    def result(self, exec_id: str) -> Any:
        """What the flow of a completed execution returned."""
        execution = self.get(exec_id)
        assert execution.status is ExecutionStatus.COMPLETED, (execution.status, execution.failure)
        assert execution.result is not None
        return self.client.artifacts.ref(execution.result).load()

    def model_calls(self, exec_id: str) -> list[CheckpointCall]:
        """The recorded model calls, in order."""
        return [call for call in self.get(exec_id).checkpoints if call.checkpoint_type == self.model_type]

    def tool_calls(self, exec_id: str) -> list[CheckpointCall]:
        """The recorded tool calls, in order."""
        return [call for call in self.get(exec_id).checkpoints if call.checkpoint_type == self.tool_type]

    @property
    def ran(self) -> list[Ran]:
        """What the tools noted, from all processes."""
        return executions_of_tools(self._side_file)

    @property
    def ended(self) -> list[tuple[str, Any]]:
        """(tool, argument) of each execution of a tool that came to its end."""
        return [(ran.tool, ran.argument) for ran in self.ran if ran.state == "ended"]

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + SECONDS
        while not true():
            assert time.monotonic() < deadline, f"waited in vain until {what}"
            time.sleep(0.05)

    def until_status(self, exec_id: str, status: str) -> None:
        """Wait until the execution has this status."""
        self.until(lambda: self.get(exec_id).status.value == status, f"{exec_id} is {status}")

    def settled(self, exec_ids: Sequence[str]) -> None:
        """Wait for the workers that answers started."""
        runner = ProcessRunner()
        self.until(lambda: not any(runner.status(exec_id).alive for exec_id in exec_ids), "all workers have ended")

    def close(self) -> None:
        """End what a failed test left behind."""
        for worker in self._workers:
            worker.kill()
        self.settled(self._created)
        self.client.runtime.journal.close()


class AdapterSetup:
    """What a subclass says of its adapter.

    Attributes:
        program: module name of the program under test (see `kitaru_nb.testing.adapter`).
        model_type, tool_type: types under which the adapter records model and tool calls.
    """

    program: str
    model_type = "model_call"
    tool_type = "tool_call"

    @pytest.fixture
    def desk(self, tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
        """A home of its own, and an endpoint without scripts (fixture ``endpoint`` is the subclass's)."""
        monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("KITARU_USER", "ana")
        monkeypatch.setenv(SIDE_FILE, str(tmp_path / "tools.jsonl"))
        for name in ("KITARU_JOURNAL", "KITARU_STORE", "KITARU_EXECUTION", "KITARU_CI", "PYTHONDONTWRITEBYTECODE"):
            monkeypatch.delenv(name, raising=False)
        # Compiled modules of SDKs are big, and every worker loads them: only the first process compiles.
        monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(Path(tempfile.gettempdir()) / f"kitaru-bytecode-{os.getuid()}"))
        desk = Desk(tmp_path, self.program, endpoint, self.model_type, self.tool_type)
        yield desk
        desk.close()
