"""The shell around the engine: it performs effects for one execution that this process advances.

Commits: one per completed checkpoint. ``checkpoint.started`` is held back and never written when the call completes
within 50 ms; logs, metadata and saved artifacts ride along with the next commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from kitaru_nb.core import engine as e
from kitaru_nb.core.context import Frame, here
from kitaru_nb.core.drive import drive, drive_async
from kitaru_nb.core.keeper import keeper
from kitaru_nb.core.logs import LogBuffer
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruError, KitaruFencedError, KitaruUserCodeError, Paused
from kitaru_nb.journal.fold import pack_artifact, unpack_artifact
from kitaru_nb.model import Artifact, Event, FailureInfo, Lease

STARTED_AFTER = 0.05
LOGS_AFTER = 1.0
LOOK_EVERY = 0.5
POLL = 0.05
MAX_THREADS = 32


class Work(Protocol):
    """What a call consists of: the code, and how its outcome is kept."""

    def invoke(self, call: e.Call, attempt: int) -> Any:
        """Run the user's code in this thread."""

    async def invoke_async(self, call: e.Call, attempt: int) -> Any:
        """Run the user's code in this task."""

    def outputs(self, run: Run, call: e.Call, value: Any) -> tuple[list[Artifact], Mapping[str, Any]]:
        """Persist the outcome; its artifacts, and more for the body of ``checkpoint.completed``."""

    def restore(self, run: Run, call: e.Call, artifacts: Sequence[Artifact], event: Event) -> Any:
        """The outcome again, from what was recorded."""

    def recorded_failure(self, event: Event) -> Exception:
        """The exception again that ended the call's last attempt."""


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
    """Why the run lets go: ``waiting``, ``paused``, ``cancelled`` or ``fenced``."""

    kind: str
    reason: str


class Run:
    """One execution, advanced by this process while it holds ``lease``.

    Attributes:
        poll_seconds: how long a wait polls before it lets go, where the wait doesn't say.
        in_thread: thread id → depth of user code, for interrupts.
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
        self.poll_seconds = poll_seconds
        self.cache: bool | None = None
        self.before_pause: Callable[[e.WaitRequest], None] | None = None
        self.ending: Ending | None = None
        self.waiting_for: list[str] = []
        self.wake = threading.Event()
        self.user_threads: dict[int, int] = {}
        self.task: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self.logs = LogBuffer()
        self._started: dict[str, Started] = {}
        self._inflight = 0
        self._buffer: list[Event] = []
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        now = time.monotonic()
        self._renewed = self._looked = self._logged = now
        keeper.add(self)

    def begin(self) -> None:
        """The flow's body starts to run on the calling thread and task."""
        self.frame.line = here()
        self.user_threads[threading.get_ident()] = 1

    # calls

    def call(self, call: e.Call) -> Any:
        """Perform a call of a checkpoint in this thread."""
        self.check()
        if (donor := self.engine.recorded(call)) is not None:
            return self._load(e.Load(call, donor))
        return drive(self.engine.call(call), self.perform)

    async def call_async(self, call: e.Call) -> Any:
        """Perform a call of a checkpoint in this task."""
        self.check()
        if (donor := self.engine.recorded(call)) is not None:
            return self._load(e.Load(call, donor))
        return await drive_async(self.engine.call(call), self.perform_async)

    def check(self) -> None:
        """Raise `Paused` (or `KitaruFencedError`) when this run must let go."""
        if self.ending is None:
            return
        if self.ending.kind == "fenced":
            raise KitaruFencedError(self.ending.reason)
        raise Paused(self.ending.reason)

    @property
    def executor(self) -> ThreadPoolExecutor:
        """Threads for `.submit` and `.map`, made on first use."""
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix=f"{self.exec_id}-")
            return self._executor

    # effects

    def perform(self, effect: e.Effect) -> Any:
        """Perform one effect in this thread."""
        match effect:
            case e.Load():
                return self._load(effect)
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
                return self._sleep(effect.seconds)
            case e.Ask():
                return self._ask(effect.wait)
            case e.Answer():
                return self._answer(effect)
            case e.Park():
                return self._park(effect.wait)

    async def perform_async(self, effect: e.Effect) -> Any:
        """Perform one effect in this task; what blocks goes to a thread."""
        match effect:
            case e.Load():
                return self._load(effect)
            case e.Invoke():
                with self._in_flight(effect):
                    return await effect.call.work.invoke_async(effect.call, effect.attempt)
            case e.Sleep():
                return await asyncio.sleep(effect.seconds)
            case e.Park():
                return await self._park_async(effect.wait)
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
            self._started[call_id] = Started(call, effect.attempt, first, now)
            self._inflight += 1
        try:
            yield
        except Exception:
            raise
        except BaseException:
            with self._lock:
                self._started.pop(call_id, None)  # interrupted: the call is no longer in flight
            raise
        finally:
            with self._lock:
                self._inflight -= 1

    def _trace(self, call: e.Call) -> None:
        """Find where the inputs came from; where that isn't known, only program order is."""
        if not call.sources and call.inputs:
            call.sources = self.engine.trace(call.inputs)
        if not call.after and not all(call.sources):
            call.after = call.frame.last

    def _invoke(self, effect: e.Invoke) -> Any:
        thread = threading.get_ident()
        with self._in_flight(effect):
            self.user_threads[thread] = self.user_threads.get(thread, 0) + 1
            try:
                return effect.call.work.invoke(effect.call, effect.attempt)
            finally:
                self.user_threads[thread] -= 1

    def _load(self, effect: e.Load) -> Any:
        call, event = effect.call, effect.donor.event
        artifacts = [unpack_artifact(a, event.blob, effect.donor.exec_id) for a in event.body.get("outputs", ())]
        value = call.work.restore(self, call, artifacts, event)
        self._settled(call, artifacts)
        return value

    def _settled(self, call: e.Call, artifacts: Sequence[Artifact]) -> None:
        """A call has its outcome: its outputs have a producer, and the main line has moved on."""
        for artifact in artifacts:
            if artifact.size > 5:  # true, null, 0 or "ok" come from anywhere
                self.engine.produced(artifact.token, call.call_id)
        if call.place is not None or not call.frame.strict:
            call.frame.last = (call.call_id,)

    def _complete(self, effect: e.Complete) -> None:
        call = effect.call
        now = time.time()
        artifacts, more = call.work.outputs(self, call, effect.value)
        blob = bytearray()
        packed = [pack_artifact(a, blob) for a in artifacts]
        with self._lock:
            started = self._started.pop(call.call_id)
        body = self._describe(call, started)
        body["attempt"] = effect.attempt
        body["duration"] = round(now - started.first_at, 6)
        body["outputs"] = packed
        body.update(more)
        event = Event(
            self.exec_id, "checkpoint.completed", call.call_id, now, body, bytes(blob) or None, 0, call.cache_key
        )
        self._finish_call(call, event)
        self._settled(call, artifacts)

    def _finish_call(self, call: e.Call, event: Event) -> None:
        events = [event]
        if lines := self.logs.take(call.call_id):
            events.insert(0, Event(self.exec_id, "log.lines", call.call_id, event.at, {"lines": lines}))
        self.commit(events)
        self.engine.take(event)

    def _describe(self, call: e.Call, started: Started | None) -> dict[str, Any]:
        preview = self.runtime.preview
        body: dict[str, Any] = {
            "name": call.name,
            "inputs": [
                [i.name, i.token, preview(i.value)["text"][:200], sources]
                for i, sources in zip(call.inputs, call.sources or [[]] * len(call.inputs), strict=True)
            ],
        }
        if call.type is not None:
            body["type"] = call.type
        if call.frame.call_id:
            body["parent"] = call.frame.call_id
        if call.place is not None:
            body["place"] = call.place
        if call.code is not None:
            body["code"] = call.code
        if call.after:
            body["after"] = list(call.after)
        if started is not None:
            body["started_at"] = started.first_at
        return body

    def _find(self, effect: e.Find) -> e.Donor | None:
        event = self.journal.find(effect.cache_key)
        return None if event is None else e.Donor(event.exec_id, event)

    def _adopt(self, effect: e.Adopt) -> None:
        call, donor = effect.call, effect.donor
        self._trace(call)
        kept = ("outputs", "metadata", "partial", "cell", "duration", "started_at")
        body = self._describe(call, None) | {k: v for k, v in donor.event.body.items() if k in kept}
        body["reused"] = donor.event.body.get("reused") or {"exec_id": donor.exec_id, "call_id": donor.event.key}
        event = Event(
            self.exec_id, "checkpoint.completed", call.call_id, time.time(), body, donor.event.blob, 0, call.cache_key
        )
        self._finish_call(call, event)

    def _fail(self, effect: e.Fail) -> None:
        call, error = effect.call, effect.error
        with self._lock:
            started = self._started.get(call.call_id)
            if effect.retry_in is None:
                self._started.pop(call.call_id, None)
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

    def _sleep(self, seconds: float) -> None:
        self.wake.wait(seconds)
        self.check()

    # waits

    def _ask(self, wait: e.WaitRequest) -> None:
        body: dict[str, Any] = {"name": wait.name, "schema": wait.schema}
        optional = {
            "question": wait.question,
            "metadata": wait.metadata,
            "until": wait.until,
            "timeout": wait.timeout,
            "after": list(wait.after),
        }
        body |= {k: v for k, v in optional.items() if v not in (None, [], {})}
        event = Event(self.exec_id, "wait.created", wait.wait_id, time.time(), body)
        self.commit([event])
        self.engine.take(event)

    def _answer(self, effect: e.Answer) -> Mapping[str, Any]:
        body = {"value": effect.value, "by": effect.by, "via": effect.via}
        event = Event(self.exec_id, "wait.resolved", effect.wait.wait_id, time.time(), body)
        self.commit([event])
        self.engine.take(event)
        return body

    def _park(self, wait: e.WaitRequest) -> Mapping[str, Any]:
        deadline = self._park_deadline(wait)
        while (body := self._look_for_answer(wait, deadline)) is None:
            self.wake.wait(POLL)
            self.wake.clear()
        return body

    async def _park_async(self, wait: e.WaitRequest) -> Mapping[str, Any]:
        deadline = self._park_deadline(wait)
        while (body := await asyncio.to_thread(self._look_for_answer, wait, deadline)) is None:
            await asyncio.sleep(POLL)
        return body

    def _park_deadline(self, wait: e.WaitRequest) -> float:
        return time.monotonic() + (self.poll_seconds if wait.timeout is None else wait.timeout)

    def _look_for_answer(self, wait: e.WaitRequest, deadline: float) -> Mapping[str, Any] | None:
        """The answer's body if it is there. Lets go when the time is over and nothing else is in flight."""
        self.check()
        self.look()
        if (resolved := self.engine.resolved.get(wait.wait_id)) is not None:
            return resolved.body
        if wait.until is not None and time.time() >= wait.until:
            return self.runtime.ring(self.exec_id, wait.wait_id)
        if time.monotonic() >= deadline and self._inflight == 0:
            self.waiting_for.append(wait.wait_id)
            if self.before_pause is not None:
                self.before_pause(wait)
            raise Paused(f"{self.exec_id} waits for {wait.name!r}")
        return None

    def look(self) -> None:
        """Take up what others appended: answers and cancel requests."""
        for event in self.journal.history(self.exec_id, after=self.engine.last_seq):
            self.engine.take(event)
            if event.kind == "execution.cancel":
                self.interrupt("cancelled", f"{self.exec_id} was cancelled by {event.body['by']}")

    # journal

    def commit(self, events: Sequence[Event]) -> None:
        """Append events, and all that is held back, in one commit."""
        with self._lock:
            held, self._buffer = self._buffer, []
        try:
            self.journal.append(self.exec_id, [*held, *events], lease=self.lease)
        except BaseException:
            with self._lock:
                self._buffer[:0] = held
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
        keeper.remove(self)
        lines = self.logs.take("")
        with self._lock:
            held, self._buffer = self._buffer, []
        now = time.time()
        for call_id, more in {**self.logs.take_finished(), **({"": lines} if lines else {})}.items():
            held.append(Event(self.exec_id, "log.lines", call_id, now, {"lines": more}))
        self.journal.release(self.lease, [*held, *events])

    def abandon(self) -> None:
        """Stop the upkeep without writing anything (the lease is lost, or storage is gone)."""
        keeper.remove(self)

    def close_executor(self) -> None:
        """Wait for the threads of `.submit` and `.map`."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    # upkeep, called by the keeper's thread

    def tick(self, now: float) -> None:
        """Write what was held back for long enough, keep the lease, notice cancel requests."""
        if self.ending is not None and self.ending.kind == "fenced":
            return
        events = self._overdue(now)
        if events:
            self.commit(events)
        elif self._buffer:
            self.commit([])
        if now - self._renewed > self.runtime.settings.lease_seconds / 3:
            self._renewed = now
            self.lease = self.journal.renew(self.lease, ttl=self.runtime.settings.lease_seconds)
        if now - self._looked > LOOK_EVERY:
            self._looked = now
            self.look()

    def _overdue(self, now: float) -> list[Event]:
        wall = time.time()
        events = []
        with self._lock:
            late = [s for s in self._started.values() if not s.written and wall - s.at > STARTED_AFTER]
            for started in late:
                started.written = True
        for started in late:
            body = self._describe(started.call, started) | {"attempt": started.attempt}
            events.append(Event(self.exec_id, "checkpoint.started", started.call.call_id, started.at, body))
        if now - self._logged > LOGS_AFTER:
            self._logged = now
            for call_id, lines in self.logs.take_finished().items():
                events.append(Event(self.exec_id, "log.lines", call_id, wall, {"lines": lines}))
        return events

    def interrupt(self, kind: str, reason: str) -> None:
        """Make the run let go at the next step: durable, nothing finished is lost.

        An asynchronous flow is cancelled at its next await; synchronous user code gets `Paused` at its next bytecode.
        """
        if self.ending is not None:
            return
        self.ending = Ending(kind, reason)
        self.wake.set()
        if self.task is not None:
            loop, task = self.task
            with contextlib.suppress(RuntimeError):  # the loop may have closed in this very moment
                loop.call_soon_threadsafe(task.cancel)
        for thread, depth in list(self.user_threads.items()):
            if depth > 0:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Paused))


def failure_body(error: BaseException) -> dict[str, Any]:
    """`FailureInfo` of an exception, as JSON."""
    info = FailureInfo(
        message=str(error) or type(error).__name__,
        exception_type=f"{type(error).__module__}.{type(error).__qualname__}",
        traceback="".join(traceback.format_exception(error)),
        origin="runtime" if isinstance(error, KitaruError) else "user",
    )
    return {
        "message": info.message,
        "exception_type": info.exception_type,
        "traceback": info.traceback,
        "origin": info.origin,
    }


def pickled(error: Exception) -> bytes | None:
    """The exception for a later `except`, when it survives pickling."""
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:
        return None
    return data


def recorded_failure(event: Event, *, trusted: bool) -> Exception:
    """The exception that a ``checkpoint.failed`` event recorded, or `KitaruUserCodeError` with its text."""
    if event.blob is not None and trusted:
        try:
            error = pickle.loads(event.blob)
        except Exception as unreadable:
            return KitaruUserCodeError(f"{event.body['failure']['message']} (its exception can't be loaded: {unreadable})")
        if isinstance(error, Exception):
            return error
    failure = event.body["failure"]
    return KitaruUserCodeError(f"{failure['exception_type']}: {failure['message']}")
