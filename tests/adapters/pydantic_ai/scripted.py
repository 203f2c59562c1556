"""A model that says what a script tells it, and counts how often it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel


def use(tool: str, call_id: str, **arguments: Any) -> ToolCallPart:
    """The model asks for a tool call."""
    return ToolCallPart(tool, arguments, tool_call_id=call_id)


class Script:
    """Turns of a model: texts, tool calls, lists of tool calls, or errors to raise once.

    Attributes:
        asked: the messages of each request.
        pause: when set, a streamed text waits for it before its last word.
    """

    def __init__(self, *turns: Any) -> None:
        self.turns = list(turns)
        self.asked: list[list[ModelMessage]] = []
        self.pause: asyncio.Event | None = None

    @property
    def model(self) -> FunctionModel:
        """The model. The turn is chosen by how many responses the conversation has, so it needs no state."""
        return FunctionModel(self._answer, stream_function=self._stream, model_name="scripted")

    def _turn(self, messages: list[ModelMessage]) -> Any:
        self.asked.append(list(messages))
        number = sum(isinstance(message, ModelResponse) for message in messages)
        turn = self.turns[number]
        if isinstance(turn, list) and turn and isinstance(turn[0], Exception):
            error = turn.pop(0)
            if len(turn) == 1:
                self.turns[number] = turn[0]
            raise error
        return turn

    def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        turn = self._turn(messages)
        if isinstance(turn, str):
            return ModelResponse(parts=[TextPart(turn)])
        return ModelResponse(parts=turn if isinstance(turn, list) else [turn])

    async def _stream(self, messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        turn = self._turn(messages)
        if isinstance(turn, str):
            *words, last = turn.split()
            for word in words:
                yield f"{word} "
            if self.pause is not None:
                await self.pause.wait()
            yield last
            return
        for number, call in enumerate(turn if isinstance(turn, list) else [turn]):
            arguments = call.args_as_json_str()
            yield {number: DeltaToolCall(call.tool_name, arguments, tool_call_id=call.tool_call_id)}
