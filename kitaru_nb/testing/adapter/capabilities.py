"""What an adapter can't do by the nature of its SDK: the tests that need it aren't among those of its subclass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_NEEDED = "kitaru_capability"


class Capabilities:
    """Says what holds for an adapter; all does, unless a subclass says otherwise.

    Attributes:
        records_model_calls: model calls are checkpoints. Not where the SDK makes them in a process of its own.
        streams: the adapter hands on a model's answer while it comes.
        reports_malformed_answers: an answer that isn't JSON fails the run. Not where the SDK asks again by itself.
    """

    records_model_calls: ClassVar[bool] = True
    streams: ClassVar[bool] = True
    reports_malformed_answers: ClassVar[bool] = True

    def __init_subclass__(cls, **options: Any) -> None:
        """Leave out the tests that need what the adapter can't do."""
        super().__init_subclass__(**options)
        for name in dir(cls):
            needed = getattr(getattr(cls, name), _NEEDED, None)
            if needed is not None and not getattr(cls, needed):
                setattr(cls, name, None)


def needs(capability: str) -> Callable[[F], F]:
    """Marks a test that holds only for adapters with this capability, one of the attributes of `Capabilities`."""
    getattr(Capabilities, capability)  # a misspelled one would leave out nothing

    def marked(test: F) -> F:
        setattr(test, _NEEDED, capability)
        return test

    return marked
