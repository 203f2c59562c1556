"""Results that are on their way: what `.submit`, `.map` and `.product` return."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from kitaru_nb.core.context import running_loop
from kitaru_nb.errors import KitaruUsageError

R = TypeVar("R")


class CheckpointFuture(Generic[R]):
    """The result of a submitted call. ``.result()`` blocks, ``await`` doesn't; as an input it is resolved by itself."""

    def __init__(
        self, future: Future[R] | None = None, *, task: asyncio.Task[R] | None = None, call_id: str | None = None
    ) -> None:
        self._future = future
        self._task = task
        self.call_id = call_id

    @classmethod
    def of(cls, function: Callable[[], Any], is_async: bool) -> CheckpointFuture[Any]:
        """Outside a flow: the plain function, run now."""
        future: Future[Any] = Future()
        if is_async:
            loop = running_loop()
            if loop is not None:
                return cls(task=loop.create_task(function()))
            return cls(asyncio.run_coroutine_threadsafe(function(), background_loop()))
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)
        return cls(future)

    def result(self, timeout: float | None = None) -> R:
        """The call's value. Raises what the call raised, or `TimeoutError` after ``timeout`` seconds."""
        if self._future is not None:
            return self._future.result(timeout)
        assert self._task is not None
        if not self._task.done():
            raise KitaruUsageError(
                "result() would block the event loop that has to produce the result.", fix="value = await future"
            )
        return self._task.result()

    def done(self) -> bool:
        """Whether the call has ended."""
        return (self._future or self._task).done()  # type: ignore[union-attr]

    def __await__(self) -> Generator[Any, None, R]:
        if self._task is not None:
            return self._task.__await__()
        assert self._future is not None
        return asyncio.wrap_future(self._future).__await__()


class Futures(list[CheckpointFuture[R]]):
    """Futures in the order of their calls."""

    def results(self) -> list[R]:
        """All values in order; waits for all. Raises what the first failed call raised."""
        return [future.result() for future in self]

    def __await__(self) -> Generator[Any, None, list[R]]:
        return _gather(self).__await__()


async def _gather(futures: Iterable[CheckpointFuture[R]]) -> list[R]:
    return [await future for future in futures]


def resolve(value: Any) -> Any:
    """The value of a future or of several; anything else as it is."""
    if isinstance(value, CheckpointFuture):
        return value.result()
    if isinstance(value, Futures):
        return value.results()
    return value


_loop: asyncio.AbstractEventLoop | None = None
_loop_lock = threading.Lock()


def background_loop() -> asyncio.AbstractEventLoop:
    """The one event loop, on a thread of its own, for async checkpoints that synchronous flows submit.

    One loop for all: clients and locks are bound to the loop that they were first used on.
    """
    global _loop
    with _loop_lock:
        if _loop is None or _loop.is_closed():
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="kitaru-loop", daemon=True).start()
        return _loop
