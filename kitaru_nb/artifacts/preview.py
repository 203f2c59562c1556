"""What a person sees of an artifact without loading it: made once, when it is written. No code of the value's own
pickling runs, and large values are looked at from the front only."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any

from kitaru_nb.artifacts import classes, images

MAX_TEXT = 2_000
MAX_IMAGE = 48_000  # bytes of PNG; a third more in base 64, so below 64 KB
_HEAD = 10
_CELL = 100
_DEPTH = 5
_NUMBERS = frozenset({float, bool, type(None)})


def preview(value: Any) -> dict[str, Any]:
    """JSON values that show ``value``: its ``text``, for tables the ``table`` head, for pictures an ``image``.

    Never raises: what can't be shown says so.
    """
    kind = type(value)
    if kind in _NUMBERS or (kind is int and value.bit_length() < 4_000):
        return {"text": repr(value)}
    if kind is str and len(value) <= MAX_TEXT // 2:
        return {"text": _clip(repr(value))}
    if (kind is dict or kind is list or kind is tuple) and _room(value, MAX_TEXT // 4) > 0:
        return {"text": _clip(repr(value))}
    try:
        return _of_package(value) or {"text": _clip(_bounded(value))}
    except Exception as error:  # any class may have any fault in its repr
        return {"text": failed(value, error)}


def _room(value: Any, room: int) -> int:
    """What is left of ``room`` (characters) after a builtin container; 0: nothing, or it can't be told."""
    items = value
    if type(value) is dict:
        if value and set(map(type, value)) != {str}:
            return 0
        room -= sum(map(len, value))
        items = value.values()
    room -= 2 * len(items)
    for item in items if room > 0 else ():
        kind = type(item)
        if kind is str:
            room -= len(item)
        elif kind is int:
            room -= item.bit_length() >> 2
        elif kind is list or kind is dict or kind is tuple:
            room = _room(item, room)
        elif kind not in _NUMBERS:
            return 0
        if room <= 0:
            return 0
    return max(room, 0)


def failed(value: Any, error: BaseException) -> str:
    """What stands for a value whose ``repr`` raises."""
    return f"<{type(value).__name__}: repr failed: {type(error).__name__}>"


def small_preview(value: Any) -> dict[str, Any]:
    """As `preview`, for a builtin known to be small: its plain ``repr``."""
    return {"text": _clip(repr(value))}


def _clip(text: str) -> str:
    if len(text) > MAX_TEXT:
        text = text[: MAX_TEXT - 1] + "…"
    # A repr may hold lone surrogates, which no journal can store.
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class _Short:
    """A ``repr`` that stops when it has enough."""

    def __init__(self) -> None:
        self.left = MAX_TEXT
        self.pieces: list[str] = []

    def add(self, text: str) -> None:
        self.pieces.append(text)
        self.left -= len(text)

    def show(self, value: Any, depth: int) -> None:
        kind = type(value)
        if kind is str or kind is bytes or kind is bytearray:
            self.add(repr(value[: self.left + 1]) + ("…" if len(value) > self.left + 1 else ""))
        elif kind is int and value.bit_length() >= 4_000:
            self.add(f"<int of {value.bit_length()} bits>")
        elif depth > _DEPTH:
            self.add("…")
        elif isinstance(value, dict):
            self._named(kind, dict, "{", "}", ((k, v) for k, v in value.items()), depth, len(value))
        elif isinstance(value, (list, tuple, set, frozenset)) and not hasattr(kind, "_fields"):
            base, opening, closing = next(b for b in _BRACKETS if isinstance(value, b[0]))
            self._named(kind, base, opening, closing, value, depth, len(value))
        elif (names := _field_names(value)) is not None:
            self._fields(value, names, depth)
        else:
            self._other(value)

    def _other(self, value: Any) -> None:
        try:
            self.add(_of_package(value, text_only=True)["text"] or repr(value))
        except Exception as error:  # one bad element doesn't hide the others
            self.add(failed(value, error))

    def _named(
        self, kind: type, base: type, opening: str, closing: str, items: Iterable[Any], depth: int, size: int
    ) -> None:
        if not size and base in (set, frozenset):
            self.add(f"{kind.__name__}()")
            return
        plain = kind is base and base is not frozenset
        self.add(opening if plain else f"{kind.__name__}({opening}")
        first = True
        for item in items:
            if not first:
                self.add(", ")
            first = False
            if self.left <= 0:
                self.add("…")
                break
            if base is dict:
                self.show(item[0], depth + 1)
                self.add(": ")
                item = item[1]
            self.show(item, depth + 1)
        comma = "," if base is tuple and size == 1 else ""
        self.add(comma + closing + ("" if plain else ")"))

    def _fields(self, value: Any, names: Iterable[str], depth: int) -> None:
        self.add(f"{type(value).__name__}(")
        for position, name in enumerate(names):
            if self.left <= 0:
                self.add("…")
                break
            self.add(f"{', ' if position else ''}{name}=")
            self.show(getattr(value, name, None), depth + 1)
        self.add(")")


_BRACKETS: tuple[tuple[Any, str, str], ...] = (
    (list, "[", "]"),
    (tuple, "(", ")"),
    (set, "{", "}"),
    (frozenset, "{", "}"),
)


def _bounded(value: Any) -> str:
    short = _Short()
    short.show(value, 0)
    return "".join(short.pieces)


def _field_names(value: Any) -> list[str] | None:
    """Fields to show of a class whose ``repr`` is the generated one; it would build the whole text first."""
    cls: Any = type(value)
    if is_dataclass(cls) and getattr(cls.__repr__, "__module__", "") in (cls.__module__, "dataclasses", "reprlib"):
        params = getattr(cls, "__dataclass_params__", None)
        own = params is None or not params.repr
        return None if own else [f.name for f in fields(cls) if f.repr]
    if classes.is_model(cls) and cls.__repr__.__module__.startswith("pydantic"):
        return [name for name, field in cls.model_fields.items() if field.repr]
    if isinstance(value, tuple):
        return list(cls._fields)
    return None


def _of_package(value: Any, *, text_only: bool = False) -> dict[str, Any]:
    """Preview of a table, array or picture; empty, or with an empty text, for anything else."""
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    nothing = {"text": ""} if text_only else {}
    if package == "numpy" and hasattr(value, "dtype") and hasattr(value, "flat") and hasattr(value, "shape"):
        return {"text": _array_text(value)} if value.shape else nothing
    shower = _TABLES.get((package, kind.__name__))
    if shower is not None:
        table = shower(value)
        rows, width = table["shape"]
        text = f"{kind.__name__} {rows:,} rows × {width:,} columns"
        return {"text": text} if text_only else {"text": text, "table": table}
    if package in ("matplotlib", "PIL"):
        text = _clip(repr(value))
        png = None if text_only else images.thumbnail(value, MAX_IMAGE)
        return {"text": text} | ({"image": base64.b64encode(png).decode()} if png else {})
    return nothing


def _array_text(value: Any) -> str:
    shape = ", ".join(map(str, value.shape))
    head = ", ".join(str(item)[:_CELL] for item in islice(value.flat, _HEAD))
    return _clip(f"{type(value).__name__} {value.dtype} ({shape}) [{head}{', …' if value.size > _HEAD else ''}]")


def _pandas_table(value: Any) -> dict[str, Any]:
    head = value.iloc[:_HEAD, :_HEAD]
    return _table(head.columns, head.itertuples(index=False, name=None), value.shape)


def _series_table(value: Any) -> dict[str, Any]:
    return _table([value.name], ([item] for item in value.head(_HEAD)), (len(value), 1))


def _polars_table(value: Any) -> dict[str, Any]:
    head = value[:_HEAD, :_HEAD]
    return _table(head.columns, head.rows(), value.shape)


def _arrow_table(value: Any) -> dict[str, Any]:
    head = value.slice(0, _HEAD).select(list(range(min(_HEAD, value.num_columns))))
    columns = [column.to_pylist() for column in head.columns]
    return _table(head.schema.names, zip(*columns, strict=True), (value.num_rows, value.num_columns))


_TABLES = {
    ("pandas", "DataFrame"): _pandas_table,
    ("pandas", "Series"): _series_table,
    ("polars", "DataFrame"): _polars_table,
    ("polars", "Series"): _series_table,
    ("pyarrow", "Table"): _arrow_table,
    ("pyarrow", "RecordBatch"): _arrow_table,
}


def _table(columns: Iterable[Any], rows: Iterable[Iterable[Any]], shape: tuple[int, int]) -> dict[str, Any]:
    return {
        "columns": [_cell_text(c) for c in columns],
        "rows": [[_cell(item) for item in row] for row in rows],
        "shape": [int(shape[0]), int(shape[1])],
    }


def _cell(value: Any) -> Any:
    """A JSON value: numbers stay numbers while JavaScript can hold them, all else is text."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    if (kind is int and abs(value) < 1 << 53) or (kind is float and math.isfinite(value)):
        return value
    return _cell_text(value)


def _cell_text(value: Any) -> str:
    try:
        text = value if type(value) is str else _bounded(value) if isinstance(value, (list, dict)) else str(value)
    except Exception as error:  # as in preview
        text = failed(value, error)
    return _clip(text if len(text) <= _CELL else text[: _CELL - 1] + "…")
