"""Calls that a flow submitted: they run on threads, tasks and the background loop, and end before their run does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from kitaru_nb.core.elsewhere import Elsewhere

if TYPE_CHECKING:
    from kitaru_nb.core.run import Run

MAX_THREADS = 32


class Claimable:
    """Work that runs once: on a pool's thread, or on the thread that needs its result first.

    So calls that submit calls can't lock up a full pool: whoever waits for work that hasn't begun does it himself.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self.future: Future[Any] = Future()
        self._work = work
        self._context = copy_context()
        self._claim = threading.Lock()

    def __call__(self) -> None:
        """Do the work, unless somebody does or did; the outcome is in ``future``."""
        if not self._claim.acquire(blocking=False) or not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._context.run(self._work)
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class Submitted:
    """What one run has submitted.

    Attributes:
        elsewhere: what of it runs outside this process.
    """

    def __init__(self, run: Run) -> None:
        self.elsewhere = Elsewhere(run)
        self._run = run
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._futures: set[Future[Any]] = set()

    def on_thread(self, work: Callable[[], Any]) -> Claimable:
        """Run ``work`` on the pool."""
        claimable = Claimable(work)
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix=f"{self._run.exec_id}-")
            pool = self._pool
        self._run.parking.begin()
        self._futures.add(claimable.future)
        claimable.future.add_done_callback(self._futures.discard)
        claimable.future.add_done_callback(self._run.parking.end)
        # Until a new thread runs, CPython knows it by the id of the one that starts it: an interrupt of user code would
        # hit the newcomer, which never says that it has begun, and we would wait for that word forever.
        with self._run.runtime_code():
            pool.submit(claimable)
        return claimable

    def as_task(self, work: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
        """Run ``work`` as a task of the calling thread's running loop."""
        task = loop.create_task(work)
        self._run.parking.begin()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._run.parking.end)
        task.add_done_callback(_heard)
        return task

    def on_loop(self, work: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> Future[Any]:
        """Run ``work`` on a loop of another thread."""
        future = asyncio.run_coroutine_threadsafe(work, loop)
        self._run.parking.begin()
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        future.add_done_callback(self._run.parking.end)
        return future

    async def finish_tasks(self) -> None:
        """Await the tasks that nobody awaited, and those that they submit; their outcome is recorded in their calls."""
        while going_on := [task for task in self._tasks if not task.done()]:
            await asyncio.wait(going_on)

    def finish(self) -> None:
        """Wait for all that was submitted, and for what that submits."""
        while going_on := list(self._futures):
            futures.wait(going_on)
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    def cancel(self) -> None:
        """Stop what runs on the background loop; what hasn't begun on a thread won't."""
        for future in list(self._futures):
            future.cancel()

    def stop(self) -> None:
        """Begin nothing more, and wait for what is going on."""
        self.cancel()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _heard(task: asyncio.Task[Any]) -> None:
    """What ended a task is recorded in its call: asyncio need not complain that nobody awaited it."""
    if not task.cancelled():
        task.exception()
