"""Workers as processes of this machine keep the contract of runners."""

from __future__ import annotations

import pytest

from kitaru_nb.core.runners import Runner
from kitaru_nb.stacks.process import ProcessRunner
from kitaru_nb.testing.runner import RunnerContract


class TestProcessRunner(RunnerContract):
    @pytest.fixture
    def runner(self) -> Runner:
        return ProcessRunner()
