"""Which serializer a value gets: those of users, then by type, then pickle; and which one wrote some bytes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum
from typing import Any

from kitaru_nb.artifacts import arrays, classes, exact_json, frames, images, pickles
from kitaru_nb.artifacts.bundle import BundleSerializer
from kitaru_nb.artifacts.groups import GroupSerializer
from kitaru_nb.artifacts.protocol import Dumped, Serializer, Unfit
from kitaru_nb.errors import KitaruUsageError

_PLAIN_INT = 1 << 53


class JsonSerializer(Serializer):
    """Builtins, dataclasses, pydantic models, enums, dates and their like: see `exact_json`."""

    name = "json"
    media_type = "application/json"
    canonical = True

    def accepts(self, value: Any) -> bool:
        return is_structure(value)

    def dump(self, value: Any) -> bytes | Dumped:
        if type(value) is int and -_PLAIN_INT < value < _PLAIN_INT:
            return b"%d" % value  # as encode does, in a third of the time
        data, identity = exact_json.encode(value)
        return data if identity is None else Dumped((data,), len(data), identity=identity)

    def load(self, data: bytes) -> Any:
        return exact_json.decode(data)


class TextSerializer(Serializer):
    """``str`` as UTF-8."""

    name = "text"
    media_type = "text/plain; charset=utf-8"
    canonical = True

    def accepts(self, value: Any) -> bool:
        return type(value) is str

    def dump(self, value: str) -> bytes:
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise Unfit("a lone surrogate has no UTF-8") from error

    def load(self, data: bytes) -> str:
        return data.decode()


class BytesSerializer(Serializer):
    """``bytes`` as they are."""

    name = "bytes"
    canonical = True

    def accepts(self, value: Any) -> bool:
        return type(value) is bytes

    def dump(self, value: bytes) -> bytes:
        return value

    def load(self, data: bytes) -> bytes:
        return data


def is_structure(value: Any) -> bool:
    """Whether `exact_json` is the format for a value of this type."""
    cls = type(value)
    if cls in exact_json.BUILTIN or isinstance(value, Enum) or classes.is_model(cls) or is_dataclass(cls):
        return True
    named = isinstance(value, tuple) and hasattr(cls, "_fields")
    return named or ("numpy" in sys.modules and isinstance(value, sys.modules["numpy"].generic))


def register_serializer(serializer: Serializer, *, first: bool = True) -> None:
    """Add a serializer for this process: before all others, or with ``first=False`` only before pickle.

    A process that loads its artifacts must register it too. Registering the same name again replaces the former.

    Raises:
        KitaruUsageError: the name is empty or that of a serializer of kitaru_nb.
    """
    name = getattr(serializer, "name", "")
    if not isinstance(name, str) or not name or name in _OWN:
        taken = f"{name!r} is one of kitaru_nb's own" if name else "it has no name"
        raise KitaruUsageError(
            f"A serializer needs a name of its own; {taken}.",
            fix=f'class {type(serializer).__name__}: name = "my-format"',
        )
    for chosen in (_first, _last):
        chosen[:] = [s for s in chosen if s.name != name]
    (_first if first else _last).insert(0, serializer)
    _by_name[name] = serializer


def serializer_named(name: str) -> Serializer:
    """The serializer of this name. Raises `KitaruUsageError` listing those that there are."""
    found = _by_name.get(name)
    if found is None:
        raise KitaruUsageError(
            f"There is no serializer {name!r}. There are: {', '.join(sorted(_by_name))}.",
            fix="register_serializer(...)  # before loading",
        )
    return found


def special(value: Any) -> Iterator[Serializer]:
    """Serializers that know the value's type: those of users, then those of its package."""
    yield from _first
    for cls in type(value).__mro__:
        package = _BY_PACKAGE.get(cls.__module__.partition(".")[0])
        if package is not None:
            yield from package
            break
    yield from _last


def candidates(value: Any) -> Iterator[Serializer]:
    """All serializers to try, best first; pickle comes separately, as `PICKLES`."""
    if is_structure(value):
        yield from _first
        own = _BUILTIN.get(type(value))
        if own is not None:
            yield own
        yield JSON
        yield BUNDLE
    yield from special(value)


def has_custom_first() -> bool:
    """Whether a user registered a serializer that is asked before those of builtins."""
    return bool(_first)


_first: list[Serializer] = []
_last: list[Serializer] = []
JSON, TEXT, BYTES = JsonSerializer(), TextSerializer(), BytesSerializer()
BUNDLE = BundleSerializer(special, serializer_named)
GROUP = GroupSerializer()
PICKLES: tuple[Serializer, ...] = (pickles.PickleSerializer(), pickles.CloudpickleSerializer())
_BUILTIN: dict[type, Serializer] = {str: TEXT, bytes: BYTES}
_BY_PACKAGE: dict[str, tuple[Serializer, ...]] = {
    "numpy": (arrays.ArraySerializer(), arrays.ScalarSerializer()),
    "pandas": (frames.PandasSerializer(),),
    "polars": (frames.PolarsSerializer(), frames.PolarsSeriesSerializer()),
    "pyarrow": (frames.ArrowSerializer(), frames.BatchSerializer()),
    "matplotlib": (images.FigureSerializer(),),
    "PIL": (images.ImageSerializer(),),
}
_by_name: dict[str, Serializer] = {
    s.name: s
    for s in (JSON, TEXT, BYTES, BUNDLE, GROUP, *PICKLES, *(s for group in _BY_PACKAGE.values() for s in group))
}
_OWN = frozenset(_by_name)
