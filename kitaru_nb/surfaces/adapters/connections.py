"""One client of an SDK for several event loops.

A connection belongs to the loop that opened it. Each async flow has a loop of its own, blocking calls share another,
and a notebook has a third; but SDKs keep one client for all of them, and so do their users. Left alone, a request on
one loop takes a connection that another one has left idle, and fails: ``Event loop is closed``.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import AsyncGenerator
from typing import Any
from weakref import WeakKeyDictionary

from kitaru_nb.core.futures import running_loop

#: What a pool of httpcore knows of its connections; the rest of it is settings.
_STATE = {"_connections", "_requests", "_optional_thread_lock"}

_lock = threading.Lock()


def for_every_loop(client: Any) -> None:
    """Make an SDK's asynchronous client, or one of httpx, keep the connections of each loop apart, from now on.

    Clients that don't send through httpx's own transports stay as they are, as does None.
    """
    http = client if hasattr(client, "_mounts") else getattr(client, "_client", None)
    mounts = getattr(http, "_mounts", None)
    if not isinstance(mounts, dict):
        return
    with _lock:
        for transport in (getattr(http, "_transport", None), *mounts.values()):
            pool = getattr(transport, "_pool", None)
            if hasattr(pool, "handle_async_request") and vars(pool).keys() >= _STATE:
                transport._pool = PoolOfEachLoop(pool)


class PoolOfEachLoop:
    """Takes the place of a connection pool: one for each loop, with the settings of the one that there was."""

    def __init__(self, pool: Any) -> None:
        self._settings = pool
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Any, AsyncGenerator[None]]] = (
            WeakKeyDictionary()
        )

    async def handle_async_request(self, request: Any) -> Any:
        """Send with a connection of the running loop."""
        return await (await self._own()).handle_async_request(request)

    async def __aenter__(self) -> PoolOfEachLoop:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of the running loop; those of others close with their loops."""
        if (loop := running_loop()) is None:
            await self._settings.aclose()
            return
        with _lock:
            found = self._pools.get(loop)
        if found is not None:
            await found[1].aclose()

    async def _own(self) -> Any:
        if (loop := running_loop()) is None:
            return self._settings  # on trio, which runs no flows
        with _lock:
            found = self._pools.get(loop)
        if found is None:
            pool = copy.copy(self._settings)
            pool._connections, pool._requests = [], []
            pool._optional_thread_lock = type(pool._optional_thread_lock)()
            found = (pool, self._open(pool))
            with _lock:
                self._pools[loop] = found
            await anext(found[1])
        return found[0]

    async def _open(self, pool: Any) -> AsyncGenerator[None]:
        """Ends when the loop shuts down, as all generators that were begun on it: so its connections are closed."""
        try:
            yield
        finally:
            with _lock:
                self._pools.pop(asyncio.get_running_loop(), None)
            await pool.aclose()
