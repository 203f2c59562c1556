"""What the runners of clouds share: one worker a turn, found again by the id of its execution.

A cloud starts a container once and tells how it is; what became of the execution is in the journal. Each worker carries
the turn that it was started for (the execution's epoch), so that asking twice for one turn starts one, and a worker
that died before it took the execution up is started again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator

from kitaru_nb.core.runners import Job, WorkerStatus
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruError, KitaruUsageError
from kitaru_nb.stacks.base import Finding
from kitaru_nb.stacks.definition import Stack

logger = logging.getLogger(__name__)

#: Variable of a worker: the turn that it was started for.
TURN = "KITARU_TURN"
MANAGED_BY = "kitaru"
#: Of how many workers the status is remembered.
_REMEMBERED = 1000
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}

#: Names as a list, or in one text with commas between, as the command line has them.
Names = Annotated[
    list[str],
    BeforeValidator(lambda given: [n.strip() for n in given.split(",")] if isinstance(given, str) else given),
]


@dataclass(frozen=True, slots=True)
class CloudWorker:
    """One worker that a cloud knows of.

    Attributes:
        name: what the cloud calls it.
        turn: the turn that it was started for.
        status: how it is.
    """

    name: str
    turn: str
    status: WorkerStatus


class Unknown(KitaruBackendError):
    """The cloud has none of this name."""


class Changed(KitaruBackendError):
    """In the cloud it isn't any more what was seen."""


class Sweep:
    """Puts away what isn't used any more: now and then, after what was asked for, and never at its cost."""

    every = 600.0

    def __init__(self, keep: float) -> None:
        self._keep = keep
        self._due = 0.0

    def when_due(self, work: Callable[[float], None]) -> None:
        """Call ``work`` with the seconds for which what isn't used is kept, if that was long ago."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self.every
        try:
            work(self._keep)
        except KitaruBackendError as error:
            logger.warning("what isn't used any more stays: %s", error)


class CloudRunner(ABC):
    """A runner whose workers are containers that a cloud runs once.

    Attributes:
        fresh_for: seconds for which a status is told again without asking: those who wait for a result ask many times
            a second, which clouds answer with a refusal.
    """

    fresh_for = 2.0

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._seen: dict[str, tuple[float, WorkerStatus]] = {}

    def submit(self, runtime: Runtime, exec_id: str, job: Job | None = None) -> str:
        """Start a worker for the execution's turn unless one is alive, or for a job unless there was one; where its
        output is.

        Raises:
            KitaruUsageError: the stack can't be right.
            KitaruBackendError: the cloud refused, or can't be reached.
        """
        turn = job.name if job is not None else str(runtime.journal.execution(exec_id).epoch)
        for last in (False, False, True):
            known = self._of_turn(exec_id, job, turn)
            if any(worker.status.alive for worker in known) or (job is not None and known):
                break
            try:
                self._start(runtime, exec_id, job, turn, len(known))
                break
            except Changed:
                if last:
                    raise
                time.sleep(0.5)  # somebody asked at the same moment; look again
            except KitaruBackendError:
                if len(self._of_turn(exec_id, job, turn)) == len(known):
                    raise
                break  # it was started; only the answer was lost
        self._seen.pop(_key(exec_id, job), None)
        return self._where(exec_id, job)

    def status(self, exec_id: str, job: Job | None = None) -> WorkerStatus:
        """How the newest worker of the execution, or that of a job, is: at most `fresh_for` seconds ago."""
        key = _key(exec_id, job)
        seen = self._seen.get(key)
        if seen is None or time.monotonic() - seen[0] > self.fresh_for:
            workers = self._workers(exec_id, job)
            seen = (time.monotonic(), workers[0].status if workers else WorkerStatus("none"))
            if len(self._seen) > _REMEMBERED:
                self._seen.clear()
            self._seen[key] = seen
        return seen[1]

    def cancel(self, exec_id: str, job: Job | None = None) -> None:
        """Tell the workers of the execution that are alive to end, and those of its jobs; or that of one job."""
        workers = self._workers(exec_id, job)
        if job is None:
            workers += self._workers_of_jobs(exec_id)
        for worker in workers:
            if worker.status.alive:
                self._stop(exec_id, worker)
        self._seen.clear()

    def logs(self, exec_id: str, job: Job | None = None) -> str:
        """What the newest worker printed, as far as the cloud has it by now."""
        workers = self._workers(exec_id, job)
        return self._output(workers[0]) if workers else ""

    def _of_turn(self, exec_id: str, job: Job | None, turn: str) -> list[CloudWorker]:
        return [worker for worker in self._workers(exec_id, job) if worker.turn == turn]

    def refused(
        self, doing: str, why: object, fix: str | None = None, kind: type[KitaruBackendError] = KitaruBackendError
    ) -> KitaruBackendError:
        """The error for what the cloud didn't do."""
        words = " ".join(str(why).split())
        return kind(
            f"{self.cloud} didn't {doing} for stack {self.stack.name!r}: {words}",
            fix=fix or f"kitaru stack check {self.stack.name}",
        )

    #: What messages call the cloud.
    cloud: str

    @abstractmethod
    def check(self, runtime: Runtime) -> list[Finding]:
        """What works of that which starting a worker needs. Ends at the first thing that doesn't."""

    @abstractmethod
    def _workers(self, exec_id: str, job: Job | None) -> list[CloudWorker]:
        """The workers of an execution, or of a job, the newest first."""

    @abstractmethod
    def _workers_of_jobs(self, exec_id: str) -> list[CloudWorker]:
        """The workers of all jobs of an execution, at least those that are alive."""

    @abstractmethod
    def _start(self, runtime: Runtime, exec_id: str, job: Job | None, turn: str, attempt: int) -> None:
        """Start a worker. ``attempt`` workers of this turn have ended before it."""

    @abstractmethod
    def _stop(self, exec_id: str, worker: CloudWorker) -> None:
        """Tell a worker to end; one that has ended is no error."""

    @abstractmethod
    def _output(self, worker: CloudWorker) -> str:
        """What a worker printed."""

    @abstractmethod
    def _where(self, exec_id: str, job: Job | None) -> str:
        """The command that shows the output of the workers."""


def _key(exec_id: str, job: Job | None) -> str:
    return exec_id if job is None else f"{exec_id}/{job.name}"


def tried(steps: Mapping[str, Callable[[], str]]) -> list[Finding]:
    """What each step finds, up to the first that fails."""
    findings: list[Finding] = []
    for what, step in steps.items():
        try:
            findings.append(Finding(what, True, step()))
        except KitaruError as error:
            return [*findings, Finding(what, False, error.message, error.fix)]
    return findings


def digest(definition: Any) -> str:
    """A short name for a definition: the same for the same one."""
    return hashlib.sha256(json.dumps(definition, sort_keys=True, default=str).encode()).hexdigest()[:12]


def cores(quantity: str) -> float:
    """Cores of a quantity as Kubernetes writes it: ``2``, ``500m``. Raises `KitaruUsageError`."""
    if (found := re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", quantity)) is None:
        raise KitaruUsageError(f"cpu is {quantity!r}; expected cores, as '2' or '500m'.", fix='resources={"cpu": "2"}')
    return float(found[1]) / (1000 if found[2] else 1)


def mebibytes(quantity: str) -> int:
    """MiB of a quantity as Kubernetes writes it: ``512Mi``, ``4Gi``. Raises `KitaruUsageError`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(k|M|G|Ki|Mi|Gi)?", quantity)
    if found is None:
        raise KitaruUsageError(
            f"memory is {quantity!r}; expected bytes, as '512Mi' or '4Gi'.", fix='resources={"memory": "4Gi"}'
        )
    return math.ceil(float(found[1]) * _UNITS[found[2] or ""] / 2**20)


def wrong_secret(stack: Stack, variable: str, expected: str, example: str) -> KitaruUsageError:
    """The error for a secret whose reference has another form."""
    return KitaruUsageError(
        f"The secret {variable} of stack {stack.name!r} is {stack.secrets[variable]!r}; expected {expected}.",
        fix=f"kitaru stack create {stack.name} {stack.runner} ... --secret {variable}={example}",
    )
