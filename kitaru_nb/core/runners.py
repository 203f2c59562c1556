"""The runners of stacks: who starts the workers of an execution."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Literal, Protocol

from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruFeatureNotAvailableError

#: Built-in stack → "module:Class" of its runner, resolved on use. ``local`` is a thread here, else as ``process``.
BUILT_IN = {
    "local": "kitaru_nb.stacks.process:ProcessRunner",
    "process": "kitaru_nb.stacks.process:ProcessRunner",
}
#: Where the runner of a stack that somebody created comes from.
CREATED = "kitaru_nb.stacks.definition:runner_of_stack"


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What a runner knows of the newest worker of an execution.

    Attributes:
        state: ``none``: this runner knows of none. ``starting``: asked for, not running yet (scheduled, pulling an
            image). ``running``. ``ended``, well or not; what became of the execution is in the journal.
        code: exit code, where it is known.
        reason: why it ended or doesn't start, in the words of the place where it runs.
        begun_at: when it was started, Unix seconds.
        output: where its output is: a path, or the command that shows it.
    """

    state: Literal["none", "starting", "running", "ended"]
    code: int | None = None
    reason: str = ""
    begun_at: float = 0.0
    output: str = ""

    @property
    def alive(self) -> bool:
        """Whether it will advance the execution."""
        return self.state in ("starting", "running")


class Runner(Protocol):
    """Starts workers somewhere. Every method may raise `KitaruBackendError` when that place can't be reached."""

    def submit(self, runtime: Runtime, exec_id: str) -> str:
        """Start a worker for the execution; where to look for its output.

        Asking twice for the same turn (the execution's epoch) starts one, where the place can tell.
        """

    def status(self, exec_id: str) -> WorkerStatus:
        """What is known of the newest worker of the execution."""

    def cancel(self, exec_id: str) -> None:
        """Tell the worker to end (SIGTERM, then SIGKILL). Nothing happens when there is none."""

    def logs(self, exec_id: str) -> str:
        """The output of the newest worker, as far as it is kept. Empty when there is none."""


def runner_of(stack: str) -> Runner:
    """The runner of a stack. Raises `KitaruFeatureNotAvailableError` for an unknown one."""
    module, _, name = BUILT_IN.get(stack, CREATED).partition(":")
    found = getattr(importlib.import_module(module), name)
    runner: Runner = found() if stack in BUILT_IN else found(stack)
    return runner


def unknown_stack(stack: str, others: list[str]) -> KitaruFeatureNotAvailableError:
    """The error for a stack that nobody created."""
    return KitaruFeatureNotAvailableError(
        f"There is no stack {stack!r}. Stacks are: {', '.join([*BUILT_IN, *others])}.",
        fix=f"kitaru stack create {stack} process",
    )
