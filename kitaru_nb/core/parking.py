"""The waits of one run: they are asked, polled for, and in the end the worker lets go."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kitaru_nb.core.engine import Answer, WaitRequest
from kitaru_nb.errors import Paused
from kitaru_nb.model import Event

if TYPE_CHECKING:
    from kitaru_nb.core.run import Run

#: How soon the run looks again where no news can be: whether what else goes on has ended.
POLL = 0.05
#: How often a parked wait is looked at, also when the journal told of nothing: what it tells is a hint.
LOOK = 1.0


class Parking:
    """Which waits are polled for, and whether the run may let go.

    Attributes:
        parked: wait id → (the wait, monotonic instant until which its worker polls).
        waiting_for: ids of the waits that the run let go for; empty while it goes on.
        busy: calls and questions in progress. While there are any, the run doesn't let go.
        before_pause: told of each wait before the run lets go for it.
    """

    def __init__(self, run: Run, poll_seconds: float) -> None:
        self.run = run
        self.poll_seconds = poll_seconds
        self.parked: dict[str, tuple[WaitRequest, float]] = {}
        self.waiting_for: list[str] = []
        self.before_pause: Callable[[WaitRequest], None] | None = None
        self.busy = 0
        self._lock = threading.Lock()
        self._alarms: dict[str, Callable[[], None]] = {}
        self._stop_watching: Callable[[], None] | None = None

    def begin(self) -> None:
        """One more step is in progress. Raises `Paused` when the run has let go."""
        with self._lock:
            if self.waiting_for:
                raise Paused(self.reason)
            self.busy += 1

    def end(self, _: object = None) -> None:
        """A step has ended."""
        with self._lock:
            self.busy -= 1

    def ask(self, wait: WaitRequest) -> None:
        """Record a new wait."""
        body: dict[str, Any] = {"name": wait.name, "schema": wait.schema}
        optional = {
            "question": wait.question,
            "metadata": wait.metadata,
            "until": wait.until,
            "timeout": wait.timeout,
            "after": list(wait.after),
        }
        body |= {k: v for k, v in optional.items() if v not in (None, [], {})}
        self._record(Event(self.run.exec_id, "wait.created", wait.wait_id, time.time(), body))

    def answer(self, effect: Answer) -> Mapping[str, Any]:
        """Record an answer that a replay already has."""
        body = {"value": effect.value, "by": effect.by, "via": effect.via}
        self._record(Event(self.run.exec_id, "wait.resolved", effect.wait.wait_id, time.time(), body))
        return body

    def _record(self, event: Event) -> None:
        self.run.commit([event])
        self.run.engine.take(event)

    def park(self, wait: WaitRequest) -> Mapping[str, Any]:
        """Poll for the answer; its body. Raises `Paused` when the run lets go."""
        alarm = threading.Event()
        self._arrive(wait)
        try:
            while (body := self._look_for_answer(wait)) is None:
                self._set_alarm(wait, alarm.set)
                alarm.wait(self._seconds(wait))
                alarm.clear()
            return body
        finally:
            self._depart(wait)

    async def park_async(self, wait: WaitRequest) -> Mapping[str, Any]:
        """`park` for a task: other tasks go on while it polls."""
        loop, alarm = asyncio.get_running_loop(), asyncio.Event()

        def ring() -> None:
            with suppress(RuntimeError):  # the loop has ended, and the task with it
                loop.call_soon_threadsafe(alarm.set)

        self._arrive(wait)
        try:
            await asyncio.sleep(0)  # tasks that are about to ask come first, so that all questions are asked at once
            while (body := await asyncio.to_thread(self._look_for_answer, wait)) is None:
                self._set_alarm(wait, ring)
                with suppress(TimeoutError):
                    await asyncio.wait_for(alarm.wait(), self._seconds(wait))
                alarm.clear()
            return body
        finally:
            self._depart(wait)

    def stir(self) -> None:
        """Something happened that parked waits should look at."""
        for ring in list(self._alarms.values()):
            ring()

    def _set_alarm(self, wait: WaitRequest, ring: Callable[[], None]) -> None:
        """Have ``ring`` called when there may be news. What came before is found by looking once more."""
        with self._lock:
            if wait.wait_id in self._alarms:
                return
            self._alarms[wait.wait_id] = ring
            if self._stop_watching is None:
                self._stop_watching = self.run.journal.watch(self.stir, exec_id=self.run.exec_id)
        ring()

    def _seconds(self, wait: WaitRequest) -> float:
        """Until the wait is to be looked at without news."""
        until = LOOK if wait.until is None else wait.until - time.time()
        with self._lock:
            _, deadline = self.parked[wait.wait_id]
        return max(POLL, min(LOOK, until, deadline - time.monotonic()))

    def _arrive(self, wait: WaitRequest) -> None:
        seconds = self.poll_seconds if wait.timeout is None else wait.timeout
        with self._lock:
            self.parked[wait.wait_id] = (wait, time.monotonic() + seconds)
            self.busy -= 1

    def _depart(self, wait: WaitRequest) -> None:
        with self._lock:
            del self.parked[wait.wait_id]
            self.busy += 1
            self._alarms.pop(wait.wait_id, None)
            stop = self._stop_watching if not self._alarms else None
            if stop is not None:
                self._stop_watching = None
        if stop is not None:
            stop()

    def _look_for_answer(self, wait: WaitRequest) -> Mapping[str, Any] | None:
        """The answer's body if it is there. Lets go when the time of all waits is over and nothing else is going on."""
        run = self.run
        run.check()
        run.look()
        if (resolved := run.engine.resolved.get(wait.wait_id)) is not None:
            return resolved.body
        if wait.until is not None and time.time() >= wait.until:
            return run.runtime.ring(run.exec_id, wait.wait_id)
        if waits := self._let_go():
            for parked in waits:
                if self.before_pause is not None:
                    self.before_pause(parked)
            raise Paused(self.reason)
        return None

    def _let_go(self) -> list[WaitRequest]:
        """The waits to let go for, or none while something is going on or is to be polled for."""
        with self._lock:
            latest = max(deadline for _, deadline in self.parked.values())
            if self.busy or self.waiting_for or time.monotonic() < latest:
                return []
            self.waiting_for = list(self.parked)
            return [wait for wait, _ in self.parked.values()]

    @property
    def reason(self) -> str:
        """Why the run let go, in words."""
        asked = self.run.engine.asked
        names = " and ".join(repr(asked[w].body["name"]) for w in self.waiting_for)
        return f"{self.run.exec_id} waits for {names}"
