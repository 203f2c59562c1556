"""Does a stack work? Each part is tried for real, and says what to mend."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

from kitaru_nb.config import Settings, shown
from kitaru_nb.core.executors import THREADS, executor_of
from kitaru_nb.core.records import load
from kitaru_nb.core.runners import Runner, WorkerStatus, runner_of
from kitaru_nb.core.runtime import Runtime, runtime_of
from kitaru_nb.errors import KitaruError
from kitaru_nb.model import ExecutionStatus
from kitaru_nb.stacks.base import Finding
from kitaru_nb.stacks.definition import ELSEWHERE, find_stack
from kitaru_nb.stacks.probe import stack_check

#: Schemes of journals and stores that only processes of this machine reach.
_HERE = ("", "file", "memory", "sqlite")
_POLL = 0.2
#: Lines of a worker's output that are told.
_LAST_LINES = 5


@runtime_checkable
class Checked(Protocol):
    """A runner that can tell what it may do."""

    def check(self, runtime: Runtime) -> list[Finding]:
        """What works of that which starting a worker needs."""


def check_stack(name: str) -> list[Finding]:
    """What was found, in the order in which a flow needs it: journal, artifact store, executor, runner.

    Raises:
        KitaruFeatureNotAvailableError: there is no such stack.
    """
    runtime = runtime_of(name)
    findings = [_tried("journal", lambda: _journal(runtime)), _tried("artifact store", lambda: _store(runtime))]
    if find_stack(name, runtime.settings.home).runner in ELSEWHERE:
        findings += _of_this_machine(runtime.settings)
    if (address := runtime.settings.executor) != THREADS:
        findings.append(_tried("executor", lambda: executor_of(address).check(runtime.settings)))
    try:
        runner = runner_of(name)
        rights = runner.check(runtime) if isinstance(runner, Checked) else []
        if not all(right.ok for right in rights):
            return findings + rights
        findings += rights
        runner.status("kr-000000000000")
    except KitaruError as error:
        return [*findings, Finding("runner", False, error.message, error.fix)]
    return [*findings, Finding("runner", True, type(runner).__name__)]


def try_worker(name: str, timeout: float = 600.0) -> Finding:
    """Have a worker of a stack run a small flow to its end: image, network, rights, journal and store, all for real.

    Args:
        name: of the stack.
        timeout: seconds after which the worker is told to end.

    Raises:
        KitaruFeatureNotAvailableError: there is no such stack.
    """
    runtime, runner, began = runtime_of(name), runner_of(name), time.monotonic()
    try:
        exec_id = stack_check.with_options(runtime=runtime, stack=name).run().exec_id
        while not (execution := runtime.journal.execution(exec_id)).status.ended:
            worker = runner.status(exec_id)
            late = time.monotonic() - began > timeout
            if late or worker.state == "ended":
                # It may have ended well since the journal was asked.
                if (execution := runtime.journal.execution(exec_id)).status.ended:
                    break
                if late:
                    runner.cancel(exec_id)
                return _unfinished(runner, exec_id, worker, late)
            time.sleep(_POLL)
    except KitaruError as error:
        return Finding("worker", False, error.message, error.fix)
    if execution.status is not ExecutionStatus.COMPLETED:
        return Finding("worker", False, f"{exec_id} {execution.status}", f"kitaru executions get {exec_id}")
    result = load(exec_id, "result", runtime=runtime)
    return Finding("worker", True, f"{exec_id} took {time.monotonic() - began:.1f} s: {result}")


def _unfinished(runner: Runner, exec_id: str, worker: WorkerStatus, late: bool) -> Finding:
    why = f"after {'the time allowed' if late else 'its end'} the worker is {worker.state}"
    if worker.code is not None:
        why += f" with code {worker.code}"
    said = runner.logs(exec_id).strip().splitlines()[-_LAST_LINES:]
    words = [why, worker.reason, *(["it said: " + " | ".join(said)] if said else [])]
    return Finding("worker", False, "; ".join(filter(None, words)), worker.output or None)


def _of_this_machine(settings: Settings) -> list[Finding]:
    """What workers elsewhere can't reach, because it is in files of this machine."""
    urls = (
        ("journal", settings.journal_url, "postgresql://... or https://..."),
        ("store", settings.store_url, "s3://BUCKET/FOLDER"),
    )
    return [
        Finding(
            f"{what} for workers elsewhere",
            False,
            f"{url} is of this machine, which workers elsewhere can't reach",
            f"kitaru stack create {settings.stack} ... --{what} {example}",
        )
        for what, url, example in urls
        if urlsplit(url).scheme in _HERE
    ]


def _tried(what: str, work: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, work())
    except KitaruError as error:
        return Finding(what, False, error.message, error.fix)


def _journal(runtime: Runtime) -> str:
    name, value = f"check/{uuid.uuid4().hex}", "written"
    runtime.journal.set_reference(name, value, expected=None, by="kitaru stack check")
    runtime.journal.set_reference(name, None, expected=value, by="kitaru stack check")
    return f"written and read: {runtime.journal.url}"


def _store(runtime: Runtime) -> str:
    value = f"check {uuid.uuid4().hex} ".encode() * 1_000  # too large to stay in the journal
    artifact = runtime.store.write(value, name="check")
    assert runtime.store.read(artifact) == value
    return f"written and read: {shown(runtime.store.url)}"
