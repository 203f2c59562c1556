"""What a model says in the contract's tests: scripts of turns, and the endpoint that plays them over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

#: What may go wrong with a request: ``429`` and ``500`` are answers; ``disconnect`` ends the connection before any
#: answer, ``cut`` in the middle of a streamed one; ``malformed`` is status 200 with a body that isn't JSON.
Fault = Literal["429", "500", "disconnect", "cut", "malformed"]


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One tool call that the model asks for."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer of the model.

    Attributes:
        uses: tool calls; several run side by side.
        faults: what goes wrong first, one request each, before the answer is given.
        seconds: how long the model thinks.
        pause: seconds between the pieces of a streamed answer.
    """

    text: str = ""
    uses: Sequence[ToolUse] = ()
    faults: Sequence[Fault] = ()
    seconds: float = 0.0
    pause: float = 0.0

    def after(self, *faults: Fault) -> Turn:
        """The same answer, once these faults are over."""
        return replace(self, faults=faults)

    def taking(self, seconds: float) -> Turn:
        """The same answer, later."""
        return replace(self, seconds=seconds)

    def dripping(self, pause: float) -> Turn:
        """The same answer, with so many seconds between its pieces when it is streamed."""
        return replace(self, pause=pause)


def say(text: str) -> Turn:
    """The model answers with text."""
    return Turn(text)


def use(name: str, **arguments: Any) -> Turn:
    """The model asks for one tool call."""
    return Turn(uses=(ToolUse(name, arguments),))


def side_by_side(*turns: Turn) -> Turn:
    """The tool calls of several `use` turns in one."""
    return Turn(uses=tuple(use for turn in turns for use in turn.uses))


#: Parts of a request that the model sees, or that shape what it answers, in the words of all interfaces.
_SEEN = ("model", "system", "instructions", "messages", "input", "tools", "tool_choice", "response_format", "text")


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in at the endpoint.

    Attributes:
        body: the request's JSON, untouched.
        status: of the answer; None when none was given.
        finished: whether the answer went out whole. Such an answer with status 200 is one that is paid for.
        held: whether the endpoint keeps it waiting.
    """

    path: str
    body: Any
    status: int | None
    finished: bool
    held: bool
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def paid(self) -> bool:
        """Whether the model's answer went out whole."""
        return self.status == 200 and self.finished

    @property
    def seen(self) -> Mapping[str, Any]:
        """What the model sees of it: the conversation, and what it may do."""
        return {part: self.body[part] for part in _SEEN if part in self.body}


class Endpoint(Protocol):
    """A model endpoint that speaks OpenAI's and Anthropic's HTTP interfaces and plays scripts."""

    #: ``http://127.0.0.1:<port>``, without ``/v1``.
    url: str

    def script(self, prompt: str, *turns: Turn) -> None:
        """Play these turns to conversations whose last user message contains ``prompt``."""

    def requests(self) -> Sequence[Request]:
        """The model requests so far, oldest first."""

    @property
    def paid(self) -> int:
        """How many answers went out whole."""

    def hold(self, after: int = 0) -> None:
        """Answer ``after`` more requests and keep all later ones waiting."""

    def wait_held(self, count: int = 1, *, seconds: float = 60.0) -> Sequence[Request]:
        """Wait until ``count`` requests are kept waiting; those. Raises `TimeoutError`."""

    def let_go(self) -> None:
        """Drop the connections of those that wait, and answer again from now on."""
