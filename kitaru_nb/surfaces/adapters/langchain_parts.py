"""LangChain chat models and tools whose calls are checkpoints of their own, inside a node or anywhere in a flow.

    model = durable_chat_model(ChatOpenAI(model="gpt-5-mini"), name="support.model")
    tools = [durable_tool(search), durable_tool(pay)]

Both give back the same kind of object, so ``bind_tools``, ``with_structured_output`` and ``ToolNode`` work as before.
"""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from kitaru_nb.errors import KitaruFeatureNotAvailableError, KitaruUsageError

try:
    from langchain_core.language_models import BaseChatModel
except ImportError as error:
    raise KitaruFeatureNotAvailableError(
        f"Durable chat models and tools need langchain-core ({error}).", fix='pip install "kitaru-nb[langgraph]"'
    ) from error

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCallChunk, ToolMessage, message_to_dict
from langchain_core.messages import messages_from_dict as from_dicts
from langchain_core.messages.utils import convert_to_messages, message_chunk_to_message
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import BaseTool
from langgraph.errors import GraphBubbleUp

from kitaru_nb.core.checkpoint import checkpoint
from kitaru_nb.core.context import current
from kitaru_nb.core.run import Run
from kitaru_nb.surfaces.adapters.base import (
    Operation,
    Part,
    Recorded,
    in_flow,
    perform,
    perform_async,
    perform_stream,
)
from kitaru_nb.surfaces.adapters.connections import for_every_loop
from kitaru_nb.surfaces.adapters.langgraph_nodes import Unfinished, projected
from kitaru_nb.surfaces.adapters.plain import in_short
from kitaru_nb.surfaces.adapters.prices import metered

__all__ = ["durable_chat_model", "durable_tool"]

M = TypeVar("M", bound=BaseChatModel)
T = TypeVar("T", bound=BaseTool)

#: For each execution: id of a tool call → id of the call that recorded its result.
_results: WeakKeyDictionary[Run, dict[str, str]] = WeakKeyDictionary()

_SECRET_OR_LOCAL = ("extra_headers", "timeout", "run_manager")


def durable_chat_model(model: M, *, name: str = "model") -> M:
    """The chat model, with a checkpoint of type ``model_call`` for each request.

    Args:
        name: of the checkpoints.

    Raises:
        KitaruUsageError: ``model`` is no chat model (durable first, then ``bind_tools`` and the like).
    """
    if not isinstance(model, BaseChatModel):
        raise KitaruUsageError(
            f"durable_chat_model() was given a {type(model).__name__}; expected a LangChain chat model.",
            fix="durable_chat_model(ChatOpenAI(...)).bind_tools(tools)",
        )
    made = copy.copy(model)
    object.__setattr__(made, "__class__", _durable_model_class(type(model)))
    made.__dict__["kitaru_name"] = name
    return made


def durable_tool(tool: T) -> T:
    """The tool, with a checkpoint of type ``tool_call`` for each call.

    Raises:
        KitaruUsageError: ``tool`` is no LangChain tool.
    """
    if not isinstance(tool, BaseTool):
        raise KitaruUsageError(
            f"durable_tool() was given {tool!r}; expected a LangChain tool.",
            fix="durable_tool(langchain_core.tools.tool(function))",
        )
    made = copy.copy(tool)
    object.__setattr__(made, "__class__", _durable_tool_class(type(tool)))
    return made


@cache
def _durable_model_class(cls: type[BaseChatModel]) -> type[BaseChatModel]:
    # LangChain looks at which of these methods a class has, so a durable one gets no others.
    ways = (way for name, way in WAYS.items() if getattr(cls, name) is not getattr(BaseChatModel, name))
    return type(f"Durable{cls.__name__}", (*ways, cls), {"__module__": __name__})


@cache
def _durable_tool_class(cls: type[BaseTool]) -> type[BaseTool]:
    return type(f"Durable{cls.__name__}", (DurableTool, cls), {"__module__": __name__})


#: Set while a request is made: what a class does in terms of its other methods is one request, not two.
_asking: ContextVar[bool] = ContextVar("kitaru_chat_model", default=False)


@contextmanager
def _asked() -> Iterator[None]:
    token = _asking.set(True)
    try:
        yield
    finally:
        _asking.reset(token)


class Generates:
    """``invoke`` goes through a checkpoint."""

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any) -> ChatResult:
        ask: Any = super()._generate  # type: ignore[misc]
        if _asking.get() or not in_flow():
            return ask(messages, stop, run_manager, **options)  # type: ignore[no-any-return]

        request = Request(self, messages, stop, options)

        def body() -> Mapping[str, Any]:
            with _asked():
                return _outcome(ask(request.messages, request.stop, run_manager, **request.options))

        return _result(perform(request.operation(), body))


class GeneratesAsync:
    """``ainvoke`` goes through a checkpoint."""

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any) -> ChatResult:
        ask: Any = super()._agenerate  # type: ignore[misc]
        if _asking.get() or not in_flow():
            return await ask(messages, stop, run_manager, **options)  # type: ignore[no-any-return]

        request = Request(self, messages, stop, options)

        async def body() -> Mapping[str, Any]:
            for_every_loop(_client_of(self))
            with _asked():
                return _outcome(await ask(request.messages, request.stop, run_manager, **request.options))

        return _result(await perform_async(request.operation(), body))


class Streams:
    """``stream`` goes through a checkpoint. Its chunks come at the end: synchronous code has no second task that could
    record while the reader reads."""

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any
    ) -> Iterator[ChatGenerationChunk]:
        ask: Any = super()._stream  # type: ignore[misc]
        if _asking.get() or not in_flow():
            yield from ask(messages, stop, **options)
            return
        chunks: list[ChatGenerationChunk] = []
        request = Request(self, messages, stop, options)

        def body() -> Mapping[str, Any]:
            with _asked():
                chunks[:] = ask(request.messages, request.stop, **request.options)
            return _merged(chunks)

        recorded = perform(request.operation(), body)
        yield from chunks or [_chunk(recorded)]


class StreamsAsync:
    """``astream`` goes through a checkpoint. Its chunks come live; the last one once the answer is recorded."""

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        ask: Any = super()._astream  # type: ignore[misc]
        if _asking.get() or not in_flow():
            async for chunk in ask(messages, stop, **options):
                yield chunk
            return

        request = Request(self, messages, stop, options)

        async def source() -> AsyncIterator[ChatGenerationChunk | None]:
            for_every_loop(_client_of(self))
            with _asked():
                async for chunk in ask(request.messages, request.stop, **request.options):
                    yield chunk
            yield None

        events = perform_stream(
            request.operation(),
            source,
            outcome=lambda events: _merged([event for event in events if event is not None]),
            again=lambda recorded: [_chunk(recorded)],
            last=lambda event: event is None,
        )
        async for event in events:
            if event is not None:
                yield event


#: A chat model's own method → what stands before it in a durable one.
WAYS: Mapping[str, type] = {
    "_generate": Generates,
    "_agenerate": GeneratesAsync,
    "_stream": Streams,
    "_astream": StreamsAsync,
}


class Request:
    """One request to a chat model."""

    def __init__(self, model: Any, messages: Sequence[BaseMessage], stop: Any, options: Mapping[str, Any]) -> None:
        self.model = model
        self.messages = list(messages)
        self.stop = stop
        self.options = options

    def operation(self) -> Operation[Any]:
        """The request as a checkpoint."""
        frame = current.get()
        results = _results.get(frame.run, {}) if frame is not None else {}
        shown = [m.tool_call_id for m in self.messages if isinstance(m, ToolMessage)]
        return Operation(
            self.model.kitaru_name,
            "model_call",
            {
                "messages": projected(self.messages),
                "options": {key: value for key, value in self.options.items() if key not in _SECRET_OR_LOCAL},
                "stop": self.stop,
                "model": _model_name(self.model),
            },
            encode=self._encode,
            decode=_given,
            reads={"messages": [results[call_id] for call_id in shown if call_id in results]},
            take=self._take,
            takes=("messages", "options", "stop"),
        )

    def _encode(self, recorded: Mapping[str, Any]) -> Recorded:
        message: Any = from_dicts([dict(recorded["message"])])[0]
        said = Part(
            "response",
            recorded,
            "response",
            preview=in_short(str(message.text), [(c["name"], c["args"]) for c in message.tool_calls]),
        )
        prompt = Part("prompt", [message_to_dict(asked) for asked in self.messages], "prompt")
        return Recorded((said, prompt), _metadata(self.model, message))

    def _take(self, values: Mapping[str, Any]) -> None:
        """A replay wants another request."""
        name = self.model.kitaru_name
        try:
            self.messages = convert_to_messages(values.get("messages", self.messages))
        except (ValueError, TypeError, NotImplementedError) as error:
            raise KitaruUsageError(
                f"The messages of {name!r} can't be {values['messages']!r}: {error}",
                fix=f"overrides={{'arguments.{name}': {{'messages': [{{'role': 'user', 'content': '...'}}]}}}}",
            ) from error
        options = values.get("options", {})
        if not isinstance(options, Mapping):
            raise KitaruUsageError(f"The options of {name!r} are {options!r}; expected a mapping.")
        self.options = {**self.options, **options}
        self.stop = values.get("stop", self.stop)


def _client_of(model: Any) -> Any:
    """The asynchronous client of a provider's SDK behind a chat model, where there is one."""
    return getattr(model, "root_async_client", None) or getattr(model, "_async_client", None)


def _model_name(model: Any) -> str:
    return str(getattr(model, "model_name", None) or getattr(model, "model", None) or model._llm_type)


def _given(value: Any) -> Mapping[str, Any]:
    """A recorded outcome; a plain text, given as an override, as an answer of that text."""
    if isinstance(value, str):
        return {"message": message_to_dict(AIMessage(value))}
    if not isinstance(value, Mapping) or not isinstance(value.get("message"), Mapping):
        raise KitaruUsageError(
            f"The answer of a chat model can't be {str(value)[:100]}; expected its text, or what was recorded: an "
            "object with 'message'.",
            fix="overrides={'checkpoint.NAME': 'the answer'}",
        )
    return value


def _outcome(result: ChatResult) -> Mapping[str, Any]:
    """What is kept of an answer. Of several generations the first is the answer."""
    first = result.generations[0]
    return {
        "message": message_to_dict(first.message),
        "generation_info": first.generation_info,
        "llm_output": result.llm_output,
    }


def _merged(chunks: Sequence[ChatGenerationChunk]) -> Mapping[str, Any]:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    message = message_chunk_to_message(whole.message)
    return {"message": message_to_dict(message), "generation_info": whole.generation_info}


def _result(recorded: Mapping[str, Any]) -> ChatResult:
    message = from_dicts([dict(recorded["message"])])[0]
    generation = ChatGeneration(message=message, generation_info=recorded.get("generation_info"))
    return ChatResult(generations=[generation], llm_output=recorded.get("llm_output"))


def _chunk(recorded: Mapping[str, Any]) -> ChatGenerationChunk:
    message: Any = from_dicts([dict(recorded["message"])])[0]
    data = message.model_dump(exclude={"type", "tool_calls", "invalid_tool_calls"})
    calls = [
        ToolCallChunk(name=c["name"], args=json.dumps(c["args"]), id=c["id"], index=n, type="tool_call_chunk")
        for n, c in enumerate(message.tool_calls)
    ]
    chunk = AIMessageChunk(**data, tool_call_chunks=calls, chunk_position="last")
    return ChatGenerationChunk(message=chunk, generation_info=recorded.get("generation_info"))


def _metadata(model: Any, message: Any) -> dict[str, Any]:
    usage = getattr(message, "usage_metadata", None) or {}
    name = message.response_metadata.get("model_name") or _model_name(model)
    cached = (usage.get("input_token_details") or {}).get("cache_read", 0)
    return metered(
        name, input_tokens=usage.get("input_tokens"), output_tokens=usage.get("output_tokens"), cached_tokens=cached
    )


class DurableTool:
    """What a durable tool does instead of its class: each call goes through a checkpoint."""

    def run(self, tool_input: Any, *args: Any, tool_call_id: str | None = None, **options: Any) -> Any:
        """Run the tool once for each call."""
        call: Any = super().run  # type: ignore[misc]
        made = ToolCall(self, tool_input, tool_call_id)

        def body() -> Any:
            try:
                return _kept(call(made.given, *args, tool_call_id=tool_call_id, **options))
            except GraphBubbleUp as signal:
                raise Unfinished(signal) from signal

        try:
            return made.shown(perform(made.operation, body))
        except Unfinished as unfinished:
            raise unfinished.signal from None

    async def arun(self, tool_input: Any, *args: Any, tool_call_id: str | None = None, **options: Any) -> Any:
        """Run the tool once for each call."""
        call: Any = super().arun  # type: ignore[misc]
        made = ToolCall(self, tool_input, tool_call_id)

        async def body() -> Any:
            try:
                return _kept(await call(made.given, *args, tool_call_id=tool_call_id, **options))
            except GraphBubbleUp as signal:
                raise Unfinished(signal) from signal

        try:
            return made.shown(await perform_async(made.operation, body))
        except Unfinished as unfinished:
            raise unfinished.signal from None


class ToolCall:
    """One call of a tool.

    Attributes:
        given: what the tool runs with: the model's arguments, and what LangGraph adds (state, store …).
    """

    def __init__(self, tool: Any, given: Any, tool_call_id: str | None) -> None:
        self._tool = tool
        self._tool_call_id = tool_call_id
        self.given = given
        injected: frozenset[str] = getattr(tool, "_injected_args_keys", frozenset())
        arguments = given
        self._injected: Mapping[str, Any] = {}
        if isinstance(given, Mapping):
            arguments = {key: value for key, value in given.items() if key not in injected}
            self._injected = {key: value for key, value in given.items() if key in injected}
        function = getattr(tool, "func", None) or getattr(tool, "coroutine", None)
        self.operation: Operation[Any] = Operation(
            tool.name,
            "tool_call",
            {"arguments": arguments},
            identity=tool_call_id,
            code=checkpoint(function).code if callable(function) else None,
            take=self._take,
        )

    def _take(self, values: Mapping[str, Any]) -> None:
        """A replay wants other arguments."""
        arguments = values["arguments"]
        self.given = arguments if isinstance(arguments, str) else {**arguments, **self._injected}

    def shown(self, value: Any) -> Any:
        """What the agent is shown of a result: where it gave the call an id, a message."""
        call_id, frame = self._tool_call_id, current.get()
        if call_id is None:
            return value
        if frame is not None and self.operation.call_id is not None:
            _results.setdefault(frame.run, {})[call_id] = self.operation.call_id
        if not isinstance(value, str | list):
            return value
        return ToolMessage(value, tool_call_id=call_id, name=self._tool.name)


def _kept(result: Any) -> Any:
    """A plain result as its text, so that people read and override that; any other as it is."""
    if isinstance(result, ToolMessage) and result.status == "success" and result.artifact is None:
        return result.content
    return result
