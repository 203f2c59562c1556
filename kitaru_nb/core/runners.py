"""The runners of stacks: who starts the workers of an execution."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Protocol

from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruFeatureNotAvailableError

#: Stack name → "module:Class" of its runner, resolved on use. ``local`` is a thread here, else as ``process``.
RUNNERS = {
    "local": "kitaru_nb.stacks.process:ProcessRunner",
    "process": "kitaru_nb.stacks.process:ProcessRunner",
}


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker that is no more: its exit code, when it was started (Unix seconds), and where its output is."""

    code: int
    begun_at: float
    output: str


class Runner(Protocol):
    """Starts a worker somewhere."""

    def submit(self, runtime: Runtime, exec_id: str) -> str:
        """Start a worker for the execution; where to look for its output."""

    def running(self, exec_id: str) -> bool:
        """Whether a worker that this process started for the execution is alive."""

    def ended(self, exec_id: str) -> Ended | None:
        """How the newest worker of the execution ended; None while it runs, or where that can't be known."""


def runner_of(stack: str) -> Runner:
    """The runner of a stack. Raises `KitaruFeatureNotAvailableError` for an unknown one."""
    if stack not in RUNNERS:
        raise KitaruFeatureNotAvailableError(
            f"There is no stack {stack!r}. Stacks are: {', '.join(RUNNERS)}.", fix="run(..., stack='local')"
        )
    module, _, name = RUNNERS[stack].partition(":")
    runner: Runner = getattr(importlib.import_module(module), name)()
    return runner
