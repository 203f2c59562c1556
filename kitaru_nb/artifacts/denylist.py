"""Values that mean nothing outside their process, and where in a value they hide."""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_LIVES = "it lives in this process only; make it where it is used, and pass what it is made from"
_FILE = "pass its path, or its content: value = file.read()"
_LOCK = "locks belong to one process; make it where it is used"
_ASYNC = "await it, and keep its result"
_CURSOR = "keep the rows: rows = cursor.fetchall()"

#: Full name of a class → what to do instead; subclasses are meant too.
_REFUSED: dict[str, str] = {
    **dict.fromkeys(("_io._IOBase", "tempfile._TemporaryFileWrapper", "mmap.mmap"), _FILE),
    **dict.fromkeys(("_socket.socket", "ssl.SSLContext", "_ssl._SSLContext", "select.epoll", "select.poll"), _LIVES),
    **dict.fromkeys(
        ("_thread.lock", "_thread.RLock", "threading.Condition", "threading.Semaphore", "threading.Event"), _LOCK
    ),
    **dict.fromkeys(("threading.Barrier", "_thread._local", "multiprocessing.synchronize.SemLock"), _LOCK),
    **dict.fromkeys(("multiprocessing.synchronize.Condition", "multiprocessing.synchronize.Event"), _LOCK),
    **dict.fromkeys(("asyncio.mixins._LoopBoundMixin", "asyncio.locks._ContextManagerMixin"), _LOCK),
    **dict.fromkeys(("threading.Thread", "multiprocessing.process.BaseProcess", "subprocess.Popen"), _LIVES),
    **dict.fromkeys(("concurrent.futures._base.Executor", "asyncio.events.AbstractEventLoop"), _LIVES),
    **dict.fromkeys(
        ("queue.Queue", "_queue.SimpleQueue", "multiprocessing.queues.Queue", "asyncio.runners.Runner"), _LIVES
    ),
    "concurrent.futures._base.Future": "keep its result: future.result()",
    **dict.fromkeys(("_asyncio.Future", "asyncio.futures.Future", "builtins.coroutine"), _ASYNC),
    "builtins.generator": "keep its items: list(value)",
    "builtins.async_generator": "keep its items: [item async for item in value]",
    **dict.fromkeys(("builtins.frame", "builtins.traceback"), "keep its text: traceback.format_exc()"),
    "builtins.memoryview": "keep its bytes: bytes(value)",
    "builtins.module": "import it where it is used",
    **dict.fromkeys(("_contextvars.Context", "_contextvars.Token", "_contextvars.ContextVar"), _LIVES),
    "sqlite3.Connection": "keep its path, and connect where it is used",
    "sqlite3.Cursor": _CURSOR,
    "polars.lazyframe.frame.LazyFrame": "keep the data: value.collect()",
}
_IN_MEMORY = frozenset({"_io.BytesIO", "_io.StringIO"})

# Enough for what people build by hand; larger values are stopped by pickle itself.
_MAX_NODES = 20_000
_SCALARS = frozenset({int, float, str, bytes, bool, type(None), complex})
_DATA = ("numpy", "pandas", "polars", "pyarrow", "matplotlib", "PIL", "torch")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a type is refused: ``what`` it is (``an open file …``), and what to do instead."""

    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A refused part; ``path`` is how it is reached from the value: ``['conn'].pool``, or "" for the value itself."""

    path: str
    reason: Reason


def reason(kind: type) -> Reason | None:
    """Why values of this type are never persisted, or None."""
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in kind.__mro__]
    if names[0] in _IN_MEMORY:
        return None
    shown = f"a {names[0].removeprefix('builtins.').replace('_io.', 'io.').replace('_thread.', 'threading.')}"
    for name in names:
        if name in _REFUSED:
            return Reason(shown, _REFUSED[name])
    if all(callable(getattr(kind, method, None)) for method in ("execute", "fetchone", "fetchall", "close")):
        return Reason(f"{shown} (a database cursor)", _CURSOR)
    if all(callable(getattr(kind, method, None)) for method in ("cursor", "commit", "rollback", "close")):
        return Reason(f"{shown} (a database connection)", "connect where it is used")
    return None


def find(value: Any) -> Finding | None:
    """The first refused part: the value itself, or inside containers and instances that pickle would look into.

    Looks at `_MAX_NODES` parts at most.
    """
    refused: dict[type, Reason | None] = {}
    seen: set[int] = set()
    pending: list[tuple[str, Any]] = [("", value)]
    while pending and len(seen) < _MAX_NODES:
        path, part = pending.pop()
        kind = type(part)
        if kind in _SCALARS or id(part) in seen:
            continue
        seen.add(id(part))
        if kind not in refused:
            refused[kind] = reason(kind)
        found = refused[kind]
        if found is not None:
            return Finding(path, found)
        # Pushed backwards, so that what comes first is looked at first.
        pending.extend(
            reversed([(path + step, child) for step, child in children(part) if type(child) not in _SCALARS])
        )
    return None


def blame(value: Any, fits: Callable[[Any], bool]) -> tuple[str, Any]:
    """The innermost part for which ``fits`` says no, with its path, following the first such child at each level."""
    path = ""
    for _ in range(32):
        for step, child in children(value):
            if type(child) not in _SCALARS and not fits(child):
                path, value = path + step, child
                break
        else:
            break
    return path, value


def children(value: Any) -> Iterator[tuple[str, Any]]:
    """Parts of a value with the way to them, as one would type it."""
    if isinstance(value, dict):
        for key, item in list(value.items())[:_MAX_NODES]:
            yield f"[{_short(key)}]", item
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(list(value)[:_MAX_NODES]):
            yield f"[{index}]", item
    elif _pickles_by_attributes(type(value)):
        for name, item in getattr(value, "__dict__", {}).items():
            yield f".{name}", item
        for cls in type(value).__mro__:
            slots = cls.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name != "__dict__" and hasattr(value, name):
                    yield f".{name}", getattr(value, name)


def _short(key: Any) -> str:
    text = repr(key) if type(key) in _SCALARS else f"<{type(key).__name__}>"
    return text if len(text) <= 60 else text[:57] + "…"


def _pickles_by_attributes(kind: type) -> bool:
    # A class with pickling of its own may leave out its lock, or store a file's path instead of the file.
    if kind.__module__.partition(".")[0] in _DATA or issubclass(kind, type) or kind in copyreg.dispatch_table:
        return False
    if kind.__module__ == "builtins":
        return False
    state = getattr(kind, "__getstate__", None)
    return (
        kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is object.__reduce__
        and (state is object.__getstate__ or getattr(state, "__module__", "").partition(".")[0] in _PLAIN_STATE)
    )


#: Modules whose ``__getstate__`` keeps all attributes.
_PLAIN_STATE = ("dataclasses", "pydantic")
