"""Inputs of a deployment: checked against its schema before anything starts."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from typing import Any

from kitaru_nb.core.answers import describe_schema, example
from kitaru_nb.core.flow import Flow
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.model import Deployment


def hints_of(flow: Flow[..., Any]) -> dict[str, Any]:
    """The types of a flow's inputs; empty where its annotations can't be resolved."""
    try:
        return typing.get_type_hints(flow.func, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def checked(deployment: Deployment, given: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs as JSON values, with a flow's defaults filled in; those of a notebook are in the notebook.

    Raises:
        KitaruUsageError: an input is unknown, missing, or doesn't fit; says what is expected.
    """
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    schema = dict(deployment.parameters)
    known: Mapping[str, Any] = schema.get("properties", {})
    unknown = [n for n in given if n not in known]
    if unknown and schema.get("additionalProperties") is False:
        raise KitaruUsageError(
            f"{deployment.deployment_id} has no input {unknown[0]!r}. Inputs are: {', '.join(known) or 'none'}.",
            fix=_line(deployment),
        )
    try:
        values: dict[str, Any] = to_jsonable_python(dict(given))
    except PydanticSerializationError as error:
        raise KitaruUsageError(f"An input can't be sent as JSON: {error}.", fix=_line(deployment)) from error
    if deployment.kind == "function":
        values = {n: s["default"] for n, s in known.items() if "default" in s} | values
    for name in schema.get("required", ()):
        if name not in values:
            raise KitaruUsageError(
                f"{deployment.deployment_id} needs the input {name!r} ({describe_schema(known[name])}).",
                fix=_line(deployment),
            )
    for name, value in values.items():
        own = {**known.get(name, {}), "$defs": schema.get("$defs", {})}
        check_value(f"Input {name!r} of {deployment.deployment_id}", name, value, own, _line(deployment))
    return values


def check_value(what: str, name: str, value: Any, schema: Mapping[str, Any], fix: str) -> None:
    """Raises `KitaruUsageError` for a JSON value that doesn't fit; ``what`` it is, for the message."""
    import fastjsonschema

    try:
        fastjsonschema.compile(dict(schema))(value)
    except fastjsonschema.JsonSchemaValueException as error:
        shown = json.dumps(value, ensure_ascii=False)[:80]
        raise KitaruUsageError(
            f"{what} is {shown}; expected {describe_schema(schema)} ({error.message.replace('data', name, 1)}).",
            fix=fix,
        ) from error


def _line(deployment: Deployment) -> str:
    known: Mapping[str, Any] = deployment.parameters.get("properties", {})
    definitions = deployment.parameters.get("$defs", {})
    needed = deployment.parameters.get("required", ()) or list(known)[:1]
    given = " ".join(f"-i {n}={example({**known[n], '$defs': definitions})}" for n in needed if n in known)
    return f"kitaru invoke {deployment.flow} --version {deployment.version} {given}".rstrip()
