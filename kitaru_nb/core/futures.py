"""Results that are on their way: what `.submit`, `.map` and `.product` return."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, TypeVar

from kitaru_nb.core.context import running_loop as running_loop
from kitaru_nb.core.submitted import Claimable
from kitaru_nb.errors import KitaruUsageError, Paused

R = TypeVar("R")


class CheckpointFuture(Generic[R]):
    """The result of a submitted call. ``.result()`` blocks, ``await`` doesn't; as an input it is resolved by itself.

    Attributes:
        call_id: id of the call; None while it isn't known, because an input of the call is itself on its way.
    """

    def __init__(self) -> None:
        self.call_id: str | None = None
        self.future: Future[R] | None = None
        self.task: asyncio.Task[R] | None = None
        self._work: Claimable | None = None

    @property
    def work(self) -> Claimable | None:
        """The work on a thread that makes the result, if that is where it is made."""
        return self._work

    @work.setter
    def work(self, work: Claimable) -> None:
        self._work, self.future = work, work.future

    @classmethod
    def of(cls, function: Callable[[], Any], is_async: bool) -> CheckpointFuture[Any]:
        """Outside a flow: the plain function, run now."""
        made: CheckpointFuture[Any] = cls()
        loop = running_loop()
        if is_async and loop is not None:
            made.task = loop.create_task(function())
        elif is_async:
            made.future = asyncio.run_coroutine_threadsafe(function(), background_loop())
        else:
            work = made.work = Claimable(function)
            work()
        return made

    def result(self, timeout: float | None = None) -> R:
        """The call's value. Raises what the call raised, or `TimeoutError` after ``timeout`` seconds."""
        if self.future is not None:
            if self._work is not None and timeout is None:
                self._work()
            try:
                return self.future.result(timeout)
            except CancelledError as error:
                raise Paused("a submitted call was interrupted") from error
        assert self.task is not None
        if not self.task.done():
            raise KitaruUsageError(
                "result() would block the event loop that has to produce the result.", fix="value = await future"
            )
        return self.task.result()

    def done(self) -> bool:
        """Whether the call has ended."""
        return (self.future or self.task).done()  # type: ignore[union-attr]

    def __await__(self) -> Generator[Any, None, R]:
        if self.task is not None:
            return self.task.__await__()
        assert self.future is not None
        return asyncio.wrap_future(self.future).__await__()


class Futures(list[CheckpointFuture[R]]):
    """Futures in the order of their calls."""

    def results(self) -> list[R]:
        """All values in order; waits for all. Raises what the first failed call raised."""
        return [future.result() for future in self]

    def __await__(self) -> Generator[Any, None, list[R]]:
        return _gather(self).__await__()


async def _gather(futures: Iterable[CheckpointFuture[R]]) -> list[R]:
    return [await future for future in futures]


def pending(value: Any) -> Iterator[CheckpointFuture[Any]]:
    """The futures that a value is, or holds as a list, tuple or dict."""
    if isinstance(value, CheckpointFuture):
        yield value
        return
    kind = type(value)
    if kind is dict:
        value = value.values()
    elif kind not in (list, tuple, Futures):
        return
    for item in value:
        if isinstance(item, CheckpointFuture | Futures):
            yield from pending(item)


#: Types whose values hold no future.
_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})


def resolve(value: Any) -> Any:
    """The value of a future or of several, also inside a list, tuple or dict; anything else as it is."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, CheckpointFuture):
        return value.result()
    if isinstance(value, Futures):
        return value.results()
    if next(pending(value), None) is None:
        return value
    if isinstance(value, dict):
        return {key: resolve(item) for key, item in value.items()}
    return type(value)(resolve(item) for item in value)


async def settle(value: Any) -> None:
    """Await the futures that a value is or holds, so that `resolve` doesn't block. Raises what a call raised."""
    for future in pending(value):
        await future


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
