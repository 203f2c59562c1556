"""From a URL to a journal."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Literal, cast

from kitaru_nb.config import shown
from kitaru_nb.errors import KitaruFeatureNotAvailableError, KitaruUsageError
from kitaru_nb.journal.base import Journal

#: Back ends by URL scheme, as ``module:Class``; imported when a URL asks for them.
BACKENDS = {
    "sqlite": "kitaru_nb.journal.sqlite:SqliteJournal",
    "memory": "kitaru_nb.journal.memory:MemoryJournal",
    "postgresql": "kitaru_nb.journal.postgres:PostgresJournal",
    "https": "kitaru_nb.journal.http:HttpJournal",
    "http": "kitaru_nb.journal.http:HttpJournal",
}
#: Scheme → the extra that brings what its back end needs.
EXTRAS = {"postgresql": "postgres"}


def scheme_of(url: str) -> str:
    """The scheme of a journal's URL, a key of `BACKENDS`. Raises `KitaruUsageError` for what is no such URL."""
    scheme, separator, _ = url.partition("://")
    if separator and scheme in BACKENDS:
        return scheme
    known = shown(url)
    right = f"postgresql{known.removeprefix(scheme)}" if scheme == "postgres" else "sqlite:///absolute/path/journal.db"
    raise KitaruUsageError(
        f"{known!r} is no journal URL; expected one that begins with {', '.join(f'{s}://' for s in BACKENDS)}.",
        fix=f"export KITARU_JOURNAL={right}",
    )


def open_journal(url: str, *, durability: Literal["power", "process"] = "power") -> Journal:
    """Open the journal at ``url``; a SQLite file that doesn't exist is created, with its folder.

    Args:
        url: ``sqlite:///absolute/path``, ``postgresql://user@host/database``, ``https://host`` of a server that has
            the journal, or ``memory://NAME`` (the same name is the same data within a process).
        durability: what a commit survives: ``power`` loss, or only the death of the ``process``, which is faster.

    Raises:
        KitaruFeatureNotAvailableError: what the back end needs isn't installed.
        KitaruUsageError: nothing answers to this scheme, or the rest of the URL can't be right.
        KitaruBackendError: the journal can't be opened, isn't one, or was written by a newer version.
    """
    scheme = scheme_of(url)
    if durability not in ("power", "process"):
        raise KitaruUsageError(f"durability is {durability!r}; expected 'power' or 'process'.")
    module, _, name = BACKENDS[scheme].partition(":")
    try:
        backend = cast(Callable[..., Journal], getattr(importlib.import_module(module), name))
    except ImportError as error:
        raise KitaruFeatureNotAvailableError(
            f"A journal at {scheme}:// needs a package that isn't installed: {error}.",
            fix=f"pip install 'kitaru-nb[{EXTRAS[scheme]}]'",
        ) from error
    return backend(url, durability=durability)
