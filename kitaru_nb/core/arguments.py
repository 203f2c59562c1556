"""Other arguments for calls that a replay runs again: what may be given, and how it is kept with the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.journal.fold import pack_artifact, unpack_artifact
from kitaru_nb.model import CheckpointCall, Event

#: The one input of an adapter's tool call: the arguments that the model gave, as one object.
WHOLE = "arguments"


def pack_arguments(
    runtime: Runtime, call: CheckpointCall, given: Any, blob: bytearray, *, takes: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """The packed values that ``call`` is to run with, by input.

    Args:
        takes: the inputs that a call of an agent said it could be given.

    Raises:
        KitaruUsageError: the call takes no other arguments, or not these; says which.
        KitaruSerializationError: a value can't be persisted.
    """
    values = _values(call, given, takes)
    return {
        name: pack_artifact(runtime.store.write(value, name=name, kind="input"), blob) for name, value in values.items()
    }


def read_arguments(runtime: Runtime, packed: Mapping[str, Mapping[str, Any]], created: Event) -> dict[str, Any]:
    """Inverse of `pack_arguments`; ``created`` is the event that holds the plan."""
    return {
        name: runtime.store.read(unpack_artifact(body, created.blob, created.exec_id)) for name, body in packed.items()
    }


def _values(call: CheckpointCall, given: Any, takes: Sequence[str]) -> Mapping[str, Any]:
    names = [i.name for i in call.inputs if not takes or i.name in takes]
    if call.checkpoint_type == "cell" or any(a.names for a in call.artifacts):
        raise KitaruUsageError(
            f"{call.selector!r} is a cell: it reads the notebook's variables and takes no arguments.",
            fix="override the checkpoint that sets the variable: overrides={'checkpoint.NAME': {'variable': value}}",
        )
    if WHOLE in names and not _is_function(call):
        if not isinstance(given, Mapping | str):
            raise KitaruUsageError(
                f"The arguments of {call.selector!r} are {given!r}; expected a mapping, as a model gives them.",
                fix=f"overrides={{'arguments.{call.selector}': {{'NAME': value}}}}",
            )
        return {WHOLE: given}
    if not takes and call.artifacts and not _is_function(call):
        raise KitaruUsageError(
            f"{call.selector!r} is of type {call.checkpoint_type} and takes no other arguments; functions under "
            "@checkpoint, tool calls and requests to models do.",
            fix=f"overrides={{'checkpoint.{call.selector}': value}}",
        )
    line = f"overrides={{'arguments.{call.selector}': {{{names[0]!r}: value}}}}" if names else None
    if not names:
        raise KitaruUsageError(f"{call.selector!r} has no inputs, so it can't run with other ones.", fix=line)
    if not isinstance(given, Mapping) or not given:
        raise KitaruUsageError(
            f"The arguments of {call.selector!r} are {given!r}; expected a mapping with some of its inputs: "
            f"{', '.join(names)}.",
            fix=line,
        )
    if unknown := [name for name in given if name not in names]:
        raise KitaruUsageError(
            f"{call.selector!r} {'takes no other' if takes else 'has no input'} {unknown[0]!r}. "
            f"Inputs are: {', '.join(names)}.",
            fix=line,
        )
    return given


def _is_function(call: CheckpointCall) -> bool:
    """Whether a call was one of a function under @checkpoint: its one output is named as it is. One that never
    completed is known by its inputs only."""
    if not call.artifacts:
        return all(i.name != WHOLE for i in call.inputs)
    return [a.name for a in call.artifacts] == [call.name]
