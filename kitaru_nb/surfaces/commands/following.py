"""Follow an execution that was just started until it ends or lets go, showing what finishes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kitaru_nb.errors import KitaruRuntimeError
from kitaru_nb.model import Event, ExecutionStatus
from kitaru_nb.surfaces.console import Answer, exit_code, is_machine, record, show, spinner
from kitaru_nb.surfaces.render import GLYPHS, Line, Span, counted, duration, line, utc_now

if TYPE_CHECKING:
    from kitaru_nb.client import KitaruClient
    from kitaru_nb.core.control import Started

POLL_SECONDS = 0.1
_LAST_LINES = 8


@dataclass(frozen=True, slots=True)
class Before:
    """How far an execution was before it was started again: its epoch, and its last event."""

    epoch: int = 0
    seq: int = 0

    @classmethod
    def of(cls, client: KitaruClient, exec_id: str) -> Before:
        """How far it is now."""
        journal = client.runtime.journal
        history = journal.history(exec_id)
        return cls(journal.execution(exec_id).epoch, history[-1].seq if history else 0)


def act(client: KitaruClient, exec_id: str, action: Callable[[str], Started], *, detach: bool) -> Answer:
    """Do what starts an execution again, then follow it, or (``detach``) say what was started."""
    from kitaru_nb.surfaces.detail import started_blocks

    before = Before.of(client, exec_id)
    started = action(exec_id)
    if not detach and not started.by_notebook and not started.elsewhere:
        return follow(client, exec_id, before)
    status = client.runtime.journal.execution(exec_id).status
    code = 0 if detach else exit_code(status)
    return Answer(started_blocks(started), item={**record(started), "status": status.value}, code=code)


def follow(client: KitaruClient, exec_id: str, before: Before) -> Answer:
    """Wait until a worker has taken it up and the execution ended or lets go; how it stands then.

    Interrupting it (Ctrl-C) ends the looking on, not the execution.

    Raises:
        KitaruRuntimeError: the worker ended before it took the execution up; the message has its last words.
    """
    from kitaru_nb.surfaces.detail import outcome_blocks

    try:
        with spinner(f"{exec_id} waits for its worker") as tell:
            _wait_for_worker(client, exec_id, before.epoch)
            tell(f"{exec_id} runs")
            _show_progress(client, exec_id, before.seq, tell)
    except KeyboardInterrupt:
        show([line(f"{exec_id} goes on without you: kitaru executions logs {exec_id} --follow")], err=True)
        raise
    execution = client.executions.get(exec_id)
    return Answer(outcome_blocks(execution, utc_now()), item=record(execution), code=exit_code(execution.status))


def await_worker(client: KitaruClient, exec_id: str) -> None:
    """Wait until the worker that an answer started has taken the execution up; at once where there is none.

    Raises:
        KitaruRuntimeError: as `follow`.
    """
    from kitaru_nb.core.answers import answered_at
    from kitaru_nb.core.runners import runner_of

    journal = client.runtime.journal
    row = journal.execution(exec_id)
    answered = row.status is ExecutionStatus.WAITING and answered_at(journal.history(exec_id)) is not None
    if answered and runner_of(row.stack).status(exec_id).alive:
        with spinner(f"{exec_id} waits for its worker"):
            _wait_for_worker(client, exec_id, row.epoch)


def _wait_for_worker(client: KitaruClient, exec_id: str, epoch: int) -> None:
    from kitaru_nb.core.runners import runner_of

    journal = client.runtime.journal
    runner = runner_of(journal.execution(exec_id).stack)
    while True:
        # Asked before the epoch: a worker that has ended can't claim any more.
        worker = runner.status(exec_id)
        if journal.execution(exec_id).epoch > epoch:
            return
        if worker.state == "ended":
            words = last_words(worker.output)
            again = "retry" if journal.execution(exec_id).status is ExecutionStatus.FAILED else "resume"
            raise KitaruRuntimeError(
                f"The worker of {exec_id} ended with code {worker.code} before it took the execution up. "
                f"The end of {worker.output}:\n{words}",
                fix=f"kitaru executions {again} {exec_id}",
            )
        time.sleep(POLL_SECONDS)


def last_words(output: str) -> str:
    """The last lines of a worker's output; where it isn't a file of this machine, that it can't be read here."""
    try:
        lines = Path(output).read_text(errors="replace").rstrip().splitlines()
    except OSError as error:
        return f"(it can't be read here: {error.strerror})"
    return "\n".join(lines[-_LAST_LINES:]) or "(it said nothing)"


def _show_progress(client: KitaruClient, exec_id: str, seq: int, tell: Callable[[str], None]) -> None:
    reused = 0
    for event in client.executions.follow(exec_id):
        if event.seq <= seq:
            continue
        if event.kind == "checkpoint.started":
            tell(f"{exec_id} runs {event.body['name']}")
        elif event.kind == "checkpoint.completed" and event.body.get("reused"):
            reused += 1
        elif (shown := progress_line(event)) is not None and not is_machine():
            show([shown], err=True)
    if reused and not is_machine():
        glyph, style = GLYPHS["reused"]
        show([Line((Span(f"{glyph} {counted(reused, 'checkpoint')} reused", style),))], err=True)


def progress_line(event: Event) -> Line | None:
    """A line about an event that people want to hear of; None for the others."""
    body = event.body
    if event.kind == "checkpoint.completed":
        return _done("completed", str(body["name"]), duration(body.get("duration")))
    if event.kind == "checkpoint.failed":
        again = "" if body["final"] else f"; again in {duration(body.get('retry_in') or 0.0)}"
        return _done("failed", str(body["name"]), f"{body['failure']['message']}{again}")
    if event.kind == "execution.paused":
        return _done(ExecutionStatus.INTERRUPTED.value, "paused", str(body.get("reason", "")))
    return None


def _done(status: str, name: str, what: str) -> Line:
    glyph, style = GLYPHS[status]
    return Line((Span(f"{glyph} ", style), Span(name), Span(f"  {what}", "dim")))
