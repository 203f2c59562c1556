"""Tools of in-process MCP servers whose calls are checkpoints inside that of an agent's run."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp.types import CallToolRequestParams, CallToolResult

from kitaru_nb.core.context import Frame, current
from kitaru_nb.core.retry import Retry
from kitaru_nb.errors import KitaruFeatureNotAvailableError, Paused
from kitaru_nb.surfaces.adapters.base import Operation, Part, Recorded, perform_async

#: Under this name the SDK's subprocess tells an in-process MCP server which tool call a request belongs to.
_TOOL_CALL = "claudecode/toolUseId"
#: Under this name the checkpoint of a tool call keeps it.
TOOL_USE = "tool_use"


class ClaudeToolError(RuntimeError):
    """A tool failed, or said that its result is an error. The agent is told; it doesn't end the run."""

    def __init__(self, message: str, outcome: dict[str, Any]) -> None:
        super().__init__(message)
        self.outcome = outcome

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.outcome)


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of one run's in-process MCP servers.

    Attributes:
        frame: of the run's checkpoint.
        approve: names of the tools that need a person's approval.
        decided: the calls that have one.
    """

    frame: Frame
    retry: Retry
    approve: frozenset[str]
    decided: frozenset[str]

    def durable(self, name: str, server: Any) -> Any:
        """A server whose tool calls are checkpoints; one that isn't in this process as it is.

        Raises:
            KitaruFeatureNotAvailableError: the server was made with an old version of the mcp package.
        """
        if not in_process(server):
            return server
        instance = copy.copy(server["instance"])
        if not hasattr(instance, "get_request_handler"):
            raise KitaruFeatureNotAvailableError(
                f"The MCP server {name!r} was made with a version of the mcp package that is too old.",
                fix="pip install 'mcp>=2'",
            )
        instance._request_handlers = dict(instance._request_handlers)
        if (entry := instance.get_request_handler("tools/call")) is not None:

            async def perform(context: Any, params: CallToolRequestParams) -> CallToolResult:
                return await self._called(name, entry.handler, context, params)

            instance.add_request_handler("tools/call", CallToolRequestParams, perform)
        return {**server, "instance": instance}

    async def _called(self, server: str, handler: Any, context: Any, params: CallToolRequestParams) -> CallToolResult:
        call_id = str((params.meta or {}).get(_TOOL_CALL, ""))
        if f"mcp__{server}__{params.name}" in self.approve and call_id not in self.decided:
            return _refusal(f"{params.name} needs a person's approval, and this call has none. Call it by itself.")
        asked = params

        def take(values: Mapping[str, Any]) -> None:
            nonlocal asked
            given = values["arguments"]
            asked = params.model_copy(update={"arguments": json.loads(given) if isinstance(given, str) else {**given}})

        async def body() -> dict[str, Any]:
            returned = await handler(context, asked)
            outcome: dict[str, Any] = returned.model_dump(mode="json", by_alias=True, exclude_none=True)
            if outcome.get("isError"):
                raise ClaudeToolError(_text_of(outcome) or f"{params.name} failed", outcome)
            return outcome

        operation: Operation[dict[str, Any]] = Operation(
            params.name,
            "tool_call",
            {"arguments": params.arguments or {}},
            encode=lambda outcome: Recorded((Part("result", outcome, preview=_text_of(outcome)),), {TOOL_USE: call_id}),
            decode=_as_result,
            identity=call_id or None,
            take=take,
            retry=self.retry,
        )
        token = current.set(self.frame)
        try:
            outcome = await perform_async(operation, body)
        except ClaudeToolError as error:
            outcome = error.outcome
        except Paused:
            # The run lets go. No answer: the agent must not believe that the call has failed.
            await asyncio.Event().wait()
            raise
        finally:
            current.reset(token)
        return CallToolResult.model_validate(outcome)


def in_process(server: Any) -> bool:
    """Whether an MCP server of the SDK's options runs in this process."""
    return isinstance(server, Mapping) and server.get("type") == "sdk"


def _refusal(text: str) -> CallToolResult:
    return CallToolResult.model_validate({"content": [{"type": "text", "text": text}], "isError": True})


def _as_result(value: Any) -> dict[str, Any]:
    """A recorded result; anything else, given as an override, as the text or JSON of one."""
    if isinstance(value, dict) and isinstance(value.get("content"), list):
        return value
    return {"content": [{"type": "text", "text": value if isinstance(value, str) else json.dumps(value)}]}


def _text_of(outcome: Mapping[str, Any]) -> str:
    return " ".join(str(block.get("text", block["type"])) for block in outcome.get("content", ()))
