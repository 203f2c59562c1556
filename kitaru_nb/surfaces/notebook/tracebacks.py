"""What a person sees of an error in a checkpoint cell: the cell's own frames, as of a plain cell."""

from __future__ import annotations

import types
from typing import Any

from kitaru_nb.errors import Paused
from kitaru_nb.surfaces.notebook.transformer import SESSION

_OWN = (__name__.partition(".")[0] + ".", "asyncio.", "concurrent.futures.")


def trim(shell: Any, error: BaseException) -> None:
    """Make ``error`` render in IPython without the frames of the runtime.

    Errors that render themselves (`KitaruError`, `Paused`) are left as they are.
    """
    if isinstance(error, Paused) or hasattr(error, "_render_traceback_"):
        return
    trimmed = user_frames(error.__traceback__, shell)
    _trim_causes(error, shell)

    def render() -> Any:
        return shell.InteractiveTB.structured_traceback(type(error), error, trimmed, tb_offset=0)

    try:
        error._render_traceback_ = render  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        return  # an exception that takes no attributes is shown with all its frames


def _trim_causes(error: BaseException, shell: Any) -> None:
    seen = {id(error)}
    cause = error.__cause__ or error.__context__
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if (trimmed := user_frames(cause.__traceback__, shell)) is not None:
            cause.__traceback__ = trimmed
        cause = cause.__cause__ or cause.__context__


def user_frames(tb: types.TracebackType | None, shell: Any) -> types.TracebackType | None:
    """The traceback from the cell's first frame on, without those of the runtime; None if the cell isn't in it."""
    kept: list[types.TracebackType] = []
    while tb is not None:
        module = str(tb.tb_frame.f_globals.get("__name__", ""))
        in_cell = tb.tb_frame.f_globals is shell.user_global_ns and not _is_entry(tb.tb_frame)
        if in_cell or (kept and not module.startswith(_OWN)):
            kept.append(tb)
        tb = tb.tb_next
    found = None
    for frame in reversed(kept):
        found = types.TracebackType(found, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return found


def _is_entry(frame: types.FrameType) -> bool:
    """The one-line cell that calls the session, whose text is the whole cell quoted."""
    return frame.f_code.co_names[:2] == ("get_ipython", SESSION)
