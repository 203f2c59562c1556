"""Sessions in a durable run: read once, written once.

The SDK writes to a session as it goes. A run that is repeated after a crash would find its own half-written turn in it,
and the model would read everything twice. So the history is read once, in a checkpoint; what is added is kept here, and
goes to the session in one more checkpoint when the run, or its segment, has ended.
"""

from __future__ import annotations

import copy
from typing import Any

from kitaru_nb.surfaces.adapters.base import Operation, Part, Recorded, perform_async
from kitaru_nb.surfaces.adapters.openai_agents.twins import Twins

#: More items than any history has.
_ALL = 2**31 - 1


class Pages:
    """What one run knows of a session: the history that it found, and what it has changed since.

    Attributes:
        found: as much of it as the session shows. ``stored``: how many items there were in all, where it shows fewer.
    """

    def __init__(self, original: Any) -> None:
        self.original = original
        self.found: list[Any] | None = None
        self.stored: int | None = None
        self.added: list[Any] = []
        self.popped = 0
        self.cleared = False

    async def items(self) -> list[Any]:
        """The history as the run sees it."""
        if self.found is None:
            session_id = str(self.original.session_id)
            operation: Operation[list[Any]] = Operation(
                "session.read",
                "session",
                {"session": session_id},
                encode=self._keep,
                place=0,
                recall={"stored": self._recall},
            )
            self.found = await perform_async(operation, self._read)
        kept = [] if self.cleared else self.found[: len(self.found) - self.popped]
        return copy.deepcopy([*kept, *self.added])

    async def _read(self) -> list[Any]:
        settings = getattr(self.original, "session_settings", None)
        if getattr(settings, "limit", None) is not None:
            self.stored = len(await self.original.get_items(_ALL))
        return list(await self.original.get_items())

    def _keep(self, items: list[Any]) -> Recorded:
        parts = [Part("output", items)]
        if self.stored is not None:
            parts.append(Part("stored", self.stored, "blob"))
        return Recorded(parts)

    def _recall(self, stored: int) -> None:
        self.stored = stored

    def pop(self) -> None:
        """Take the last item away."""
        if self.added:
            self.added.pop()
        else:
            self.popped += 1

    def clear(self) -> None:
        """Forget everything."""
        self.cleared, self.added, self.popped = True, [], 0

    async def commit(self) -> None:
        """Write the changes to the session, once in the life of the execution."""
        if not (self.added or self.popped or self.cleared):
            return
        before = self.found or []
        inputs = {"session": str(self.original.session_id), "added": self.added, "history": len(before)}
        operation: Operation[int] = Operation("session.write", "session", inputs)
        await perform_async(operation, self._write)

    async def _write(self) -> int:
        if not self.cleared and await self._written():
            return len(self.added)  # and the process ended before it could say so
        if self.cleared:
            await self.original.clear_session()
        for _ in range(self.popped):
            await self.original.pop_item()
        if self.added:
            await self.original.add_items(self.added)
        return len(self.added)

    async def _written(self) -> bool:
        before = self.found or []
        if self.stored is None:
            return list(await self.original.get_items()) == [*before[: len(before) - self.popped], *self.added]
        now = list(await self.original.get_items(_ALL))
        kept = self.stored - self.popped
        return len(now) == kept + len(self.added) and now[kept:] == self.added


class BufferedSession:
    """What the twin of a session does otherwise."""

    __slots__ = ("kitaru_original", "kitaru_pages")

    kitaru_pages: Pages

    async def get_items(self, limit: int | None = None) -> list[Any]:
        """The latest ``limit`` items, or all."""
        items = await self.kitaru_pages.items()
        return items if limit is None else items[max(0, len(items) - limit) :]

    async def add_items(self, items: list[Any]) -> None:
        """Keep items for the end of the run."""
        self.kitaru_pages.added += copy.deepcopy(items)

    async def pop_item(self) -> Any:
        """Take the last item away."""
        items = await self.kitaru_pages.items()
        if not items:
            return None
        self.kitaru_pages.pop()
        return items[-1]

    async def clear_session(self) -> None:
        """Forget everything, at the end of the run."""
        self.kitaru_pages.clear()


_sessions: Twins[Any] = Twins(BufferedSession)


def buffered(session: Any) -> tuple[Any, Pages]:
    """A stand-in for one run, and what is to be committed when that has ended."""
    twin = _sessions.make(session)
    twin.kitaru_pages = pages = Pages(session)
    return twin, pages
