"""A streamed message and the same message whole, as JSON: events → message, and message → events."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from typing import Any

#: Kind of a content block → (its text field, the delta that adds to it).
_GROWING = {"text": ("text", "text_delta"), "thinking": ("thinking", "thinking_delta")}


def message_of(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The message that a stream's events make. Fields that this code doesn't know are kept."""
    message: dict[str, Any] = {}
    partial: dict[int, str] = {}
    for event in events:
        match event["type"]:
            case "message_start":
                message = copy.deepcopy(dict(event["message"]))
                message.setdefault("content", [])
            case "content_block_start":
                message["content"].append(copy.deepcopy(dict(event["content_block"])))
            case "content_block_delta":
                _grow(message["content"][event["index"]], event["delta"], partial, event["index"])
            case "content_block_stop":
                if text := partial.pop(event["index"], ""):
                    message["content"][event["index"]]["input"] = json.loads(text)
            case "message_delta":
                message |= event["delta"]
                usage = {name: value for name, value in event.get("usage", {}).items() if value is not None}
                message["usage"] = message.get("usage", {}) | usage
                message |= {name: event[name] for name in event if name not in ("type", "delta", "usage")}
    return message


def _grow(block: dict[str, Any], delta: Mapping[str, Any], partial: dict[int, str], index: int) -> None:
    if delta["type"] == "input_json_delta":
        partial[index] = partial.get(index, "") + delta["partial_json"]
    elif delta["type"] == "citations_delta":
        block["citations"] = [*(block.get("citations") or []), delta["citation"]]
    else:
        for name, value in delta.items():
            if name != "type":
                before = block.get(name)
                block[name] = before + value if isinstance(before, str) and isinstance(value, str) else value


def events_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Events that make this message: one piece for each block of text, thinking or tool input."""
    ending = ("stop_reason", "stop_sequence")
    start = {**message, "content": [], **{name: None for name in ending if name in message}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(message.get("content", ())):
        first, delta = dict(block), None
        if block["type"] in _GROWING:
            field, kind = _GROWING[block["type"]]
            first[field], delta = "", {"type": kind, field: block.get(field, "")}
        elif isinstance(block.get("input"), Mapping) and block["input"]:
            first["input"] = {}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"], ensure_ascii=False)}
        events.append({"type": "content_block_start", "index": index, "content_block": first})
        if delta is not None:
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    events.append(
        {
            "type": "message_delta",
            "delta": {name: message.get(name) for name in ending},
            "usage": dict(message.get("usage", {})),
        }
    )
    events.append({"type": "message_stop"})
    return events
