"""``%load_ext kitaru_nb``."""

from __future__ import annotations

from typing import Any

from kitaru_nb.surfaces.notebook import session as sessions
from kitaru_nb.surfaces.notebook.magics import KitaruMagics
from kitaru_nb.surfaces.notebook.transformer import RUN, RUN_ASYNC, make_transformer, tags_from

_ATTRIBUTE = "kitaru_session"


def load_ipython_extension(shell: Any) -> None:
    """Make checkpoint cells, ``%wait`` and ``%kitaru`` available. Loading twice changes nothing."""
    if getattr(shell, _ATTRIBUTE, None) is not None:
        return
    session = sessions.start(shell)
    transform = make_transformer(tags_from(shell))
    session.transform = transform
    shell.input_transformers_cleanup.append(transform)
    hidden = {RUN: session.cells.run, RUN_ASYNC: session.cells.run_async}
    shell.user_ns.update(hidden)
    shell.user_ns_hidden.update(hidden)
    shell.register_magics(KitaruMagics(shell, session))
    setattr(shell, _ATTRIBUTE, session)


def unload_ipython_extension(shell: Any) -> None:
    """Undo `load_ipython_extension`; the execution is free for another kernel."""
    session = getattr(shell, _ATTRIBUTE, None)
    if session is None:
        return
    sessions.stop(shell, session)
    if session.transform in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(session.transform)
    for name in (RUN, RUN_ASYNC):
        shell.user_ns.pop(name, None)
    setattr(shell, _ATTRIBUTE, None)
