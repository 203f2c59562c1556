"""The MCP server: every operation a tool, over stdio (``kitaru mcp``) and streamable HTTP (``/mcp`` of the server).

The only place that imports the MCP SDK.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from mcp.server import NotificationOptions, ServerRequestContext
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ImageContent,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from kitaru_nb import __version__
from kitaru_nb.core.runtime import whoami
from kitaru_nb.surfaces.http import content
from kitaru_nb.surfaces.http.api import error_body, logger
from kitaru_nb.surfaces.http.events import Pulse, poll
from kitaru_nb.surfaces.http.openapi import arguments_schema
from kitaru_nb.surfaces.http.security import Gate
from kitaru_nb.surfaces.http.wire import check_depth, encode
from kitaru_nb.surfaces.operations.base import Caller, Content, Desk, Follow, Operation, Role
from kitaru_nb.surfaces.operations.perform import perform
from kitaru_nb.surfaces.operations.table import OPERATIONS, by_tool

INSTRUCTIONS = """\
Durable executions of notebooks and flows. Begin with kitaru_status or kitaru_executions_list; read one with \
kitaru_executions_get and its lineage with kitaru_executions_graph. kitaru_waits_list says what waits for an answer; \
kitaru_executions_input answers, once, with a value that fits the wait's schema. Look at kitaru_executions_replay_plan \
before kitaru_executions_replay. An execution can be named by its id, the beginning or end of it, or "latest"."""

Context = ServerRequestContext[Any, Any]


def tool(operation: Operation) -> Tool:
    """An operation as MCP describes tools."""
    return Tool(
        name=operation.tool_name,
        description=operation.help,
        input_schema=arguments_schema(operation),
        annotations=ToolAnnotations(
            title=operation.name,
            read_only_hint=operation.read_only,
            destructive_hint=operation.destructive,
            idempotent_hint=operation.idempotent,
            open_world_hint=False,
        ),
    )


def create_server(desk: Desk, caller: Callable[[Context], Caller]) -> Server[Any]:
    """The MCP server. ``caller`` says who makes a request; only the tools that its role allows are there for it."""
    pulses: dict[asyncio.AbstractEventLoop, Pulse] = {}

    async def list_tools(context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        role = caller(context).role
        return ListToolsResult(tools=[tool(operation) for operation in OPERATIONS if operation.role <= role])

    async def call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
        operation = by_tool(params.name)
        if operation is None:
            raise MCPError(INVALID_PARAMS, f"There is no tool {params.name[:100]!r}.")
        who, given = caller(context), params.arguments or {}
        try:
            check_depth(given)
            result = await asyncio.to_thread(perform, operation, desk, who, given)
            if isinstance(result, Follow):
                loop = asyncio.get_running_loop()
                result = await poll(pulses.setdefault(loop, Pulse(desk.client.runtime.journal)), result)
            elif isinstance(result, Content):
                result = await asyncio.to_thread(_content, desk, result)
        except Exception as error:
            return refused(error)
        return _result(json.loads(encode(result)))

    return Server(
        "kitaru",
        version=__version__,
        title="kitaru_nb",
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _content(desk: Desk, found: Content) -> dict[str, Any]:
    data, size = content.part(desk.client.runtime.store, found)
    kind = content.media_type(found.artifact)
    place = {"offset": found.offset, "length": len(data), "size": size}
    common = {"id": found.artifact.artifact_id, "media_type": kind, **place}
    if kind.endswith("utf-8"):
        return common | {"text": data.decode("utf-8", "replace")}
    return common | {"base64": base64.b64encode(data).decode()}


def _result(value: Any) -> CallToolResult:
    pictures: list[str] = []
    value = _without_pictures(value, pictures)
    # Structured content is an object in all versions of the protocol.
    structured = value if isinstance(value, dict) else {"items": value}
    text = TextContent(type="text", text=json.dumps(value, ensure_ascii=False, indent=1))
    shown = [ImageContent(type="image", data=data, mime_type="image/png") for data in pictures if len(pictures) == 1]
    return CallToolResult(content=[text, *shown], structured_content=structured)


def _without_pictures(value: Any, found: list[str]) -> Any:
    """``value`` with the pictures of artifacts' previews moved to ``found``: a model reads kilobytes of base64 as text,
    and pays for them, but sees an image."""
    if isinstance(value, list):
        return [_without_pictures(item, found) for item in value]
    if not isinstance(value, dict):
        return value
    preview = value.get("preview")
    if {"artifact_id", "digest"} <= value.keys() and isinstance(preview, dict) and "image" in preview:
        found.append(preview["image"])
        return value | {"preview": preview | {"image": "kitaru_artifacts_get shows it"}}
    return {name: _without_pictures(part, found) for name, part in value.items()}


def refused(error: Exception) -> CallToolResult:
    """An error as a tool's result, so that the agent can see what to do instead."""
    body = error_body(error)
    if body["error"]["type"] == "InternalError":
        logger.error("A tool failed", exc_info=error)
    text = "\n  fix: ".join(part for part in (body["error"]["message"], body["error"]["fix"]) if part)
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=body, is_error=True)


def client_name(context: Context) -> str:
    """What the client calls itself, as far as it can be printed."""
    params = context.session.client_params
    name = params.client_info.name if params is not None else ""
    return "".join(c for c in name if c.isprintable()).strip()[:100] or "an MCP client"


async def serve_stdio(desk: Desk, role: Role) -> None:
    """Serve the one client on stdin and stdout, for whoever started this process."""

    def caller(context: Context) -> Caller:
        return Caller(f"{client_name(context)} for {whoami()}", role, "mcp")

    server = create_server(desk, caller)
    async with stdio_server() as (reader, writer):
        await server.run(reader, writer, server.create_initialization_options(NotificationOptions()))


class McpEndpoint:
    """``/mcp`` of the stand-alone server: streamable HTTP. Every request brings a token; its role says which tools."""

    def __init__(self, desk: Desk, gate: Gate) -> None:
        self._desk = desk
        self._gate = gate
        self._manager: StreamableHTTPSessionManager | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serves while it lasts. A manager serves once, so each time has its own."""
        self._manager = StreamableHTTPSessionManager(create_server(self._desk, self._caller), json_response=True)
        async with self._manager.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises `Refused`, which the application answers."""
        assert self._manager is not None
        request = Request(scope)
        who = await asyncio.to_thread(
            self._gate.caller, request.method, request.headers, request.client.host if request.client else "", via="mcp"
        )
        if "origin" in request.headers:
            self._gate.check_origin(request.method, request.headers)
        # A session belongs to the token that began it.
        scope["user"] = AuthenticatedUser(AccessToken(token="", client_id=who.name, scopes=[]))
        scope.setdefault("state", {})["caller"] = who
        await self._manager.handle_request(scope, receive, send)

    def _caller(self, context: Context) -> Caller:
        request = context.request
        assert isinstance(request, Request)
        who: Caller = request.state.caller
        return Caller(f"{client_name(context)} for {who.name}", who.role, who.via, who.name)
