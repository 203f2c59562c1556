"""``kitaru server``: the stand-alone server as one process."""

from __future__ import annotations

import logging
import re
import signal
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import uvicorn

from kitaru_nb.client import KitaruClient
from kitaru_nb.core.runtime import Runtime, whoami
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.surfaces.http.address import PORT, announced
from kitaru_nb.surfaces.http.api import Api
from kitaru_nb.surfaces.http.app import create_app
from kitaru_nb.surfaces.http.dispatcher import of_every_stack
from kitaru_nb.surfaces.http.security import Gate, host_name
from kitaru_nb.surfaces.http.tokens import Tokens, new_secret
from kitaru_nb.surfaces.operations.base import Desk

#: Of a token that somebody chose: nobody guesses it, and it means itself in a header, a cookie and an address.
_SECRET = re.compile(r"[A-Za-z0-9._~-]{16,500}")


@dataclass(frozen=True, slots=True)
class Serving:
    """How a server runs.

    Attributes:
        port: 0 takes any that is free.
        hosts: names by which browsers may call it, besides addresses, localhost, and the name in its own address.
        url: its address from outside, where that isn't what it listens on.
        root: the folder whose notebooks and flows may be started.
        secret: the token of whoever starts it; a new one each time where None.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    hosts: Collection[str] = ()
    url: str | None = None
    root: Path = field(default_factory=Path.cwd)
    secret: str | None = None
    dispatch: bool = True


class _Uvicorn(uvicorn.Server):
    """Ends the event streams before it waits for connections to end, and returns then."""

    before_exit: Callable[[], None] = staticmethod(lambda: None)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the server while it lasts. Uvicorn's own raises them again afterwards, which would end the
        process before it has cleaned up."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.before_exit()
        super().handle_exit(sig, frame)


def serve(runtime: Runtime, serving: Serving, *, ready: Callable[[str, str], None]) -> None:
    """Run a server until it is told to end. ``ready`` gets its address and the starter's token, before requests come.

    Raises:
        KitaruUsageError: the address can't be listened on, or the one from outside, or the secret, can't be.
    """
    _check(serving)
    listener = _listen(serving.host, serving.port)
    with listener:
        port = listener.getsockname()[1]
        url = (serving.url or f"http://{_shown(serving.host)}:{port}").rstrip("/")
        secret = serving.secret or new_secret()
        runtime.addresses = frozenset({url})
        client = KitaruClient(runtime)
        hosts = {*serving.hosts, host_name(urlsplit(url).netloc)}
        gate = Gate(Tokens(runtime.journal), owner=whoami(), secret=secret, port=port, hosts=hosts)
        app = create_app(Api(Desk(client, "server", serving.root)), gate)
        dispatchers = of_every_stack(client) if serving.dispatch else []
        config = uvicorn.Config(
            app,
            access_log=False,  # addresses may hold tokens
            log_config=None,
            log_level=logging.WARNING,
            server_header=False,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=64 * 1024,
        )
        server = _Uvicorn(config)
        server.before_exit = app.state.server.pulse.close
        with announced(runtime.home, url):
            ready(url, secret)
            for dispatcher in dispatchers:
                dispatcher.start()
            try:
                server.run(sockets=[listener])
            finally:
                for dispatcher in dispatchers:
                    dispatcher.stop()


def _check(serving: Serving) -> None:
    if serving.secret and not _SECRET.fullmatch(serving.secret):
        raise KitaruUsageError(
            f"The token of {len(serving.secret)} characters can't be; expected 16 or more of letters, digits and -._~",
            fix="export KITARU_SERVER_TOKEN=$(openssl rand -hex 32)",
        )
    if serving.url is not None and not re.match(r"https?://[^/?#\s]+", serving.url):
        raise KitaruUsageError(
            f"{serving.url!r} is no address of a server; expected http:// or https:// and a name.",
            fix="kitaru server --url https://kitaru.example",
        )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With the protocol's number: only of sockets that say so does asyncio send small packets at once.
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError, UnicodeError) as error:
        raise KitaruUsageError(f"{host}:{port} is no address to listen on: {error}", fix="kitaru server") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        raise KitaruUsageError(
            f"{host}:{port} can't be listened on: {error}", fix=f"kitaru server --port {PORT + 1}"
        ) from error
    return listener


def _shown(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
