"""The API in this process, and servers on loopback, for tests."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from kitaru_nb.client import KitaruClient
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.surfaces.http.api import Api, Request, Response
from kitaru_nb.surfaces.http.app import create_app
from kitaru_nb.surfaces.http.security import Gate
from kitaru_nb.surfaces.http.tokens import Tokens
from kitaru_nb.surfaces.http.wire import encode
from kitaru_nb.surfaces.operations.base import Caller, Desk, Role
from kitaru_nb.surfaces.operations.limits import RateLimit

OWNER = "the-owners-token"
SECONDS = 240.0


Ran = Callable[..., str]


def until(condition: Callable[[], Any], what: str) -> Any:
    """What ``condition`` gives as soon as it is true."""
    ends = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < ends, f"{what} didn't come to be in {SECONDS:g} s"
        time.sleep(0.02)
    return found


def stop_clock(limit: RateLimit) -> None:
    """Time stands still for a limit: no try comes back while a busy machine takes its time."""
    limit._clock = lambda: 0.0


class Direct:
    """The API in this process, without HTTP."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def __call__(
        self, method: str, path: str, body: Any = None, *, role: Role = Role.ADMIN, name: str = "ana", **query: Any
    ) -> Response:
        asked = Request(
            method,
            path,
            [(key, str(value)) for key, value in query.items()],
            {"content-type": "application/json"},
            b"" if body is None else encode(body),
        )
        return self.api.answer(asked, Caller(name, role, "http"))

    def json(self, method: str, path: str, body: Any = None, *, expect: int = 200, **options: Any) -> Any:
        """The JSON of the answer, which must have this status."""

        answer = self(method, path, body, **options)
        assert isinstance(answer.body, bytes)
        assert answer.status == expect, answer.body
        return json.loads(answer.body)


@dataclass
class Served:
    """A server that runs on a thread of this process, each time on the same port: nobody else gets it meanwhile."""

    runtime: Runtime
    root: Path
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    server: uvicorn.Server | None = None
    thread: threading.Thread | None = None
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self.listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve."""
        tokens = Tokens(self.runtime.journal)
        for role in Role:
            if str(role) not in self.tokens:
                self.tokens[str(role)] = tokens.create(f"the {role}", role)
        gate = Gate(tokens, owner="owner", secret=OWNER, port=self.port, hosts=["kitaru.example"])
        self.api = Api(Desk(KitaruClient(self.runtime), "server", self.root))
        app = create_app(self.api, gate)
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2)
        self.server = uvicorn.Server(config)
        self.pulse = app.state.server.pulse
        self.webhook_tries = app.state.server._webhooks
        self.gate = gate
        self.thread = threading.Thread(target=self.server.run, args=([self.listener.dup()],))
        self.thread.start()
        until(lambda: self.server.started or not self.thread.is_alive(), "the server")
        assert self.server.started

    def stop(self) -> None:
        """End, as Ctrl-C does."""
        assert self.server is not None
        assert self.thread is not None
        self.server.servers[0].get_loop().call_soon_threadsafe(self.pulse.close)
        self.server.should_exit = True
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()

    def close(self) -> None:
        """End for good."""
        self.stop()
        self.listener.close()

    def client(self, role: str | None = "admin", **options: Any) -> httpx.Client:
        """An HTTP client with a token of this role. Close it."""
        headers = {"authorization": f"Bearer {self.tokens[role]}"} if role else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=SECONDS, **options)
