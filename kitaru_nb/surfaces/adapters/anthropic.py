"""Anthropic's client, made durable: each ``messages`` request of a flow is a checkpoint.

    client = durable(Anthropic())

    @flow
    def triage(ticket: str) -> str:
        answer = client.messages.create(model="claude-sonnet-4-5", max_tokens=500, messages=[...])

All of the client that sends messages is covered, because all of it goes through the client's public ``post``:
``create``, ``parse``, ``stream``, ``create(stream=True)``, the same under ``beta``, and ``beta.messages.tool_runner``.
The SDK's own retries happen inside the checkpoint. Outside a flow the client does what it did before.

What is kept is the message as JSON. It becomes a message, a stream, a typed answer or a raw response again by the SDK's
own code, which reads it as an HTTP response that never left this process; the live call takes the same way.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import inspect
import json
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from pydantic import BaseModel

from kitaru_nb.core.context import current
from kitaru_nb.errors import KitaruFeatureNotAvailableError, KitaruUsageError
from kitaru_nb.surfaces.adapters.anthropic_events import events_of, message_of
from kitaru_nb.surfaces.adapters.base import (
    Operation,
    Part,
    Recorded,
    block_on,
    in_flow,
    next_place,
    perform,
    perform_async,
    perform_stream,
)
from kitaru_nb.surfaces.adapters.connections import for_every_loop
from kitaru_nb.surfaces.adapters.plain import in_short
from kitaru_nb.surfaces.adapters.prices import metered

try:
    import anthropic
except ImportError as error:
    raise KitaruFeatureNotAvailableError(
        "Anthropic's SDK is not installed.", fix="pip install 'kitaru-nb[anthropic]'"
    ) from error

C = TypeVar("C")

#: Where messages are sent; beta adds ``?beta=true``.
_PATH = "/v1/messages"

#: With this header the SDK hands out HTTP responses instead of messages.
_RAW_HEADER = "x-stainless-raw-response"

#: Names the recorded answer that a request to `_reader` is to get.
_ANSWER_HEADER = "x-kitaru-answer"

#: Header of the HTTP response → under what it is kept with the message.
_KEPT_HEADERS = {"request-id": "_request_id", "anthropic-workspace-id": "_workspace_id"}

#: Parts of a request that are inputs of their own; all else is ``settings``.
_INPUTS = ("model", "system", "messages", "tools", "tool_choice")
_NO_SETTINGS = (*_INPUTS, "stream")

#: Settings that the SDK sends beside a request's own parameters.
_SENT_BESIDE = ("extra_json", "params")

#: Texts up to this length come from anywhere: they don't tell where an argument came from.
_TELLS_NOTHING = 5

_END: Any = object()


def durable(client: C, *, name: str = "claude") -> C:
    """A client whose ``messages`` requests are checkpoints when they are made inside a flow.

    The given client stays as it is. The durable one shares its connections, is an instance of its class, and hands
    its durability on to the clients that ``with_options`` makes.

    Args:
        client: `anthropic.Anthropic`, `anthropic.AsyncAnthropic`, or one of the SDK's clients for other clouds.
        name: the checkpoints are called ``<name>.model``.

    Raises:
        KitaruUsageError: something else was given.
    """
    base: Any = type(client)
    if issubclass(base, _Durable):
        return client
    ours = any(parent.__module__.partition(".")[0] == "anthropic" for parent in base.__mro__)
    if not ours or not hasattr(base, "post") or not hasattr(client, "messages"):
        raise KitaruUsageError(
            f"durable() was given {type(client).__name__}; expected a client of Anthropic's SDK.",
            fix="durable(anthropic.Anthropic())",
        )
    mixin = _DurableAsync if inspect.iscoroutinefunction(base.post) else _DurableSync
    cls = type(f"Durable{base.__name__}", (mixin, base), {"kitaru_name": f"{name}.model"})
    made: C = object.__new__(cls)
    for key, value in vars(client).items():
        # Resources (messages, beta …) are bound to their client: the new one has its own.
        vars(made)[key] = type(value)(made) if getattr(value, "_client", None) is client else value
    if mixin is _DurableAsync:
        for_every_loop(made)
    return made


class _Durable:
    """Marks durable clients."""

    kitaru_name: str


class _DurableSync(_Durable):
    def post(self, path: str, *, cast_to: Any, **options: Any) -> Any:
        """Send; inside a flow once in the life of the execution."""
        send: Callable[..., Any] = super().post  # type: ignore[misc]
        if path.partition("?")[0] != _PATH or not in_flow():
            return send(path, cast_to=cast_to, **options)
        request = _Request(self.kitaru_name, options)
        if not options.get("stream"):
            value = perform(request.operation(), lambda: request.value(send(path, cast_to=cast_to, **request.options)))
            return request.read(_reader(), path, cast_to, request.answer(value))

        async def source() -> AsyncIterator[Any]:
            stream = await asyncio.to_thread(send, path, cast_to=cast_to, **request.options)
            request.note(stream.response)
            iterator = iter(stream)
            try:
                while (event := await asyncio.to_thread(next, iterator, _END)) is not _END:
                    yield _dict(event)
            finally:
                await asyncio.to_thread(stream.close)

        events = _SyncEvents(request.stream(source))
        return request.read(_reader(), path, cast_to, _response(request.headers, stream=_bytes_of(events)))


class _DurableAsync(_Durable):
    async def post(self, path: str, *, cast_to: Any, **options: Any) -> Any:
        """Send; inside a flow once in the life of the execution."""
        send: Callable[..., Any] = super().post  # type: ignore[misc]
        if path.partition("?")[0] != _PATH or not in_flow():
            return await send(path, cast_to=cast_to, **options)
        request = _Request(self.kitaru_name, options)
        if not options.get("stream"):

            async def ask() -> dict[str, Any]:
                return request.value(await send(path, cast_to=cast_to, **request.options))

            value = await perform_async(request.operation(), ask)
            return await request.read(_async_reader(), path, cast_to, request.answer(value))

        async def source() -> AsyncIterator[Any]:
            stream = await send(path, cast_to=cast_to, **request.options)
            request.note(stream.response)
            try:
                async for event in stream:
                    yield _dict(event)
            finally:
                await stream.close()

        events = _AsyncEvents(request.stream(source))
        await events.open()
        response = _response(request.headers, stream=_async_bytes_of(events))
        return await request.read(_async_reader(), path, cast_to, response)


class _Request:
    """One request: its operation, and how its message goes into the record and comes back.

    Attributes:
        options: what the SDK's ``post`` is called with to send it: a message is to come, nothing made of it.
        headers: of the response that the caller gets.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self._name = name
        self._given = options
        self._body = _plain(options.get("body") or {})
        self._settings = {key: value for key, value in self._body.items() if key not in _NO_SETTINGS}
        self._operation: Operation[Any] | None = None
        self.headers: dict[str, str] = {}
        sending = dict(options.get("options") or {})
        self._settings |= {key: _plain(sending[key]) for key in _SENT_BESIDE if sending.get(key)}
        sending.pop("post_parser", None)
        if headers := sending.get("headers"):
            sending["headers"] = {key: value for key, value in headers.items() if key.lower() != _RAW_HEADER}
        self.options = {**options, "body": self._body, "options": sending}

    def operation(self, place: int | None = None) -> Operation[Any]:
        """What is recorded."""
        inputs = {key: self._body[key] for key in _INPUTS if key in self._body}
        self._operation = Operation(
            self._name,
            "model_call",
            inputs | ({"settings": self._settings} if self._settings else {}),
            encode=self._encode,
            decode=self._decode,
            place=place,
            reads={"messages": _producers(self._body.get("messages", ()))},
            take=self._take,
            takes=(*inputs, "settings"),
        )
        return self._operation

    def _take(self, values: Mapping[str, Any]) -> None:
        """A replay wants another request."""
        expected = {"messages": list, "tools": list, "settings": Mapping, "model": str}
        for key, value in values.items():
            if not isinstance(value, expected.get(key, object)):
                raise KitaruUsageError(
                    f"{key} of {self._name!r} is {value!r}; expected what messages.create() takes.",
                    fix=f"overrides={{'arguments.{self._name}': {{{key!r}: ...}}}}",
                )
        given = {**values}
        settings = given.pop("settings", self._settings)
        for name in self._settings:
            (self.options["options"] if name in _SENT_BESIDE else self._body).pop(name)
        self._body |= given
        for name, value in settings.items():
            (self.options["options"] if name in _SENT_BESIDE else self._body)[name] = value

    def stream(self, source: Callable[[], AsyncIterator[Any]]) -> AsyncIterator[Any]:
        """The events of ``source`` as they come, or those that the recorded message makes."""
        operation = self.operation(next_place(self._name))
        return perform_stream(operation, source, outcome=self._whole, again=self._pieces, last=_is_last)

    def value(self, message: Any) -> dict[str, Any]:
        """What is kept of a message: exactly the fields that came, and what its response's headers said."""
        kept = {key: found for key in _KEPT_HEADERS.values() if (found := getattr(message, key, None))}
        return _dict(message) | kept

    def answer(self, value: Mapping[str, Any]) -> Any:
        """The HTTP response of what was kept."""
        self._remember_arguments(value)
        self._take_headers(value)
        message = {key: item for key, item in value.items() if key not in _KEPT_HEADERS.values()}
        return _response(self.headers, json=message)

    def read(self, reader: Any, path: str, cast_to: Any, response: Any) -> Any:
        """What the SDK makes of a response for the one who asked."""
        options = dict(self._given.get("options") or {})
        key = uuid4().hex
        _answers[key] = response
        headers = {**(options.get("headers") or {}), _ANSWER_HEADER: key}
        asked = {**self._given, "body": {}, "options": {**options, "headers": headers}}
        return reader.post(path, cast_to=cast_to, **asked)

    def note(self, response: Any) -> None:
        """Remember the headers of a live stream."""
        self.headers = {key: response.headers[key] for key in _KEPT_HEADERS if key in response.headers}

    def _take_headers(self, value: Mapping[str, Any]) -> None:
        self.headers = {header: value[key] for header, key in _KEPT_HEADERS.items() if value.get(key)}

    def _whole(self, events: Iterable[Any]) -> dict[str, Any]:
        value = message_of(events) | {_KEPT_HEADERS[key]: found for key, found in self.headers.items()}
        self._remember_arguments(value)
        return value

    def _pieces(self, value: Mapping[str, Any]) -> list[dict[str, Any]]:
        self._remember_arguments(value)
        self._take_headers(value)
        return events_of({key: item for key, item in value.items() if key not in _KEPT_HEADERS.values()})

    def _encode(self, value: Mapping[str, Any]) -> Recorded:
        usage = value.get("usage") or {}
        read, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
        tokens_in, tokens_out = (usage.get("input_tokens") or 0) + read + written, usage.get("output_tokens") or 0
        metadata = metered(
            value.get("model") or self._body["model"],
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            cached_tokens=read,
            cache_write_tokens=written,
            provider="anthropic",
        )
        metadata |= {"stop_reason": value.get("stop_reason"), "request_id": value.get("_request_id")}
        parts = (
            Part("response", dict(value), "response", preview=_in_short(value)),
            Part("prompt", self._body, "prompt"),
        )
        return Recorded(parts, {key: found for key, found in metadata.items() if found is not None})

    def _decode(self, value: Any) -> Mapping[str, Any]:
        if isinstance(value, str):  # an override in plain words
            content = [{"type": "text", "text": value}]
            message = {"id": "override", "type": "message", "role": "assistant", "model": self._body["model"]}
            ending = {"stop_reason": "end_turn", "stop_sequence": None}
            return message | {"content": content, **ending, "usage": {"input_tokens": 0, "output_tokens": 0}}
        if not isinstance(value, Mapping) or value.get("type") != "message":
            raise KitaruUsageError(
                f"{value!r} can't be a message; expected its text, or its JSON with type, role and content.",
                fix=f"overrides={{'checkpoint.{self._name}': 'the answer'}}",
            )
        return value

    def _remember_arguments(self, value: Mapping[str, Any]) -> None:
        """Arguments of tool calls came from this message: edges of lineage."""
        frame, operation = current.get(), self._operation
        if frame is None or operation is None or operation.call_id is None:
            return
        for block in value.get("content", ()):
            arguments = block.get("input")
            if isinstance(arguments, Mapping):
                for argument in (arguments, *arguments.values()):
                    if len(str(argument)) > _TELLS_NOTHING:
                        frame.run.engine.produced(frame.run.store.token(argument), operation.call_id)


class _SyncEvents:
    """A stream's events as the lines of a response's body, for a reader that blocks."""

    def __init__(self, events: AsyncIterator[Any]) -> None:
        self._events = events
        self._first = self._take()  # the request goes out now: what it raises is raised here

    def _take(self) -> Any:
        async def take() -> Any:
            return await anext(self._events, _END)

        return block_on(take, instead="durable(anthropic.AsyncAnthropic()), awaited")

    def __iter__(self) -> Iterator[bytes]:
        event = self._first
        while event is not _END:
            yield _line(event)
            event = self._take()

    def close(self) -> None:
        """Stop reading. What wasn't read to its end isn't recorded."""
        block_on(lambda: _close(self._events), instead="durable(anthropic.AsyncAnthropic()), awaited")


class _AsyncEvents:
    """A stream's events as the lines of a response's body."""

    def __init__(self, events: AsyncIterator[Any]) -> None:
        self._events = events
        self._first: Any = _END

    async def open(self) -> None:
        """Send the request; raises what it raises."""
        self._first = await anext(self._events, _END)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        event = self._first
        while event is not _END:
            yield _line(event)
            event = await anext(self._events, _END)

    async def aclose(self) -> None:
        """Stop reading. What wasn't read to its end isn't recorded."""
        await _close(self._events)


async def _close(events: Any) -> None:
    await events.aclose()


def _line(event: Mapping[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _is_last(event: Mapping[str, Any]) -> bool:
    return bool(event["type"] == "message_stop")


#: Responses that a reader is about to read.
_answers: dict[str, Any] = {}


@lru_cache(maxsize=1)
def _http() -> Any:
    """The HTTP library that this version of the SDK works with."""
    return importlib.import_module(anthropic.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])


def _answer(request: Any) -> Any:
    return _answers.pop(request.headers[_ANSWER_HEADER])


@lru_cache(maxsize=1)
def _reader() -> Any:
    """A client of the SDK that sends nothing: it makes of a recorded response what is to be made of it."""
    http = anthropic.DefaultHttpxClient(transport=_http().MockTransport(_answer))
    return anthropic.Anthropic(api_key="recorded", base_url="http://recorded", http_client=http, max_retries=0)


@lru_cache(maxsize=1)
def _async_reader() -> Any:
    http = anthropic.DefaultAsyncHttpxClient(transport=_http().MockTransport(_answer))
    return anthropic.AsyncAnthropic(api_key="recorded", base_url="http://recorded", http_client=http, max_retries=0)


def _response(headers: Mapping[str, str], **content: Any) -> Any:
    if "stream" in content:
        headers = {**headers, "content-type": "text/event-stream"}
    return _http().Response(200, headers=headers, **content)


def _bytes_of(events: _SyncEvents) -> Any:
    return type(
        "Events", (_http().SyncByteStream,), {"__iter__": lambda _: iter(events), "close": lambda _: events.close()}
    )()


def _async_bytes_of(events: _AsyncEvents) -> Any:
    members = {"__aiter__": lambda _: aiter(events), "aclose": lambda _: events.aclose()}
    return type("Events", (_http().AsyncByteStream,), members)()


def _dict(value: Any) -> dict[str, Any]:
    """A value of the SDK as JSON, with exactly the fields that came, unknown ones too."""
    found: dict[str, Any] = value.to_dict(mode="json", warnings=False)
    return found


def _plain(value: Any) -> Any:
    """A part of a request as JSON, as the SDK would send it: what was left out is left out, files are base64."""
    if isinstance(value, BaseModel):
        left_out = getattr(value, "__api_exclude__", None)
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=left_out, warnings=False)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if not _is_left_out(item)}
    if isinstance(value, str | bytes | bytearray | int | float | None):
        return value
    if isinstance(value, os.PathLike):
        return base64.b64encode(Path(value).read_bytes()).decode()
    if hasattr(value, "read"):
        return base64.b64encode(value.read()).decode()
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    return value


def _is_left_out(value: Any) -> bool:
    return type(value).__name__ in ("NotGiven", "Omit") and type(value).__module__.startswith("anthropic")


def _producers(messages: Any) -> list[str]:
    """The calls whose outputs are among the messages."""
    frame = current.get()
    if frame is None:
        return []
    known, token = frame.run.engine.producers, frame.run.store.token
    tokens = (token(value) for value in _values(messages))
    return list(dict.fromkeys(known[found] for found in tokens if found in known)) if known else []


def _values(value: Any) -> Iterator[Any]:
    """All texts and containers inside a value that are big enough to be recognised."""
    if isinstance(value, Mapping | list):
        yield value
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _values(item)
    elif isinstance(value, str) and len(value) > _TELLS_NOTHING:
        yield value


def _in_short(message: Mapping[str, Any]) -> str:
    """What lists show: the text, and the tools that are asked for."""
    blocks = message.get("content", ())
    said = " ".join(block["text"] for block in blocks if block.get("type") == "text")
    return in_short(said, [(block.get("name", ""), block["input"]) for block in blocks if "input" in block])
