"""Workers as processes of this machine keep what every runner must, and their output for a while."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest

from kitaru_nb.core.places import Places, sign
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.model import ExecutionStatus
from kitaru_nb.stacks import process
from kitaru_nb.stacks.process import ProcessRunner
from kitaru_nb.testing.runner import RunnerContract


class TestProcessRunner(RunnerContract):
    @pytest.fixture
    def runner(self) -> ProcessRunner:
        return ProcessRunner()

    def test_the_output_of_the_last_workers_is_kept_and_that_of_living_ones(
        self,
        runner: ProcessRunner,
        runtime: Runtime,
        program: ModuleType,
        programs: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(process, "KEPT", 3)
        folder = runtime.home / "workers"
        names = [f"kr-{n:012}" for n in range(6)]
        for n, name in enumerate([*names, "dask", "foreman"]):
            (folder / f"{name}.log").parent.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.log").write_text("said")
            os.utime(folder / f"{name}.log", times=(n, n))
        place = Places(runtime.home).new(names[1])
        place.parent.mkdir(parents=True)
        sign(place, os.getpid())  # it has been silent for long, and lives
        exec_id = self.begin(runtime, program.finish, "now")
        runner.submit(runtime, exec_id)
        kept = {path.stem for path in folder.glob("*.log")}
        assert kept == {names[1], names[4], names[5], exec_id, "dask", "foreman"}
        self.until_status(runtime, exec_id, ExecutionStatus.COMPLETED)
