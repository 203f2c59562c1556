"""Connections to a server that has the journal: kept alive, opened again when they broke, and tried again for a while.

The standard library's client: it is loaded in a few milliseconds, which every command and every worker pays.
"""

from __future__ import annotations

import http.client
import logging
import os
import random
import ssl
import time
import weakref
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from kitaru_nb.config import shown
from kitaru_nb.errors import KitaruBackendError, KitaruUsageError

logger = logging.getLogger("kitaru_nb.journal")

TOKEN_VARIABLE = "KITARU_JOURNAL_TOKEN"
#: Servers end connections that were silent for a few seconds; one that is younger than this is trusted.
_FRESH = 3.0
#: Longer than a server's journal itself may take.
_TIMEOUT = 40.0
#: After so many seconds whoever waits is told why.
TOLD_AFTER = 1.0
#: What something between here and the server says while the server is away.
_AWAY = frozenset({502, 503, 504})


class Address(NamedTuple):
    """Where the server is. ``shown`` is its URL without the token, ``path`` what comes before the journal's paths."""

    shown: str
    secure: bool
    host: str
    port: int
    path: str
    token: str | None


class Reply(NamedTuple):
    """What the server answered."""

    status: int
    media_type: str
    body: bytes


class Server:
    """Connections to one server: as many as threads use at once, opened when needed, opened again when they broke."""

    def __init__(self, address: Address, media_type: str, patience: float) -> None:
        self.address = address
        self.closed = False
        self._patience = patience
        self._media_type = media_type
        self._headers = {"Content-Type": media_type, "X-Kitaru": "1"}
        if address.token is not None:
            self._headers["Authorization"] = f"Bearer {address.token}"
        self._idle: list[tuple[http.client.HTTPConnection, float]] = []
        self._inherited: list[tuple[http.client.HTTPConnection, float]] = []
        self._pid = os.getpid()
        self._ssl: ssl.SSLContext | None = None
        weakref.finalize(self, _close_all, self._idle, self._pid)  # where nobody closed the handle

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Send a request; again, with ``X-Kitaru-Again`` and the seconds since the first try, when no answer came.

        Raises:
            KitaruBackendError: the server wasn't reached for ``patience`` seconds after the first failure.
        """
        began, first_failure, pause = time.monotonic(), None, 0.05
        more, told = dict(headers), False
        while True:
            try:
                reply = self._send(path, body, more)
                if reply.status not in _AWAY or reply.media_type == self._media_type:
                    return reply
                failure: Exception = OSError(f"it answers {reply.status}")
            except (OSError, http.client.HTTPException) as error:
                failure = error
            now = time.monotonic()
            first_failure = first_failure or now
            if self.closed or not _may_pass(failure) or now + pause > first_failure + self._patience:
                raise self._unreachable(failure) from failure
            if not told and now >= first_failure + TOLD_AFTER:
                told = True
                logger.warning("%s It is tried again for %g s.", self._unreachable(failure).message, self._patience)
            time.sleep(pause * random.uniform(0.5, 1.0))  # all workers of a server that restarts come back at once
            pause = min(pause * 2, 2.0)
            more["X-Kitaru-Again"] = f"{time.monotonic() - began:.3f}"

    def connect(self, timeout: float = _TIMEOUT) -> http.client.HTTPConnection:
        """A connection of the caller's own, not opened yet."""
        host, port = self.address.host, self.address.port
        proxy = _proxy_for(self.address)
        tunnel = None if proxy is None else (host, port)
        where, at = proxy or (host, port)
        connection: http.client.HTTPConnection
        if self.address.secure:
            if self._ssl is None:
                self._ssl = ssl.create_default_context()
            connection = http.client.HTTPSConnection(where, at, timeout=timeout, context=self._ssl)
        else:
            connection = http.client.HTTPConnection(where, at, timeout=timeout)
        if tunnel is not None:
            connection.set_tunnel(*tunnel)
        return connection

    def exchange(
        self, connection: http.client.HTTPConnection, path: str, body: bytes, headers: Mapping[str, str]
    ) -> Reply:
        """One request and its answer on ``connection``."""
        connection.request("POST", self.address.path + path, body, {**self._headers, **headers})
        response = connection.getresponse()
        media_type = (response.getheader("content-type") or "").partition(";")[0].strip().lower()
        return Reply(response.status, media_type, response.read())

    def close(self) -> None:
        """Close what nobody uses; what is in use is closed after it."""
        self.closed = True
        while self._idle:
            self._idle.pop()[0].close()

    def _send(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        self.check_open()
        connection = self._borrow()
        try:
            reply = self.exchange(connection, path, body, headers)
        except BaseException:
            connection.close()
            raise
        if self.closed or connection.sock is None:  # the server closes it after this answer
            connection.close()
        else:
            self._idle.append((connection, time.monotonic()))
        return reply

    def check_open(self) -> None:
        """Raises `KitaruBackendError` when this handle was closed."""
        if self.closed:
            raise KitaruBackendError(
                f"The journal {self.address.shown} was closed.", fix=f"open_journal({self.address.shown!r})"
            )

    def _borrow(self) -> http.client.HTTPConnection:
        if self._pid != os.getpid():  # forked: the connections are the parent's, and closing them would be seen there
            self._inherited, self._idle, self._pid = self._inherited + self._idle, [], os.getpid()
        while self._idle:
            try:
                connection, since = self._idle.pop()
            except IndexError:
                break
            if time.monotonic() - since < _FRESH:
                return connection
            connection.close()
        return self.connect()

    def _unreachable(self, error: Exception) -> KitaruBackendError:
        said = str(error).strip().rstrip(".") or type(error).__name__
        return KitaruBackendError(
            f"The journal {self.address.shown} can't be reached: {said}.",
            fix=f"check that a server answers there: curl {self.address.shown}",
        )


def _close_all(idle: list[tuple[http.client.HTTPConnection, float]], pid: int) -> None:
    while idle and pid == os.getpid():  # a child after a fork must leave those of its parent alone
        idle.pop()[0].close()


def _may_pass(error: Exception) -> bool:
    """Whether trying again may help: not when the server isn't who it should be."""
    return not isinstance(error, ssl.SSLCertVerificationError | http.client.InvalidURL)


def _proxy_for(address: Address) -> tuple[str, int] | None:
    """Host and port of the proxy that the environment names for this server."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # slow to load, and rarely needed

    found = getproxies().get("https" if address.secure else "http")
    if not found or proxy_bypass(f"{address.host}:{address.port}"):
        return None
    proxy = urlsplit(found if "://" in found else f"http://{found}")
    return (proxy.hostname, proxy.port or 80) if proxy.hostname else None


def address_of(url: str) -> Address:
    """The parts of a journal's URL; its token is the password in it, else ``KITARU_JOURNAL_TOKEN``.

    Raises:
        KitaruUsageError: the URL can't be right.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _wrong(url, str(error)) from error
    name = host or ""
    if not name or not name.isascii() or any(char.isspace() for char in url):
        raise _wrong(shown(url), "it names no host")
    if parts.query or parts.fragment:
        raise _wrong(shown(url), "it has a query")
    secure = parts.scheme == "https"
    token = unquote(parts.password or parts.username or "") or os.environ.get(TOKEN_VARIABLE) or None
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise KitaruUsageError(
            f"The token of the journal {shown(url)} has characters that no token has.",
            fix="kitaru server token create worker --role work",
        )
    return Address(shown(url).rstrip("/"), secure, name, port or (443 if secure else 80), parts.path.rstrip("/"), token)


def _wrong(url: str, why: str) -> KitaruUsageError:
    return KitaruUsageError(f"{url!r} is no URL of a journal: {why}.", fix="export KITARU_JOURNAL=https://host:port")
