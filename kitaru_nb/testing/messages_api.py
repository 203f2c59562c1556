"""Anthropic's Messages interface in the words of Chat Completions, which the small offline model is asked in."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.testing.language_model import MODEL_NAME, Generated, Plan

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def as_chat(request: Mapping[str, Any]) -> dict[str, Any]:
    """The same request as one for Chat Completions.

    Tools that the provider would run by itself are left out, and so are contents that aren't text.

    Raises:
        KitaruUsageError: it is no Messages request.
    """
    try:
        chat = {
            "messages": [*_system(request.get("system")), *_messages(request["messages"])],
            "max_tokens": request["max_tokens"],
        }
        tools = [_function(tool) for tool in request.get("tools") or () if "input_schema" in tool]
        choice = request.get("tool_choice") or {"type": "auto"}
        named = {"type": "function", "function": {"name": choice.get("name")}}
        return chat | {"tools": tools, "tool_choice": _CHOICES.get(choice["type"], named)}
    except (AttributeError, KeyError, TypeError) as error:
        raise KitaruUsageError(f"This is no Messages request: {error!r}.") from error


def _system(system: Any) -> Iterator[dict[str, Any]]:
    if system:
        yield {"role": "system", "content": _text(system)}


def _messages(messages: Any) -> Iterator[dict[str, Any]]:
    for message in messages:
        content = message["content"]
        blocks = [] if isinstance(content, str) else content
        results = [_text(block.get("content") or "") for block in blocks if block["type"] == "tool_result"]
        for result in results[:-1]:
            yield {"role": "tool", "content": result}
        text = _text(content)
        if results:
            # What agents write beside a result is a remark on it, and no new question.
            yield {"role": "tool", "content": f"{results[-1]}\n{text}".strip()}
        elif text:
            yield {"role": message["role"], "content": text}


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if block["type"] == "text")


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "description": tool.get("description"), "parameters": tool["input_schema"]}
    return {"type": "function", "function": function}


def message(request: Mapping[str, Any], asked: Plan, answer: Generated) -> dict[str, Any]:
    """The answer as a message."""
    content: dict[str, Any] = {"type": "text", "text": answer.text}
    if asked.tool:
        content = _tool_use(asked.tool) | {"input": json.loads(answer.text)}
    usage = {"input_tokens": answer.prompt_tokens, "output_tokens": answer.completion_tokens}
    return _head(request) | {"content": [content], "stop_reason": _stop_reason(asked, answer), "usage": usage}


class MessageEvents:
    """Server-sent events of one message; they begin with the first piece, so that a refusal is still a 4xx.

    Args:
        send: takes the name and the body of each event.
    """

    def __init__(self, request: Mapping[str, Any], asked: Plan, send: Callable[[str, Mapping[str, Any]], None]) -> None:
        self._request, self._asked, self._send = request, asked, send
        self._begun = False

    def text(self, piece: str) -> None:
        """A piece of the answer."""
        self._begin()
        self._delta({"type": "text_delta", "text": piece})

    def end(self, answer: Generated) -> None:
        """The rest: a tool's arguments, and what the message took."""
        self._begin()
        if self._asked.tool:
            self._delta({"type": "input_json_delta", "partial_json": answer.text})
        self._event("content_block_stop", index=0)
        # The tokens of the prompt are known only now; clients take them from here too.
        usage = {"input_tokens": answer.prompt_tokens, "output_tokens": answer.completion_tokens}
        ended = {"stop_reason": _stop_reason(self._asked, answer), "stop_sequence": None}
        self._event("message_delta", delta=ended, usage=usage)
        self._event("message_stop")

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        usage = {"input_tokens": 0, "output_tokens": 0}
        self._event(
            "message_start", message=_head(self._request) | {"content": [], "stop_reason": None, "usage": usage}
        )
        block = {"type": "text", "text": ""} if self._asked.tool is None else _tool_use(self._asked.tool)
        self._event("content_block_start", index=0, content_block=block)

    def _delta(self, delta: Mapping[str, Any]) -> None:
        self._event("content_block_delta", index=0, delta=delta)

    def _event(self, kind: str, **body: Any) -> None:
        self._send(kind, {"type": kind, **body})


def _head(request: Mapping[str, Any]) -> dict[str, Any]:
    model = request.get("model") or MODEL_NAME
    return {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "model": model} | {
        "stop_sequence": None
    }


def _tool_use(name: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{secrets.token_hex(8)}", "name": name, "input": {}}


def _stop_reason(asked: Plan, answer: Generated) -> str:
    return "tool_use" if asked.tool else "max_tokens" if answer.finish_reason == "length" else "end_turn"
