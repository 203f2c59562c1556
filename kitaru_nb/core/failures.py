"""Exceptions as they are recorded, and back."""

from __future__ import annotations

import io
import pickle
import time
import traceback
from typing import Any

from kitaru_nb.errors import KitaruError, KitaruStorageError, KitaruUserCodeError, Paused
from kitaru_nb.model import Event

#: Characters of a message and of a traceback that are kept, and bytes of a pickled exception: some carry the request,
#: or the answer, that they speak of.
MAX_MESSAGE, MAX_TRACEBACK, MAX_PICKLE = 10_000, 100_000, 1 << 20


def failure_body(error: BaseException) -> dict[str, Any]:
    """`FailureInfo` of an exception, as JSON. Never raises, whatever the exception's own ``__str__`` does."""
    kind = type(error)
    try:
        message = str(error) or kind.__name__
    except Exception as broken:
        message = f"<its str() raises {type(broken).__name__}>"
    return {
        "message": _shortened(message, MAX_MESSAGE),
        "exception_type": f"{kind.__module__}.{kind.__qualname__}",
        "traceback": _shortened("".join(traceback.format_exception(error)), MAX_TRACEBACK),
        "origin": "runtime" if isinstance(error, KitaruError) else "user",
    }


def _shortened(text: str, most: int) -> str:
    """Beginning and end of a text that is too long."""
    if len(text) <= most:
        return text
    left_out = f"\n[… {len(text) - most:,} characters …]\n"
    return text[: most // 2] + left_out + text[-most // 2 :]


def pickled(error: BaseException) -> bytes | None:
    """The exception for a later `except`, when it survives pickling and isn't huge."""
    try:
        file = io.BytesIO()
        _Pickler(file).dump(error)
        data = file.getvalue()
        if len(data) > MAX_PICKLE:
            return None
        pickle.loads(data)
    except Exception:
        return None
    return data


class _Pickler(pickle.Pickler):
    """Exceptions as they pickle themselves. ``tblib``, which Dask installs, has put another way in place, process-wide,
    which loses what their ``__init__`` sets."""

    def reducer_override(self, obj: Any) -> Any:
        return obj.__reduce_ex__(pickle.DEFAULT_PROTOCOL) if isinstance(obj, BaseException) else NotImplemented


def recorded_failure(event: Event, *, trusted: bool) -> BaseException:
    """The exception that a ``checkpoint.failed`` event recorded, or `KitaruUserCodeError` with its text."""
    failure = event.body["failure"]
    if event.blob is not None and trusted:
        try:
            error = pickle.loads(event.blob)
        except Exception as unreadable:
            return KitaruUserCodeError(f"{failure['message']} (its exception can't be loaded: {unreadable})")
        if isinstance(error, Exception | SystemExit):
            return error
    return KitaruUserCodeError(f"{failure['exception_type']}: {failure['message']}")


def is_pause(error: BaseException) -> bool:
    """Whether an exception that ended a flow's body means that it let go, rather than that it failed."""
    if isinstance(error, BaseExceptionGroup):  # what a TaskGroup makes of a `Paused` in one of its tasks
        return error.subgroup((Paused, KeyboardInterrupt)) is not None
    return isinstance(error, Paused | KeyboardInterrupt)


def outage_in(error: BaseException) -> KitaruStorageError | None:
    """The outage of the artifact store that an exception is, or that a TaskGroup made a group of."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(outage_in, error.exceptions)), None)
    return error if isinstance(error, KitaruStorageError) else None


def last_word(exec_id: str, error: BaseException) -> Event:
    """What is recorded of an execution that ``error`` ended: it has failed, or an outage interrupted it."""
    if (outage := outage_in(error)) is not None:
        return Event(exec_id, "execution.paused", "", time.time(), {"reason": str(outage), "outage": True})
    return Event(exec_id, "execution.failed", "", time.time(), {"failure": failure_body(error)})
