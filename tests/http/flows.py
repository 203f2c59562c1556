"""Flows that the tests run, importable by the workers that go on with them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from kitaru_nb import checkpoint, flow, log, wait


class Review(BaseModel):
    """An answer with parts."""

    verdict: Literal["ship", "fix"]
    comment: str = ""


@checkpoint
def research(topic: str) -> str:
    print(f"looking for {topic}")
    log(tokens=12, cost=0.5)
    return f"notes on {topic}"


@checkpoint
def publish(text: str) -> str:
    return f"published: {text}"


@flow
def brief(topic: str = "durable agents") -> str:
    notes = research(topic)
    if not wait("approve", question=f"Publish?\n{notes}", timeout=0):
        return "rejected"
    return publish(notes)


@flow
def reviewed(text: str = "draft") -> str:
    review = wait("review", question=text, schema=Review, timeout=0)
    return f"{review.verdict}: {review.comment}"


@flow
def twice() -> list[bool]:
    return [wait("first", timeout=0), wait("second", timeout=0)]


@checkpoint
def make(number: int) -> str:
    return f"value {number}"


@flow
def many(count: int = 5) -> int:
    return len([make(number) for number in range(count)])


@flow
def failing() -> None:
    raise ValueError("no <b>good</b>")


@flow
def said(text: str) -> str:
    print(text)
    return research(text)
