"""The runners of stacks: who starts the workers of an execution."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from kitaru_nb.config import Settings
from kitaru_nb.core.runtime import Runtime, settings_on
from kitaru_nb.errors import KitaruFeatureNotAvailableError, KitaruUsageError

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


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at an isolated checkpoint: it runs beside the worker of its execution.

    Attributes:
        call_id, epoch, attempt: which call; the turn of the worker that waits for it; which attempt.
        resources: ``cpu`` and ``memory`` in Kubernetes' units, over what the stack says.
    """

    call_id: str
    epoch: int
    attempt: int
    resources: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Unique in its execution; lower-case letters, digits and '-', at most 32 of them."""
        return f"{self.call_id}-{self.epoch}-{self.attempt}"


class Runner(Protocol):
    """Starts workers somewhere. Every method may raise `KitaruBackendError` when that place can't be reached.

    With ``job`` they speak of the worker of one isolated checkpoint, without it of the execution's own.
    """

    def submit(self, runtime: Runtime, exec_id: str, job: Job | None = None) -> str:
        """Start a worker for the execution; where to look for its output.

        Asking twice for the same turn (the execution's epoch) or the same job starts one, where the place can tell.
        """

    def status(self, exec_id: str, job: Job | None = None) -> WorkerStatus:
        """What is known of the newest worker of the execution."""

    def cancel(self, exec_id: str, job: Job | None = None) -> None:
        """Tell the worker to end (SIGTERM, then SIGKILL), and without ``job`` all jobs of the execution too.

        Nothing happens when there is none.
        """

    def logs(self, exec_id: str, job: Job | None = None) -> str:
        """The output of the newest worker, as far as it is kept. Empty when there is none."""


def runner_of(stack: str) -> Runner:
    """The runner of a stack. Raises `KitaruFeatureNotAvailableError` for an unknown one."""
    module, _, name = BUILT_IN.get(stack, CREATED).partition(":")
    found = getattr(importlib.import_module(module), name)
    runner: Runner = found() if stack in BUILT_IN else found(stack)
    return runner


def extra_of(settings: Settings) -> str | None:
    """The extra that the runner of the stack of ``settings`` needs; None where there is nothing to install."""
    if settings.stack in BUILT_IN:
        return None
    found: str | None = importlib.import_module("kitaru_nb.stacks.definition").extra_of(settings)
    return found


def checked_stack(runtime: Runtime, stack: str | None) -> str:
    """The stack (None: the one in use), on which what ``runtime`` keeps can run: its workers look where that is kept.

    Raises:
        KitaruFeatureNotAvailableError: there is no such stack.
        KitaruUsageError: it has a journal or a store of its own, other than those of ``runtime``.
    """
    mine = runtime.settings
    place = stack or mine.stack
    runner_of(place)
    its = settings_on(place, mine)
    same = its.journal_url == mine.journal_url or its.journal_url.rstrip("/") in runtime.addresses
    if not same or its.store_url != mine.store_url:
        raise KitaruUsageError(
            f"Stack {place!r} has a journal or a store of its own; this is kept elsewhere.",
            fix=f"KitaruClient(stack={place!r}), or in a shell: --stack {place}",
        )
    return place


def unknown_stack(stack: str, others: list[str]) -> KitaruFeatureNotAvailableError:
    """The error for a stack that nobody created."""
    return KitaruFeatureNotAvailableError(
        f"There is no stack {stack!r}. Stacks are: {', '.join([*BUILT_IN, *others])}.",
        fix=f"kitaru stack create {stack} process",
    )
