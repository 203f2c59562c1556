"""The Jupyter Server extension: the API under ``<base_url>kitaru/api/``, behind Jupyter's own authentication and XSRF.

Whoever may use the Jupyter server may do everything here, as they may run code in it; with an authorizer of its own, a
reader of the resource ``kitaru`` may only read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import tornado.iostream
import tornado.web
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join

from kitaru_nb.client import KitaruClient
from kitaru_nb.core.runtime import Runtime, settings_in_use, whoami
from kitaru_nb.journal.open import open_journal
from kitaru_nb.surfaces.http.api import Api, Request, Response
from kitaru_nb.surfaces.http.content import Bytes
from kitaru_nb.surfaces.http.events import Pulse, poll, stream
from kitaru_nb.surfaces.http.wire import MAX_BODY, encode
from kitaru_nb.surfaces.operations.base import Caller, Desk, Follow, Role

#: Below the server's base URL.
PREFIX = "kitaru/api/"
_UUID_LENGTH = 32
_CONTENTS_EVENTS = "https://events.jupyter.org/jupyter_server/contents_service/v1"


class ApiHandler(APIHandler):
    """All operations."""

    auth_resource = "kitaru"

    def initialize(self, api: Api, pulse: Pulse) -> None:
        """What all requests share."""
        self.api = api
        self.pulse = pulse

    @tornado.web.authenticated
    @authorized
    async def get(self, path: str) -> None:
        """Read."""
        await self._answer()

    @tornado.web.authenticated
    @authorized
    async def head(self, path: str) -> None:
        """Headers of what would be read."""
        await self._answer()

    @tornado.web.authenticated
    @authorized
    async def post(self, path: str) -> None:
        """Act. Jupyter has checked the XSRF token."""
        await self._answer()

    async def _answer(self) -> None:
        request = self.request
        if len(request.body) > MAX_BODY:
            raise tornado.web.HTTPError(413, f"The body is larger than {MAX_BODY:,} bytes.")
        base = url_path_join(self.base_url, PREFIX)
        asked = Request(
            request.method or "GET",
            request.path[len(base) :],
            [pair for pair in parse_qsl(request.query, keep_blank_values=True) if not _is_jupyters(*pair)],
            {name.lower(): value for name, value in request.headers.items()},
            request.body,
        )
        await self._send(await asyncio.to_thread(self.api.answer, asked, Caller(self._who(), Role.ADMIN, "jupyter")))

    def _who(self) -> str:
        user = self.current_user
        name = str(getattr(user, "username", user))
        # Jupyter's token and password say no name; it then makes one up for each browser. They are its owner's.
        anonymous = len(name) == _UUID_LENGTH and str(getattr(user, "display_name", "")).startswith("Anonymous")
        return whoami() if anonymous else name

    async def _send(self, response: Response) -> None:
        self.set_status(response.status)
        for name, value in response.headers.items():
            self.set_header(name, value)
        self.set_header("X-Content-Type-Options", "nosniff")
        body = response.body
        try:
            if isinstance(body, Follow) and body.timeout is not None:
                body = encode(await poll(self.pulse, body))
            if isinstance(body, bytes):
                self.write(body)
            elif isinstance(body, Bytes) and self.request.method != "HEAD":
                chunks = body.chunks()
                while chunk := await asyncio.to_thread(next, chunks, b""):  # the store may be far away
                    self.write(chunk)
                    await self.flush()
            elif isinstance(body, Follow) and self.request.method != "HEAD":
                async for chunk in stream(self.pulse, body):
                    self.write(chunk)
                    await self.flush()
        except tornado.iostream.StreamClosedError:
            return  # the client has gone
        finally:
            if isinstance(body, Bytes):
                body.close()
        await self.finish(set_content_type=response.headers["content-type"])


def _is_jupyters(name: str, value: str) -> bool:
    """Whether a query parameter is Jupyter's own: its token, or the instant that its pages add against caches."""
    return name == "token" or (name.isdigit() and not value)


def _load_jupyter_server_extension(server_app: Any) -> None:
    """Called by Jupyter Server when it starts."""
    root = Path(server_app.root_dir).absolute()
    runtime = Runtime(settings_in_use(start=root))
    api = Api(Desk(KitaruClient(runtime), "jupyter", root))
    pulse = Pulse(runtime.journal)
    web_app = server_app.web_app
    pattern = url_path_join(web_app.settings["base_url"], PREFIX) + "(.*)"
    web_app.add_handlers(".*$", [(pattern, ApiHandler, {"api": api, "pulse": pulse})])
    server_app.event_logger.add_listener(schema_id=_CONTENTS_EVENTS, listener=_Renames(root))
    server_app.log.info("kitaru_nb: executions are kept in %s", runtime.home)


class _Renames:
    """Hears from Jupyter that a file or folder below ``root`` got another name."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def __call__(self, logger: Any, schema_id: str, data: Mapping[str, Any]) -> None:
        if data["action"] == "rename":
            old, new = (self.root / data[side].strip("/") for side in ("source_path", "path"))
            await asyncio.to_thread(take_along, old, new)


def take_along(old: Path, new: Path) -> None:
    """A notebook is known by its path: what was renamed, or is in a folder that was, keeps the execution it is on."""
    for path in [new] if new.suffix == ".ipynb" else sorted(new.rglob("*.ipynb")):
        settings = settings_in_use(start=path.parent)
        with closing(open_journal(settings.journal_url, durability=settings.durability)) as journal:
            before = f"notebook:{old / path.relative_to(new)}"
            if (exec_id := journal.reference(before)) is not None:
                after = f"notebook:{path}"
                journal.set_reference(after, exec_id, expected=journal.reference(after), by=whoami())
                journal.set_reference(before, None, expected=exec_id, by=whoami())


def server_extension_points() -> list[dict[str, str]]:
    """What Jupyter Server loads for ``kitaru_nb``."""
    return [{"module": "kitaru_nb.surfaces.jupyter"}]
