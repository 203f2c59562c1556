"""What the runners of all clouds must do, beyond what every runner must."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from kitaru_nb.core.records import load
from kitaru_nb.core.runners import Job, Runner, WorkerStatus
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.model import ExecutionStatus
from kitaru_nb.stacks.cloud import CloudRunner
from kitaru_nb.testing.runner import RestartingRunnerContract, RunnerContract
from tests.stacks.containers import Cloud

CRASH = ["python", "-c", "print('no disk'); raise SystemExit(3)"]
HEAVY = """
import os
from kitaru_nb import checkpoint, flow

@checkpoint(runtime="isolated", resources={"cpu": "1", "memory": "2Gi"})
def heavy(number):
    return number * 2, os.getpid()

@flow
def weigh(name):
    result, pid = heavy(21)
    return result, pid, os.getpid()
"""
LINGER = ["python", "-c", "import time; time.sleep(600)"]


#: Runners that the test made; they are closed after it.
MADE: list[CloudRunner] = []


def quick(runner: Runner) -> Any:
    """The runner of a test: it asks the cloud each time, and is closed afterwards."""
    assert isinstance(runner, CloudRunner)
    runner.fresh_for = 0.0
    MADE.append(runner)
    return runner


class CloudRunnerContract(RunnerContract):
    """Subclasses say how a runner is made, and have a fixture ``cloud``.

    Attributes:
        starting: the end of the name of the request that starts a worker.
        secret: a reference to the secret whose value is ``from-secret``.
        with_secret: options that secrets need.
        without_restarts: options with which a worker that died isn't started again.
    """

    starting: str
    secret: str
    with_secret: ClassVar[dict[str, object]] = {}
    without_restarts: ClassVar[dict[str, object]] = {}

    def make(self, cloud: Any, options: dict[str, object] | None = None, **fields: object) -> CloudRunner:
        raise NotImplementedError

    def inside(self, cloud: Any) -> dict[str, str]:
        """Variables by which a worker finds the cloud, and the credentials that the cloud gives it."""
        raise NotImplementedError

    @pytest.fixture
    def runner(self, cloud: Any) -> Runner:
        return self.make(cloud)

    def told(self, cloud: Any) -> str:
        """All that the cloud was told to run."""
        raise NotImplementedError

    def test_a_lost_answer_starts_no_second_worker(
        self, cloud: Cloud, runner: Runner, runtime: Runtime, program: ModuleType, programs: Path
    ) -> None:
        cloud.lose, cloud.lose_of = 1, self.starting
        exec_id = self.begin(runtime, program.finish, "lost")
        runner.submit(runtime, exec_id)
        self.until_status(runtime, exec_id, ExecutionStatus.COMPLETED)
        assert cloud.lose == 0
        assert len(cloud.containers) == 1

    def test_a_worker_that_never_took_the_execution_up_is_started_again(
        self, cloud: Cloud, runtime: Runtime, program: ModuleType, programs: Path
    ) -> None:
        runner = self.make(cloud, self.without_restarts)
        exec_id = self.begin(runtime, program.finish, "again")
        cloud.instead = CRASH
        runner.submit(runtime, exec_id)
        ended = self.until_ended(runner, exec_id)
        assert ended.code in (3, None)
        assert ended.reason
        assert runner.logs(exec_id) == "no disk\n"
        cloud.instead = None
        runner.submit(runtime, exec_id)
        self.until_status(runtime, exec_id, ExecutionStatus.COMPLETED)
        assert len(cloud.containers) == 2

    def test_secrets_reach_the_worker_and_nothing_that_can_be_read(
        self, cloud: Cloud, runtime: Runtime, program: ModuleType, programs: Path
    ) -> None:
        runner = self.make(
            cloud, self.with_secret, secrets={"KITARU_USER": self.secret}, environment={"REGION": "north"}
        )
        exec_id = self.begin(runtime, program.finish, "secret")
        runner.submit(runtime, exec_id)
        self.until_status(runtime, exec_id, ExecutionStatus.COMPLETED)
        assert "KITARU_HOME" not in cloud.environments[0]
        assert cloud.environments[0]["REGION"] == "north"
        assert cloud.environments[0]["KITARU_USER"] == "from-secret"
        assert "from-secret" not in self.told(cloud)
        assert self.secret.rpartition("/")[2] in self.told(cloud)

    def test_a_job_runs_beside_the_worker_once_and_ends_with_it(
        self, cloud: Cloud, runner: Runner, runtime: Runtime, program: ModuleType, programs: Path
    ) -> None:
        cloud.instead = LINGER
        exec_id = self.begin(runtime, program.finish, "job")
        jobs = [Job("0a1b2c3d4e5f6071", 1, attempt, {"cpu": "1", "memory": "4Gi"}) for attempt in (1, 2)]
        assert runner.status(exec_id, jobs[0]) == WorkerStatus("none")
        for job in [*jobs, jobs[0]]:
            runner.submit(runtime, exec_id, job)
        assert [runner.status(exec_id, job).state for job in jobs] == ["running", "running"]
        assert runner.status(exec_id).state == "none"
        assert [command[-3:] for command in cloud.commands] == [["--job", job.name, exec_id] for job in jobs]
        runner.cancel(exec_id, jobs[1])
        self.until("it has ended", lambda: not runner.status(exec_id, jobs[1]).alive)
        assert runner.status(exec_id, jobs[0]).alive
        runner.submit(runtime, exec_id, jobs[1])  # a job is one attempt
        assert len(cloud.containers) == 2
        runner.cancel(exec_id)
        self.until("it has ended too", lambda: not runner.status(exec_id, jobs[0]).alive)

    def test_an_isolated_checkpoint_runs_in_a_container_of_its_own(self, cloud: Cloud, runtime: Runtime) -> None:
        runner = self.make(cloud, environment=self.inside(cloud))
        defined: dict[str, Any] = {"__name__": "heavy"}
        exec(HEAVY, defined)
        exec_id = self.begin(runtime, defined["weigh"].with_options(stack="prod"), "weighed")
        runner.submit(runtime, exec_id)
        self.until_status(runtime, exec_id, ExecutionStatus.COMPLETED)
        result, mine, its = load(exec_id, "result", runtime=runtime)
        assert (result, mine == its) == (42, False)
        assert ["--job" in command for command in cloud.commands] == [False, True]
        assert "2Gi" in self.told(cloud) or '"memory": "2048"' in self.told(cloud)


class RestartingCloudContract(CloudRunnerContract, RestartingRunnerContract):
    """For clouds that start a worker again that died, and end one that takes too long.

    Attributes:
        late: what the reason of such an end has in it.
    """

    late: str
    without_restarts: ClassVar[dict[str, object]] = {"restarts": 0}

    def test_a_deadline_ends_the_worker_and_says_so(
        self, cloud: Cloud, runtime: Runtime, program: ModuleType, programs: Path
    ) -> None:
        runner = self.make(cloud, {"restarts": 0, "deadline": 3600})
        exec_id = self.begin(runtime, program.stay, "late")
        runner.submit(runtime, exec_id)
        self.until("it runs", (programs / "late.pid").exists)
        (container,) = cloud.containers
        assert container.deadline == 3600
        container.expire()
        assert self.late in self.until_ended(runner, exec_id).reason
        assert runtime.journal.execution(exec_id).status is ExecutionStatus.INTERRUPTED
