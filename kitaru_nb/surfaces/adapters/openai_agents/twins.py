"""Twins: durable stand-ins of the user's objects.

A twin is an instance of a subclass of its original's class and shares the original's state: what one of them is told,
the other knows. So models keep what the SDK looks for in them, agents can be changed while they run, and nothing of the
user's is ever modified.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Seen:
    """An attribute of a twin that reads the shared state through ``convert``.

    ``once``: one value gives one and the same object each time, as the SDK expects of a tool's function. Not for lists,
    which change in place.
    """

    def __init__(self, name: str, convert: Callable[[Any, Any], Any], *, once: bool = False) -> None:
        self.name = name
        self.convert = convert
        self.once = once

    def __get__(self, twin: Any, owner: type | None = None) -> Any:
        if twin is None:
            return self
        value = twin.__dict__.get(self.name)
        if not self.once:
            return self.convert(twin, value)
        known = getattr(twin, "kitaru_seen", None)
        if known is None or known[0] is not value:
            twin.kitaru_seen = known = (value, self.convert(twin, value))
        return known[1]

    def __set__(self, twin: Any, value: Any) -> None:
        twin.__dict__[self.name] = value


class Twins(Generic[T]):
    """The twins of one kind of object: one for each original, as long as that lives.

    Args:
        mixin: what twins do otherwise; it comes before the original's class.
    """

    def __init__(self, mixin: type) -> None:
        self.mixin = mixin
        self._classes: dict[type, type] = {}
        self._known: dict[int, tuple[weakref.ref[Any], Any]] = {}

    def of(self, original: T) -> T:
        """The twin of an object; a twin is its own."""
        if isinstance(original, self.mixin):
            return original
        known = self._known.get(id(original))
        if known is not None and known[0]() is original:
            return known[1]  # type: ignore[no-any-return]
        twin = self.make(original)
        key = id(original)
        self._known[key] = (weakref.ref(original, lambda _: self._known.pop(key, None)), twin)
        return twin

    def make(self, original: T) -> T:
        """A twin of its own, not shared with others."""
        kind: Any = type(original)
        made = self._classes.get(kind)
        if made is None:
            names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
            made = self._classes[kind] = type(kind)(kind.__name__, (self.mixin, kind), names)
        twin: Any = object.__new__(made)
        for slot in slots(kind):
            if hasattr(original, slot):
                object.__setattr__(twin, slot, getattr(original, slot))
        object.__setattr__(twin, "__dict__", original.__dict__)
        object.__setattr__(twin, "kitaru_original", weakref.ref(original))
        return twin  # type: ignore[no-any-return]

    def original(self, value: T) -> T:
        """The object that ``value`` is the twin of; any other object itself."""
        reference = getattr(value, "kitaru_original", None) if isinstance(value, self.mixin) else None
        found = reference() if reference is not None else None
        return value if found is None else found


class Mirror(list[Any]):
    """A list of twins that is the view of a list of originals: whoever changes it changes that."""

    def __init__(self, originals: list[Any], twin: Callable[[Any], Any]) -> None:
        super().__init__(map(twin, originals))
        self._originals = originals


def _mirrored(name: str) -> Callable[..., Any]:
    change = getattr(list, name)

    def changed(self: Mirror, *args: Any, **kwargs: Any) -> Any:
        change(self._originals, *args, **kwargs)
        return change(self, *args, **kwargs)

    return changed


for _name in ("append", "extend", "insert", "pop", "clear", "reverse", "__setitem__", "__delitem__", "__iadd__"):
    setattr(Mirror, _name, _mirrored(_name))


def slots(kind: type) -> list[str]:
    """Names of the attributes that instances of a class keep outside their ``__dict__``."""
    found: list[str] = []
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        found += [slots] if isinstance(slots, str) else list(slots)
    return [slot for slot in found if slot not in ("__dict__", "__weakref__")]
