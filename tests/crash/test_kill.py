"""``kill -9`` at random moments, again and again until the execution completes; and at chosen ones."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from crash.evidence import Recorded
from crash.flows import journey, journey_async, stairs
from crash.workshop import Workshop
from kitaru_nb.core.flow import Flow
from kitaru_nb.model import ExecutionStatus

#: Journal → kills. What is different with the others is how they write, and one write is as good as another.
KILLS = {"sqlite": 200, "postgresql": 30, "http": 30}
LANES = 2
WIDTH = 4
ANSWERS = {"first": 1, "second": True}
SEED = 20261123


class Lane:
    """Executions one after another in a home of their own."""

    def __init__(self, workshop: Workshop, seed: int) -> None:
        self.workshop = workshop
        self.chance = random.Random(seed)
        self.kills = 0
        self.executions = 0
        self.again = 0

    def undisturbed(self, program: Flow[..., Any]) -> tuple[Any, Recorded, float]:
        """Result, record, and seconds of the longest life when nobody is killed."""
        exec_id = self.workshop.create(program, WIDTH)
        longest = 0.0
        while self.workshop.status(exec_id) is not ExecutionStatus.COMPLETED:
            child = self.workshop.nursery
            child.begin(exec_id)
            start = time.monotonic()
            child.end()
            longest = max(longest, time.monotonic() - start)
            self.workshop.answer(exec_id, ANSWERS)
        return self.workshop.result(exec_id), self.workshop.recorded(exec_id), longest

    def torment(self, program: Flow[..., Any], kills: int) -> None:
        """Run executions and kill their workers until there were ``kills``; check each after every life."""
        result, recorded, longest = self.undisturbed(program)
        target = self.kills + kills
        while self.kills < target:
            self.workshop.side_file.write_text("")
            exec_id = self.workshop.create(program, WIDTH)
            self._until_completed(exec_id, longest)
            self.workshop.witness.verdict(self.workshop.runtime.journal, exec_id, recorded)
            assert self.workshop.result(exec_id) == result
            self.executions += 1
            bodies = self.workshop.witness.bodies()
            self.again += len(bodies) - len(set(bodies))

    def _until_completed(self, exec_id: str, longest: float) -> None:
        journal, witness = self.workshop.runtime.journal, self.workshop.witness
        for _ in range(200):
            child = self.workshop.nursery
            witness.life_begins(journal, exec_id)
            child.begin(exec_id)
            child.live_for(self.chance.uniform(0, longest / 2))
            self.kills += child.kill() == -signal.SIGKILL
            assert child.errors == ""
            witness.life_ended(journal, exec_id)
            self.workshop.answer(exec_id, ANSWERS)
            if self.workshop.status(exec_id) is ExecutionStatus.COMPLETED:
                return
        raise AssertionError(f"{exec_id} makes no progress")


@pytest.mark.timeout(1200)  # 200 lives and what comes after each take a minute and a half where nothing else runs
@pytest.mark.parametrize("kind", list(KILLS))
def test_kills_at_random_moments_lose_nothing_and_repeat_nothing(
    workshops: Callable[..., Workshop],
    journals: Callable[[str], str | None],
    kind: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def torment(lane: Lane) -> None:
        for program in (journey, journey_async):
            lane.torment(program, KILLS[kind] // LANES // 2)

    start = time.monotonic()
    # What survives the loss of power is more than what survives a kill: the file's journal alone waits for the disk.
    more = {} if kind == "sqlite" else {"KITARU_DURABILITY": "process"}
    lanes = [Lane(workshops(journal=journals(kind), **more), SEED + number) for number in range(LANES)]
    with ThreadPoolExecutor(LANES) as pool:
        list(pool.map(torment, lanes))
    kills, executions, again = (sum(getattr(lane, name) for lane in lanes) for name in ("kills", "executions", "again"))
    with capsys.disabled():
        print(
            f"\n{kind}: {kills} kills over {executions} executions in {time.monotonic() - start:.0f} s (seed {SEED}); "
            f"{again} bodies whose end wasn't recorded ran again"
        )
    assert kills >= KILLS[kind]


@pytest.mark.parametrize("program", [stairs, journey], ids=lambda f: f.name)
def test_kills_between_one_recorded_completion_and_the_next_twice_at_the_same_place(
    workshops: Callable[..., Workshop], program: Flow[..., Any]
) -> None:
    workshop = workshops(KITARU_DURABILITY="process")
    result, recorded = run_through(workshop, program, [])
    for n in range(1, WIDTH):
        workshop.side_file.write_text("")
        # The n-th append is recorded and nobody hears of it; then death before the first append that follows.
        deaths = [{"at": n, "when": "after"}, {"at": 1, "when": "before"}, {"at": 1, "when": "before"}]
        again, recorded_again = run_through(workshop, program, deaths)
        assert (again, recorded_again) == (result, recorded)


def run_through(workshop: Workshop, program: Flow[..., Any], deaths: list[dict[str, Any]]) -> tuple[Any, Recorded]:
    """Run an execution whose first workers kill themselves at chosen appends; its result and record."""
    exec_id = workshop.create(program, WIDTH)
    journal, witness = workshop.runtime.journal, workshop.witness
    fates = iter(deaths)
    while workshop.status(exec_id) is not ExecutionStatus.COMPLETED:
        fate = next(fates, None)
        witness.life_begins(journal, exec_id)
        child = workshop.nursery
        child.begin(exec_id, **({**fate, "only": ["append"]} if fate else {}))
        code = child.end()
        assert (code == -signal.SIGKILL) == (fate is not None), child.errors
        witness.life_ended(journal, exec_id)
        workshop.answer(exec_id, ANSWERS)
    recorded = workshop.recorded(exec_id)
    witness.verdict(journal, exec_id, recorded)
    return workshop.result(exec_id), recorded
