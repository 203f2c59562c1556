"""Checkpoint cells are rewritten before they run: ``%%checkpoint NAME`` and its body become one call.

An input transformer, not a cell magic: a magic can't host ``await``, nor does it show the last expression. The body
itself is compiled by the session as IPython compiles a plain cell, so tracebacks and ``inspect.getsource`` work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kitaru_nb.cells.analysis import analyse
from kitaru_nb.cells.source import read_cell
from kitaru_nb.errors import KitaruUsageError

_inside_body = False

#: Through the shell rather than a variable of the user's, so that ``%reset`` and ``del`` can't break it.
SESSION = "kitaru_session"
RUN = f"get_ipython().{SESSION}.cells.run"
RUN_ASYNC = f"get_ipython().{SESSION}.cells.run_async"
LATE = f"get_ipython().{SESSION}.refuse_late_cell"


def make_transformer(
    tags_of_cell: Callable[[], Sequence[str]], check: Callable[[str], object], is_late: Callable[[], bool]
) -> Callable[[list[str]], list[str]]:
    """A transformer for ``input_transformers_cleanup``: lines of a cell in, lines of Python out.

    ``check`` compiles a body. A `SyntaxError` of its own rejects the cell before anything runs; IPython shows it as
    that of a plain cell, without the frames of whoever compiled it. ``is_late`` tells whether the cell must not run,
    because it was asked for before the notebook began to wait.
    """

    def transform(lines: list[str]) -> list[str]:
        if _inside_body:
            return lines
        if is_late():
            return [f"{LATE}()\n"]
        source = "".join(lines)
        try:
            cell = read_cell(source, tags_of_cell())
        except KitaruUsageError:
            return [f"{RUN}({source!r})\n"]  # the same error again, from inside the cell
        if cell.kind == "plain":
            return lines
        check(cell.body)
        return [f"await {RUN_ASYNC}({source!r})\n" if analyse(cell.body).awaits else f"{RUN}({source!r})\n"]

    return transform


def transform_body(shell: Any, body: str) -> str:
    """A checkpoint's body as Python: its tag must not make it a checkpoint again, and lines keep their numbers."""
    global _inside_body
    _inside_body = True
    try:
        code = str(shell.transform_cell(body))
    finally:
        _inside_body = False
    # IPython drops blank lines at the top; the head of a checkpoint is one.
    blank = len(body) - len(body.lstrip())
    return "\n" * body.count("\n", 0, blank) + code


def file_of(shell: Any, code: str, body: str) -> str:
    """The file name under which ``code``, made of a checkpoint's body, is compiled. Tracebacks call it by the number in
    the prompt of the cell that runs, or is about to."""
    running = shell.displayhook.exec_result
    number = None if running is None else running.execution_count
    # Recent IPythons count on when a cell begins, older ones when it has ended.
    return str(shell.compile.cache(code, shell.execution_count if number is None else number, raw_code=body))


def tags_from(shell: Any) -> Callable[[], Sequence[str]]:
    """Tags of the cell that the front end asks to run now, from the request's metadata (none outside a kernel)."""

    return lambda: [str(tag) for tag in _metadata(shell).get("tags") or ()]


def cell_id(shell: Any) -> str | None:
    """Id of the cell that runs now, where the front end tells it."""
    found = _metadata(shell).get("cellId")
    return None if found is None else str(found)


def header_of(shell: Any) -> Mapping[str, Any]:
    """Header of the front end's request to run the cell; empty outside a kernel."""
    return _request(shell).get("header") or {}


def _metadata(shell: Any) -> Mapping[str, Any]:
    return _request(shell).get("metadata") or {}


def _request(shell: Any) -> Mapping[str, Any]:
    """The front end's request to run a cell; empty outside a kernel."""
    kernel = getattr(shell, "kernel", None)
    parent: Mapping[str, Any] = (kernel.get_parent("shell") if kernel is not None else None) or {}
    return parent if parent.get("header", {}).get("msg_type") == "execute_request" else {}
