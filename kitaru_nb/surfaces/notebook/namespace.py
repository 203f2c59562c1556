"""What a cell did to the notebook's variables: compared before and after, never guessed."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: How many objects are looked at below one variable to find what it shares with others.
MAX_REACH = 20_000
_CONTAINERS = (list, dict, set, deque)


@dataclass(frozen=True, slots=True)
class Before:
    """The namespace before a cell ran: the objects themselves (so that no id is used twice) and tokens of inputs."""

    values: Mapping[str, Any]
    tokens: Mapping[str, str | None]


@dataclass(slots=True)
class Changes:
    """What a cell did.

    Attributes:
        groups: variables that are new, rebound or changed in place, with their aliases; names of one group share
            objects and must be stored together.
        deleted: names that are gone.
    """

    groups: list[tuple[str, ...]] = field(default_factory=list)
    deleted: tuple[str, ...] = ()


def visible(namespace: Mapping[str, Any], hidden: Iterable[str]) -> dict[str, Any]:
    """The user's variables: without IPython's own and names that begin with an underscore."""
    own = set(hidden)
    return {n: v for n, v in namespace.items() if not n.startswith("_") and n not in own and n not in _SHELL_NAMES}


_SHELL_NAMES = frozenset({"In", "Out", "get_ipython", "exit", "quit", "open"})


def compare(
    before: Before, after: Mapping[str, Any], token: Callable[[Any], str | None], only: Iterable[str] | None = None
) -> Changes:
    """Compare the namespace with what it was.

    Args:
        token: identity of a value by content, to find inputs that were changed in place.
        only: names that are of interest (``--out``), or None for all.
    """
    changed = {n for n, v in after.items() if n not in before.values or before.values[n] is not v}
    for name, old in before.tokens.items():
        if name in after and name not in changed and old is not None and token(after[name]) != old:
            changed.add(name)
    ids = {id(after[n]) for n in changed if may_be_shared(after[n])}
    changed |= {n for n, v in after.items() if id(v) in ids}
    deleted = tuple(sorted(set(before.values) - set(after)))
    if only is not None:
        wanted = set(only)
        changed &= wanted
        deleted = tuple(n for n in deleted if n in wanted)
    return Changes(group(changed, after), deleted)


def group(changed: set[str], after: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Put names together that share a mutable object, at whatever depth; other variables that share one join in."""
    reach = {n: reachable(after[n]) for n in changed}
    touched: set[int] = set().union(*reach.values()) if reach else set()
    for name, value in after.items():
        if name not in changed and may_be_shared(value) and touched:
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
    if value is None or isinstance(value, str | bytes | bool | int | float | complex | tuple | frozenset | range):
        return False
    return not isinstance(value, types.ModuleType | type | types.FunctionType | types.BuiltinFunctionType)


def reachable(root: Any) -> set[int]:
    """Ids of the mutable objects in and below ``root``, for containers and plain instances, up to `MAX_REACH`."""
    found: set[int] = set()
    todo = [root]
    looked = 0
    while todo and looked < MAX_REACH:
        value = todo.pop()
        looked += 1
        if isinstance(value, tuple | frozenset):
            todo.extend(value)
            continue
        if not may_be_shared(value) or id(value) in found:
            continue
        found.add(id(value))
        if isinstance(value, dict):
            todo.extend(value.values())
        elif isinstance(value, _CONTAINERS):
            todo.extend(value)
        elif type(value).__module__ == "__main__" and hasattr(value, "__dict__"):
            todo.extend(vars(value).values())
    return found


def is_code(value: Any) -> bool:
    """Whether a variable is recreated by running definitions and imports again, not from a stored value."""
    return isinstance(value, types.ModuleType | type | types.FunctionType | types.BuiltinFunctionType)


class Tripwire:
    """Stands for a variable that could not be persisted; any use of it says so."""

    def __init__(self, message: str) -> None:
        object.__setattr__(self, "_kitaru_message", message)

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("_ipython", "_repr_")) or name in ("__array__", "__array_interface__", "__wrapped__"):
            raise AttributeError(name)
        raise self._error()

    def __repr__(self) -> str:
        return f"<not restored: {object.__getattribute__(self, '_kitaru_message')}>"

    def _error(self) -> Exception:
        from kitaru_nb.errors import KitaruArtifactError

        return KitaruArtifactError(object.__getattribute__(self, "_kitaru_message"))

    def _trip(self, *args: Any, **kwargs: Any) -> Any:
        raise self._error()

    __call__ = __iter__ = __len__ = __getitem__ = __setitem__ = __contains__ = __bool__ = __enter__ = _trip
    __add__ = __radd__ = __sub__ = __mul__ = __truediv__ = __lt__ = __gt__ = __le__ = __ge__ = __await__ = _trip
    __next__ = __int__ = __float__ = __str__ = _trip
    __eq__ = __ne__ = _trip  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]
