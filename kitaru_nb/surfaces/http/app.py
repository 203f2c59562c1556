"""The stand-alone server as an ASGI application (Starlette): API, dashboard, webhooks, MCP, the journal for workers.

Every response carries the security headers; every path but webhooks and the dashboard's files asks for a token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kitaru_nb.errors import KitaruError, KitaruUsageError
from kitaru_nb.journal import wire
from kitaru_nb.surfaces.http import page, webhooks
from kitaru_nb.surfaces.http.api import Api, Request, error_body, refusal, status_of
from kitaru_nb.surfaces.http.api import Response as Reply
from kitaru_nb.surfaces.http.content import Bytes
from kitaru_nb.surfaces.http.events import Pulse, poll, stream
from kitaru_nb.surfaces.http.journal import JournalRequests, check_role, wait_for_news
from kitaru_nb.surfaces.http.security import HEADERS, Gate, Refused
from kitaru_nb.surfaces.http.wire import MAX_BODY, decode, encode
from kitaru_nb.surfaces.operations.base import Caller, Follow
from kitaru_nb.surfaces.operations.limits import RateLimit
from kitaru_nb.surfaces.operations.perform import TooManyTries

_YEAR = 365 * 24 * 3600
_JOURNAL = {"content-type": wire.MEDIA_TYPE, "cache-control": "no-store"}


class Server:
    """What the application's endpoints share: the API, the gate, and the pulse of its event loop."""

    def __init__(self, api: Api, gate: Gate) -> None:
        self.api = api
        self.gate = gate
        self.pulse = Pulse(api.desk.client.runtime.journal)
        self._webhooks = RateLimit(burst=20, seconds=3.0)
        self._journal = JournalRequests(api.desk.client.runtime.journal)

    async def answer_api(self, request: HttpRequest) -> Response:
        """``/api/…``"""
        caller = await self._caller(request)
        path = request.scope["raw_path"].decode("ascii", "replace").partition("?")[0]
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Request(
            request.method,
            path[len(request.scope.get("root_path", "")) :].removeprefix("/api/"),
            request.query_params.multi_items(),
            headers,
            await read_body(request),
        )
        reply = await asyncio.to_thread(self.api.answer, asked, caller)
        secret = self.gate.secret_of(headers)
        return await self._send(reply, request, lambda: secret is not None and self.gate.known(secret) is not None)

    async def _caller(self, request: HttpRequest) -> Caller:
        return await asyncio.to_thread(self.gate.caller, request.method, request.headers, address(request))

    async def _send(self, reply: Reply, request: HttpRequest, allowed: Callable[[], bool]) -> Response:
        headers, body = dict(reply.headers), reply.body
        if request.method == "HEAD" and not isinstance(body, bytes):
            if isinstance(body, Bytes):
                body.close()
            return Response(b"", reply.status, headers)
        if isinstance(body, Bytes):
            return BytesResponse(body, reply.status, headers)
        if isinstance(body, Follow):
            if body.timeout is not None:
                return Response(encode(await poll(self.pulse, body)), reply.status, headers)
            return StreamingResponse(stream(self.pulse, body, allowed=allowed), reply.status, headers)
        return Response(body, reply.status, headers)

    async def answer_page(self, request: HttpRequest) -> Response:
        """``/``: the dashboard. ``?token=`` becomes a cookie that scripts can't read, and leaves the address."""
        secret = request.query_params.get("token")
        try:
            if secret is None:
                await self._caller(request)
            else:
                await asyncio.to_thread(self.gate.check_secret, secret, address(request))
        except Refused as error:
            if error.status != 401:
                raise
            return page.note(
                401,
                "A token, please" if secret is None else "This token isn't valid (any more)",
                "Open the address that the server printed when it started; it ends with ?token=…. Or make a token:",
                "kitaru server token create NAME --role operate",
            )
        if secret is not None:
            rest = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
            response = RedirectResponse(f"./?{urlencode(rest)}" if rest else "./", 303)
            response.set_cookie(
                self.gate.cookie,
                secret,
                max_age=_YEAR,
                httponly=True,
                samesite="lax",  # who follows a link from elsewhere is signed in; pages of others still can't act
                secure=request.url.scheme == "https",
            )
            return response
        return page.index()

    async def answer_asset(self, request: HttpRequest) -> Response:
        """``/static/…``: nothing that anybody wrote, so it is for everybody."""
        return page.asset(request.path_params["name"])

    async def answer_webhook(self, request: HttpRequest) -> Response:
        """``/hooks/TOKEN``: a GET tells what is asked, a POST answers it."""
        if seconds := self._webhooks.take(address(request)):
            raise TooManyTries(seconds)
        client, token = self.api.desk.client, request.path_params["token"]
        if request.method in ("GET", "HEAD"):
            return _json(200, await asyncio.to_thread(webhooks.look, client, token))
        given = decode(await read_body(request))
        if set(given) != {"value"}:
            raise KitaruUsageError(
                'The body of a webhook is {"value": ANSWER}.', fix="""curl --json '{"value": true}' URL"""
            )
        started = await asyncio.to_thread(webhooks.answer, client, token, given["value"])
        return _json(200, {"exec_id": started.exec_id, "answered": True})

    async def answer_journal(self, request: HttpRequest) -> Response:
        """``/journal/v1/…``: the journal itself, for workers."""
        caller = await self._caller(request)
        check_role(caller)
        operation, headers = request.path_params["operation"], request.headers
        body = await read_body(request, wire.MAX_REQUEST)
        try:
            if operation == "news":
                return Response(await wait_for_news(self.pulse, body), 200, _JOURNAL)
            return Response(
                await asyncio.to_thread(self._journal.answer, operation, headers, body, caller), 200, _JOURNAL
            )
        except KitaruError as error:
            packed, blobs = wire.pack_error(error)
            return Response(wire.write(packed, blobs), status_of(error), _JOURNAL)


class BytesResponse(StreamingResponse):
    """A part of a file, which is closed also when the client goes in the middle."""

    def __init__(self, part: Bytes, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(iterate_in_threadpool(part.chunks()), status, headers)
        self._part = part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._part.close()


async def read_body(request: HttpRequest, most: int = MAX_BODY) -> bytes:
    """The body, if it isn't too large. Raises `Refused`."""
    found = bytearray()
    declared = request.headers.get("content-length", "0")
    too_large = declared.isdigit() and len(declared) < 19 and int(declared) > most
    if not too_large:
        try:
            async for chunk in request.stream():
                found += chunk
                if len(found) > most:
                    too_large = True
                    break
        except ClientDisconnect:
            raise Refused(400, "The request broke off.") from None  # nobody reads this; it is no fault of the server
    if too_large:
        raise Refused(413, f"The body is larger than {most:,} bytes.")
    return bytes(found)


def address(request: HttpRequest) -> str:
    """Where a request comes from."""
    return request.client.host if request.client else "unknown"


def _json(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Response:
    common = {"content-type": "application/json; charset=utf-8", "cache-control": "no-store"}
    return Response(encode(value), status, {**common, **(headers or {})})


def _plain(reply: Reply) -> Response:
    # With the headers itself: of an unforeseen error Starlette sends the response past all middleware.
    assert isinstance(reply.body, bytes)
    return Response(reply.body, reply.status, {**HEADERS, **reply.headers})


async def on_error(request: HttpRequest, error: Exception) -> Response:
    """An error as a response."""
    if isinstance(error, Refused):
        response = _json(error.status, error_body(error))
        if error.status == 401:
            response.headers["www-authenticate"] = "Bearer"
        if error.status == 413:
            response.headers["connection"] = "close"  # the rest of the body stays unread
        return response
    return _plain(refusal(error))


async def on_no_route(request: HttpRequest, error: Exception) -> Response:
    """What Starlette itself refuses, in the shape of all other errors."""
    assert isinstance(error, HTTPException)
    refused = Refused(error.status_code, f"There is nothing here for {request.method} {request.url.path[:200]!r}.")
    return _json(refused.status, error_body(refused), error.headers)


class Guard:
    """ASGI middleware: refuses foreign host names and pages, and puts the security headers on every response."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message["headers"]}
                added = [(n.encode(), v.encode()) for n, v in HEADERS.items() if n.encode() not in there]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        try:
            self._gate.check_host(hosts[0] if len(hosts) == 1 else None)
            self._gate.check_page(scope["method"], headers)
        except Refused as error:
            await _json(error.status, error_body(error))(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)


def create_app(api: Api, gate: Gate) -> Starlette:
    """The application. ``app.state.server`` is its `Server`."""
    server = Server(api, gate)
    mcp = _mcp_endpoint(server)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if mcp is not None:
                await stack.enter_async_context(mcp.running())
            yield
            server.pulse.close()

    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    routes = [
        Route("/", server.answer_page, methods=["GET"]),
        Route("/static/{name:path}", server.answer_asset, methods=["GET"]),
        Route("/hooks/{token}", server.answer_webhook, methods=["GET", "POST"]),
        Route(f"{wire.PATH}{{operation}}", server.answer_journal, methods=["POST"]),
        Route("/api/{rest:path}", server.answer_api, methods=methods),
    ]
    if mcp is not None:
        routes.append(Route("/mcp", mcp))
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={KitaruError: on_error, HTTPException: on_no_route, Exception: on_error},
    )
    app.add_middleware(Guard, gate=gate)
    app.state.server = server
    return app


def _mcp_endpoint(server: Server) -> Any:
    """The MCP endpoint, where its SDK is installed."""
    try:
        from kitaru_nb.surfaces.mcp import McpEndpoint
    except ImportError:
        return None
    return McpEndpoint(server.api.desk, server.gate)
