"""``%load_ext kitaru_nb``."""

from __future__ import annotations

from typing import Any

from kitaru_nb.surfaces.notebook import session as sessions
from kitaru_nb.surfaces.notebook.cell_work import compile_body
from kitaru_nb.surfaces.notebook.magics import KitaruMagics
from kitaru_nb.surfaces.notebook.promote_magic import PromoteMagic
from kitaru_nb.surfaces.notebook.transformer import SESSION, header_of, make_transformer, tags_from


def load_ipython_extension(shell: Any) -> None:
    """Make checkpoint cells, ``%wait`` and ``%kitaru`` available. Loading twice changes nothing."""
    if getattr(shell, SESSION, None) is not None:
        return
    session = sessions.start(shell)
    session.late.arrived(header_of(shell))
    transform = make_transformer(
        tags_from(shell), lambda body: compile_body(shell, body), lambda: session.late.arrived(header_of(shell))
    )
    session.transform = transform
    shell.input_transformers_cleanup.append(transform)
    shell.register_magics(KitaruMagics(shell, session), PromoteMagic(shell, session))
    setattr(shell, SESSION, session)


def unload_ipython_extension(shell: Any) -> None:
    """Undo `load_ipython_extension`; the execution is free for another kernel."""
    session = getattr(shell, SESSION, None)
    if session is None:
        return
    if (magics := shell.magics_manager.registry.get("KitaruMagics")) is not None:
        magics.close()
    sessions.stop(shell, session)
    if session.transform in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(session.transform)
    for name in ("wait", "kitaru", "promote"):
        shell.magics_manager.magics["line"].pop(name, None)
    setattr(shell, SESSION, None)
