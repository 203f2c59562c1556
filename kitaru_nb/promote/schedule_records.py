"""Where schedules are in the journal: references ``schedules`` (their names), ``schedule:NAME`` (what and when, or that
it was deleted) and ``schedule:NAME:past`` (the last time that came, and what came of it)."""

from __future__ import annotations

import json
from typing import Any

from kitaru_nb.journal.base import Journal

NAMES = "schedules"


def ref(name: str) -> str:
    """The reference of a schedule."""
    return f"schedule:{name}"


def past_ref(name: str) -> str:
    """The reference of what a schedule did last."""
    return f"schedule:{name}:past"


def names(journal: Journal) -> list[str]:
    """Of all schedules that ever were."""
    return list(json.loads(journal.reference(NAMES) or "[]"))


def record(journal: Journal, name: str) -> dict[str, Any] | None:
    """What a schedule says; None where there is none, or none any more."""
    text = journal.reference(ref(name))
    found = json.loads(text) if text else {"deleted": True}
    return None if found.get("deleted") else dict(found)


def starting(journal: Journal, flow: str, version: int) -> str | None:
    """A schedule that starts this very version."""
    for name in names(journal):
        found = record(journal, name)
        if found is not None and (found["flow"], found["version"]) == (flow, version):
            return name
    return None
