"""Pickle, for what no other serializer can hold.

Plain pickle keeps classes and functions by their name, so a value meets the definitions of the process that loads it.
Only what has no name (lambdas, local and re-defined classes) goes through cloudpickle, which brings its own copy of
them. Neither gives equal bytes for equal values, so pickled values have no token.
"""

from __future__ import annotations

import io
import pickle
import sys
from typing import Any

from kitaru_nb.artifacts import arrays, denylist, images
from kitaru_nb.artifacts.protocol import Serializer, Unfit


class PickleSerializer(Serializer):
    """Plain pickle, protocol 5: classes and functions by reference."""

    name = "pickle"
    media_type = "application/x-python-pickle"
    executes = True

    def accepts(self, value: Any) -> bool:
        return True

    def dump(self, value: Any) -> bytes:
        try:
            return pickle.dumps(value, protocol=5)
        except Exception as error:  # a class may raise whatever it likes from its own pickling
            raise Unfit(f"pickle: {error}") from error

    def load(self, data: bytes) -> Any:
        return pickle.loads(data)


class CloudpickleSerializer(PickleSerializer):
    """Cloudpickle: classes and functions without a name by value. Refuses what `denylist` refuses, at any depth."""

    name = "cloudpickle"

    def dump(self, value: Any) -> bytes:
        buffer = io.BytesIO()
        try:
            _pickler()(buffer, protocol=5).dump(value)
        except Exception as error:
            raise Unfit(f"cloudpickle: {error}") from error
        return buffer.getvalue()


class GroupSerializer(PickleSerializer):
    """Variables that share objects, as a dictionary by name. Plain pickle, and arrays that look into one memory do so
    again; a figure comes back without a window."""

    name = "group"

    def dump(self, value: Any) -> bytes:
        buffer = io.BytesIO()
        try:
            _GroupPickler(buffer, value).dump(value)
        except Exception as error:  # as above
            raise Unfit(f"pickle: {error}") from error
        return buffer.getvalue()

    def load(self, data: bytes) -> Any:
        value = pickle.loads(data)
        for item in value.values():
            images.close_window(item)
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


def _pickler() -> Any:
    import cloudpickle

    class Careful(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            # Cloudpickle would store an open text file as its content.
            if reason := denylist.reason(type(obj)):
                raise pickle.PicklingError(f"it holds {reason.what}")
            return super().reducer_override(obj)

    return Careful
