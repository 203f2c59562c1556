"""The shell around the engine: it performs effects for one execution that this process advances.

Commits: one per completed checkpoint. ``checkpoint.started`` is held back and never written when the call completes
within 50 ms; logs, metadata and saved artifacts ride along with the next commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kitaru_nb.core import engine as e
from kitaru_nb.core.context import Frame, here
from kitaru_nb.core.description import describe
from kitaru_nb.core.drive import drive, drive_async
from kitaru_nb.core.failures import failure_body, pickled, recorded_failure
from kitaru_nb.core.interrupts import UserCode
from kitaru_nb.core.keeper import keeper
from kitaru_nb.core.leases import give_back
from kitaru_nb.core.logs import LogBuffer
from kitaru_nb.core.parking import Parking
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.core.submitted import Submitted
from kitaru_nb.core.work import Work
from kitaru_nb.errors import KitaruBackendError, KitaruFencedError, Paused
from kitaru_nb.journal.fold import Outputs, adopted_outputs, pack_outputs
from kitaru_nb.model import Event, Lease

__all__ = ["Ending", "Run", "Work", "failure_body", "recorded_failure"]

STARTED_AFTER = 0.05
LOGS_AFTER = 1.0
LOOK_EVERY = 0.5
#: Values of so few bytes (true, null, 0, "ok") come from anywhere: who made them isn't known by their token.
COMMON_BYTES = 5

#: What others than the run's own worker append.
_FROM_OUTSIDE = frozenset({"wait.resolved", "execution.cancel", "execution.cancelled"})


@dataclass(slots=True)
class Started:
    """A call in flight; ``written`` once its ``checkpoint.started`` is in the journal."""

    call: e.Call
    attempt: int
    first_at: float
    at: float
    written: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """Why the run must let go: ``paused``, ``cancelled`` or ``fenced``."""

    kind: str
    reason: str


class Run:
    """One execution, advanced by this process while it holds ``lease``.

    Attributes:
        frame: the frame of the flow's body.
        options: what the execution was started with: ``cache`` and ``retries``.
        cache: default of ``cache`` for the checkpoints of this execution.
        ending: set once somebody asked the run to let go.
        signal: name of the signal that told this process to pause, or "".
        wake: set together with ``ending``, for those who sleep.
        told: is told of each call as it happens: (``started``, ``completed``, ``failed`` or ``reused``, the call, the
            event that says so or None). On the thread of the call; what it raises is the call's failure.
        task: the loop and task of an asynchronous flow's body.
        outages: errors of the journal that the run has met: they are no failure of its flow.
        user_code: which threads run user code, for interrupts.
    """

    def __init__(
        self,
        runtime: Runtime,
        exec_id: str,
        lease: Lease,
        history: Sequence[Event],
        *,
        plan: e.ReplayPlan | None = None,
        poll_seconds: float = 600.0,
        strict: bool = True,
    ) -> None:
        self.runtime = runtime
        self.journal = runtime.journal
        self.store = runtime.store
        self.exec_id = exec_id
        self.lease = lease
        self.engine = e.Engine(exec_id, history, plan)
        self.frame = Frame(self, "", "", strict=strict)
        self.options: Mapping[str, Any] = {}
        self.cache: bool | None = None
        self.after_answer: Callable[[e.WaitRequest, Mapping[str, Any]], None] | None = None
        self.told: Callable[[str, e.Call, Event | None], None] | None = None
        self.ending: Ending | None = None
        self.signal = ""
        self.wake = threading.Event()
        self.task: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self.outages: list[KitaruBackendError] = []
        self.user_code = UserCode()
        self.logs = LogBuffer()
        self.parking = Parking(self, poll_seconds)
        self.submitted = Submitted(self)
        self._started: dict[str, Started] = {}
        self._buffer: list[Event] = []
        self._lock = threading.Lock()
        self._upkeep = threading.Lock()
        self._closed = False
        now = time.monotonic()
        self._renewed = self._looked = self._logged = now
        if self.engine.cancel is not None:
            self._cancelled(self.engine.cancel)
        keeper.add(self)

    def begin(self) -> None:
        """The flow's body starts to run on the calling thread and task."""
        self.frame.line = here()
        self.check()

    @property
    def waiting_for(self) -> list[str]:
        """Ids of the waits that the run has let go for."""
        return self.parking.waiting_for

    # calls

    def call(self, call: e.Call) -> Any:
        """Perform a call of a checkpoint in this thread."""
        inside = self.user_code.leave()
        try:
            self.check()
            if (event := self.engine.completed.get(call.call_id)) is not None:
                return self._restore(call, event, self.exec_id)
            self.parking.begin()
            try:
                return drive(self.engine.call(call), self.perform)
            finally:
                self.parking.end()
        finally:
            if inside:
                self.back_to_user_code()

    async def call_async(self, call: e.Call) -> Any:
        """Perform a call of a checkpoint in this task."""
        self.check()
        if (event := self.engine.completed.get(call.call_id)) is not None:
            return self._restore(call, event, self.exec_id)
        self.parking.begin()
        try:
            return await drive_async(self.engine.call(call), self.perform_async)
        finally:
            self.parking.end()

    def wait(self, wait: e.WaitRequest) -> Mapping[str, Any]:
        """Perform a wait in this thread; the body of its ``wait.resolved``."""
        with self.runtime_code():
            self.check()
            self.parking.begin()
            try:
                return drive(self.engine.wait(wait), self.perform)
            finally:
                self.parking.end()

    async def wait_async(self, wait: e.WaitRequest) -> Mapping[str, Any]:
        """Perform a wait in this task; the body of its ``wait.resolved``."""
        self.check()
        self.parking.begin()
        try:
            return await drive_async(self.engine.wait(wait), self.perform_async)
        finally:
            self.parking.end()

    def check(self) -> None:
        """Raise `Paused` when this run must let go, or has; raise again what makes going on wrong."""
        if self.ending is not None:
            raise Paused(self.ending.reason)
        if self.parking.waiting_for:
            raise Paused(self.parking.reason)
        if self.engine.divergence is not None:
            raise self.engine.divergence

    def back_to_user_code(self) -> None:
        """The calling thread runs user code from here on. Raises `Paused` when the run must let go instead."""
        self.user_code.enter()
        if self.ending is not None:
            self.user_code.leave()
            raise Paused(self.ending.reason)

    @contextlib.contextmanager
    def runtime_code(self) -> Iterator[None]:
        """What is done here on behalf of user code isn't cut off by an interrupt."""
        inside = self.user_code.leave()
        try:
            yield
        finally:
            if inside:
                self.back_to_user_code()

    # effects

    def perform(self, effect: e.Effect) -> Any:
        """Perform one effect in this thread."""
        match effect:
            case e.Load():
                return self._restore(effect.call, effect.donor.event, effect.donor.exec_id)
            case e.Invoke():
                return self._invoke(effect)
            case e.Complete():
                return self._complete(effect)
            case e.Find():
                return self._find(effect)
            case e.Adopt():
                return self._adopt(effect)
            case e.Fail():
                return self._fail(effect)
            case e.Sleep():
                self.wake.wait(effect.seconds)
                return self.check()
            case e.Ask():
                return self.parking.ask(effect.wait)
            case e.Answer():
                return self.parking.answer(effect)
            case e.Park():
                return self.parking.park(effect.wait)

    async def perform_async(self, effect: e.Effect) -> Any:
        """Perform one effect in this task; what blocks goes to a thread."""
        match effect:
            case e.Load():
                return self._restore(effect.call, effect.donor.event, effect.donor.exec_id)
            case e.Invoke():
                with self._in_flight(effect):
                    return await effect.call.work.invoke_async(effect.call, effect.attempt)
            case e.Sleep():
                await asyncio.sleep(effect.seconds)
                return self.check()
            case e.Park():
                return await self.parking.park_async(effect.wait)
            case _:
                return await asyncio.to_thread(self.perform, effect)

    @contextlib.contextmanager
    def _in_flight(self, effect: e.Invoke) -> Iterator[None]:
        now = time.time()
        call_id = effect.call.call_id
        call = effect.call
        self._trace(call)
        with self._lock:
            before = self._started.get(call_id)
            first = before.first_at if before else now
            mine = self._started[call_id] = Started(call, effect.attempt, first, now)
        if self.told is not None:
            self.told("started", call, None)
        try:
            yield
        except Exception:
            raise
        except BaseException as error:
            if not isinstance(error, SystemExit) or self.user_code.doomed():
                with self._lock:
                    if self._started.get(call_id) is mine:  # else the next attempt around it has begun the call again
                        del self._started[call_id]  # interrupted: the call is no longer in flight
            raise

    def _trace(self, call: e.Call) -> None:
        """Find where the inputs came from; where that isn't known, only program order is."""
        if not call.sources and call.inputs:
            call.sources = self.engine.trace(call.inputs)
        if not call.after and not all(call.sources):
            call.after = call.frame.last

    def _invoke(self, effect: e.Invoke) -> Any:
        with self._in_flight(effect):
            try:
                self.back_to_user_code()
                value = effect.call.work.invoke(effect.call, effect.attempt)
            finally:
                self.user_code.leave()
            if self.user_code.doomed():
                raise SystemExit  # too late: what it brings doesn't count
            return value

    def _restore(self, call: e.Call, event: Event, exec_id: str) -> Any:
        """The outcome that ``event`` recorded. A resume does this once for each completed call, before all else."""
        outputs = Outputs(event, exec_id)
        value = call.work.restore(self, call, outputs, event)
        self._settled(call, outputs.tokens(above=COMMON_BYTES))
        if self.told is not None:
            self.told("reused", call, event)
        return value

    def _settled(self, call: e.Call, tokens: Iterable[str]) -> None:
        """A call has its outcome: the values with these tokens have a producer, and the main line has moved on."""
        for token in tokens:
            self.engine.produced(token, call.call_id)
        if call.place is not None or not call.frame.strict:
            call.frame.last = (call.call_id,)

    def _complete(self, effect: e.Complete) -> None:
        call = effect.call
        now = time.time()
        artifacts, more = call.work.outputs(self, call, effect.value)
        blob = bytearray()
        packed = pack_outputs(artifacts, blob, exec_id=self.exec_id, call_id=call.call_id, name=call.name)
        with self._lock:
            started = self._started.pop(call.call_id)
        body = self._describe(call, started)
        if effect.attempt > 1:
            body["attempt"] = effect.attempt
        body["duration"] = round(now - started.first_at, 6)
        body["outputs"] = packed
        body.update(more)
        event = Event(
            self.exec_id, "checkpoint.completed", call.call_id, now, body, bytes(blob) or None, 0, call.cache_key
        )
        self._finish_call(call, event)
        self._settled(call, [a.token for a in artifacts if a.size > COMMON_BYTES and a.token])
        if self.told is not None:
            self.told("completed", call, event)

    def _finish_call(self, call: e.Call, event: Event) -> None:
        events = [event]
        if lines := self.logs.take(call.call_id):
            events.insert(0, Event(self.exec_id, "log.lines", call.call_id, event.at, {"lines": lines}))
        self.commit(events)
        self.engine.take(event)

    def _describe(self, call: e.Call, started: Started | None) -> dict[str, Any]:
        return describe(call, None if started is None else started.first_at, self.runtime.preview)

    def _find(self, effect: e.Find) -> e.Donor | None:
        event = self.journal.find(effect.cache_key)
        return None if event is None else e.Donor(event.exec_id, event)

    def _adopt(self, effect: e.Adopt) -> None:
        call, donor = effect.call, effect.donor
        self._trace(call)
        now = time.time()
        kept = ("metadata", "partial", "cell", "duration")
        body = self._describe(call, None) | {k: v for k, v in donor.event.body.items() if k in kept}
        body["outputs"] = adopted_outputs(donor.event)
        # The instant of taking it over, so that calls keep their program order; ``duration`` is that of the real run.
        body["started_at"] = now
        if effect.overridden:
            body["overridden"] = True
        body["reused"] = donor.event.body.get("reused") or {"exec_id": donor.exec_id, "call_id": donor.event.key}
        event = Event(
            self.exec_id, "checkpoint.completed", call.call_id, now, body, donor.event.blob, 0, call.cache_key
        )
        self._finish_call(call, event)

    def _fail(self, effect: e.Fail) -> None:
        call, error = effect.call, effect.error
        with self._lock:
            started = self._started.get(call.call_id)
            if isinstance(error, SystemExit) and (started is None or started.call is not call):
                return  # a timeout around the call ended its thread: no failure of its own
            if effect.retry_in is None:
                self._started.pop(call.call_id, None)
            elif started is not None:
                started.written = True  # this attempt is over: a late ``started`` would say that it runs
        now = time.time()
        body = self._describe(call, started) | {
            "attempt": effect.attempt,
            "attempt_at": started.at if started else now,
            "started_at": started.first_at if started else now,
            "failure": failure_body(error),
            "final": effect.retry_in is None,
        }
        if effect.retry_in is not None:
            body["retry_in"] = effect.retry_in
        event = Event(self.exec_id, "checkpoint.failed", call.call_id, now, body, pickled(error))
        self._finish_call(call, event)
        if self.told is not None:
            self.told("failed", call, event)

    # journal

    def look(self) -> None:
        """Take up what others appended: answers and cancel requests."""
        with self._meeting_outages():
            news = self.journal.history(self.exec_id, after=self.engine.last_seq)
        for event in news:
            self.engine.last_seq = max(self.engine.last_seq, event.seq)
            if event.kind in _FROM_OUTSIDE:
                self.engine.take(event)
                if event.kind != "wait.resolved":
                    self._cancelled(event)

    def _cancelled(self, event: Event) -> None:
        self.interrupt("cancelled", f"{self.exec_id} was cancelled by {event.body.get('by', 'somebody')}")

    def commit(self, events: Sequence[Event]) -> None:
        """Append events, and all that is held back, in one commit. Raises `Paused` when the lease is lost."""
        with self._lock:
            held, self._buffer = self._buffer, []
        try:
            with self._meeting_outages():
                self.journal.append(self.exec_id, [*held, *events], lease=self.lease)
        except KitaruFencedError as error:
            self.interrupt("fenced", str(error))
            # Not as an `Exception`: a flow that handles those would go on to do what its successor does too.
            raise Paused(str(error)) from error
        except BaseException:
            with self._lock:
                self._buffer[:0] = held
            raise

    @contextlib.contextmanager
    def _meeting_outages(self) -> Iterator[None]:
        try:
            yield
        except KitaruBackendError as error:
            self.outages.append(error)
            raise

    def hold(self, event: Event) -> None:
        """Keep an event for the next commit (the keeper makes one within 50 ms)."""
        with self._lock:
            self._buffer.append(event)

    def log_text(self, call_id: str, source: str, level: str, text: str) -> None:
        """Add to the log of a call."""
        self.logs.add(call_id, source, level, text)

    def let_go(self, events: Sequence[Event]) -> None:
        """Append the last events and give the lease back."""
        self.abandon()
        with self._lock:
            held, self._buffer = self._buffer, []
        for call_id, lines in self.logs.take_all().items():
            held.append(Event(self.exec_id, "log.lines", call_id, time.time(), {"lines": lines}))
        with self._meeting_outages():
            give_back(self.journal, self.lease, [*held, *events])

    def abandon(self) -> None:
        """Stop the upkeep without writing anything (the lease is lost, or storage is gone)."""
        keeper.remove(self)
        with self._upkeep:  # a tick that is going on ends first: nothing is written after the last word
            self._closed = True

    # upkeep, called by the keeper's thread

    def tick(self, now: float) -> None:
        """Write what was held back for long enough, keep the lease, notice cancel requests."""
        with self._upkeep:
            if self._closed or (self.ending is not None and self.ending.kind == "fenced"):
                return
            self._hold_overdue(now)
            if self._buffer:
                self.commit([])
            if now - self._renewed > self.runtime.settings.lease_seconds / 3:
                self._renewed = now
                self.lease = self.journal.renew(self.lease, ttl=self.runtime.settings.lease_seconds)
            if now - self._looked > LOOK_EVERY:
                self._looked = now
                self.look()

    def _hold_overdue(self, now: float) -> None:
        wall = time.time()
        with self._lock:
            late = [s for s in self._started.values() if not s.written and wall - s.at > STARTED_AFTER]
            for started in late:
                started.written = True
        for started in late:
            body = self._describe(started.call, started) | {"attempt": started.attempt}
            self.hold(Event(self.exec_id, "checkpoint.started", started.call.call_id, started.at, body))
        if now - self._logged > LOGS_AFTER:
            self._logged = now
            for call_id, lines in self.logs.take_finished().items():
                self.hold(Event(self.exec_id, "log.lines", call_id, wall, {"lines": lines}))

    def interrupt(self, kind: str, reason: str) -> None:
        """Make the run let go at the next step: nothing finished is lost. Not to be called by a signal handler.

        An asynchronous flow is cancelled at its next await, synchronous user code gets `Paused` at its next bytecode;
        once more when ``paused`` is asked again, as user code may have swallowed it.
        """
        with self._lock:
            if self.ending is not None and kind != "paused":
                return
            self.ending = self.ending or Ending(kind, reason)
        self.wake.set()
        self.parking.stir()
        if self.task is not None:
            loop, task = self.task
            with contextlib.suppress(RuntimeError):  # the loop may have closed in this very moment
                loop.call_soon_threadsafe(task.cancel)
        self.submitted.cancel()
        self.user_code.stop()
