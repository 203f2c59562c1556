"""What models and tools gave back, as values that are the same after every resume."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from agents import ModelResponse, Usage
from agents.items import TResponseOutputItem
from openai._models import construct_type
from openai.types.responses import ResponseOutputMessage, ResponseOutputText
from pydantic import BaseModel, TypeAdapter, ValidationError

from kitaru_nb.artifacts.store import ArtifactStore
from kitaru_nb.errors import KitaruSerializationError, KitaruUsageError
from kitaru_nb.surfaces.adapters.openai_agents import sdk
from kitaru_nb.surfaces.adapters.plain import has_set, in_short, is_json

VERSION = 1


@functools.lru_cache(maxsize=1)
def _items() -> TypeAdapter[Any]:
    return TypeAdapter(TResponseOutputItem)


@functools.lru_cache(maxsize=1)
def _usages() -> TypeAdapter[Any]:
    return TypeAdapter(Usage)


def pack_response(response: ModelResponse) -> dict[str, Any]:
    """A model's answer as JSON. Fields that weren't set stay unset: nulls would be in the next request."""
    packed = {
        "v": VERSION,
        "sdk": sdk.VERSION,
        "output": [_pack_item(item) for item in response.output],
        "usage": _usages().dump_python(response.usage, mode="json", warnings=False),
        "response_id": response.response_id,
    }
    for name in ("request_id", "raw_usage"):
        if (value := getattr(response, name, None)) is not None:
            packed[name] = value
    return packed


def _pack_item(item: Any) -> Any:
    if isinstance(item, BaseModel):
        return item.model_dump(mode="json", exclude_unset=True, by_alias=True, warnings=False)
    return item


def unpack_response(packed: Any) -> ModelResponse:
    """The answer again. A text or a value instead of it (an override) becomes an answer that says so.

    Raises:
        KitaruUsageError: an object that is no answer.
    """
    if isinstance(packed, str):
        return _said(packed)
    if not isinstance(packed, Mapping) or "output" not in packed:
        raise KitaruUsageError(
            f"The recorded answer of a model is {str(packed)[:100]}; expected a text, or an object with 'output'.",
            fix='overrides={"checkpoint.NAME": "the text that the model should have answered"}',
        )
    more = {name: packed[name] for name in ("request_id", "raw_usage") if packed.get(name) is not None}
    output = [_unpack_item(item) for item in packed["output"]]
    return ModelResponse(
        output=output, usage=_unpack_usage(packed.get("usage")), response_id=packed.get("response_id"), **more
    )


def _unpack_item(item: Any) -> Any:
    if not isinstance(item, Mapping) or not isinstance(item.get("type"), str):
        raise KitaruUsageError(
            f"An item of a model's answer is {str(item)[:100]}; expected an object with 'type', as providers send it.",
            fix='overrides={"checkpoint.NAME": "the text that the model should have answered"}',
        )
    try:
        return _items().validate_python(item)
    except ValidationError:
        # A kind of item that this version doesn't know: built leniently, as the client builds it from the network.
        return construct_type(type_=TResponseOutputItem, value=item)


def _unpack_usage(packed: Any) -> Usage:
    if not packed:
        return Usage()
    try:
        return _usages().validate_python(packed)  # type: ignore[no-any-return]
    except ValidationError:  # written by another version: the sums are the same in all
        plain = ("requests", "input_tokens", "output_tokens", "total_tokens")
        return Usage(**{name: packed.get(name, 0) for name in plain})


def _said(text: str) -> ModelResponse:
    content = ResponseOutputText(type="output_text", text=text, annotations=[])
    message = ResponseOutputMessage(
        id="msg_override", type="message", role="assistant", status="completed", content=[content]
    )
    return ModelResponse(output=[message], usage=Usage(), response_id=None)


def gist(response: ModelResponse) -> str:
    """One line: what a model said, or which tools it asked for."""
    said: list[str] = []
    calls: list[tuple[str, Any]] = []
    items: list[Any] = list(response.output)
    for item in items:
        kind = getattr(item, "type", None)
        if kind == "message":
            said += [text for part in item.content if (text := getattr(part, "text", None))]
        elif kind == "function_call":
            calls.append((item.name, parsed(item.arguments)))
        elif kind != "reasoning" and kind is not None:
            said.append(f"[{kind}]")
    return in_short(" ".join(said), calls)


def parsed(arguments: str) -> Any:
    """Arguments of a tool call as JSON, or their text when they are none."""
    try:
        return json.loads(arguments) if arguments else {}
    except ValueError:
        return arguments


# results of tools


def settled(value: Any, store: ArtifactStore) -> Any:
    """A tool's result in the form in which it comes back after a resume: what the model sees must not change.

    JSON and the SDK's own output types stay as they are, and so does any value that the store gives back exactly and
    whose text is the same in every process. Everything else becomes its text, which is what the model sees of it.
    """
    if is_json(value):
        return value
    text = str(value)
    if " at 0x" in text or has_set(value):
        return text
    try:
        again = store.read(store.write(value, name="result"))
    except KitaruSerializationError:
        return text
    return value if type(again) is type(value) and str(again) == text else text
