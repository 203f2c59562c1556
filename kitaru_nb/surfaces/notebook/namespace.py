"""What a cell did to the notebook's variables: compared before and after, never guessed."""

from __future__ import annotations

import functools
import hashlib
import pickle
import types
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

#: How many objects are looked at below one variable to find what it shares with others.
MAX_REACH = 20_000
#: Values without a token whose pickle is longer than this aren't watched for changes in place.
MAX_PICKLE = 64 << 20

_CONTAINERS = (list, dict, set, deque)
_ATOMS = (str, bytes, bool, int, float, complex, range, type(None))
_EXACT_ATOMS = frozenset(_ATOMS)
_CODE = (types.ModuleType, type, types.FunctionType, types.BuiltinFunctionType)
_EMPTY = types.CellType()
_METHODS = (types.MethodType, types.BuiltinMethodType)
_SHELL_NAMES = frozenset({"In", "Out", "get_ipython", "exit", "quit", "open"})


@dataclass(frozen=True, slots=True)
class Before:
    """The namespace before a cell ran: the objects themselves, so that no id is used twice, and marks of inputs."""

    values: Mapping[str, Any]
    marks: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Changes:
    """What a cell did.

    Attributes:
        groups: names of one group share objects, so their values are stored together. A group may hold names that the
            cell didn't touch.
        changed: names that are new, rebound or changed in place.
        aliases: new name → the untouched input that it now also names.
        deleted: names that are gone.
    """

    groups: tuple[tuple[str, ...], ...] = ()
    changed: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)
    deleted: tuple[str, ...] = ()


def visible(namespace: Mapping[str, Any], hidden: Iterable[str]) -> dict[str, Any]:
    """The user's variables: without IPython's own and names that begin with an underscore."""
    own = set(hidden)
    return {n: v for n, v in namespace.items() if not n.startswith("_") and n not in own and n not in _SHELL_NAMES}


def compare(
    before: Before, after: Mapping[str, Any], mark: Callable[[Any], str | None], only: Iterable[str] | None = None
) -> Changes:
    """Compare the namespace with what it was.

    Args:
        mark: tells whether a value changed in place; None where that can't be told.
        only: names that are of interest (``--out``), or None for all.
    """
    rebound = {n for n, v in after.items() if n not in before.values or before.values[n] is not v}
    untouched: dict[int, str] = {}
    in_place = set()
    for name, old in sorted(before.marks.items()):
        if name not in after or name in rebound:
            continue
        if old is not None and mark(after[name]) != old:
            in_place.add(name)
        elif may_be_shared(after[name]):
            untouched.setdefault(id(after[name]), name)
    aliases = {n: untouched[id(after[n])] for n in rebound if id(after[n]) in untouched}
    changed = (rebound - set(aliases)) | in_place
    ids = {id(after[n]) for n in changed if may_be_shared(after[n])}
    changed |= {n for n, v in after.items() if id(v) in ids}
    deleted = set(before.values) - set(after)
    wanted = set(after) | deleted if only is None else set(only)
    changed &= wanted
    groups = (tuple(n for n in names if n in wanted) for names in group(changed, after))
    return Changes(
        tuple(g for g in groups if g),
        frozenset(changed),
        {n: m for n, m in sorted(aliases.items()) if n in wanted},
        tuple(sorted(deleted & wanted)),
    )


def group(changed: Iterable[str], after: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Put names together that share a mutable object, at whatever depth; other variables that share one join in."""
    reach = {n: reachable(after[n]) for n in changed}
    touched: set[int] = set().union(*reach.values()) if reach else set()
    for name, value in after.items():
        if name not in reach and touched:
            found = reachable(value)
            if found & touched:
                reach[name] = found
    groups: list[tuple[set[str], set[int]]] = []
    for name in sorted(reach):
        names, objects = {name}, set(reach[name])
        rest = []
        for other_names, other_objects in groups:
            if objects & other_objects:
                names |= other_names
                objects |= other_objects
            else:
                rest.append((other_names, other_objects))
        groups = [*rest, (names, objects)]
    return sorted(tuple(sorted(names)) for names, _ in groups)


def may_be_shared(value: Any) -> bool:
    """Whether two variables that hold this object see each other's changes of it."""
    return not isinstance(value, (*_ATOMS, *_CODE, tuple, frozenset))


def reachable(root: Any) -> set[int]:
    """Ids of the mutable objects in and below ``root``: through containers, plain instances, bound methods, the memory
    of arrays and the figures that plots belong to."""
    found: set[int] = set()
    todo = [root]
    looked = 0
    while todo and looked < MAX_REACH:
        value = todo.pop()
        looked += 1
        kind = type(value)
        if kind in _EXACT_ATOMS:
            continue
        if kind is dict or kind is list:  # nearly all that there is: quickly
            if id(value) not in found:
                found.add(id(value))
                todo.extend(islice(value if kind is list else value.values(), MAX_REACH))
        elif isinstance(value, tuple | frozenset):
            todo.extend(islice(value, MAX_REACH))
        elif isinstance(value, _METHODS):
            todo.append(value.__self__)
        elif may_be_shared(value) and id(value) not in found:
            found.add(id(value))
            todo.extend(islice(_inside(value), MAX_REACH))
    return found


def _inside(value: Any) -> Iterable[Any]:
    """What an object holds, as far as it shows."""
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, _CONTAINERS):
        return value
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if kind is memoryview:
        return [value.obj]
    if package == "numpy":
        # A view and its owner are one memory, also where something else stands between them.
        items = value.flat if getattr(getattr(value, "dtype", None), "hasobject", False) else ()
        return chain([getattr(value, "base", None)], items)
    if package == "matplotlib":
        return [getattr(value, "figure", None)]
    return vars(value).values() if kind.__module__ == "__main__" and hasattr(value, "__dict__") else ()


def fingerprint(value: Any) -> str | None:
    """Digest of a value's pickle, or of the variables in a function's closure: equal while nobody changes the object.
    None where it has none, or a huge one."""
    if isinstance(value, types.FunctionType):
        value = [cell.cell_contents for cell in value.__closure__ or () if cell != _EMPTY]
    sink = _Hasher()
    try:
        pickle.Pickler(sink, protocol=5).dump(value)
    except Exception:  # a class may raise whatever it likes from its own pickling
        return None
    return f"pickle:{sink.hash.hexdigest()}"


class _Hasher:
    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        self.size += memoryview(data).nbytes
        if self.size > MAX_PICKLE:
            raise OverflowError
        self.hash.update(data)
        return memoryview(data).nbytes
