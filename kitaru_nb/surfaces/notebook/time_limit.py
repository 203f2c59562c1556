"""An end to a cell that takes too long, in the kernel's main thread, where no other thread can stop it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kitaru_nb.errors import KitaruFeatureNotAvailableError, KitaruTimeoutError


class _TimeIsUp(BaseException):
    """Not an `Exception`, so that the cell's own ``except Exception`` doesn't swallow it."""


def too_long(name: str, seconds: float) -> KitaruTimeoutError:
    """The error of an attempt that took longer than allowed."""
    return KitaruTimeoutError(
        f"Checkpoint {name!r} took longer than its timeout of {seconds:g} s.",
        fix=f"%%checkpoint {name} --timeout {seconds * 4:g}",
    )


@contextmanager
def time_limit(name: str, seconds: float | None) -> Iterator[None]:
    """Raise `KitaruTimeoutError` in the block after some seconds (None: never), at its next bytecode.

    A call that blocks inside C without looking at signals ends first.

    Raises:
        KitaruFeatureNotAvailableError: no alarm here: not the main thread, or a platform without ``setitimer``.
    """
    if seconds is None:
        yield
        return
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        raise KitaruFeatureNotAvailableError(
            "--timeout of a cell without await needs the alarm signal of the kernel's main thread, which isn't there.",
            fix="await asyncio.to_thread(slow)  # in the cell: one that awaits can be timed out anywhere",
        )

    def ring(number: int, frame: Any) -> None:
        raise _TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _TimeIsUp:
        raise too_long(name, seconds) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
