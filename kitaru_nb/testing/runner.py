"""What every runner must do. Subclass it, and say how a runner is made:

class TestMyRunner(RunnerContract):
    @pytest.fixture
    def runner(self, runtime): return MyRunner(...)

Workers must reach the journal and the store of ``runtime``, and the folder ``programs``.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.records import load
from kitaru_nb.core.runners import Runner, WorkerStatus
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.model import Execution, ExecutionStatus

PROGRAM = """
import os
import sys
import time
from pathlib import Path

from kitaru_nb import checkpoint, flow, wait

HERE = Path(__file__).parent


@checkpoint
def step(name: str, number: int) -> str:
    with (HERE / f"{name}.ran").open("a") as ran:
        ran.write(f"{number}\\n")
    print(f"step {number} of {name}", flush=True)
    return f"{name}{number}"


@flow
def finish(name: str) -> str:
    return step(name, 1) + step(name, 2)


@flow
def fail(name: str) -> str:
    step(name, 1)
    raise ValueError(f"{name} can't be done")


@flow
def ask(name: str) -> str:
    first = step(name, 1)
    if wait("go", question="Go on?", timeout=0):
        return first + step(name, 2)
    return "no"


@checkpoint
def linger(name: str) -> int:
    beside = HERE / f"{name}.new"
    beside.write_text(str(os.getpid()))
    beside.replace(HERE / f"{name}.pid")  # who sees it can read it
    until = time.monotonic() + 120
    while time.monotonic() < until and not (HERE / f"{name}.enough").exists():
        time.sleep(0.05)
    return 1


@flow
def stay(name: str) -> str:
    step(name, 1)
    linger(name)
    return "stayed"
"""


class RunnerContract:
    """Behaviour of runners that their callers rely on.

    Attributes:
        seconds: how long anything may take.
    """

    seconds = 120.0

    @pytest.fixture
    def runtime(self, tmp_path: Path) -> Runtime:
        """Where the executions are kept."""
        return Runtime(Settings(home=tmp_path / "home"))

    @pytest.fixture
    def programs(self, tmp_path: Path) -> Path:
        """The folder of the program that workers run."""
        folder = tmp_path / "programs"
        folder.mkdir()
        (folder / "program.py").write_text(PROGRAM)
        return folder

    @pytest.fixture
    def runner(self, runtime: Runtime) -> Runner:
        """The runner under test."""
        raise NotImplementedError("a subclass says how its runner is made")

    @pytest.fixture
    def program(self, programs: Path) -> ModuleType:
        """The program as a module: what the executions refer to is its file."""
        spec = importlib.util.spec_from_file_location("program", programs / "program.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["program"] = module
        try:
            spec.loader.exec_module(module)
        finally:
            del sys.modules["program"]
        return module

    # steps

    def begin(self, runtime: Runtime, flow: Any, name: str) -> str:
        """A pending execution of ``flow``; nothing is started."""
        return create_execution(runtime, flow.with_options(runtime=runtime), {"name": name}).exec_id

    def until(self, what: str, asked: Callable[[], Any]) -> Any:
        """Wait until ``asked`` gives something true."""
        until = time.monotonic() + self.seconds
        while not (found := asked()):
            assert time.monotonic() < until, f"after {self.seconds:g} s still not: {what}"
            time.sleep(0.1)
        return found

    def until_status(self, runtime: Runtime, exec_id: str, *wanted: ExecutionStatus) -> Execution:
        """Wait until the execution has one of these statuses."""
        journal = runtime.journal
        self.until(f"{exec_id} is {wanted}", lambda: journal.execution(exec_id).status in wanted)
        return journal.execution(exec_id)

    def until_ended(self, runner: Runner, exec_id: str) -> WorkerStatus:
        """Wait until the worker has ended."""
        self.until("the worker has ended", lambda: not runner.status(exec_id).alive)
        return runner.status(exec_id)

    def ran(self, programs: Path, name: str) -> list[int]:
        """The steps that ran, in order."""
        path = programs / f"{name}.ran"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    # the contract

    def test_a_flow_is_brought_to_its_end(
        self, runner: Runner, runtime: Runtime, program: ModuleType, programs: Path
    ) -> None:
        """Result, logs and status."""
        exec_id = self.begin(runtime, program.finish, "a")
        assert runner.status(exec_id).state == "none"
        where = runner.submit(runtime, exec_id)
        assert where
        self.until_status(runtime, exec_id, ExecutionStatus.COMPLETED)
        assert load(exec_id, "result", runtime=runtime) == "a1a2"
        ended = self.until_ended(runner, exec_id)
        assert (ended.state, ended.code) == ("ended", 0)
        assert time.time() - self.seconds < ended.begun_at <= time.time() + 1
        assert "step 2 of a" in runner.logs(exec_id)
        assert self.ran(programs, "a") == [1, 2]

    def test_a_failure_is_recorded_and_not_tried_again(
        self, runner: Runner, runtime: Runtime, program: ModuleType, programs: Path
    ) -> None:
        """The place where it runs may start again what died, but not what failed."""
        exec_id = self.begin(runtime, program.fail, "b")
        runner.submit(runtime, exec_id)
        self.until_status(runtime, exec_id, ExecutionStatus.FAILED)
        self.until_ended(runner, exec_id)
        time.sleep(1.0)
        failure = KitaruClient(runtime=runtime).executions.get(exec_id).failure
        assert failure is not None
        assert "b can't be done" in failure.message
        assert runtime.journal.execution(exec_id).epoch == 1
        assert self.ran(programs, "b") == [1]

    def test_a_wait_ends_the_worker_and_the_answer_has_a_fresh_one_go_on(
        self, runner: Runner, runtime: Runtime, program: ModuleType, programs: Path
    ) -> None:
        """Nothing is held meanwhile, and nothing finished runs again."""
        exec_id = self.begin(runtime, program.ask, "c")
        runner.submit(runtime, exec_id)
        self.until_status(runtime, exec_id, ExecutionStatus.WAITING)
        self.until_ended(runner, exec_id)
        self.answer(runtime, exec_id)
        runner.submit(runtime, exec_id)
        self.until_status(runtime, exec_id, ExecutionStatus.COMPLETED)
        assert load(exec_id, "result", runtime=runtime) == "c1c2"
        assert self.ran(programs, "c") == [1, 2]

    def answer(self, runtime: Runtime, exec_id: str) -> None:
        """Answer the wait, without starting anything."""
        from kitaru_nb.model import Event

        (wait,) = runtime.journal.waits(exec_id=exec_id)
        body = {"value": True, "by": "ann", "via": "test"}
        runtime.journal.append(exec_id, [Event(exec_id, "wait.resolved", wait.wait_id, time.time(), body)])

    def test_asking_twice_for_one_turn_runs_nothing_twice(
        self, runner: Runner, runtime: Runtime, program: ModuleType, programs: Path
    ) -> None:
        """Two dispatchers may both see that there is work."""
        exec_id = self.begin(runtime, program.finish, "d")
        runner.submit(runtime, exec_id)
        runner.submit(runtime, exec_id)
        self.until_status(runtime, exec_id, ExecutionStatus.COMPLETED)
        self.until_ended(runner, exec_id)
        assert self.ran(programs, "d") == [1, 2]
        assert runtime.journal.execution(exec_id).epoch == 1

    def test_cancel_reaches_the_worker(
        self, runner: Runner, runtime: Runtime, program: ModuleType, programs: Path
    ) -> None:
        """It ends, and the journal says so."""
        exec_id = self.begin(runtime, program.stay, "e")
        runner.submit(runtime, exec_id)
        self.until("it runs", (programs / "e.pid").exists)
        self.until("the place says so", lambda: runner.status(exec_id).state == "running")
        runner.cancel(exec_id)
        self.until_ended(runner, exec_id)
        assert runtime.journal.execution(exec_id).status is ExecutionStatus.INTERRUPTED
        assert self.ran(programs, "e") == [1]

    def test_an_execution_without_a_worker(self, runner: Runner, runtime: Runtime, program: ModuleType) -> None:
        """Has no status and no logs, and can be cancelled in vain."""
        exec_id = self.begin(runtime, program.finish, "f")
        assert runner.status(exec_id) == WorkerStatus("none")
        assert runner.logs(exec_id) == ""
        runner.cancel(exec_id)


class RestartingRunnerContract(RunnerContract):
    """For places that start a worker again that died."""

    def kill(self, pid: int) -> None:
        """End a worker as a crash does."""
        import os
        import signal

        os.kill(pid, signal.SIGKILL)

    def test_a_worker_that_dies_is_started_again_and_goes_on(
        self, runner: Runner, runtime: Runtime, program: ModuleType, programs: Path
    ) -> None:
        """What was finished isn't run again."""
        exec_id = self.begin(runtime, program.stay, "g")
        runner.submit(runtime, exec_id)
        self.until("it runs", (programs / "g.pid").exists)
        pid = int((programs / "g.pid").read_text())
        (programs / "g.pid").unlink()
        self.kill(pid)
        self.until("it runs again", (programs / "g.pid").exists)
        (programs / "g.enough").touch()
        self.until_status(runtime, exec_id, ExecutionStatus.COMPLETED)
        assert self.ran(programs, "g") == [1]
        assert runtime.journal.execution(exec_id).epoch == 2
