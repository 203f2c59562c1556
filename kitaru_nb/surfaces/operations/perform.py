"""Perform an operation: check the role, read the arguments, count the tries, call it. The same for every surface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from kitaru_nb.errors import KitaruStateError, KitaruUsageError
from kitaru_nb.surfaces.operations.base import Caller, Desk, Operation
from kitaru_nb.surfaces.operations.paging import cut


class TooManyTries(KitaruStateError):
    """Somebody asks for this too often; the next try counts in ``seconds``."""

    def __init__(self, seconds: float, message: str = "Too many tries") -> None:
        self.seconds = max(1, int(seconds + 0.999))
        super().__init__(f"{message}; the next one counts in {self.seconds} s.")


def perform(operation: Operation, desk: Desk, caller: Caller, given: Mapping[str, Any]) -> Any:
    """The operation's result.

    Raises:
        KitaruPermissionError: the caller's role doesn't allow it.
        KitaruUsageError: the arguments can't be right.
        TooManyTries: it is asked for too often.
    """
    operation.check_role(caller)
    arguments = parse(operation, given)
    if operation.limited and (seconds := desk.answers.take(caller.account or caller.name)):
        raise TooManyTries(seconds)
    return operation.call(desk, caller, arguments)


_ABOUT_NAMES = {"extra_forbidden": "has no argument", "missing": "needs the argument"}


def parse(operation: Operation, given: Mapping[str, Any]) -> BaseModel:
    """Arguments of an operation. Raises `KitaruUsageError` that names the first one that can't be right."""
    try:
        return operation.arguments.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        # A name that isn't known may be why another one is missing.
        first = min(found, key=lambda each: each["type"] != "extra_forbidden")
        name = cut(".".join(map(str, first["loc"])) or "arguments", 100)
        if first["type"] in _ABOUT_NAMES and len(first["loc"]) == 1:
            fields = operation.arguments.model_fields
            names = ", ".join(field.alias or key for key, field in fields.items()) or "none"
            has = _ABOUT_NAMES[first["type"]]
            raise KitaruUsageError(f"{operation.name} {has} {name!r}. Arguments are: {names}.") from None
        raise KitaruUsageError(f"{operation.name}: {name}: {first['msg']}.") from None
