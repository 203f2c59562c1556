"""Does a stack work? Each part is tried for real, and says what to mend."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from kitaru_nb.core.runners import runner_of
from kitaru_nb.core.runtime import Runtime, runtime_of
from kitaru_nb.errors import KitaruError
from kitaru_nb.stacks.base import Finding


def check_stack(name: str) -> list[Finding]:
    """What was found, in the order in which a flow needs it: journal, artifact store, runner.

    Raises:
        KitaruFeatureNotAvailableError: there is no such stack.
    """
    runtime = runtime_of(name)
    findings = [_tried("journal", lambda: _journal(runtime)), _tried("artifact store", lambda: _store(runtime))]
    try:
        runner = runner_of(name)
        findings += getattr(runner, "check", list)()
        runner.status("kr-000000000000")
    except KitaruError as error:
        return [*findings, Finding("runner", False, error.message, error.fix)]
    return [*findings, Finding("runner", True, type(runner).__name__)]


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
    return f"written and read: {runtime.store.url}"
