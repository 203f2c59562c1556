"""``%kitaru panel``: the notebook's execution below a cell, live, with its questions.

The page asks the Jupyter server where that has this package's API, so that an answer counts without the kernel. Where
it has not (VS Code, Colab), the page asks the kernel, through the messages that `Desk` and `Watch` here answer; while a
cell runs there, a thread of the kernel tells what the page would ask. Saved, or without widgets, the panel is the
lineage and the open questions as they were.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import anywidget
import traitlets
from pydantic import BaseModel, Field, ValidationError

from kitaru_nb.client import KitaruClient
from kitaru_nb.core.answers import answering_here
from kitaru_nb.core.runtime import Runtime, whoami
from kitaru_nb.errors import KitaruBackendError, KitaruUsageError
from kitaru_nb.model import Execution, Wait, to_json
from kitaru_nb.surfaces.frontend import static_folder
from kitaru_nb.surfaces.http.api import Api, Request, refusal
from kitaru_nb.surfaces.http.content import Bytes
from kitaru_nb.surfaces.notebook.display import AMBER, FONT, TEXT, card, code, escape, muted
from kitaru_nb.surfaces.notebook.lineage_view import graph_html, graph_text
from kitaru_nb.surfaces.operations.base import Caller, Change, Desk, Follow, Role
from kitaru_nb.surfaces.operations.system import changes, newest
from kitaru_nb.surfaces.render import escaped

#: Seconds between two looks at what is new; more of them where a look takes long, so that cells have the kernel.
EVERY = 0.1
_REST = 4
#: Seconds between two tellings of a page that has said nothing yet, and how many of them there are.
_AGAIN = 1.0
_MOST_UNHEARD = 600
_MOST_LINES = 100
#: How many requests are remembered, so that one that is sent twice is taken up once.
_REMEMBERED = 1_000
_BATCH = 200
_EMPTY = "This notebook has no execution yet; the first checkpoint cell begins one."
_TOTAL = re.compile(r"/(\d+)$")


class Asked(BaseModel):
    """A request of the page. ``body`` is JSON text, ``range`` the first byte and the one after the last."""

    id: str
    method: Literal["GET", "POST"]
    path: str
    query: Mapping[str, str | int | float | None] = Field(default_factory=dict)
    body: str | None = None
    range: tuple[int, int] | None = None


class Panel(anywidget.AnyWidget):
    """The live panel of a kernel; all its views share one model.

    Attributes:
        execution: id of the execution that the notebook is on, or empty before the first one.
        home: where executions are kept, so that the page knows whether the server's are the kernel's.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode().tag(sync=True)
    execution = traitlets.Unicode().tag(sync=True)
    home = traitlets.Unicode().tag(sync=True)

    def __init__(self, runtime: Runtime, current: Callable[[], str | None]) -> None:
        static = static_folder()
        super().__init__(
            _esm=(static / "widget.js").read_text(encoding="utf-8"),
            _css=(static / "widget.css").read_text(encoding="utf-8"),
            execution=current() or "",
            home=str(runtime.home),
        )
        self._client = KitaruClient(runtime)
        self._api = Api(Desk(self._client, "jupyter", Path.cwd()))
        self._watch = Watch(self, runtime, current)
        self._taken: dict[str, None] = {}
        self._taking = threading.Lock()
        self.on_msg(self._heard)
        _keep_subshell(self.comm)
        self._watch.start()

    def follow(self, exec_id: str | None) -> None:
        """Show this execution, or the inbox if there is none."""
        if (exec_id or "") != self.execution:
            self.execution = exec_id or ""

    def close(self) -> None:
        """End the panel; its views say that it is gone."""
        self._watch.stop()
        super().close()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live view, and what there is to see now for pages without widgets."""
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        self._watch.shown()
        plain, html = still(self._client.executions.get(self.execution) if self.execution else None)
        told = {"kitaru": {"execution": self.execution}} if self.execution else {}
        return {**data, "text/plain": plain, "text/html": html}, {**metadata, **told}

    def _heard(self, _: Any, message: Mapping[str, Any], buffers: Any) -> None:
        """A message of the page. May be called on another thread of the kernel."""
        kind = message.get("kitaru")
        if kind == "listen":
            self._watch.listened(str(message.get("view")))
        elif kind == "leave":
            self._watch.left(str(message.get("view")))
        elif kind == "request" and self._is_new(str(message.get("id"))):
            status, body, found = self._answer(message)
            answer = {"kitaru": "answer", "id": message.get("id"), "status": status, "body": body}
            self.send(answer, buffers=[found] if found is not None else None)

    def _is_new(self, request: str) -> bool:
        """Whether a request comes for the first time: it may come once by each shell of the kernel."""
        with self._taking:
            if request in self._taken:
                return False
            self._taken[request] = None
            while len(self._taken) > _REMEMBERED:
                del self._taken[next(iter(self._taken))]
            return True

    def tell(self, news: Sequence[Change], exec_id: str | None) -> None:
        """Pass on what is new and, with ``exec_id``, how that execution stands: what a page would ask next.

        A kernel that runs a cell hears no question, but its other threads still speak.
        """
        answers = {}
        for path in (f"executions/{exec_id}", f"executions/{exec_id}/graph") if exec_id else ():
            status, body, _ = self._answer({"id": "", "method": "GET", "path": path})
            if status == 200:
                answers[path] = body
        self.send({"kitaru": "changes", "changes": to_json(news), "answers": answers})

    def _answer(self, message: Mapping[str, Any]) -> tuple[int, Any, bytes | None]:
        try:
            asked = Asked.model_validate(message)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)[0]
            problem = KitaruUsageError(
                f"The panel's request can't be: {'.'.join(map(str, found['loc']))}: {found['msg']}."
            )
            return _plain(refusal(problem))
        headers = {"content-type": "application/json"}
        if asked.range is not None:
            headers["range"] = f"bytes={asked.range[0]}-{asked.range[1] - 1}"
        pairs = [(name, str(value)) for name, value in asked.query.items() if value not in (None, "")]
        request = Request(asked.method, asked.path, pairs, headers, (asked.body or "").encode())
        return _plain(self._api.answer(request, Caller(whoami(), Role.ADMIN, "notebook")))


class Watch:
    """Tells the panel which execution the notebook is on and, while pages listen, what changes in the journal.

    One thread looks every ``EVERY`` seconds, while the kernel is busy too. ``current`` costs no query once the notebook
    has an execution, and the journal is asked only for pages that have no server to ask. A page that was just shown may
    be unable to say so, because a cell runs: it is told unasked until it is heard.
    """

    def __init__(self, panel: Panel, runtime: Runtime, current: Callable[[], str | None]) -> None:
        self._panel = panel
        self._journal = runtime.journal
        self._current = current
        self._seq: int | None = None
        self._views: set[str] = set()
        self._unheard = 0
        self._again = 0.0
        self._told_of = ""
        self._lock = threading.Lock()  # pages say that they listen, and leave, on other threads
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kitaru-panel", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; what is being sent is still sent."""
        self._ended.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def shown(self) -> None:
        """A page may show the panel from now on; it says so as soon as the kernel hears it."""
        with self._lock:
            self._unheard = _MOST_UNHEARD
            self._begin()

    def listened(self, view: str) -> None:
        """A page hears of changes from now on."""
        with self._lock:
            self._views.add(view)
            self._unheard = 0
            self._begin()

    def left(self, view: str) -> None:
        """A page wants to hear nothing, or no more."""
        with self._lock:
            self._views.discard(view)
            self._unheard = 0

    def _begin(self) -> None:
        if self._seq is None:
            self._seq = newest(self._journal)

    def _run(self) -> None:
        took = 0.0
        while not self._ended.wait(max(EVERY, _REST * took)):
            begun = time.monotonic()
            try:
                self.look()
            except KitaruBackendError:
                continue  # the journal can't be reached now: what is new is found when it can
            finally:
                took = time.monotonic() - begun

    def look(self) -> None:
        """Pass on what is new."""
        self._panel.follow(self._current())
        with self._lock:
            if not self._views and not self._unheard:
                self._seq = None  # not in `left`: who leaves and listens again at once misses nothing
                return
        exec_id = self._panel.execution
        due = exec_id != self._told_of or self._is_due_again()
        while (seq := self._seq) is not None:
            news = changes(self._journal, Follow(None, seq, _BATCH))
            self._seq = news.seq
            due = due or any(change.exec_id == exec_id for change in news.events)
            last = len(news.events) < _BATCH
            if news.events or (due and exec_id):
                self._panel.tell(news.events, exec_id if due and last else None)
            if last:
                self._told_of = exec_id
                return

    def _is_due_again(self) -> bool:
        """Whether pages that could not say yet that they listen are told now as well."""
        if not self._unheard or time.monotonic() < self._again:
            return False
        self._unheard -= 1
        self._again = time.monotonic() + _AGAIN
        return True


def _keep_subshell(comm: Any) -> None:
    """Let requests come by the subshell that the page chose.

    ipykernel 7.4 takes what a page sends for a reply, and hands it to the shell that spoke last: here that is mostly
    the one that runs a cell, because the watching thread speaks in its name.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, chosen: chosen


def _plain(response: Any) -> tuple[int, Any, bytes | None]:
    """Status, JSON body and bytes of a response."""
    body = response.body
    if isinstance(body, Bytes):
        found = b"".join(body.chunks())
        total = _TOTAL.search(response.headers.get("content-range", ""))
        return response.status, {"total": int(total[1]) if total else len(found)}, found
    if isinstance(body, Follow):
        return _plain(refusal(KitaruUsageError("A panel is told of changes; it can't wait for them.", fix="listen")))
    return response.status, json.loads(body) if body else None, None


def still(execution: Execution | None) -> tuple[str, str]:
    """The panel as text and as HTML, for pages without widgets. The text holds no id and no time."""
    if execution is None:
        return _EMPTY, card(AMBER, escape(_EMPTY))
    title = f"{execution.flow_name}: {execution.status}"
    lines = graph_text(execution).split("\n")
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], f"  … {len(lines) - _MOST_LINES:,} more"]
    pending = [wait for wait in execution.waits if wait.status == "pending"]
    plain = escaped("\n".join([title, *lines, *(_asked_text(wait) for wait in pending)]), lines=True)
    head = f'<div style="{FONT};{TEXT}"><b>{escape(execution.flow_name)}</b> {muted(str(execution.status))}</div>'
    return plain, head + "".join(_asked_html(wait) for wait in pending) + graph_html(execution)


def _asked_text(wait: Wait) -> str:
    return f"‖ {wait.name}: {wait.question or 'An answer is needed to go on.'}\n  here: {answering_here(wait)}"


def _asked_html(wait: Wait) -> str:
    question = escape(wait.question or "An answer is needed to go on.")
    return card(
        AMBER,
        f"‖ <b>Waiting: {escape(wait.name)}</b>"
        f'<div style="white-space:pre-wrap;margin:6px 0;max-width:75ch">{question}</div>'
        f"<div>{muted('here')} {code(answering_here(wait))}</div>",
    )
