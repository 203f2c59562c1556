"""Classes by name, and the state of their instances: dataclasses, pydantic models, named tuples.

An instance is rebuilt as pickle would do it: without running ``__init__`` or validation, so that it is exactly what
was stored. When the class has changed since, the state is checked against it: a dataclass may have gained fields with
defaults; a model is validated through pydantic's ``TypeAdapter``; anything else is refused with what changed.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import typing
import weakref
from abc import ABCMeta
from collections.abc import Mapping
from dataclasses import dataclass
from enum import EnumMeta
from typing import Any, TypeAlias

from kitaru_nb.artifacts.protocol import Unfit, Unreadable

#: ``module:qualname``; for a parametrised pydantic model ``[origin, [arguments]]``.
Reference: TypeAlias = str | list[Any]

# What the dataclass decorator itself adds for slots, which says no more than the fields do.
_OWN_PICKLING = {getattr(dataclasses, name, None) for name in ("_dataclass_getstate", "_dataclass_setstate")} - {None}


@dataclass(frozen=True, slots=True)
class Shape:
    """What a class says of its fields; ``kinds`` has those whose annotation is a plain class."""

    names: frozenset[str]
    defaults: Mapping[str, Any]
    kinds: Mapping[str, Any]


_shapes: weakref.WeakKeyDictionary[type, Shape] = weakref.WeakKeyDictionary()


def is_model(cls: type) -> bool:
    """Whether ``cls`` is a pydantic model, without importing pydantic."""
    return hasattr(cls, "__pydantic_validator__") and hasattr(cls, "model_fields")


def reference(cls: type) -> Reference:
    """The name under which `resolve` finds exactly this class. Raises `Unfit` when there is none."""
    generic = getattr(cls, "__pydantic_generic_metadata__", None)
    if generic and generic["args"]:
        return [reference(generic["origin"]), [_argument(a) for a in generic["args"]]]
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is not cls:
        raise Unfit(f"{cls.__module__}.{cls.__qualname__} can't be found by its name")
    return f"{cls.__module__}:{cls.__qualname__}"


def _argument(argument: Any) -> Reference:
    if isinstance(argument, type):
        return reference(argument)
    raise Unfit(f"{argument!r} is no plain class")


def resolve(ref: Reference) -> Any:
    """The class of a reference; its module is imported when it isn't yet. Raises `Unreadable`."""
    if isinstance(ref, list):
        return resolve(ref[0])[tuple(resolve(a) for a in ref[1])]
    module, _, qualname = ref.partition(":")
    try:
        found: Any = sys.modules.get(module) or importlib.import_module(module)
    except ImportError as error:
        raise Unreadable(f"class {qualname} can't be loaded: module {module} can't be imported ({error})") from error
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise Unreadable(f"class {module}.{qualname} is gone")
    return found


def shape(cls: type) -> Shape:
    """Fields of a dataclass or model. Cached as long as the class lives."""
    known = _shapes.get(cls)
    if known is None:
        known = _shapes[cls] = _model_shape(cls) if is_model(cls) else _dataclass_shape(cls)
    return known


def _model_shape(cls: Any) -> Shape:
    fields = cls.model_fields
    kinds = {name: kind for name, field in fields.items() if (kind := _plain_class(field.annotation))}
    return Shape(frozenset(fields), {}, kinds)


def _dataclass_shape(cls: Any) -> Shape:
    fields = dataclasses.fields(cls)
    try:
        hints = typing.get_type_hints(cls)
    except Exception:  # annotations may name what exists only for type checkers; then the names alone are checked
        hints = {}
    kinds = {f.name: kind for f in fields if (kind := _plain_class(hints.get(f.name)))}
    defaults = {
        f.name: f
        for f in fields
        if f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
    }
    return Shape(frozenset(f.name for f in fields), defaults, kinds)


def _plain_class(annotation: Any) -> Any:
    if annotation is float:
        return (float, int)
    plain = type(annotation) in (type, ABCMeta, EnumMeta) or (isinstance(annotation, type) and is_model(annotation))
    return annotation if plain and annotation is not object else None


def misfit(cls: type, state: Mapping[str, Any]) -> str | None:
    """What in ``state`` (field → value) contradicts the class, or None."""
    known = shape(cls)
    for name, value in state.items():
        kind = known.kinds.get(name)
        if kind is not None and not isinstance(value, kind):
            wanted = getattr(kind, "__name__", "float")
            return f"field {name!r} is {wanted} now, and the stored value is {type(value).__name__}"
    return None


def dataclass_state(value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields, and other attributes, of a dataclass instance. Raises `Unfit` when the class has pickling of its own."""
    cls: Any = type(value)
    if (
        cls.__new__ is not object.__new__
        or cls.__reduce_ex__ is not object.__reduce_ex__
        or cls.__reduce__ is not object.__reduce__
        or not _own(cls, "__getstate__")
        or not _own(cls, "__setstate__")
    ):
        raise Unfit(f"{cls.__qualname__} defines its own pickling")
    names = shape(cls).names
    held = getattr(value, "__dict__", {})
    fields = {}
    for name in (f.name for f in dataclasses.fields(value)):
        # A default is an attribute of the class too: only what the instance itself holds is its state.
        if name in held:
            fields[name] = held[name]
        elif _in_slot(cls, name) and hasattr(value, name):
            fields[name] = getattr(value, name)
    extra = {name: item for name, item in held.items() if name not in names}
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in names and name not in ("__dict__", "__weakref__") and hasattr(value, name):
                raise Unfit(f"{cls.__qualname__} has a slot {name!r} that is no field")
    return fields, extra


def _own(cls: Any, method: str) -> bool:
    found = getattr(cls, method, None)
    return found is getattr(object, method, None) or found in _OWN_PICKLING


def _in_slot(cls: type, name: str) -> bool:
    return any(type(base.__dict__.get(name)).__name__ == "member_descriptor" for base in cls.__mro__)


def model_state(value: Any) -> tuple[dict[str, Any], Any, Any, Any, dict[str, Any]]:
    """Fields, fields set, extra, private and other attributes of a model. Raises `Unfit` for pickling of its own."""
    cls = type(value)
    for method in ("__getstate__", "__setstate__", "__reduce__", "__reduce_ex__"):
        owner = next((c for c in cls.__mro__ if method in c.__dict__), object)
        if owner is not object and owner.__module__.partition(".")[0] != "pydantic":
            raise Unfit(f"{cls.__qualname__} defines its own pickling")
    names = shape(cls).names
    held = value.__dict__
    fields = {name: item for name, item in held.items() if name in names}
    other = {name: item for name, item in held.items() if name not in names}
    extra = getattr(value, "__pydantic_extra__", None)
    return fields, value.__pydantic_fields_set__, extra, getattr(value, "__pydantic_private__", None), other


def build_dataclass(cls: Any, fields: dict[str, Any], extra: dict[str, Any], checked: bool) -> Any:
    """An instance with exactly this state. Raises `Unreadable` when the class no longer fits it."""
    if not hasattr(cls, "__dataclass_fields__"):
        raise Unreadable(f"class {cls.__module__}.{cls.__qualname__} is no longer a dataclass")
    known = shape(cls)
    where = f"class {cls.__module__}.{cls.__qualname__} has changed"
    if gone := sorted(set(fields) - known.names):
        raise Unreadable(f"{where}: it has no field {gone[0]!r} any more")
    if checked and (problem := misfit(cls, fields)):
        raise Unreadable(f"{where}: {problem}")
    instance = object.__new__(cls)
    for name, item in (*fields.items(), *extra.items()):
        object.__setattr__(instance, name, item)
    if checked:
        for name in known.names - set(fields):
            object.__setattr__(instance, name, _default(known, name, where))
    return instance


def _default(known: Shape, name: str, where: str) -> Any:
    field = known.defaults.get(name)
    if field is None:
        raise Unreadable(f"{where}: its new field {name!r} has no default")
    return field.default if field.default is not dataclasses.MISSING else field.default_factory()


def build_model(cls: Any, state: list[Any], checked: bool) -> Any:
    """A pydantic model from [fields, fields_set, extra, private, other attributes].

    The exact state is restored when the class still fits it; else the fields are validated, so a model that gained
    fields with defaults, or widened a type, still loads. Raises `Unreadable`.
    """
    if not is_model(cls):
        raise Unreadable(f"class {cls.__module__}.{cls.__qualname__} is no longer a pydantic model")
    fields, fields_set, extra, private, other = state
    where = f"class {cls.__module__}.{cls.__qualname__} has changed"
    names = shape(cls).names
    if gone := sorted(set(fields) - names):
        raise Unreadable(f"{where}: it has no field {gone[0]!r} any more")
    if checked and (names - set(fields) or misfit(cls, fields)):
        return _validated(cls, {**(extra or {}), **fields}, where)
    instance = cls.__new__(cls)
    instance.__setstate__(
        {
            "__dict__": {**fields, **other},
            "__pydantic_fields_set__": fields_set,
            "__pydantic_extra__": extra,
            "__pydantic_private__": private,
        }
    )
    return instance


def _validated(cls: Any, fields: dict[str, Any], where: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    named = {}
    for name, item in fields.items():
        field = cls.model_fields.get(name)
        alias = field.validation_alias or field.alias if field is not None else None
        named[alias if isinstance(alias, str) else name] = item
    try:
        return TypeAdapter(cls).validate_python(named)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Unreadable(f"{where}: {place}: {first['msg']}") from error
