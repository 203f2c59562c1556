"""One display under a checkpoint cell that follows the calls inside it: at most five times a second, then once more."""

from __future__ import annotations

import os
import threading
import uuid
from contextvars import copy_context
from typing import Any

from kitaru_nb.core.engine import Call
from kitaru_nb.core.run import Run
from kitaru_nb.model import Event
from kitaru_nb.surfaces.notebook.calls import FAILED, CallTree, RecordedCalls
from kitaru_nb.surfaces.notebook.calls_view import tree_html, tree_text

#: Seconds between two paintings, and before the first one: what is quicker is shown once, when it is done.
PAUSE = 0.2
#: Seconds after which the times of running calls are painted anew.
TICK = 1.0


class LiveCalls:
    """The display of one run of a checkpoint cell. Nothing is shown unless there are calls inside.

    It goes past the cell's recorder: a reused cell shows the calls that were recorded, not a picture of them. A thread
    paints, since the kernel's own is busy with the cell; it belongs to the cell's request, as its context is a copy.
    """

    def __init__(self, shell: Any, run: Run, call: Call) -> None:
        self.tree = CallTree(call.call_id)
        self._recorded = RecordedCalls(run)
        self._publish = shell.display_pub.publish
        self._metadata = {"execution": run.exec_id, "call": call.call_id, "checkpoint": call.name}
        self._display_id = f"kitaru-calls-{uuid.uuid4().hex}"
        self._shown = False
        self._plain = os.environ.get("KITARU_CI") == "1"
        self._live = not self._plain and hasattr(shell, "kernel")
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._ended = threading.Event()
        self._context = copy_context()
        self._painter: threading.Thread | None = None

    def told(self, kind: str, call: Call, event: Event | None) -> None:
        """Something happened to a call inside: ``started``, ``completed``, ``failed`` or ``reused``."""
        with self._lock:
            self.tree.take(kind, call, event)
            if kind == "reused" and event is not None:
                self.tree.add_recorded(self._recorded.inside(event), call.call_id)
            if self._painter is None and self._live and not self._ended.is_set():
                self._painter = threading.Thread(
                    target=self._context.run, args=(self._paint,), name="kitaru-calls", daemon=True
                )
                self._painter.start()
        self._changed.set()

    def reused(self, event: Event) -> None:
        """The whole cell was reused, with all calls inside; ``event`` is what was recorded of it."""
        with self._lock:
            self.tree.add_recorded(self._recorded.inside(event), self.tree.root.call_id)

    def cleared(self) -> None:
        """The cell has cleared its output: the next painting is a display of its own again."""
        with self._lock:
            self._shown = False

    def close(self, *, failed: bool = False) -> None:
        """The cell has ended: show the tree as it ended."""
        self._ended.set()
        self._changed.set()
        if self._painter is not None:
            self._painter.join()
        with self._lock:
            self.tree.stop()
            if failed:
                self.tree.root.state = FAILED
            self._show("failed" if failed else None, live=False)

    def _paint(self) -> None:
        while not self._ended.wait(PAUSE):
            self._changed.clear()
            if self._ended.is_set():
                return
            with self._lock:
                self._show("running", live=True)
                running = self.tree.running
            self._changed.wait(TICK if running else None)

    def _show(self, status: str | None, *, live: bool) -> None:
        if not len(self.tree):
            return
        data = {"text/plain": tree_text(self.tree)}
        if not self._plain:
            data["text/html"] = tree_html(self.tree, live=live)
        metadata = self._metadata | {"calls": len(self.tree)} | ({"status": status} if status else {})
        options: dict[str, Any] = {"transient": {"display_id": self._display_id}} if self._live else {}
        if self._shown:
            options["update"] = True
        self._shown = True
        self._publish(data, {"kitaru": metadata}, **options)
