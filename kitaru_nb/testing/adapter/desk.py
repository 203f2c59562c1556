"""What a contract test works with: a home, the program under test, worker processes, and the endpoint."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from kitaru_nb.client import ExecutionRef, KitaruClient
from kitaru_nb.core.create import create_execution, create_replay
from kitaru_nb.core.flow import Flow
from kitaru_nb.core.runners import BUILT_IN, Job, WorkerStatus
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.model import CheckpointCall, ExecutionStatus
from kitaru_nb.stacks.process import environment
from kitaru_nb.testing.adapter.capabilities import Capabilities
from kitaru_nb.testing.adapter.script import Endpoint
from kitaru_nb.testing.adapter.tools import SIDE_FILE, Ran, executions_of_tools
from kitaru_nb.testing.forking import Forked, ForkServer

SECONDS = 120.0
WORKER = "kitaru_nb.worker"

#: What forked processes have imported already, besides the program.
MODULES = (WORKER, "kitaru_nb.journal.sqlite", "ipykernel.kernelapp", "kitaru_nb.surfaces.notebook.extension")

#: Variables that tests and their processes don't take over. Compiled modules of SDKs are big: they are kept.
FOREIGN = ("KITARU_JOURNAL", "KITARU_STORE", "KITARU_EXECUTION", "KITARU_CI", "PYTHONDONTWRITEBYTECODE")


class Worker:
    """A worker process in a process group of its own, so that killing it kills what it started.

    Args:
        forks: where it is forked from; None: a process that has to import everything.
    """

    def __init__(self, exec_id: str, environment: Mapping[str, str], output: Path, forks: ForkServer | None) -> None:
        self._output = output
        self.process: Forked | subprocess.Popen[bytes]
        with output.open("ab") as stdout:
            if forks is not None:
                self.process = forks.start(WORKER, exec_id, stdout=stdout, environment=environment)
            else:
                command = [sys.executable, "-m", WORKER, exec_id]
                self.process = subprocess.Popen(
                    command, stdout=stdout, stderr=subprocess.STDOUT, env=environment, start_new_session=True
                )

    def kill(self) -> None:
        """SIGKILL for all of it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(SECONDS)

    def end(self) -> tuple[int, str]:
        """Wait for its end: exit code and what it said."""
        return self.process.wait(SECONDS), self.said

    @property
    def said(self) -> str:
        """What it printed so far, and what workers with the same output did."""
        return self._output.read_text(errors="replace")


class ForkedRunner:
    """Forks its workers; takes the place of the runner of the stack ``local``. It knows no jobs.

    Attributes:
        forks: where from; the fixture ``desk`` sets it.
        workers: those that it started, by execution.
    """

    forks: ForkServer
    workers: ClassVar[dict[str, list[Worker]]] = {}

    def submit(self, runtime: Runtime, exec_id: str, job: Job | None = None) -> str:
        """Start a worker; the path of its output."""
        output = runtime.home / f"{exec_id}.log"
        worker = Worker(exec_id, os.environ | environment(runtime.settings), output, self.forks)
        self.workers.setdefault(exec_id, []).append(worker)
        return str(output)

    def status(self, exec_id: str, job: Job | None = None) -> WorkerStatus:
        """Whether one of them still runs."""
        codes = [worker.process.poll() for worker in self.workers.get(exec_id, ())]
        if not codes:
            return WorkerStatus("none")
        return WorkerStatus("running" if None in codes else "ended", codes[-1])

    def cancel(self, exec_id: str, job: Job | None = None) -> None:
        """SIGTERM for all of them."""
        for worker in self.workers.get(exec_id, ()):
            if worker.process.poll() is None:
                worker.process.terminate()

    def logs(self, exec_id: str, job: Job | None = None) -> str:
        """What they printed."""
        workers = self.workers.get(exec_id)
        return workers[-1].said if workers else ""


class Desk:
    """One test's home and program.

    Attributes:
        forks: forks processes that have imported the program.
        model_type, tool_type: types under which the adapter records model and tool calls.
    """

    def __init__(
        self, folder: Path, program: str, endpoint: Endpoint, forks: ForkServer, model_type: str, tool_type: str
    ) -> None:
        self.folder = folder
        self.program = program
        self.endpoint = endpoint
        self.forks = forks
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

    def replay(self, exec_id: str, **options: Any) -> str:
        """A pending replay of an execution; options as of `kitaru_nb.core.create.create_replay`."""
        self._created.append(create_replay(self.client.runtime, exec_id, **options).exec_id)
        return self._created[-1]

    def worker(self, exec_id: str, *, cold: bool = False, environment: Mapping[str, str] | None = None) -> Worker:
        """Start a process that advances the execution.

        Args:
            cold: whether it isn't forked, but has to import everything, with a hash seed of its own.
            environment: variables besides those of the test.
        """
        output = self.folder / f"worker {len(self._workers)}.log"
        self._workers.append(Worker(exec_id, os.environ | (environment or {}), output, None if cold else self.forks))
        return self._workers[-1]

    def work(self, exec_id: str, *, code: int = 0, cold: bool = False) -> None:
        """Advance the execution in a process, which must end with this exit code."""
        found, said = self.worker(exec_id, cold=cold).end()
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
        runner = ForkedRunner()
        self.until(lambda: not any(runner.status(exec_id).alive for exec_id in exec_ids), "all workers have ended")

    def close(self) -> None:
        """End what a failed test left behind."""
        for worker in self._workers:
            worker.kill()
        self.settled(self._created)
        self.client.runtime.journal.close()


class AdapterSetup(Capabilities):
    """What a subclass says of its adapter.

    Attributes:
        program: module name of the program under test (see `kitaru_nb.testing.adapter`).
        imports: modules that its processes load anyhow when they run; forked ones have them already.
        model_type, tool_type: types under which the adapter records model and tool calls.
    """

    program: str
    imports: ClassVar[Sequence[str]] = ()
    model_type = "model_call"
    tool_type = "tool_call"

    def check_model_calls(self, desk: Desk, exec_id: str, number: int) -> None:
        """So many model calls are on record; none, where the adapter can't record them."""
        assert len(desk.model_calls(exec_id)) == (number if self.records_model_calls else 0)

    @pytest.fixture(scope="class")
    @classmethod
    def forks(cls) -> Iterator[ForkServer]:
        """Forks processes that have imported the program already."""
        program = importlib.import_module(cls.program)
        root = Path(str(program.__file__)).parents[cls.program.count(".")]
        environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        with ForkServer([cls.program, *cls.imports, *MODULES], folder=root, environment=environment) as server:
            yield server

    @pytest.fixture
    def desk(
        self, tmp_path: Path, endpoint: Endpoint, forks: ForkServer, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Desk]:
        """A home of its own, and an endpoint without scripts (fixture ``endpoint`` is the subclass's)."""
        monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("KITARU_USER", "ana")
        monkeypatch.setenv(SIDE_FILE, str(tmp_path / "tools.jsonl"))
        for name in FOREIGN:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(ForkedRunner, "forks", forks, raising=False)
        monkeypatch.setitem(BUILT_IN, "local", f"{__name__}:ForkedRunner")
        desk = Desk(tmp_path, self.program, endpoint, forks, self.model_type, self.tool_type)
        yield desk
        desk.close()
