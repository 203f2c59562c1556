"""Two small drivers for one engine: they perform the effects that a generator yields, and send the results back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from kitaru_nb.core.engine import Effect

T = TypeVar("T")


def drive(steps: Generator[Effect, Any, T], perform: Callable[[Any], Any]) -> T:
    """Run ``steps`` to its end in this thread."""
    try:
        effect = next(steps)
        while True:
            try:
                result = perform(effect)
            except BaseException as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def drive_async(steps: Generator[Effect, Any, T], perform: Callable[[Any], Awaitable[Any]]) -> T:
    """Run ``steps`` to its end in this task."""
    try:
        effect = next(steps)
        while True:
            try:
                result = await perform(effect)
            except BaseException as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
