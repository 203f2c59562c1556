"""Values that are the same in every process: what a model was shown of a tool's result must not change by a resume."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from pydantic import BaseModel

_DEEPEST = 20


def is_json(value: Any) -> bool:
    """Whether JSON gives back exactly this value."""
    kind = type(value)
    if kind in (str, bool, int, type(None)):
        return True
    if kind is float:
        return math.isfinite(value)
    if kind is list:
        return all(map(is_json, value))
    return kind is dict and all(type(key) is str and is_json(item) for key, item in value.items())


def has_set(value: Any, depth: int = 0) -> bool:
    """Whether there is a set in it: its text depends on the process that prints it."""
    if isinstance(value, set | frozenset):
        return True
    if depth > _DEEPEST or isinstance(value, str | bytes):
        return False
    if isinstance(value, Mapping):
        return any(has_set(item, depth + 1) for pair in value.items() for item in pair)
    if isinstance(value, list | tuple):
        return any(has_set(item, depth + 1) for item in value)
    if isinstance(value, BaseModel) or is_dataclass(value):
        return any(has_set(item, depth + 1) for item in getattr(value, "__dict__", {}).values())
    return False


def in_short(said: str, calls: list[tuple[str, Any]], *, limit: int = 200) -> str:
    """One line for lists: what a model said, and which tools it asked for with which arguments."""
    asked = []
    for name, arguments in calls:
        shown = arguments
        if isinstance(arguments, Mapping):
            shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        asked.append(f"→ {name}({shown})")
    return " ".join(" ".join([said, *asked]).split())[:limit]
