"""One run of an agent as it goes on: which calls it has made so far, and what they are called."""

from __future__ import annotations

from collections import defaultdict
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from kitaru_nb.errors import KitaruError
from kitaru_nb.surfaces.adapters.openai_agents.contexts import Changes
from kitaru_nb.surfaces.adapters.openai_agents.policy import Policy


@dataclass(frozen=True, slots=True)
class Approved:
    """Calls that wait in a resumed state, and the scope in which each happens once however often that is resumed."""

    scope: str
    calls: frozenset[str]


@dataclass(slots=True)
class Bill:
    """What a run and those nested in it cost, in USD; ``unknown`` models have no price."""

    total: float = 0.0
    unknown: set[str] = field(default_factory=set)

    def add(self, model: str, cost: float | None) -> None:
        """One answer of a model."""
        if cost is None:
            self.unknown.add(model)
        else:
            self.total += cost

    @property
    def known(self) -> float | None:
        """The sum, or None when a price is missing."""
        return None if self.unknown else round(self.total, 8)


@dataclass(slots=True)
class Line:
    """One run: its model calls follow one another, its tools may run side by side.

    Attributes:
        agent: name of the agent whose turn it is.
        places: agent → how many model calls it has made.
        failed: (agent, place) → id of a model call that failed in this process; the SDK may ask again.
        makers: the provider's id of a tool call or item → id of our call whose output it is in.
        loose: something that had failed went well this time, so later requests may differ from the recorded ones.
        broken: a misuse that must end the run, though the SDK would tell it to the model.
        claimed: approved calls that have been made in this run.
        changes: what its tools, and those of the runs inside it, do to the context.
    """

    policy: Policy
    bill: Bill
    approved: Approved | None = None
    agent: str = "agent"
    places: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    failed: dict[tuple[str, int], str] = field(default_factory=dict)
    makers: dict[str, str] = field(default_factory=dict)
    loose: bool = False
    broken: KitaruError | None = None
    claimed: set[str] = field(default_factory=set)
    changes: Changes = field(default_factory=Changes)

    def check(self) -> None:
        """Raise what must end the run."""
        if self.broken is not None:
            raise self.broken

    def awaits(self, call_id: str) -> bool:
        """Whether this is a call that was approved, and hasn't been made in this run."""
        return self.approved is not None and call_id in self.approved.calls and call_id not in self.claimed

    def sources(self, items: Any) -> list[str]:
        """Ids of the calls whose outputs are in input items."""
        if isinstance(items, str):
            return []
        found: dict[str, None] = {}
        for item in items:
            if not isinstance(item, dict):
                continue
            key = f"result:{item.get('call_id')}" if _is_result(item) else f"asked:{item.get('call_id')}"
            for maker in (self.makers.get(key), self.makers.get(f"item:{item.get('id')}")):
                if maker is not None:
                    found[maker] = None
        return list(found)


def _is_result(item: dict[str, Any]) -> bool:
    return str(item.get("type", "")).endswith("_output")


#: The run that the calling code belongs to.
line: ContextVar[Line | None] = ContextVar("kitaru_openai_line", default=None)
