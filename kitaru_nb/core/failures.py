"""Exceptions as they are recorded, and back."""

from __future__ import annotations

import pickle
import traceback
from typing import Any

from kitaru_nb.errors import KitaruError, KitaruUserCodeError, Paused
from kitaru_nb.model import Event


def failure_body(error: BaseException) -> dict[str, Any]:
    """`FailureInfo` of an exception, as JSON."""
    return {
        "message": str(error) or type(error).__name__,
        "exception_type": f"{type(error).__module__}.{type(error).__qualname__}",
        "traceback": "".join(traceback.format_exception(error)),
        "origin": "runtime" if isinstance(error, KitaruError) else "user",
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
    failure = event.body["failure"]
    if event.blob is not None and trusted:
        try:
            error = pickle.loads(event.blob)
        except Exception as unreadable:
            return KitaruUserCodeError(f"{failure['message']} (its exception can't be loaded: {unreadable})")
        if isinstance(error, Exception):
            return error
    return KitaruUserCodeError(f"{failure['exception_type']}: {failure['message']}")


def is_pause(error: BaseException) -> bool:
    """Whether an exception that ended a flow's body means that it let go, rather than that it failed."""
    if isinstance(error, BaseExceptionGroup):  # what a TaskGroup makes of a `Paused` in one of its tasks
        return error.subgroup((Paused, KeyboardInterrupt)) is not None
    return isinstance(error, Paused | KeyboardInterrupt)
