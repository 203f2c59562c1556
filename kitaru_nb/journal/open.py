"""From a URL to a journal."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Literal, cast

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
#: Parameters of libpq whose values nobody may see.
_SECRETS = ("password", "sslpassword")


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
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in BACKENDS:
        raise KitaruUsageError(
            f"{url!r} is no journal URL; expected one that begins with {', '.join(f'{s}://' for s in BACKENDS)}.",
            fix="export KITARU_JOURNAL=sqlite:///absolute/path/journal.db",
        )
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


def shown(url: str) -> str:
    """The URL of a journal or a store as people may see it: without the password or token in it."""
    return _told(url)[0]


def secrets_in(url: str) -> list[str]:
    """The passwords and tokens in a URL, as they are written there."""
    return [secret for secret in _told(url)[1] if secret]


def _told(url: str) -> tuple[str, list[str]]:
    """(a URL without its secrets, these)."""
    scheme, separator, rest = url.partition("://")
    rest, question, query = rest.partition("?")
    place, slash, path = rest.partition("/")
    port = place.rpartition(":")[2]
    if port != place and not port.isdigit() and "@" not in place and "@" in path:
        # No port, but a password with a slash that should be written %2F.
        rest, at, after = rest.rpartition("@")
        host, slash, path = after.partition("/")
        place = f"{rest}{at}{host}"
    who, at, host = place.rpartition("@")
    user, _, password = who.partition(":")
    secrets = [password]
    if scheme in ("http", "https"):  # a token may stand alone
        secrets.append(user)
        user = ""
    kept = []
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        if name in _SECRETS:
            secrets.append(value)
        else:
            kept.append(parameter)
    more = question + "&".join(kept) if kept else ""
    return f"{scheme}{separator}{user}{at if user else ''}{host}{slash}{path}{more}", secrets
