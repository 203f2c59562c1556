"""What a server does without being asked: it rings due timers, and takes up executions that nobody advances.

Each of these also happens without a server (an answer starts a worker; ``kitaru executions resume --due``). The server
is for what was left over: a worker that died, an answer whose giver died before the worker started.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

from kitaru_nb.client import KitaruClient
from kitaru_nb.core import control
from kitaru_nb.core.answers import answered_at
from kitaru_nb.core.create import created_event
from kitaru_nb.errors import KitaruError
from kitaru_nb.model import Event, Execution, ExecutionStatus
from kitaru_nb.stacks.process import reap
from kitaru_nb.surfaces.operations.system import newest

logger = logging.getLogger("kitaru_nb.server")

#: How long others have for starting a worker themselves.
GRACE = 5.0
#: A worker that dies so often without getting anything done isn't started again.
TRIES = 3
_PAGE = 500
_PENDING_FOR = 60.0
#: What a machine tells a worker to end with (eviction, reboot); a person's Ctrl-C is SIGINT.
_EVICTION = "SIGTERM"
_PROGRESS = frozenset({"checkpoint.completed", "wait.created", "wait.resolved", "execution.resume", "execution.retry"})


class Dispatcher:
    """One thread that looks every ``every`` seconds. ``clock`` gives Unix seconds."""

    def __init__(self, client: KitaruClient, *, every: float = 1.0, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._runtime = client.runtime
        self._every = every
        self._clock = clock
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._seq: int | None = None
        self._answered: dict[str, float] = {}
        self._given_up: dict[str, int] = {}

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="kitaru-dispatcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, after the step that is being done."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            for duty in (self.ring, self.take_up_answered, self.take_up_orphans, reap):
                try:
                    duty()
                except KitaruError as error:
                    logger.warning("%s", error)
                except Exception:
                    logger.exception("The dispatcher failed at %s", duty.__name__)
            self._ended.wait(self._every)

    def ring(self) -> None:
        """Let the clock answer every wait whose time has come."""
        for started in control.resume_due(self._runtime, at=self._clock()):
            logger.info("%s goes on: its time has come", started.exec_id)

    def take_up_answered(self) -> None:
        """Start workers for executions whose wait was answered, and that nobody took up in the meantime."""
        now = self._clock()
        for exec_id in self._newly_answered():
            self._answered.setdefault(exec_id, now + GRACE)
        for exec_id in [e for e, at in self._answered.items() if at <= now]:
            del self._answered[exec_id]
            execution = self._runtime.journal.execution(exec_id)
            if execution.status is ExecutionStatus.WAITING and self._is_answered(exec_id):
                self._go_on(execution, "it was answered")

    def _newly_answered(self) -> Iterator[str]:
        """Executions with answers since the last look; at the first look, all that wait and were answered."""
        journal = self._runtime.journal
        if self._seq is None:
            self._seq = newest(journal)
            yield from (row.exec_id for row in self._rows(ExecutionStatus.WAITING) if self._is_answered(row.exec_id))
            return
        while events := journal.tail(self._seq, limit=_PAGE):
            self._seq = events[-1].seq
            yield from (event.exec_id for event in events if event.kind == "wait.resolved")

    def _rows(self, status: ExecutionStatus) -> Iterator[Execution]:
        before = None
        while rows := self._runtime.journal.executions(status=status, before=before, limit=_PAGE):
            yield from rows
            before = rows[-1].exec_id

    def _is_answered(self, exec_id: str) -> bool:
        return answered_at(self._runtime.journal.history(exec_id)) is not None

    def take_up_orphans(self) -> None:
        """Start workers for executions whose worker died, was told to end by its machine, or never came.

        What somebody paused stays paused, and a notebook that a person runs is theirs.
        """
        now = self._clock()
        for row in self._rows(ExecutionStatus.INTERRUPTED):
            if self._given_up.get(row.exec_id) != row.epoch and self._is_orphan(row, now):
                self._go_on(row, "its worker died or had to go")
        for row in self._rows(ExecutionStatus.PENDING):
            if now - row.created_at.timestamp() > _PENDING_FOR and self._given_up.get(row.exec_id) != row.epoch:
                self._go_on(row, "no worker came")

    def _is_orphan(self, row: Execution, now: float) -> bool:
        claims: list[Event] = []
        paused = False
        for event in self._runtime.journal.history(row.exec_id):
            if event.kind == "execution.claimed":
                claims.append(event)
                paused = False
            elif event.kind == "execution.paused":
                paused = event.body.get("signal") != _EVICTION
            elif event.kind in _PROGRESS:
                claims = claims[-1:]
        if paused or len(claims) > TRIES:
            if not paused:
                logger.warning(
                    "%s is left alone: its worker ended %d times in a row without getting anything done",
                    row.exec_id,
                    len(claims),
                )
            self._given_up[row.exec_id] = row.epoch
            return False
        # Longer each time: what kills a worker may need a while to pass.
        return not claims or now >= claims[-1].at + GRACE * 2 ** (len(claims) - 1)

    def _go_on(self, row: Execution, why: str) -> None:
        ref = created_event(self._runtime, row.exec_id).body["ref"]
        if ref["kind"] == "here" or (ref["kind"] == "notebook" and ref.get("interactive")):
            self._given_up[row.exec_id] = row.epoch
            return
        try:
            control.go_on(self._runtime, row.exec_id)
            logger.info("%s goes on: %s", row.exec_id, why)
        except KitaruError as error:
            logger.warning("%s can't go on: %s", row.exec_id, error)
            self._given_up[row.exec_id] = row.epoch
