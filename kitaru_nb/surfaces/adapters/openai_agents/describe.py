"""A request to a model in readable values: what identifies it, and what people see. No secrets, nothing random."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from agents import FunctionTool
from pydantic import BaseModel

from kitaru_nb.core.engine import digest
from kitaru_nb.surfaces.adapters.plain import is_json

#: The first arguments of a model's methods, in their order.
_POSITIONAL = ("system_instructions", "input", "model_settings", "tools", "output_schema", "handoffs", "tracing")

#: Settings that don't change the answer, differ from run to run, or hold secrets.
_UNSAID_SETTINGS = frozenset({"extra_headers", "retry", "timeout", "preserve_raw_usage"})
_UNSAID_TOOL_FIELDS = frozenset({"headers", "authorization", "api_key"})


def request(model: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a model call by name; what isn't set is left out."""
    given = dict(zip(_POSITIONAL, args, strict=False)) | dict(kwargs)
    schema = given.get("output_schema")
    found = {
        "instructions": given.get("system_instructions"),
        "input": given.get("input"),
        "tools": [_tool(tool) for tool in given.get("tools") or ()],
        "handoffs": [_handoff(handoff) for handoff in given.get("handoffs") or ()],
        "output_schema": None if schema is None else _schema(schema),
        "model": model_name(model),
        "settings": _settings(given.get("model_settings")),
        "prompt": _plain(given.get("prompt")),
        "previous_response_id": given.get("previous_response_id"),
        "conversation_id": given.get("conversation_id"),
    }
    return {name: value for name, value in found.items() if value not in (None, [], {})}


def asking(
    args: Sequence[Any], kwargs: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Arguments of a model's method with other values of ``instructions`` and ``input``."""
    names = {"instructions": "system_instructions"}
    given = {names.get(name, name): value for name, value in values.items()}
    args = [given.pop(name, value) for name, value in zip(_POSITIONAL, args, strict=False)] + list(
        args[len(_POSITIONAL) :]
    )
    return args, {**kwargs, **given}


def model_name(model: Any) -> str:
    """The name that a model goes by with its provider, or that of its class."""
    name = getattr(model, "model", None)
    return name if isinstance(name, str) and name else type(model).__name__


def _tool(tool: Any) -> dict[str, Any]:
    if isinstance(tool, FunctionTool):
        return {"name": tool.name, "description": tool.description, "parameters": tool.params_json_schema}
    return {"name": str(getattr(tool, "name", "")), "type": type(tool).__name__} | _fields(tool, _UNSAID_TOOL_FIELDS)


def _handoff(handoff: Any) -> dict[str, Any]:
    return {
        "name": handoff.tool_name,
        "description": handoff.tool_description,
        "parameters": handoff.input_json_schema,
        "agent": handoff.agent_name,
    }


def _schema(schema: Any) -> Any:
    return schema.name() if schema.is_plain_text() else {"name": schema.name(), "schema": schema.json_schema()}


def _settings(settings: Any) -> dict[str, Any]:
    found = {} if settings is None else _fields(settings, _UNSAID_SETTINGS)
    extra = found.get("extra_args")
    if isinstance(extra, dict):
        # The SDK makes up a cache key for each run.
        found["extra_args"] = {name: value for name, value in extra.items() if name != "prompt_cache_key"}
    return {name: value for name, value in found.items() if value not in (None, {})}


def _fields(value: Any, unsaid: frozenset[str]) -> dict[str, Any]:
    """The fields of a dataclass that JSON can say."""
    found = {}
    for field in dataclasses.fields(value):
        if field.name in unsaid or field.name.startswith("_"):
            continue
        said = _plain(getattr(value, field.name), unsaid)
        if said is not None and is_json(said):
            found[field.name] = said
    return found


def _plain(value: Any, unsaid: frozenset[str] = frozenset()) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True, by_alias=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value, unsaid)
    if isinstance(value, Mapping):
        return {key: _plain(item, unsaid) for key, item in value.items() if key not in unsaid}
    if isinstance(value, list | tuple):
        return [_plain(item, unsaid) for item in value]
    return value


def schema_digest(tool: Any) -> str | None:
    """Identifies the parameters of a function tool."""
    schema = getattr(tool, "params_json_schema", None)
    return None if schema is None else digest(str(tool.name), repr(_sorted(schema)))


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sorted((str(key), _sorted(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return repr(value)
