"""A model that says what it is told, in process, on every version of the SDK; and short ways to write what it says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents import Model, ModelResponse, Usage
from agents.tracing import TracingProcessor
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
    ResponseUsage,
)
from openai.types.responses.response_usage import OutputTokensDetails

Item = Any
Turn = Sequence[Item] | Exception | Callable[[list[Any]], Sequence[Item]]


def say(text: str) -> Item:
    content = ResponseOutputText(type="output_text", text=text, annotations=[])
    return ResponseOutputMessage(id="msg_1", type="message", role="assistant", status="completed", content=[content])


def call(name: str, call_id: str, **arguments: Any) -> Item:
    return ResponseFunctionToolCall(
        id=f"fc_{call_id}", type="function_call", name=name, call_id=call_id, arguments=json.dumps(arguments)
    )


def usage() -> Usage:
    return Usage(requests=1, input_tokens=40, output_tokens=7, total_tokens=47)


@dataclass
class Asked:
    """One request that reached the model."""

    instructions: str | None
    input: list[Any]
    settings: Any

    @property
    def results(self) -> dict[str, Any]:
        """What the model is shown of tools: call id → output."""
        found = [i for i in self.input if isinstance(i, dict) and i.get("type") == "function_call_output"]
        return {item["call_id"]: item["output"] for item in found}


@dataclass
class Script(Model):
    """Says its turns one after the other. A turn may be an error to raise, or a function of the input."""

    turns: list[Turn]
    model: str = "gpt-test"
    asked: list[Asked] = field(default_factory=list)

    def _next(self, instructions: str | None, input: Any, settings: Any) -> list[Item]:
        items = [{"role": "user", "content": input}] if isinstance(input, str) else list(input)
        self.asked.append(Asked(instructions, json.loads(json.dumps(items)), settings))
        turn = self.turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        return list(turn(items) if callable(turn) else turn)

    async def get_response(
        self, system_instructions: Any, input: Any, model_settings: Any, *args: Any, **kwargs: Any
    ) -> ModelResponse:
        output = self._next(system_instructions, input, model_settings)
        return ModelResponse(output=output, usage=usage(), response_id=f"resp_{len(self.asked)}")

    async def stream_response(
        self, system_instructions: Any, input: Any, model_settings: Any, *args: Any, **kwargs: Any
    ) -> AsyncIterator[Any]:
        output = self._next(system_instructions, input, model_settings)
        for item in output:
            if item.type == "message":
                for word in item.content[0].text.split(" "):
                    yield ResponseTextDeltaEvent(
                        type="response.output_text.delta",
                        delta=word + " ",
                        item_id="msg_1",
                        output_index=0,
                        content_index=0,
                        sequence_number=0,
                        logprobs=[],
                    )
        used = usage()
        counted = ResponseUsage(
            input_tokens=40,
            output_tokens=7,
            total_tokens=47,
            input_tokens_details=used.input_tokens_details,
            output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
        )
        response = Response(
            id=f"resp_{len(self.asked)}",
            created_at=0,
            model=self.model,
            object="response",
            output=output,
            tool_choice="none",
            tools=[],
            parallel_tool_calls=True,
            usage=counted,
        )
        yield ResponseCompletedEvent(type="response.completed", response=response, sequence_number=1)


class Spans(TracingProcessor):
    """Keeps the spans that have ended."""

    def __init__(self) -> None:
        self.ended: list[Any] = []

    def on_trace_start(self, trace: Any) -> None: ...

    def on_trace_end(self, trace: Any) -> None: ...

    def on_span_start(self, span: Any) -> None: ...

    def on_span_end(self, span: Any) -> None:
        self.ended.append(span)

    def shutdown(self) -> None: ...

    def force_flush(self) -> None: ...
