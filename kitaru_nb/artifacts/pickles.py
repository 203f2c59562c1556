"""Pickle, for what no other serializer can hold.

Plain pickle keeps classes and functions by their name, so a value meets the definitions of the process that loads it.
Only what has no name (lambdas, local and re-defined classes) goes through cloudpickle, which brings its own copy of
them. Neither gives equal bytes for equal values, so pickled values have no token.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

from kitaru_nb.artifacts import denylist
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


def _pickler() -> Any:
    import cloudpickle

    class Careful(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            # Cloudpickle would store an open text file as its content.
            if reason := denylist.reason(type(obj)):
                raise pickle.PicklingError(f"it holds {reason.what}")
            return super().reducer_override(obj)

    return Careful
