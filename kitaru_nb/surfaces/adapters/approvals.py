"""Approvals of tool calls as waits: what every adapter asks, and how it is answered.

One wait for each call, all asked at once: each is a row of the inbox with its own form, and may be answered by somebody
else. The answer is ``{"approve": true, "message": "…"}``, or plainly ``true`` or ``false``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from kitaru_nb.core.context import require_frame
from kitaru_nb.core.wait import wait_async
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.surfaces.adapters.base import block_on


@dataclass(frozen=True)
class Approval:
    """The answer to a question whether a tool may be called. ``message`` tells the model why not."""

    approve: bool
    message: str | None = None

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody is asked: whether a tool may be called, or what a graph or an agent wants to know.

    Attributes:
        name: of the wait; unique among those asked together.
        text: what the person reads.
        metadata: JSON beside it: ``agent tool call_id arguments``.
    """

    name: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was decided, and the wait (``wait:ID``) in which."""

    approve: bool
    message: str | None
    source: str


def ask(questions: Sequence[Question], *, timeout: float | None = None) -> list[Answer]:
    """Ask all questions at once and wait for every answer, in the order of the questions.

    Args:
        timeout: for how many seconds the worker polls before it lets go, as in `kitaru_nb.wait`.

    Raises:
        KitaruContextError: outside a flow, or inside a checkpoint.
        KitaruStateError: a wait was aborted.
        KitaruUsageError: two questions of one name.
    """
    require_frame("An approval")
    return block_on(
        lambda: ask_async(questions, timeout=timeout), instead="await ask_async(questions)", only_waits=True
    )


async def ask_async(
    questions: Sequence[Question],
    *,
    timeout: float | None = None,  # noqa: ASYNC109 (it ends the worker's polling, not this call)
) -> list[Answer]:
    """`ask` for asynchronous flows."""
    answers = await answered(questions, Approval | bool, timeout=timeout)
    return [
        Answer(given, None, source) if isinstance(given, bool) else Answer(given.approve, given.message, source)
        for given, source in answers
    ]


async def answered(
    questions: Sequence[Question],
    schema: Any,
    *,
    timeout: float | None = None,  # noqa: ASYNC109 (it ends the worker's polling, not this call)
) -> list[tuple[Any, str]]:
    """Ask all questions at once; each answer, and the wait (``wait:ID``) that gave it.

    Args:
        schema: type of the answers.

    Raises: as `ask`.
    """
    names = [question.name for question in questions]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise KitaruUsageError(
            f"Two questions were asked at once under the name {twice!r}; expected a name for each.",
            fix="leave name= away: then each has its own",
        )

    async def answer(question: Question) -> tuple[Any, str]:
        given = await wait_async(
            question.name, question=question.text, schema=schema, timeout=timeout, metadata=question.metadata
        )
        # No other task runs between the answer and this line, so the last thing on the line is this wait.
        return given, require_frame("A question").last[-1]

    if len(questions) == 1:
        return [await answer(questions[0])]
    return list(await asyncio.gather(*map(answer, questions)))
