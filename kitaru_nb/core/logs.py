"""stdout, stderr and logging of each checkpoint become its log; the output itself goes on to where it went before."""

from __future__ import annotations

import functools
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

from kitaru_nb.core.context import current

_lock = threading.Lock()
_users = 0
_listener: Callable[..., None] | None = None
#: What is written now is a record that the log has already.
_told: ContextVar[bool] = ContextVar("kitaru_told", default=False)


class Tee:
    """A text stream that also hands what is written to the log of the running checkpoint."""

    def __init__(self, stream: TextIO, source: str) -> None:
        self.stream = stream
        self.source = source

    def write(self, text: str) -> int:
        """Write to the stream behind, and to the log of the calling checkpoint."""
        frame = current.get()
        if frame is not None and text and not _told.get():
            frame.run.log_text(frame.call_id, self.source, "INFO" if self.source == "stdout" else "ERROR", text)
        return self.stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """`write` each."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


#: The last tees. `print` in CPython before 3.14 holds no reference of its own to ``sys.stdout``: one that were freed
#: when it is replaced would crash a thread that is printing (CPython gh-130163).
_kept: deque[Tee] = deque(maxlen=64)


def _tee(stream: TextIO, source: str) -> Tee:
    """The tee of a stream, the same one again while it is kept."""
    for known in _kept:
        if known.stream is stream and known.source == source:
            return known
    _kept.append(Tee(stream, source))
    return _kept[-1]


_formatter = logging.Formatter()


def _tell(record: logging.LogRecord) -> None:
    """Hand a record to the log of the checkpoint that emitted it."""
    frame = current.get()
    if frame is None:
        return
    try:
        text = _formatter.format(record)
    except Exception:
        return  # its arguments don't fit its message: the handlers that show it say so
    frame.run.log_text(frame.call_id, "logging", record.levelname, text + "\n")


def _listening(handle: Callable[[logging.Logger, logging.LogRecord], None]) -> Callable[..., None]:
    """`logging.Logger.callHandlers` that tells us first. A handler of our own would keep `logging.basicConfig` from
    doing anything, and warnings of loggers that nobody configured from being shown."""

    @functools.wraps(handle)
    def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
        _tell(record)
        token = _told.set(True)
        try:
            handle(logger, record)
        finally:
            _told.reset(token)

    return call_handlers


@contextmanager
def captured() -> Iterator[None]:
    """While at least one execution runs in this process, streams and loggers are listened to."""
    global _users, _listener
    with _lock:
        _users += 1
        if not isinstance(sys.stdout, Tee):
            sys.stdout = _tee(sys.stdout, "stdout")
        if not isinstance(sys.stderr, Tee):
            sys.stderr = _tee(sys.stderr, "stderr")
        if _listener is None:
            _listener = _listening(logging.Logger.callHandlers)
            logging.Logger.callHandlers = _listener  # type: ignore[method-assign]
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                if isinstance(sys.stdout, Tee):
                    sys.stdout = sys.stdout.stream
                if isinstance(sys.stderr, Tee):
                    sys.stderr = sys.stderr.stream
                if logging.Logger.callHandlers is _listener:  # else somebody listens through it, and it stays
                    logging.Logger.callHandlers = _listener.__wrapped__  # type: ignore[attr-defined, method-assign]
                    _listener = None


class LogBuffer:
    """Lines that aren't in the journal yet, by call id. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, list[list[Any]]] = {}
        self._partial: dict[tuple[str, str], tuple[str, list[str]]] = {}

    def add(self, call_id: str, source: str, level: str, text: str) -> None:
        """Take text; lines that aren't ended yet wait for their end."""
        with self._lock:
            key = call_id, source
            if "\n" not in text and "\r" not in text and key in self._partial:
                self._partial[key][1].append(text)  # one of many: a line that grows is put together at its end
                return
            *lines, rest = ("".join(self._partial.pop(key, ("", []))[1]) + text).split("\n")
            if rest:
                self._partial[key] = (level, [_overwritten(rest)])
            if lines:
                now = time.time()
                found = self._lines.setdefault(call_id, [])
                found += [[now, source, level, _overwritten(line).rstrip("\r")] for line in lines]

    def take(self, call_id: str) -> list[list[Any]]:
        """All lines of a call that ends, its unfinished ones included."""
        if not self._lines and not self._partial:
            return []
        with self._lock:
            return self._take(call_id)

    def _take(self, call_id: str) -> list[list[Any]]:
        lines = self._lines.pop(call_id, [])
        for source in ("stdout", "stderr", "logging"):
            level, pieces = self._partial.pop((call_id, source), ("", []))
            if rest := "".join(pieces).rstrip("\r"):
                lines.append([time.time(), source, level, rest])
        return lines

    def take_finished(self) -> dict[str, list[list[Any]]]:
        """Every finished line of every call."""
        if not self._lines:
            return {}
        with self._lock:
            lines, self._lines = self._lines, {}
            return lines

    def take_all(self) -> dict[str, list[list[Any]]]:
        """Every line of every call, unfinished ones included."""
        with self._lock:
            calls = dict.fromkeys([*self._lines, *(call_id for call_id, _ in self._partial)])
            return {call_id: self._take(call_id) for call_id in calls}


def _overwritten(line: str) -> str:
    """What a terminal shows of a line: a carriage return begins it anew, as progress bars do."""
    text = line.rstrip("\r")
    return text.rpartition("\r")[2] + line[len(text) :]
