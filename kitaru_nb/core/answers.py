"""What fits as the answer of a wait, and how that is said."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from kitaru_nb.core.engine import WaitRequest
from kitaru_nb.errors import KitaruWaitValidationError
from kitaru_nb.model import Event, Wait


def validate(wait: Wait, value: Any) -> None:
    """Check an answer against the wait's JSON Schema. Raises `KitaruWaitValidationError`."""
    import fastjsonschema

    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise KitaruWaitValidationError(
            f"{_shown(value)} is no answer for wait {wait.name!r}: it isn't JSON ({error}). "
            f"Expected {describe_schema(wait.schema)}. The wait stays open.",
            fix=answering(wait, wait.exec_id),
        ) from error
    try:
        fastjsonschema.compile(dict(wait.schema))(value)
    except fastjsonschema.JsonSchemaValueException as error:
        name = error.name or "data"
        where = name.removeprefix("data").lstrip(".")
        problem = error.message.removeprefix(name).strip()
        raise KitaruWaitValidationError(
            f"{_shown(value)} is no answer for wait {wait.name!r}: {where or 'it'} {problem}. "
            f"Expected {describe_schema(wait.schema)}. The wait stays open.",
            fix=answering(wait, wait.exec_id),
        ) from error


def describe_schema(schema: Mapping[str, Any]) -> str:
    """A JSON Schema in a few words."""
    return _described(schema, schema.get("$defs", {}))


def _described(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if (named := _definition(schema, definitions)) is not None:
        return _described(named, definitions)
    if "enum" in schema:
        return "one of " + ", ".join(json.dumps(v) for v in schema["enum"])
    if choices := _choices(schema, definitions):
        return ", or ".join(dict.fromkeys(_described(choice, definitions) for choice in choices))
    plain = {"boolean": "true or false", "string": "a text", "integer": "a whole number", "number": "a number"}
    if schema.get("type") in plain:
        return plain[schema["type"]]
    if schema.get("type") == "object":
        return "an object with " + (", ".join(schema.get("properties", {})) or "any fields")
    return f"JSON that fits {json.dumps(schema)[:300]}"


def _definition(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a local reference means; None where there is none."""
    prefix, _, name = str(schema.get("$ref", "")).rpartition("/")
    return definitions.get(name) if prefix == "#/$defs" else None


def _choices(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The alternatives of ``anyOf`` but null, those that are typed quickest first."""
    found = [c for c in schema.get("anyOf", ()) if c.get("type") != "null"]

    def effort(choice: Mapping[str, Any]) -> int:
        kind = (_definition(choice, definitions) or choice).get("type")
        return 0 if kind == "boolean" else 2 if kind in ("object", "array") else 1

    return sorted(found, key=effort)


def example(schema: Mapping[str, Any]) -> str:
    """A value, as typed in a shell, that fits simple schemas. Nothing in it means anything to the shell."""
    value = _example(schema, schema.get("$defs", {}))
    as_it_is = isinstance(value, str) and (schema.get("type") == "string" or not reads_as_json(value))
    return shlex.quote(value if as_it_is else json.dumps(value))


def reads_as_json(text: str) -> bool:
    """Whether a text can be read as JSON."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _example(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Any:
    if (named := _definition(schema, definitions)) is not None:
        return _example(named, definitions)
    for known in ("default", "const"):
        if known in schema:
            return schema[known]
    if schema.get("enum"):
        return schema["enum"][0]
    if choices := _choices(schema, definitions):
        return _example(choices[0], definitions)
    if schema.get("type") == "object":
        return {name: _example(part, definitions) for name, part in schema.get("properties", {}).items()}
    plain = {"boolean": True, "string": "text", "integer": 1, "number": 1.5, "array": [], "null": None}
    return plain.get(schema.get("type", ""), {})


def asked(wait: Wait | WaitRequest) -> str:
    """A wait's name and question."""
    return f"{wait.name!r}: {wait.question}" if wait.question else f"{wait.name!r}."


def answering(wait: Wait | WaitRequest, exec_id: str) -> str:
    """The line that answers a wait, with a value that fits simple schemas."""
    return f"kitaru executions input {exec_id} --wait {shlex.quote(wait.name)} --value {example(wait.schema)}"


def answering_here(wait: Wait | WaitRequest) -> str:
    """The line that answers a wait in its own notebook."""
    return f"%kitaru input {shlex.quote(wait.name)} {example(wait.schema)}"


def answered_at(history: Iterable[Event]) -> float | None:
    """When one of the waits that the last worker let go for was answered, in Unix seconds; None while none is."""
    resolved: dict[str, float] = {}
    waited: list[str] = []
    for event in history:
        if event.kind == "execution.waiting":
            waited = event.body["waits"]
        elif event.kind == "wait.resolved":
            resolved[event.key] = event.at
    return max((resolved[w] for w in waited if w in resolved), default=None)


def _shown(value: Any) -> str:
    try:
        return json.dumps(value)[:200]
    except (TypeError, ValueError):
        return repr(value)[:200]
