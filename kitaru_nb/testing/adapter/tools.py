"""The tools of the contract's programs. Plain functions: a program wraps them as its SDK wants.

Each notes in a side file that it began and that it ended, so that a test can tell what really ran, in whatever process.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

T = TypeVar("T")

#: Environment: the side file; ``tool:argument`` of a call that never ends, or ``tool:*``; ``reversed`` for `gathered`.
SIDE_FILE = "KITARU_CONTRACT_SIDE_FILE"
HANGS = "KITARU_CONTRACT_HANGS"
ORDER = "KITARU_CONTRACT_ORDER"
#: Environment: set where the endpoint speaks Chat Completions and Messages, but not Responses.
CHAT = "KITARU_CONTRACT_CHAT"


@dataclass(frozen=True, slots=True)
class Ran:
    """One line of the side file: a tool ``began`` or ``ended``."""

    tool: str
    argument: Any
    state: str


@dataclass(frozen=True)
class Point:
    """A dataclass among the values that tools return."""

    x: int
    y: int


class Note(BaseModel):
    """A pydantic model among the values that tools return."""

    text: str
    number: int


def look_up(key: str) -> str:
    """Look up what is known about a key."""
    with Noted("look_up", key):
        return f"{key} is known"


def charge(amount: int) -> str:
    """Charge an amount."""
    with Noted("charge", amount):
        time.sleep(max(0.0, 0.05 * (4 - amount)))  # the first that is called is the last to end
        return f"charged {amount}"


def pay(amount: int) -> str:
    """Pay an amount. Needs a person's approval."""
    with Noted("pay", amount):
        return f"paid {amount}"


def trap(kind: str) -> Any:
    """Give back a value of the named kind."""
    with Noted("trap", kind):
        return trap_value(kind)


#: Kinds of values that plain JSON changes, or that are awkward in text.
TRAPS = ("tuple", "set", "bytes", "datetime", "decimal", "dataclass", "model", "none", "keys", "unicode", "control")


def trap_value(kind: str) -> Any:
    """The value that `trap` returns."""
    return {
        "model": Note(text="a", number=1),
        "tuple": (1, "a"),
        "set": {"a", "b", "c", "d"},
        "bytes": b"\x00\xff",
        "datetime": datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
        "decimal": Decimal("1.50"),
        "dataclass": Point(1, 2),
        "none": None,
        "keys": {1: "one", None: "none"},
        "unicode": "naïve — 日本語 🎈\u202e",
        "control": "a\x07b\x1b[31mc\td\n",
    }[kind]


async def gathered(makers: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Run all side by side, started in the order that the test asks for; results in the order of ``makers``."""
    numbers = list(range(len(makers)))
    tasks: dict[int, asyncio.Future[T]] = {}
    for n in reversed(numbers) if os.environ.get(ORDER) == "reversed" else numbers:
        tasks[n] = asyncio.ensure_future(makers[n]())
    return list(await asyncio.gather(*(tasks[n] for n in numbers)))


def executions_of_tools(side_file: Path) -> list[Ran]:
    """What the side file says, in order."""
    if not side_file.exists():
        return []
    return [Ran(**json.loads(line)) for line in side_file.read_text(encoding="utf-8").splitlines()]


class Noted:
    """Notes beginning and end of a tool; hangs in between when it is told to."""

    def __init__(self, tool: str, argument: Any) -> None:
        self._tool, self._argument = tool, argument

    def _note(self, state: str) -> None:
        line = json.dumps({"tool": self._tool, "argument": self._argument, "state": state}) + "\n"
        if path := os.environ.get(SIDE_FILE):
            with open(path, "ab", buffering=0) as file:
                file.write(line.encode())  # one write: lines of several threads don't mix

    def __enter__(self) -> None:
        self._note("began")
        if os.environ.get(HANGS) in (f"{self._tool}:{self._argument}", f"{self._tool}:*"):
            while True:
                time.sleep(60)

    def __exit__(self, *error: object) -> None:
        self._note("ended")
