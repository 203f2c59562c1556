"""The OpenAPI document, made of the table of operations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from kitaru_nb import __version__
from kitaru_nb.surfaces.operations.base import Change, Content, Follow, Operation
from kitaru_nb.surfaces.operations.table import OPERATIONS

_REF = "#/components/schemas/{model}"
_ERRORS = {
    400: "An argument can't be right.",
    401: "There is no token, or it isn't valid.",
    403: "The caller's role doesn't allow this.",
    404: "There is no such thing.",
    409: "It isn't in a state in which this can be done, or somebody was faster.",
    413: "The body is too large.",
    421: "The server has no such name.",
    422: "The answer doesn't fit the wait's schema; the wait stays open.",
    429: "Too many tries; Retry-After says when the next one counts.",
    501: "This isn't offered here.",
    503: "Journal or store can't be reached or read.",
    504: "It took too long.",
}
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message", "fix"],
            "properties": {
                "type": {"type": "string"},
                "message": {"type": "string"},
                "fix": {"type": ["string", "null"]},
                "details": {"type": "object"},
            },
        }
    },
}
#: Headers that mean something, by the type of an operation's result.
_HEADERS: dict[Any, dict[str, str]] = {
    Content: {
        "Range": "One range of bytes, such as bytes=0-1023.",
        "If-Range": "The ETag that the range is of; of another version, all is sent.",
        "If-None-Match": "The ETag that the caller has already.",
    },
    Follow: {"Last-Event-ID": "The id of the last event that came: the stream goes on after it."},
}


class _Schemas(GenerateJsonSchema):
    """JSON Schema of what `kitaru_nb.model.to_json` writes: without bytes, with every field present."""

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        found = super().dataclass_schema(schema)
        properties = found.get("properties", {})
        for name in ("data", "blob"):
            properties.pop(name, None)
        found["required"] = list(properties)
        return found

    def named_tuple_schema(self, schema: Any) -> JsonSchemaValue:
        """A named tuple: an object here."""
        return self._object(schema["fields"])

    def call_schema(self, schema: Any) -> JsonSchemaValue:
        """A named tuple, as pydantic before 2.14 knows it: a call of its class."""
        return self._object(schema["arguments_schema"]["arguments_schema"])

    def _object(self, fields: Sequence[Any]) -> JsonSchemaValue:
        properties = {field["name"]: self.generate_inner(field["schema"]) for field in fields}
        return {"type": "object", "properties": properties, "required": list(properties)}


def document() -> dict[str, Any]:
    """The document."""
    schemas: dict[str, Any] = {"Error": _ERROR_SCHEMA}
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(f"/{operation.path}", {})[operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kitaru_nb",
            "version": __version__,
            "description": "Executions, waits and artifacts of durable flows.",
        },
        "servers": [{"url": "../api"}],  # as seen from the document itself, which is api/openapi.json
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.help,
        "description": f"Role: {operation.role}.",
        "tags": [operation.name.partition(".")[0]],
        "parameters": _parameters(operation, schemas),
        "responses": _responses(operation, schemas),
    }
    if operation.method == "POST":
        schema, required = _body(operation, schemas)
        found["requestBody"] = {"required": required, "content": {"application/json": {"schema": schema}}}
    return found


def arguments_schema(operation: Operation) -> dict[str, Any]:
    """JSON Schema of all arguments of an operation, as an MCP client needs it."""
    return operation.arguments.model_json_schema(by_alias=True)


def _model(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    found = operation.arguments.model_json_schema(by_alias=True, ref_template=_REF)
    schemas.update(found.pop("$defs", {}))
    return found


def _parameters(operation: Operation, schemas: dict[str, Any]) -> list[dict[str, Any]]:
    model = _model(operation, schemas)
    parameters = []
    for name, schema in model.get("properties", {}).items():
        in_path = name in operation.path_parameters
        if not in_path and operation.method == "POST":
            continue
        required = in_path or name in model.get("required", ())
        place = "path" if in_path else "query"
        parameters.append({"name": name, "in": place, "required": required, "schema": schema})
    for name, text in _HEADERS.get(operation.result, {}).items():
        kind = {"type": "string"}
        parameters.append({"name": name, "in": "header", "required": False, "description": text, "schema": kind})
    return parameters


def _body(operation: Operation, schemas: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    model = _model(operation, schemas)
    model["properties"] = {n: s for n, s in model.get("properties", {}).items() if n not in operation.path_parameters}
    model["required"] = [name for name in model.get("required", ()) if name in model["properties"]]
    return model, bool(model["required"])


def _responses(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    if operation.result is Content:
        good: dict[str, Any] = {"*/*": {"schema": {}}}
        found: dict[str, Any] = {"200": {"description": "All bytes.", "content": good}}
        found["206"] = {"description": "A range of them.", "content": good}
        found |= {"304": {"description": "Not changed."}, "416": {"description": "There is no such range."}}
    elif operation.result is Follow:
        _result(Change, schemas)
        text = "Server-sent events; the data of a `change` is a Change."
        found = {"200": {"description": text, "content": {"text/event-stream": {"schema": {"type": "string"}}}}}
    else:
        schema = _result(operation.result, schemas)
        found = {"200": {"description": "Done.", "content": {"application/json": {"schema": schema}}}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    found |= {str(status): {"description": text, "content": error} for status, text in _ERRORS.items()}
    return found


def _result(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema of a result; what it refers to is added to ``schemas``."""
    found = TypeAdapter(kind).json_schema(mode="serialization", ref_template=_REF, schema_generator=_Schemas)
    schemas.update(found.pop("$defs", {}))
    name = kind.__name__ if dataclasses.is_dataclass(kind) and isinstance(kind, type) else None
    if name is None or "$ref" in found:
        return found
    schemas[name] = found
    return {"$ref": _REF.format(model=name)}
