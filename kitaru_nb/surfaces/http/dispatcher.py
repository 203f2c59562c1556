"""What a server does without being asked: it rings due timers, starts what is scheduled, and takes up executions that
nobody advances.

Timers and the taking up also happen without a server (an answer starts a worker; ``kitaru executions resume --due``).
The server is for what was left over: a worker that died, an answer whose giver died before the worker started. Several
may do this for one journal; each worker is started by one of them (`Turns`).
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
from kitaru_nb.core.runners import runner_of
from kitaru_nb.core.runtime import Runtime, settings_on
from kitaru_nb.errors import KitaruBackendError, KitaruError
from kitaru_nb.model import Event, Execution, ExecutionStatus, utc
from kitaru_nb.promote.schedules import Schedules
from kitaru_nb.stacks.definition import stack_names
from kitaru_nb.stacks.process import lost, reap
from kitaru_nb.surfaces.http.turns import Turns
from kitaru_nb.surfaces.operations.system import newest

logger = logging.getLogger("kitaru_nb.server")

#: How long others have for starting a worker themselves.
GRACE = 5.0
#: How long a place that can't be reached, or has no room, is left in peace.
RETRY_AFTER = 30.0
#: A worker that dies so often without getting anything done isn't started again; one that an outage ends may be, for
#: about 40 minutes.
TRIES, TRIES_IN_AN_OUTAGE = 3, 10
#: The longest pause between two tries, seconds.
_LONGEST = 600.0
_PAGE = 500
_PENDING_FOR = 60.0
#: News that come closer together than this are looked at together.
_SHORTEST = 0.25
#: What a machine tells a worker to end with (eviction, reboot); a person's Ctrl-C is SIGINT.
_EVICTION = "SIGTERM"
_PROGRESS = frozenset({"checkpoint.completed", "wait.created", "wait.resolved", "execution.resume", "execution.retry"})


class Dispatcher:
    """One thread that looks every ``every`` seconds, and when the journal has news. ``clock`` gives Unix seconds."""

    def __init__(self, client: KitaruClient, *, every: float = 1.0, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._runtime = client.runtime
        self._every = every
        self._clock = clock
        self._schedules = Schedules(client.runtime, clock=lambda: utc(clock()))
        self._turns = Turns(client.runtime.journal, clock)
        self._ended = threading.Event()
        self._stirred = threading.Event()
        self._thread: threading.Thread | None = None
        self._seq: int | None = None
        self._answered: dict[str, float] = {}
        self._given_up: dict[str, int] = {}
        self._held_off: dict[str, float] = {}
        self._told: dict[Callable[[], None], str] = {}

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="kitaru-dispatcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, after the step that is being done."""
        self._ended.set()
        self._stirred.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        unwatch = self._watch()
        try:
            while not self._ended.is_set():
                self._look()
                self._stirred.wait(self._every)
                self._ended.wait(min(self._every, _SHORTEST))
                self._stirred.clear()
        finally:
            unwatch()

    def _watch(self) -> Callable[[], None]:
        """Be stirred by the journal, where it can be reached; what ends that."""
        try:
            return self._runtime.journal.watch(self._stirred.set)
        except KitaruError as error:
            logger.warning("%s", error)
            return lambda: None

    def _look(self) -> None:
        for duty in (self.ring, self.start_scheduled, self.take_up_answered, self.take_up_orphans, reap):
            try:
                duty()
                self._told.pop(duty, None)
            except KitaruError as error:
                if self._told.get(duty) != error.message:  # once, while it lasts
                    logger.warning("%s", error)
                self._told[duty] = error.message
            except Exception:
                logger.exception("The dispatcher failed at %s", duty.__name__)

    def ring(self) -> None:
        """Let the clock answer every wait whose time has come."""
        for wait in self._runtime.journal.waits(due_before=self._clock()):
            self._runtime.ring(wait.exec_id, wait.wait_id)
            self._go_on(self._runtime.journal.execution(wait.exec_id), "its time has come")

    def start_scheduled(self) -> None:
        """Start the executions that schedules ask for now."""
        for execution in self._schedules.fire():
            if execution.status is ExecutionStatus.PENDING:
                self._go_on(execution, f"{execution.deployment} is scheduled")

    def take_up_answered(self) -> None:
        """Start workers for executions whose wait was answered, and that nobody took up in the meantime."""
        now = self._clock()
        for exec_id in self._newly_answered():
            self._answered.setdefault(exec_id, now + GRACE)
        for exec_id in [e for e, at in self._answered.items() if at <= now]:
            execution = self._runtime.journal.execution(exec_id)
            left = execution.status is ExecutionStatus.WAITING and self._is_answered(exec_id)
            if left and self._given_up.get(exec_id) != execution.epoch:
                self._go_on(execution, "it was answered")
                self._answered[exec_id] = now + GRACE  # until somebody has it: a worker may die before
            else:  # only now: what can't be read at the moment is looked at again
                del self._answered[exec_id]

    def _newly_answered(self) -> Iterator[str]:
        """Executions with answers since the last look; at the first look, all that wait and were answered."""
        journal = self._runtime.journal
        if self._seq is None:
            begun = newest(journal)
            yield from (row.exec_id for row in self._rows(ExecutionStatus.WAITING) if self._is_answered(row.exec_id))
            self._seq = begun  # only now: a look that fails is one that has not been
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
            late = lost(row.exec_id) is not None or now - row.created_at.timestamp() > _PENDING_FOR
            if late and self._given_up.get(row.exec_id) != row.epoch:
                self._go_on(row, "no worker came")

    def _is_orphan(self, row: Execution, now: float) -> bool:
        claims: list[Event] = []
        paused = outage = False
        for event in self._runtime.journal.history(row.exec_id):
            if event.kind == "execution.claimed":
                claims.append(event)
                paused = outage = False
            elif event.kind == "execution.paused":
                outage = "outage" in event.body
                paused = not outage and event.body.get("signal") != _EVICTION
            elif event.kind in _PROGRESS:
                claims = claims[-1:]
        if paused or len(claims) > (TRIES_IN_AN_OUTAGE if outage else TRIES):
            if not paused:
                logger.warning(
                    "%s is left alone: its worker ended %d times in a row without getting anything done",
                    row.exec_id,
                    len(claims),
                )
            self._given_up[row.exec_id] = row.epoch
            return False
        # Longer each time: what kills a worker may need a while to pass.
        return not claims or now >= claims[-1].at + min(_LONGEST, GRACE * 2 ** (len(claims) - 1))

    def _go_on(self, row: Execution, why: str) -> bool:
        """Start a worker, unless one comes already, or another server starts it; whether this one has."""
        if row.status is ExecutionStatus.RUNNING:
            return False  # its worker sees by itself what came
        if self._clock() < self._held_off.get(row.exec_id, 0.0):
            return False
        ref = created_event(self._runtime, row.exec_id).body["ref"]
        if ref["kind"] == "here" or (ref["kind"] == "notebook" and ref.get("interactive")):
            self._given_up[row.exec_id] = row.epoch
            return False
        try:
            if runner_of(row.stack).status(row.exec_id).alive:
                return False
            if self._runtime.journal.execution(row.exec_id).epoch != row.epoch:
                return False  # a worker has had it meanwhile, and has ended since
            if not self._turns.take(row, lost=lost(row.exec_id)):
                return False
            control.go_on(self._runtime, row.exec_id)
        except KitaruBackendError as error:
            logger.warning("%s can't go on now: %s", row.exec_id, error)
            self._held_off[row.exec_id] = self._clock() + RETRY_AFTER
            self._turns.put_back(row)
            return False
        except KitaruError as error:
            logger.warning("%s can't go on: %s", row.exec_id, error)
            self._given_up[row.exec_id] = row.epoch
            return False
        self._held_off.pop(row.exec_id, None)
        logger.info("%s goes on: %s", row.exec_id, why)
        return True


def of_every_stack(client: KitaruClient) -> list[Dispatcher]:
    """A dispatcher for each journal that a stack of this home keeps its executions in, the client's own first.

    A journal behind another server is that one's to look after.
    """
    mine = client.runtime.settings
    found = {mine.journal_url: client}
    for name in stack_names(mine.home):
        try:
            its = settings_on(name, mine)
            if its.journal_url not in found and not its.journal_url.startswith(("http://", "https://")):
                found[its.journal_url] = KitaruClient(Runtime(its))
        except KitaruError as error:
            logger.warning("Stack %s is left alone: %s", name, error)
    return [Dispatcher(each) for each in found.values()]
