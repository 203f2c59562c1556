"""Who wants to know soon that a journal grew, and the thread that listens for them while there is anybody."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Collection
from typing import Protocol

from kitaru_nb.errors import KitaruError

#: How long a listener may wait for news, so that it notices when nobody needs it any more.
TURN = 0.25

OnNews = Callable[[], None]


class Listener(Protocol):
    """Where news of one journal comes from. Used by one thread, but for `interrupt`."""

    def news(self, timeout: float) -> Collection[str] | None:
        """Wait for news, about ``timeout`` seconds or until `interrupt`: executions that grew (None: any of them).

        Raises:
            KitaruBackendError: it can't be told at the moment.
        """

    def interrupt(self) -> None:
        """End a `news` that waits longer than it was asked to."""

    def close(self) -> None:
        """Let go of its connection."""


class Watchers:
    """The watchers of one handle. Thread-safe; a child after a fork begins without any."""

    def __init__(self, listen: Callable[[], Listener]) -> None:
        """``listen`` makes a listener. It may raise as `Listener.news` does."""
        self._listen = listen
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._watching: dict[object, tuple[OnNews, str | None]] = {}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._listener: Listener | None = None

    def add(self, on_news: OnNews, exec_id: str | None) -> Callable[[], None]:
        """Call ``on_news`` from now on; the function that ends this."""
        if self._pid != os.getpid():
            self._reset()
        mark = object()
        with self._lock:
            self._watching[mark] = (on_news, exec_id)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kitaru-news", daemon=True)
                self._thread.start()
                atexit.register(self.close)
        return lambda: self._remove(mark)

    def close(self) -> None:
        """Call nobody any more, and wait for the thread. Nobody is added after this."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._watching.clear()
            self._closed.set()
            thread = self._thread
            if self._listener is not None:
                self._listener.interrupt()
        if thread is not None and thread is not threading.current_thread():
            thread.join(20 * TURN)

    def _remove(self, mark: object) -> None:
        # The thread ends in its own time: whoever waits for one thing often waits for another soon.
        if self._pid == os.getpid():
            with self._lock:
                self._watching.pop(mark, None)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._watching:
                    self._drop()
                    self._thread = None
                    atexit.unregister(self.close)
                    return
            try:
                self._turn()
            except KitaruError:
                with self._lock:
                    self._drop()
                self._closed.wait(4 * TURN)  # those who watch look by themselves meanwhile

    def _turn(self) -> None:
        if self._listener is None:
            listener = self._listen()
            with self._lock:
                self._listener = listener
            grown: Collection[str] | None = None  # what came before it listened, it can't know
        else:
            grown = self._listener.news(TURN)
        with self._lock:
            told = [f for f, exec_id in self._watching.values() if grown is None or exec_id in (None, *grown)]
        for on_news in told:
            on_news()

    def _drop(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
