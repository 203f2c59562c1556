"""What a run of Claude's Agent SDK is given, and how it ends. Plain values, without the SDK."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from kitaru_nb.errors import KitaruUsageError


@dataclasses.dataclass(frozen=True)
class ClaudeUsage:
    """Tokens of one run."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0


@dataclasses.dataclass(frozen=True)
class ClaudeInterruption:
    """A tool call that waits for a person's approval."""

    call_id: str
    tool: str
    arguments: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ClaudeDecision:
    """What was decided about a tool call; ``source`` is the wait in which."""

    call_id: str
    approve: bool
    message: str | None = None
    source: str | None = None


@dataclasses.dataclass(frozen=True)
class ClaudeRunResult:
    """How a run ended. Plain values: it can be stored, and read in another process.

    Attributes:
        status: ``completed``, or ``interrupted`` by a tool call that needs approval.
        text, structured_output: the agent's answer.
        session_id, places: the session, and where the journal has it; a later run goes on with it.
        usage, cost_usd: of this run; ``cost_total_usd`` of the whole session. Those of an attempt that was cut off are
            known only to the provider (``resumed`` says that there was one).
    """

    status: Literal["completed", "interrupted"]
    runner: str
    text: str
    session_id: str
    structured_output: Any = None
    interruptions: tuple[ClaudeInterruption, ...] = ()
    usage: ClaudeUsage = ClaudeUsage()
    cost_usd: float | None = None
    cost_total_usd: float | None = None
    turns: int = 0
    stop_reason: str | None = None
    resumed: bool = False
    places: tuple[tuple[str, str], ...] = ()

    @property
    def final_output(self) -> Any:
        """The structured output where one was asked for, else the text."""
        return self.text if self.structured_output is None else self.structured_output


def checked(result: ClaudeRunResult) -> ClaudeRunResult:
    """The result of a run. Raises `KitaruUsageError` where something else was given for one."""
    if not isinstance(result, ClaudeRunResult):
        raise KitaruUsageError(
            f"{result!r} is a {type(result).__name__}; expected the result of a run.",
            fix="result = runner.run_sync(prompt)",
        )
    return result


@dataclasses.dataclass(frozen=True)
class ClaudeRunRequest:
    """What to run: a prompt, or an interrupted run with decisions. Made by `start` and `resume`."""

    prompt: str | None = None
    session: ClaudeRunResult | None = None
    decisions: tuple[ClaudeDecision, ...] = ()

    @classmethod
    def start(cls, prompt: str, *, session: ClaudeRunResult | None = None) -> ClaudeRunRequest:
        """A prompt: to a new session, or to the one of an earlier result.

        Raises:
            KitaruUsageError: the earlier run still waits for an approval.
        """
        if not isinstance(prompt, str) or not prompt.strip():
            raise KitaruUsageError(
                f"The prompt is {prompt!r}; expected a text.", fix="ClaudeRunRequest.start('Look into ticket 7')"
            )
        if session is not None and checked(session).status == "interrupted":
            raise KitaruUsageError(
                f"The session waits for the approval of {session.interruptions[0].tool}; it can't take a prompt now.",
                fix="runner.run(runner.wait_for_approval(result))",
            )
        return cls(prompt, session)

    @classmethod
    def resume(cls, result: ClaudeRunResult, *decisions: ClaudeDecision) -> ClaudeRunRequest:
        """Go on with an interrupted run.

        Raises:
            KitaruUsageError: the run isn't interrupted, or the decisions aren't those that it waits for.
        """
        waiting = [item.call_id for item in checked(result).interruptions]
        if result.status != "interrupted":
            raise KitaruUsageError("This run has completed; there is nothing to decide.", fix="result.text")
        decided = [decision.call_id for decision in decisions]
        if sorted(decided) != sorted(waiting):
            raise KitaruUsageError(
                f"The run waits for decisions about {', '.join(waiting)}; found {', '.join(decided) or 'none'}.",
                fix=f"ClaudeRunRequest.resume(result, ClaudeDecision({waiting[0]!r}, approve=True))",
            )
        return cls(None, result, decisions)
