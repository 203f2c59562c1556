"""What runs and tools do to a context, kept with their calls: one that isn't made again can't do it again.

Watched are the entries of a mapping, or the attributes of any other object, as far as they can be kept.
"""

from __future__ import annotations

import hashlib
import inspect
import pickle
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from kitaru_nb.artifacts.store import ArtifactStore
from kitaru_nb.errors import KitaruSerializationError
from kitaru_nb.surfaces.adapters.base import Part
from kitaru_nb.surfaces.adapters.openai_agents import sdk
from kitaru_nb.surfaces.adapters.openai_agents.twins import slots


@dataclass(slots=True)
class Changes:
    """Those of one run and of the runs inside it, in the order in which they were kept.

    Attributes:
        number: of the latest.
        latest: entry → number of the change that it shows.
    """

    number: int = 0
    latest: dict[Any, int] = field(default_factory=dict)

    def next(self, names: Iterable[Any]) -> int:
        """The number of a change of these entries that is kept now."""
        self.number += 1
        self.latest |= dict.fromkeys(names, self.number)
        return self.number

    def again(self, context: Any, kept: Mapping[str, Any]) -> None:
        """Make a recorded change once more. Of calls side by side the one that was kept last counts, whichever is
        found first."""
        number = kept["number"]
        self.number = max(self.number, number)
        for name in [*kept["set"], *kept["gone"]]:
            if number < self.latest.get(name, 0):
                continue
            self.latest[name] = number
            if name in kept["set"]:
                _set(context, name, kept["set"][name])
            elif name in _entries(context):
                _delete(context, name)


class Watch:
    """A context while a call is made."""

    def __init__(self, context: Any, store: ArtifactStore) -> None:
        self.context = context
        self.store = store
        self.before = {name: _mark(value, store) for name, value in _entries(context).items()}

    def part(self, changes: Changes) -> list[Part]:
        """What the call has changed, as a part of its record; none where it has changed nothing."""
        now = _entries(self.context)
        changed = {}
        for name, value in now.items():
            mark = _mark(value, self.store)
            if mark is not None and mark != self.before.get(name):
                changed[name] = value
        if not _keeps(changed, self.store):
            changed = {name: value for name, value in changed.items() if _keeps(value, self.store)}
        gone = [name for name in self.before if name not in now]
        if not changed and not gone:
            return []
        kept = {"number": changes.next([*changed, *gone]), "set": changed, "gone": gone}
        names = [name for name in map(str, [*changed, *gone]) if not name.startswith("__")]
        return [Part("context", kept, "context", f"changed {', '.join(names)}")]


def gets_context(tool: Any) -> bool:
    """Whether a tool is handed the context; so it is where the SDK doesn't tell the function behind it."""
    function = sdk.function_of(tool)
    if function is None:
        return not sdk.is_mcp_tool(tool)
    first = next(iter(inspect.signature(function).parameters.values()), None)
    return first is not None and "Context" in str(first.annotation)


def _entries(context: Any) -> dict[Any, Any]:
    if isinstance(context, Mapping):
        return dict(context)
    in_slots = {name: getattr(context, name) for name in slots(type(context)) if hasattr(context, name)}
    return in_slots | getattr(context, "__dict__", {})


def _set(context: Any, name: Any, value: Any) -> None:
    if isinstance(context, MutableMapping):
        context[name] = value
    else:
        object.__setattr__(context, name, value)


def _delete(context: Any, name: Any) -> None:
    if isinstance(context, MutableMapping):
        del context[name]
    else:
        object.__delattr__(context, name)


def _mark(value: Any, store: ArtifactStore) -> str | None:
    """Tells whether a value has changed; None where that can't be told."""
    try:
        return store.token(value) or hashlib.sha256(pickle.dumps(value)).hexdigest()
    except Exception:  # whatever somebody's own way to be pickled raises
        return None


def _keeps(value: Any, store: ArtifactStore) -> bool:
    try:
        store.write(value, name="context")
    except KitaruSerializationError:
        return False
    return True
