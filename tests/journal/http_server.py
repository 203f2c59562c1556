"""A real server on loopback that has any number of journals, each under a path of its own."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.surfaces.http.api import Api
from kitaru_nb.surfaces.http.app import create_app
from kitaru_nb.surfaces.http.security import Gate
from kitaru_nb.surfaces.http.tokens import Tokens
from kitaru_nb.surfaces.operations.base import Desk, Role
from tests.ports import free_port

OWNER = "the-owners-token"


class JournalServer:
    """``url`` puts a journal on the server. `stop` and `start` interrupt the service, at the same address."""

    def __init__(self, folder: Path, certificate: Path | None = None) -> None:
        """``certificate``: a file with certificate and key, for TLS."""
        self.folder = folder
        self._certificate = certificate
        self.lost = 0
        self.away = False
        self._forget = False
        self._runtimes: dict[str, Runtime] = {}
        self._apps: dict[str, Starlette] = {}
        self._numbers = itertools.count()
        self._tokens: dict[str, Tokens] = {}
        self.port = free_port()
        self.start()

    def start(self) -> None:
        """Listen, on the port that it had before. Nothing in memory is left from before."""
        for name in self._apps:
            self._serve(name)
        self._listener = socket.socket(proto=socket.IPPROTO_TCP)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        config = uvicorn.Config(
            self,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
            ssl_certfile=self._certificate,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self._thread.start()
        ends = time.monotonic() + 60
        while not self._server.started:
            assert self._thread.is_alive(), "the server didn't start"
            assert time.monotonic() < ends, "the server didn't start in time"
            time.sleep(0.005)

    def stop(self) -> None:
        """No longer answer; all connections end."""
        for app in self._apps.values():
            app.state.server.pulse.close()
        self._server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._listener.close()

    def url(self, journal: str | None = None, *, role: Role = Role.WORK) -> str:
        """The URL of a journal over HTTP, with a token of this role; of a new SQLite file where none is named."""
        name = f"j{next(self._numbers)}"
        home = self.folder / name
        runtime = Runtime(Settings(home, journal=journal, durability="process"))
        self._runtimes[name] = runtime
        self._tokens[name] = Tokens(runtime.journal)
        self._serve(name)
        scheme = "https" if self._certificate else "http"
        return self.with_token(f"{scheme}://127.0.0.1:{self.port}/{name}", self.token(name, role))

    def _serve(self, name: str) -> None:
        runtime = self._runtimes[name]
        gate = Gate(self._tokens[name], owner="owner", secret=OWNER, port=self.port)
        self._apps[name] = create_app(Api(Desk(KitaruClient(runtime), "server", runtime.home)), gate)

    def token(self, name: str, role: Role) -> str:
        """A new token for a journal."""
        return self._tokens[name].create(f"{role} {next(self._numbers)}", role)

    @staticmethod
    def with_token(url: str, token: str) -> str:
        """``url`` with a token as its password."""
        return url.replace("://", f"://:{token}@")

    def lose_the_next_answer(self, *, forget: bool) -> None:
        """The next write is done, and a proxy says that it isn't. ``forget``: the server starts anew after it."""
        self.lost, self._forget = 1, forget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the journal's application."""
        _, name, *rest = scope["path"].split("/", 2)
        path = f"/{''.join(rest)}"
        if self.away or name not in self._apps:
            await Response("away", 502 if self.away else 200, media_type="text/html")(scope, receive, send)
            return
        app = self._apps[name]
        if self.lost and dict(scope["headers"]).get(b"x-kitaru-request"):
            self.lost -= 1
            await app({**scope, "path": path, "raw_path": path.encode()}, receive, _unheard)
            if self._forget:
                self._serve(name)
            await Response("bad gateway", 502, media_type="text/html")(scope, receive, send)
            return
        await app({**scope, "path": path, "raw_path": path.encode()}, receive, send)

    def close(self) -> None:
        """End, and close the journals."""
        self.stop()
        for runtime in self._runtimes.values():
            runtime.journal.close()


async def _unheard(message: Message) -> None:
    pass


@contextmanager
def serving(folder: Path, certificate: Path | None = None) -> Iterator[JournalServer]:
    """A server for as long as the context lasts."""
    server = JournalServer(folder, certificate)
    try:
        yield server
    finally:
        server.close()
