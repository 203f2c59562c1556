"""A network between a client and a server that loses connections when a test says so, and large values to send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from urllib.parse import urlsplit


class FlakyNetwork:
    """A port that leads to a server, and breaks the next ``failures`` connections.

    Attributes:
        sent: bytes that went to the server.
        on_sent: told of ``sent`` whenever it has grown; may set ``failures``.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.failures = 0
        self.sent = 0
        self.on_sent: Callable[[int], None] = lambda _: None
        self._open: list[socket.socket] = []

    def __enter__(self) -> FlakyNetwork:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends the wait for the next connection too
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # the end
            if self.failures > 0:
                self.failures -= 1
                client.recv(1000)  # the request begins, and is cut off
                client.close()
                continue
            server = socket.create_connection(self._target)
            self._open += [client, server]
            threading.Thread(target=self._copy, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, False), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, upwards: bool) -> None:
        try:
            while data := source.recv(65536):
                if upwards and self.failures > 0:  # a kept connection breaks too
                    self.failures -= 1
                    break
                target.sendall(data)
                if upwards:
                    self.sent += len(data)
                    self.on_sent(self.sent)
        except OSError:
            pass  # the other side has gone
        finally:
            for end in (source, target):
                end.close()


def numbered_bytes(size: int, *, seed: int) -> bytes:
    """The same bytes each time, everywhere others."""
    block = 1 << 16
    whole = b"".join(f"{seed:5}{number:11}".encode() * (block // 16) for number in range(-(-size // block)))
    return whole[:size]
