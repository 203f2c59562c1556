"""Where the running code is: which execution, and inside which checkpoint."""

from __future__ import annotations

import os
import threading
from asyncio import current_task
from asyncio.events import _get_running_loop  # None instead of an exception; it is in __all__ there
from collections import defaultdict
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from kitaru_nb.errors import KitaruContextError

if TYPE_CHECKING:
    from kitaru_nb.core.run import Run


#: The running event loop of this thread, or None.
running_loop = _get_running_loop


class Frame:
    """One level of nesting: the flow's body (``call_id`` is "") or the body of a checkpoint.

    Attributes:
        scope: identity of this level inside the execution; the ids of calls made here derive from it.
        strict: whether recorded calls must be asked for again in their order (flows yes, notebooks no).
        line: the thread and task on which the body runs. Calls from elsewhere (gathered tasks, futures) have no fixed
            order, so they are identified by their inputs alone.
        last: ids of the calls that the main line made last, for edges of program order.
    """

    __slots__ = ("attempt", "call_id", "last", "line", "metadata", "name", "places", "run", "scope", "seen", "strict")

    def __init__(
        self, run: Run, call_id: str, scope: str, name: str | None = None, *, strict: bool = True, attempt: int = 1
    ) -> None:
        self.run = run
        self.call_id = call_id
        self.scope = scope
        self.name = name
        self.strict = strict
        self.attempt = attempt
        self.line = here()
        self.seen: dict[str, int] = defaultdict(int)
        self.places: dict[str, int] = defaultdict(int)
        self.last: tuple[str, ...] = ()
        self.metadata: dict[str, Any] = {}

    def on_main_line(self) -> bool:
        """Whether the caller runs on the line of this frame's body."""
        return self.line == here()


current: ContextVar[Frame | None] = ContextVar("kitaru_frame", default=None)

#: Gives the frame of code that runs in no flow of its own: a notebook's plain cells. Set by the notebook session.
ambient: Callable[[], Frame] | None = None


def set_ambient(provider: Callable[[], Frame] | None) -> None:
    """Name the frame of code outside any flow, or none."""
    global ambient
    ambient = provider


def _leave_in_child() -> None:
    """A forked process is none of its parent's worker: what it calls are plain calls, as in one that was spawned."""
    current.set(None)
    set_ambient(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_in_child)


def here() -> tuple[int, int]:
    """Identity of the running thread and asyncio task (0: none)."""
    return threading.get_ident(), id(current_task()) if _get_running_loop() is not None else 0


def require_frame(what: str) -> Frame:
    """The current frame. Raises `KitaruContextError` outside an execution."""
    frame = current.get()
    if frame is None and ambient is not None:
        frame = ambient()
    if frame is None:
        raise KitaruContextError(
            f"{what} was called outside a flow; it belongs inside a function under @flow that was started with "
            ".run(...), or in a notebook after %load_ext kitaru_nb.",
            fix="my_flow.run(...)",
        )
    return frame


def current_execution_id() -> str | None:
    """Id of the execution that the calling code belongs to, or None outside one."""
    frame = current.get()
    return frame.run.exec_id if frame else None


def idempotency_key() -> str:
    """A key that is the same for every attempt and resume of the running checkpoint, and for no other call.

    Hand it to services that take one (payments, mail), so that a call repeated after a crash has its effect once.

    Raises:
        KitaruContextError: not inside a checkpoint.
    """
    frame = require_frame("idempotency_key()")
    if not frame.call_id:
        raise KitaruContextError(
            "idempotency_key() was called in the body of a flow; expected inside a function under @checkpoint.",
        )
    return f"{frame.run.exec_id}:{frame.call_id}"
