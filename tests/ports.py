"""Ports for servers of the tests that are told where to listen.

What the system hands out by itself may be handed out again before the server listens, or while it restarts: every
connection takes such a port. These are below.
"""

from __future__ import annotations

import secrets
import socket

#: Below the ports of connections: from 32768 on with Linux, from 49152 on elsewhere.
_FROM, _TO = 20_000, 32_768

_given: set[int] = set()


def free_port() -> int:
    """A port of loopback that nobody listens on; another one each time."""
    while True:
        port = _FROM + secrets.randbelow(_TO - _FROM)  # `random` begins anew in each test of Hypothesis
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port
