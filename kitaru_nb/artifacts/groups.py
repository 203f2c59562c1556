"""Variables of a notebook that share objects: one pickle, so that they share them again when they come back."""

from __future__ import annotations

import io
import pickle
import sys
from typing import Any

from kitaru_nb.artifacts import arrays
from kitaru_nb.artifacts.images import close_window
from kitaru_nb.artifacts.pickles import PickleSerializer
from kitaru_nb.artifacts.protocol import Unfit


class GroupSerializer(PickleSerializer):
    """Variables that share objects, as a dictionary by name. Plain pickle, and arrays that look into one memory do so
    again; a figure comes back without a window."""

    name = "group"

    def dump(self, value: Any) -> bytes:
        buffer = io.BytesIO()
        try:
            _GroupPickler(buffer, value).dump(value)
        except Exception as error:  # a class may raise whatever it likes from its own pickling
            raise Unfit(f"pickle: {error}") from error
        return buffer.getvalue()

    def load(self, data: bytes) -> Any:
        value = pickle.loads(data)
        for item in value.values():
            close_window(item)
        return value


class _GroupPickler(pickle.Pickler):
    def __init__(self, file: Any, group: dict[str, Any]) -> None:
        super().__init__(file, protocol=5)
        numpy = sys.modules.get("numpy")
        self._kind = numpy and numpy.ndarray
        views = [item for item in group.values() if numpy and type(item) is self._kind]
        shown: dict[int, int] = {}
        for view in views:
            owner = arrays.owner_of(view)
            shown[id(owner)] = shown.get(id(owner), 0) + view.nbytes
        # A memory of which hardly anything can be seen any more isn't worth keeping whole.
        self._owners = {id(o) for o in map(arrays.owner_of, views) if shown[id(o)] * 2 >= o.nbytes}

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is not self._kind or obj.base is None:
            return NotImplemented
        owner = arrays.owner_of(obj)
        if owner is obj or id(owner) not in self._owners:
            return NotImplemented
        return arrays.view_of, (owner, *arrays.place_in(owner, obj))
