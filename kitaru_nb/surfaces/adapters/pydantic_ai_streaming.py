"""A streamed model request whose events reach the reader while they come, and which is recorded before it ends.

Pydantic AI's durable model consumes the whole stream inside its durable unit and hands on what came of it. Here the
unit tells each event as it passes (`told`), and the reader gets it at once; the end of the stream comes only after
the response has been committed. From the record the reader gets each part of the response as one event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any

from pydantic_ai.agent import EventStreamHandler
from pydantic_ai.messages import (
    AgentStreamEvent,
    FinalResultEvent,
    ModelMessage,
    ModelResponse,
    ModelResponsePart,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
)
from pydantic_ai.models import ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext
from pydantic_ai.usage import RequestUsage

#: Told of each event of the model stream that the current task has asked for.
_reader: ContextVar[Callable[[Any], None] | None] = ContextVar("kitaru_model_stream", default=None)


def told(handler: EventStreamHandler[Any] | None) -> EventStreamHandler[Any] | None:
    """``handler``, with the reader of the stream told of each event before it."""
    tell = _reader.get()
    if tell is None:
        return handler

    async def telling(ctx: RunContext[Any], stream: AsyncIterable[AgentStreamEvent]) -> None:
        async def passing() -> AsyncIterator[AgentStreamEvent]:
            async for event in stream:
                tell(event)
                yield event

        events = passing()
        if handler is not None:
            await handler(ctx, events)
        async for _ in events:
            pass

    return telling


def clients_of(model: Any) -> Iterator[Any]:
    """The clients of providers' SDKs behind a model."""
    for inside in (getattr(model, "wrapped", None), *getattr(model, "models", ())):
        if inside is not None:
            yield from clients_of(inside)
    yield getattr(model, "client", None)


class LiveModel(WrapperModel):
    """A durable model whose streams are live. All else is answered by the model inside."""

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """The stream of one request. Leaving it early cancels the request, and nothing is recorded."""
        events: asyncio.Queue[ModelResponseStreamEvent] = asyncio.Queue()

        async def complete() -> StreamedResponse:
            opened = self.wrapped.request_stream(messages, model_settings, model_request_parameters, run_context)
            async with opened as completed:
                return completed

        token = _reader.set(events.put_nowait)
        try:
            task = asyncio.create_task(complete())
        finally:
            _reader.reset(token)
        try:
            first = await _next(events, task)
            if first is None:
                yield await task
            else:
                yield LiveResponse(self, model_request_parameters, first, events, task)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))


async def _next(
    events: asyncio.Queue[ModelResponseStreamEvent], task: asyncio.Task[StreamedResponse]
) -> ModelResponseStreamEvent | None:
    """The next event, or None when the request has ended and all its events were taken."""
    while events.empty() and not task.done():
        getter = asyncio.ensure_future(events.get())
        try:
            await asyncio.wait((getter, task), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not getter.done():
                getter.cancel()
        if getter.done() and not getter.cancelled():
            return getter.result()
    return None if events.empty() else events.get_nowait()


class LiveResponse(StreamedResponse):
    """The response of a live stream: what has come so far, and in the end what was recorded."""

    def __init__(
        self,
        model: LiveModel,
        parameters: ModelRequestParameters,
        first: ModelResponseStreamEvent,
        events: asyncio.Queue[ModelResponseStreamEvent],
        task: asyncio.Task[StreamedResponse],
    ) -> None:
        super().__init__(parameters)
        self._model = model
        self._first = first
        self._events = events
        self._task = task
        self._parts: dict[int, ModelResponsePart] = {}
        self._began = datetime.now(timezone.utc)
        self._completed: StreamedResponse | None = None

    def __aiter__(self) -> AsyncIterator[ModelResponseStreamEvent]:
        if self._event_iterator is None:
            self._event_iterator = self._get_event_iterator()
        return self._event_iterator

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        event: ModelResponseStreamEvent | None = self._first
        while event is not None:
            self._take(event)
            yield event
            event = await _next(self._events, self._task)
        if self.cancelled:
            return
        completed = await self._task
        async for _ in completed:  # raises what ended the stream, when it broke off
            pass
        self._completed = completed
        self.state = completed.get().state

    def _take(self, event: ModelResponseStreamEvent) -> None:
        if isinstance(event, PartStartEvent):
            self._parts[event.index] = event.part
        elif isinstance(event, PartDeltaEvent):
            delta: Any = event.delta
            self._parts[event.index] = delta.apply(self._parts[event.index])
        elif isinstance(event, FinalResultEvent):
            self.final_result_event = event

    async def close_stream(self) -> None:
        """Stop the request; nothing of it is recorded."""
        self._task.cancel()
        await asyncio.wait((self._task,))

    def get(self) -> ModelResponse:
        """The recorded response, or what has come until now."""
        if self._completed is not None:
            return self._completed.get()
        return ModelResponse(
            parts=[self._parts[index] for index in sorted(self._parts)],
            model_name=self.model_name,
            timestamp=self._began,
            provider_name=self.provider_name,
            provider_url=self.provider_url,
            state="interrupted" if self.cancelled else "incomplete",
        )

    @property
    def usage(self) -> RequestUsage:
        """Tokens of the request; none before its end."""
        return RequestUsage() if self._completed is None else self._completed.usage

    @property
    def model_name(self) -> str:
        """The model's name."""
        return self._model.model_name

    @property
    def provider_name(self) -> str | None:
        """The provider's name."""
        return self._model.system

    @property
    def provider_url(self) -> str | None:
        """Where the model is."""
        return self._model.base_url

    @property
    def timestamp(self) -> datetime:
        """When the response began."""
        return self._began if self._completed is None else self._completed.timestamp
