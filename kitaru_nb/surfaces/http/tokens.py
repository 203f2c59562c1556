"""Tokens of the server: who may come in, and as what.

The journal keeps their hashes, and every change with who and when.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from kitaru_nb.core.runtime import whoami
from kitaru_nb.errors import KitaruConflictError, KitaruNotFoundError, KitaruUsageError
from kitaru_nb.journal.base import Journal
from kitaru_nb.model import utc
from kitaru_nb.surfaces.operations.base import Role, parse_role

#: The journal's reference that holds them.
REFERENCE = "server/tokens"
_PREFIX = "kt_"
_MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is listed: without its secret, which nobody has but its owner."""

    name: str
    role: str
    created_at: datetime
    created_by: str


class Tokens:
    """The tokens of a journal, the same for all servers on it. Thread-safe."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def create(self, name: str, role: Role, *, by: str | None = None) -> str:
        """A new token; its secret is told once. Raises `KitaruUsageError` for a name that can't be, or is taken."""
        if not name or len(name) > _MAX_NAME or not name.isprintable() or name != name.strip():
            raise KitaruUsageError(
                f"{name!r} can't be the name of a token; expected 1 to {_MAX_NAME} printable characters.",
                fix="kitaru server token create ci --role operate",
            )
        secret = new_secret()

        def change(known: dict[str, Any]) -> None:
            if name in known:
                raise KitaruUsageError(
                    f"There is a token {name!r} already.", fix=f"kitaru server token revoke {json.dumps(name)}"
                )
            known[name] = {"hash": digest(secret), "role": str(role), "at": time.time(), "by": by or whoami()}

        self._change(change, by)
        return secret

    def revoke(self, name: str, *, by: str | None = None) -> None:
        """End a token at once. Raises `KitaruNotFoundError` that lists what there is."""

        def change(known: dict[str, Any]) -> None:
            if name not in known:
                there = ", ".join(sorted(known)) or "none"
                raise KitaruNotFoundError(
                    f"There is no token {name!r}. Tokens are: {there}.", fix="kitaru server token list"
                )
            del known[name]

        self._change(change, by)

    def list(self) -> list[Token]:
        """All tokens, by name."""
        return [
            Token(name, entry["role"], utc(entry["at"]), entry["by"]) for name, entry in sorted(self._read()[1].items())
        ]

    def find(self, secret: str) -> tuple[str, Role] | None:
        """Name and role of a secret's token; None when there is none (any more)."""
        wanted = digest(secret)
        # Which of the hashes is compared first tells nothing about the secret: they are of random texts.
        for name, entry in self._read()[1].items():
            if secrets.compare_digest(entry["hash"], wanted):
                return name, parse_role(entry["role"])
        return None

    def _read(self) -> tuple[str | None, dict[str, Any]]:
        text = self._journal.reference(REFERENCE)
        found: Mapping[str, Any] = json.loads(text) if text else {}
        return text, dict(found)

    def _change(self, change: Any, by: str | None) -> None:
        while True:
            text, known = self._read()
            change(known)
            value = json.dumps(known, sort_keys=True) if known else None
            try:
                self._journal.set_reference(REFERENCE, value, expected=text, by=by or whoami())
            except KitaruConflictError:
                continue  # somebody else was faster: look again
            return


def new_secret() -> str:
    """A text of 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is kept of a secret. Plain SHA-256: nobody guesses 256 random bits."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
