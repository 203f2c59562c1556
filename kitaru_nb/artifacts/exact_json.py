"""JSON that gives back exactly what went in: value, type and order of dictionaries.

What JSON has itself is written plainly, so most artifacts read well. Everything else is an object whose key ``$`` names
it: ``{"$": "tuple", "v": [1, 2]}``. A dictionary that has a key ``$`` of its own, or a key that is no string, is
a list of pairs: ``{"$": "dict", "v": [[1, 2]]}``.

Several places that hold one and the same mutable object do so again after loading. The *identity* of a value leaves
that out (``[a, a]`` equals ``[a, copy(a)]``), so that it doesn't depend on which part of it was loaded from where.

Values that can't be exact raise `Unfit`: cycles, more than `MAX_DEPTH` levels, subclasses of builtins, classes that
can't be found by their name. Pydantic's ``TypeAdapter`` isn't used to write: it turns tuples into lists, subclasses
into their fields' declared types and forgets which fields were set; it validates on load when a model has changed.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from types import NoneType
from typing import Any, TypeAlias
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from kitaru_nb.artifacts import arrays, classes
from kitaru_nb.artifacts.protocol import Unfit, Unreadable

Node: TypeAlias = Any

#: Levels of nesting. Far from the interpreter's own limit, so that the outcome doesn't depend on the caller's stack.
MAX_DEPTH = 64
# Shared parts are walked again for the identity; a value that explodes that way has none and is left to pickle.
_MAX_REPEATS = 100_000
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_ATOMS: frozenset[type] = frozenset({str, bool, NoneType})
_FLAT: frozenset[type] = frozenset({str, bool, NoneType, float})

_text = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")).encode

_parse = json.JSONDecoder().raw_decode


def encode(value: Any, attach: Callable[[Any], Node] | None = None) -> tuple[bytes, bytes | None]:
    """The JSON of ``value``, and its identity where that is other bytes (else None).

    ``attach`` is asked for the node (``{"$": "part", …}``) of what JSON can't hold. Raises `Unfit`.
    """
    if _is_plain(value, set(), 0):
        try:
            return _text(value).encode(), None
        except ValueError:  # NaN, an infinity or a lone surrogate (UnicodeEncodeError is a ValueError)
            pass
    try:
        lowering = _Lowering(attach)
        identity = _text(lowering.node(value)).encode()
        if not lowering.repeated:
            return identity, None
        return _text(_Lowering(attach, lowering.repeated).node(value)).encode(), identity
    except RecursionError as error:
        raise Unfit("nested too deep for what is left of the stack") from error


def decode(data: bytes, part: Callable[[Node], Any] | None = None) -> Any:
    """The value that `encode` was given; ``part`` makes the value of an attached node. Raises `Unreadable`."""
    if b'"$"' not in data:
        return _parse(data.decode())[0]
    return json.loads(data, object_hook=_Lifting(part).lift)


def _is_plain(value: Any, seen: set[int], depth: int) -> bool:
    """Whether JSON itself can hold ``value``, at the speed of C for flat containers."""
    kind = type(value)
    if kind is dict:
        if not value:
            return True
        if "$" in value or set(map(type, value)) != {str}:
            return False
        items: Iterable[Any] = value.values()
    elif kind is list:
        items = value
    else:
        return kind in _FLAT or (kind is int and _INT_MIN <= value <= _INT_MAX)
    kinds = set(map(type, items))
    if kinds <= _FLAT:
        return True
    if kinds == {int}:
        return bool(min(items) >= _INT_MIN and max(items) <= _INT_MAX)
    for item in items:
        inner = type(item)
        if inner is list or inner is dict:
            if id(item) in seen or depth >= MAX_DEPTH:
                return False
            seen.add(id(item))
        if inner not in _FLAT and not _is_plain(item, seen, depth + 1):
            return False
    return True


class _Lowering:
    """One walk over a value, making tagged nodes.

    Everything that is walked is held by the value itself; a temporary container would free its id for another.
    """

    def __init__(self, attach: Callable[[Any], Node] | None, shared: Iterable[int] = ()) -> None:
        self.attach = attach
        self.shared: dict[int, int | None] = dict.fromkeys(shared)
        self.marks = 0
        self.seen: set[int] = set()
        self.repeated: set[int] = set()
        self.repeats = 0
        self.active: set[int] = set()

    def node(self, value: Any) -> Node:
        """The node of any value. Raises `Unfit`."""
        kind = type(value)
        if kind is str:
            return value if value.isascii() else _lower_str(value)
        if kind in _ATOMS:
            return value
        leaf = _LEAVES.get(kind)
        if leaf is not None:
            return leaf(value)
        return self._inside(value, _CONTAINERS.get(kind, _lower_instance))

    def _inside(self, value: Any, lower: Callable[[_Lowering, Any], Node]) -> Node:
        key = id(value)
        if key in self.active:
            raise Unfit(f"a {type(value).__name__} contains itself")
        if len(self.active) >= MAX_DEPTH:
            raise Unfit(f"nested deeper than {MAX_DEPTH} levels")
        if self.shared.get(key) is not None:
            self.marks += 1
            return {"$": "again", "n": self.shared[key]}
        if key in self.seen:
            self._repeat(key, value)
        self.seen.add(key)
        self.active.add(key)
        node = lower(self, value)
        self.active.discard(key)
        if key in self.shared:
            self.marks += 1
            self.shared[key] = self.marks
            return {"$": "shared", "n": self.marks, "v": node}
        return node

    def _repeat(self, key: int, value: Any) -> None:
        self.repeats += 1
        if self.repeats > _MAX_REPEATS:
            raise Unfit("shares too many of its parts")
        if _is_mutable(value):
            self.repeated.add(key)

    def mapping(self, value: dict[Any, Any]) -> Node:
        """Pairs of a mapping, in order: an object where JSON can hold the keys, else a tagged list."""
        if "$" not in value and set(map(type, value)) <= {str} and all(map(_is_sound, value)):
            return {key: self.node(item) for key, item in value.items()}
        return {"$": "dict", "v": self.pairs(value)}

    def pairs(self, value: dict[Any, Any]) -> list[Node]:
        return [[self.node(key), self.node(item)] for key, item in value.items()]

    def items(self, value: Iterable[Any]) -> list[Node]:
        return [self.node(item) for item in value]

    def ordered(self, value: Iterable[Any]) -> list[Node]:
        """Nodes in the order of their text, which doesn't depend on hashes."""
        marks = self.marks
        nodes = sorted(self.items(value), key=_text)
        if self.marks != marks:  # sorting could bring the mention of an object before the object
            raise Unfit("a set whose elements share parts")
        return nodes


def _is_mutable(value: Any) -> bool:
    if isinstance(value, (tuple, frozenset, slice, Enum)) or arrays.scalar_node(value) is not None:
        return False
    frozen = getattr(type(value), "__dataclass_params__", None)
    return frozen is None or not frozen.frozen


def _is_sound(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _lower_str(value: str) -> Node:
    # UTF-8 has no lone surrogates, and two of them in a row would come back from JSON's escapes as one character.
    return value if _is_sound(value) else {"$": "str", "v": [ord(c) for c in value]}


def _lower_int(value: int) -> Node:
    # Hexadecimal, because the interpreter limits how long a decimal number it converts.
    return value if _INT_MIN <= value <= _INT_MAX else {"$": "int", "v": hex(value)}


def _lower_float(value: float) -> Node:
    if math.isfinite(value):
        return value
    # NaN has a sign and a payload, so its bits are kept.
    return {"$": "float", "v": str(value) if math.isinf(value) else struct.pack(">d", value).hex()}


def _lower_timezone(value: timezone) -> Node:
    offset, *name = value.__getinitargs__()  # type: ignore[attr-defined]
    return {"$": "timezone", "v": [_lower_timedelta(offset), *name]}


def _lower_zone(value: ZoneInfo) -> Node:
    if value.key is None:
        raise Unfit("a ZoneInfo without a key")
    return {"$": "zone", "v": value.key}


def _zoned(tag: str, value: datetime | time) -> Node:
    node: dict[str, Node] = {"$": tag, "v": value.replace(tzinfo=None, fold=0).isoformat()}
    if value.fold:
        node["fold"] = 1
    if value.tzinfo is not None:
        lower = _LEAVES.get(type(value.tzinfo))
        if lower is None:
            raise Unfit(f"a {tag} with the timezone {value.tzinfo!r}")
        node["tz"] = lower(value.tzinfo)
    return node


def _lower_timedelta(value: timedelta) -> Node:
    return {"$": "timedelta", "v": [value.days, value.seconds, value.microseconds]}


def _lower_uuid(value: UUID) -> Node:
    node = {"$": "uuid", "v": value.hex}
    if value.is_safe is not SafeUUID.unknown:
        node["safe"] = value.is_safe.name
    return node


def _lower_defaultdict(lowering: _Lowering, value: defaultdict[Any, Any]) -> Node:
    factory: Any = value.default_factory
    if factory is not None and (type(factory) is not type or factory not in _FACTORIES):
        raise Unfit(f"a defaultdict of {factory!r}")
    return {"$": "defaultdict", "f": factory and factory.__name__, "v": lowering.pairs(value)}


def _lower_counter(lowering: _Lowering, value: Counter[Any]) -> Node:
    if value.__dict__:
        raise Unfit("a Counter with attributes")
    return {"$": "counter", "v": lowering.pairs(value)}


def _lower_ordered(lowering: _Lowering, value: OrderedDict[Any, Any]) -> Node:
    if value.__dict__:
        raise Unfit("an OrderedDict with attributes")
    return {"$": "ordered", "v": lowering.pairs(value)}


def _lower_instance(lowering: _Lowering, value: Any) -> Node:
    cls = type(value)
    if isinstance(value, Enum):
        return _lower_enum(lowering, value)
    if classes.is_model(cls):
        fields, fields_set, extra, private, other = classes.model_state(value)
        checked = set(fields) == classes.shape(cls).names and classes.misfit(cls, fields) is None
        parts = [lowering.mapping(fields), {"$": "set", "v": lowering.ordered(fields_set)}]
        parts += [None if p is None else lowering.mapping(p) for p in (extra, private)]
        return {"$": "model", "c": classes.reference(cls), "v": [*parts, lowering.mapping(other)], "ok": checked}
    if is_dataclass(value):
        fields, other = classes.dataclass_state(value)
        checked = set(fields) == classes.shape(cls).names and classes.misfit(cls, fields) is None
        parts = [lowering.mapping(fields), lowering.mapping(other)]
        return {"$": "dataclass", "c": classes.reference(cls), "v": parts, "ok": checked}
    if isinstance(value, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_make"):
        if getattr(value, "__dict__", None):
            raise Unfit("a named tuple with attributes")
        ref = classes.reference(cls)
        return {"$": "named", "c": ref, "f": list(cls._fields), "v": lowering.items(tuple.__iter__(value))}
    scalar = arrays.scalar_node(value)
    if scalar is not None:
        return {"$": "numpy", "v": scalar}
    if lowering.attach is None:
        raise Unfit(f"{cls.__module__}.{cls.__qualname__} is no JSON type")
    return lowering.attach(value)


def _lower_enum(lowering: _Lowering, value: Enum) -> Node:
    node: dict[str, Node] = {"$": "enum", "c": classes.reference(type(value)), "v": lowering.node(value._value_)}
    if not isinstance(value, Flag):
        node["n"] = value._name_
    return node


def _tagged(tag: str, lower: Callable[[Any], Node] = str) -> Callable[[Any], Node]:
    return lambda value: {"$": tag, "v": lower(value)}


def _boxed(tag: str, lower: Callable[[_Lowering, Any], Node]) -> Callable[[_Lowering, Any], Node]:
    return lambda lowering, value: {"$": tag, "v": lower(lowering, value)}


def _base64(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode()


def _path(tag: str) -> Callable[[Any], Node]:
    return lambda value: {"$": "path", "k": tag, "v": _lower_str(str(value))}


_FACTORIES = {kind: kind.__name__ for kind in (list, dict, set, int, float, str, tuple)}
_FACTORY_NAMED: dict[str, Any] = {name: kind for kind, name in _FACTORIES.items()}
_PATHS: dict[str, Any] = {c.__name__: c for c in (PosixPath, PurePosixPath, PureWindowsPath, WindowsPath)}

_LEAVES: dict[type, Callable[[Any], Node]] = {
    int: _lower_int,
    float: _lower_float,
    complex: _tagged("complex", lambda c: [_lower_float(c.real), _lower_float(c.imag)]),
    bytes: _tagged("bytes", _base64),
    Decimal: _tagged("decimal"),
    Fraction: _tagged("fraction", lambda f: [_lower_int(f.numerator), _lower_int(f.denominator)]),
    range: _tagged("range", lambda r: [_lower_int(r.start), _lower_int(r.stop), _lower_int(r.step)]),
    datetime: lambda value: _zoned("datetime", value),
    time: lambda value: _zoned("time", value),
    date: _tagged("date", date.isoformat),
    timedelta: _lower_timedelta,
    timezone: _lower_timezone,
    ZoneInfo: _lower_zone,
    UUID: _lower_uuid,
    type(Ellipsis): lambda value: {"$": "ellipsis"},
    **{kind: _path(name) for name, kind in _PATHS.items()},
}

_CONTAINERS: dict[type, Callable[[_Lowering, Any], Node]] = {
    list: _Lowering.items,
    dict: _Lowering.mapping,
    tuple: _boxed("tuple", _Lowering.items),
    set: _boxed("set", _Lowering.ordered),
    frozenset: _boxed("frozenset", _Lowering.ordered),
    bytearray: lambda lowering, value: {"$": "bytearray", "v": _base64(value)},
    slice: lambda lowering, value: {"$": "slice", "v": lowering.items((value.start, value.stop, value.step))},
    deque: lambda lowering, value: {"$": "deque", "v": lowering.items(value), "max": value.maxlen},
    OrderedDict: _lower_ordered,
    defaultdict: _lower_defaultdict,
    Counter: _lower_counter,
}

#: Types that this format is the first choice for; other dataclasses, models, enums and named tuples come besides.
BUILTIN: frozenset[type] = frozenset({*_ATOMS, *_LEAVES, *_CONTAINERS})


class _Lifting:
    """Makes values of tagged nodes, from the inside outwards, as the parser meets them."""

    def __init__(self, part: Callable[[Node], Any] | None) -> None:
        self.part = part
        self.shared: dict[int, Any] = {}

    def lift(self, node: dict[str, Any]) -> Any:
        tag = node.get("$")
        if tag is None:
            return node
        if tag == "shared":
            self.shared[node["n"]] = node["v"]
            return node["v"]
        if tag == "again":
            return self.shared[node["n"]]
        if tag == "part" and self.part is not None:
            return self.part(node)
        lift = _LIFTS.get(tag)
        if lift is None:
            raise Unreadable(f"it holds a {tag!r}, which this version of kitaru_nb doesn't know")
        return lift(node)


def _lift_float(node: Node) -> float:
    text: str = node["v"]
    if text in ("inf", "-inf"):
        return float(text)
    return float(struct.unpack(">d", bytes.fromhex(text))[0])


def _lift_zone(node: Node) -> ZoneInfo:
    try:
        return ZoneInfo(node["v"])
    except ZoneInfoNotFoundError as error:
        raise Unreadable(f"the time zone {node['v']} is unknown here; install tzdata") from error


def _lift_zoned(kind: Any) -> Callable[[Node], Any]:
    return lambda node: kind.fromisoformat(node["v"]).replace(tzinfo=node.get("tz"), fold=node.get("fold", 0))


def _lift_path(node: Node) -> Any:
    try:
        return _PATHS[node["k"]](node["v"])
    except NotImplementedError as error:
        raise Unreadable(f"a {node['k']} can't exist on this system") from error


def _lift_uuid(node: Node) -> UUID:
    return UUID(hex=node["v"], is_safe=SafeUUID[node.get("safe", "unknown")])


def _lift_defaultdict(node: Node) -> Any:
    return defaultdict(_FACTORY_NAMED[node["f"]] if node["f"] else None, node["v"])


def _lift_enum(node: Node) -> Any:
    cls = classes.resolve(node["c"])
    where = f"enum {cls.__module__}.{cls.__qualname__} has changed"
    if not issubclass(cls, Enum):
        raise Unreadable(f"{where}: it is no enum any more")
    name = node.get("n")
    try:
        member: Any = cls(node["v"]) if name is None else cls[name]
    except (KeyError, ValueError) as error:
        raise Unreadable(f"{where}: it has no member {name or node['v']!r} any more") from error
    both_nan = member._value_ != member._value_ and node["v"] != node["v"]
    if member._value_ != node["v"] and not both_nan:
        raise Unreadable(f"{where}: {name} is {member._value_!r} now and was {node['v']!r}")
    return member


def _lift_named(node: Node) -> Any:
    cls = classes.resolve(node["c"])
    found = list(getattr(cls, "_fields", ()))
    if found != node["f"] or not issubclass(cls, tuple):
        raise Unreadable(f"named tuple {cls.__module__}.{cls.__qualname__} has changed: {node['f']} are {found} now")
    return tuple.__new__(cls, node["v"])


def _lift_dataclass(node: Node) -> Any:
    fields, other = node["v"]
    return classes.build_dataclass(classes.resolve(node["c"]), fields, other, node["ok"])


def _lift_model(node: Node) -> Any:
    return classes.build_model(classes.resolve(node["c"]), node["v"], node["ok"])


_LIFTS: dict[str, Callable[[Node], Any]] = {
    "str": lambda node: "".join(map(chr, node["v"])),
    "int": lambda node: int(node["v"], 16),
    "float": _lift_float,
    "complex": lambda node: complex(*node["v"]),
    "bytes": lambda node: base64.b64decode(node["v"]),
    "bytearray": lambda node: bytearray(base64.b64decode(node["v"])),
    "decimal": lambda node: Decimal(node["v"]),
    "fraction": lambda node: Fraction(*node["v"]),
    "range": lambda node: range(*node["v"]),
    "slice": lambda node: slice(*node["v"]),
    "ellipsis": lambda node: ...,
    "datetime": _lift_zoned(datetime),
    "time": _lift_zoned(time),
    "date": lambda node: date.fromisoformat(node["v"]),
    "timedelta": lambda node: timedelta(*node["v"]),
    "timezone": lambda node: timezone(*node["v"]),
    "zone": _lift_zone,
    "uuid": _lift_uuid,
    "path": _lift_path,
    "tuple": lambda node: tuple(node["v"]),
    "set": lambda node: set(node["v"]),
    "frozenset": lambda node: frozenset(node["v"]),
    "dict": lambda node: dict(node["v"]),
    "ordered": lambda node: OrderedDict(node["v"]),
    "counter": lambda node: Counter(dict(node["v"])),
    "defaultdict": _lift_defaultdict,
    "deque": lambda node: deque(node["v"], node["max"]),
    "enum": _lift_enum,
    "named": _lift_named,
    "dataclass": _lift_dataclass,
    "model": _lift_model,
    "numpy": lambda node: arrays.scalar_value(node["v"]),
}
