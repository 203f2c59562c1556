"""JSON that crosses the wire: what is read is bounded and strict, what is written is always valid."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import pydantic_core

from kitaru_nb.core.folds import uncollected
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.model import to_json

#: A body may be this large, and this deep.
MAX_BODY = 2 * 1024 * 1024
MAX_DEPTH = 100


def encode(value: Any) -> bytes:
    """A value of the model as UTF-8 JSON. Numbers that JSON doesn't have become null."""
    with uncollected:  # of a large graph, looking for garbage takes as long as the rest of this
        found = to_json(value)
        try:
            # A quarter of the time that json takes: a large graph has megabytes.
            return pydantic_core.to_json(found, inf_nan_mode="null")
        except ValueError:
            # A lone surrogate has no UTF-8; its escape is what JSON has for it.
            text = json.dumps(_finite(found), ensure_ascii=False, separators=(",", ":"))
            return text.encode("utf-8", "backslashreplace")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def decode(body: bytes) -> dict[str, Any]:
    """The JSON object that a request carries; an empty body is an empty object. Raises `KitaruUsageError`."""
    if not body.strip():
        return {}
    try:
        found = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError as error:
        raise KitaruUsageError(f"The body is nested deeper than {MAX_DEPTH} levels.") from error
    except ValueError as error:
        raise KitaruUsageError(f"The body is not JSON: {error}. Expected a JSON object in UTF-8.") from error
    if not isinstance(found, dict):
        raise KitaruUsageError(f"The body is a JSON {_kind(found)}; expected an object.")
    check_depth(found)
    return found


def check_depth(value: Any) -> None:
    """Raises `KitaruUsageError` when a JSON value is nested too deep, or holds text that no journal can store."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise KitaruUsageError(f"The body is nested deeper than {MAX_DEPTH} levels.")
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str) and not item.isascii():
                _check_text(item)
        level = below


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise KitaruUsageError("The body holds half of a surrogate pair, which is no text.") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _kind(value: Any) -> str:
    kinds: Mapping[type, str] = {list: "array", str: "text", bool: "boolean", int: "number", float: "number"}
    return kinds.get(type(value), "null")
