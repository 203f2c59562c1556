"""Stopping user code: an exception raised in the thread that runs it, and never in the runtime's own code."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kitaru_nb.errors import Paused


class UserCode:
    """Which threads run user code right now, and how to stop them there.

    An asynchronous exception arrives between any two bytecodes of a thread that is inside. So a thread leaves before it
    does anything of the runtime's (commits, locks), and `enter` and `leave` themselves hold no lock.
    """

    def __init__(self) -> None:
        self._inside: set[int] = set()
        self._sent: set[int] = set()
        self._doomed: set[int] = set()
        self._sending = 0
        self._senders = threading.Lock()

    def enter(self) -> None:
        """The calling thread begins to run user code. Raises `SystemExit` on a thread that was told to end."""
        thread = threading.get_ident()
        if self._doomed and thread in self._doomed:
            raise SystemExit
        self._inside.add(thread)

    def leave(self) -> bool:
        """The calling thread leaves user code; whether it was inside. What was sent and didn't arrive is taken back."""
        thread = threading.get_ident()
        if thread not in self._inside:
            return False
        self._inside.discard(thread)
        if self._sending or self._sent:
            while self._sending:
                time.sleep(0)
            if thread in self._sent:
                self._sent.discard(thread)
                _raise_in(thread, None)
        return True

    def inside(self) -> bool:
        """Whether the calling thread runs user code."""
        return threading.get_ident() in self._inside

    def doomed(self) -> bool:
        """Whether the calling thread was told to end."""
        return threading.get_ident() in self._doomed

    def stop(self) -> None:
        """Raise `Paused` in every other thread that runs user code. It arrives at the thread's next bytecode."""
        with self._sending_to() as inside:
            for thread in inside - {threading.get_ident()}:
                self._sent.add(thread)
                _raise_in(thread, Paused)

    def end(self, thread: int, over: threading.Event) -> None:
        """Raise `SystemExit` in a thread, now or when it comes back to user code; unless it is ``over``."""
        with self._sending_to() as inside:
            if over.is_set():  # its id may be another thread's by now
                return
            self._doomed.add(thread)
            if thread in inside:
                self._sent.add(thread)
                _raise_in(thread, SystemExit)

    def ended(self, over: threading.Event) -> None:
        """The calling thread is about to end; its id may become another thread's. ``over`` is set."""
        self.leave()
        with self._senders:
            over.set()
            self._doomed.discard(threading.get_ident())

    @contextmanager
    def _sending_to(self) -> Iterator[set[int]]:
        with self._senders:
            self._sending += 1
            try:
                yield set(self._inside)
            finally:
                self._sending -= 1


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise in another thread at its next bytecode; None takes back what has not arrived."""
    pending = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), pending)
