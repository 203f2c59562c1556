"""Die before and after each operation of journal and store; a fresh runtime on the same data goes on.

These deaths happen inside this process. `test_kill` has real ones.
"""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from crash.evidence import Recorded, Witness
from crash.flows import journey, journey_async, stairs
from kitaru_nb import Paused
from kitaru_nb.artifacts.store import ArtifactStore
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.flow import Flow
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.journal.base import DEFAULT_TTL, Journal
from kitaru_nb.journal.open import open_journal
from kitaru_nb.model import Event, ExecutionStatus, Lease, Owner
from kitaru_nb.testing.faults import Died, FaultyJournal, FaultyStore

# The keeper's thread may be the one that dies.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

ANSWERS = {"first": 1, "second": True}
WIDTH = 3
#: The operation of a life that records its first checkpoint: after create, status, claim, history and first event.
STEP = 6
When = Literal["before", "after"]


@pytest.fixture(scope="module")
def dead_pid() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


class MortalJournal(FaultyJournal):
    """Claims under the name of a process that has ended, so that a death inside this process frees the lease."""

    dead_pid: int

    def claim(self, exec_id: str, owner: Owner, *, ttl: float = DEFAULT_TTL) -> Lease:
        return super().claim(exec_id, dataclasses.replace(owner, pid=self.dead_pid, started=1), ttl=ttl)


class World:
    """Data that outlive the processes that work on them."""

    def __init__(self, folder: Path, journal: Journal, dead_pid: int) -> None:
        folder.mkdir()
        self.folder = folder
        self.journal = journal
        self.dead_pid = dead_pid
        self.witness = Witness(folder / "ran")
        self.exec_id: str | None = None

    def mortal(self, *, journal: int | None = None, store: int | None = None, when: When = "before") -> Runtime:
        """A fresh runtime that dies at an operation of its journal or store."""
        mortal = MortalJournal(self.journal, at=journal, when=when)
        mortal.dead_pid = self.dead_pid
        blobs = ArtifactStore(str(self.folder / "artifacts"), durability="process")
        faulty = cast(ArtifactStore, FaultyStore(blobs, at=store, when=when))
        return Runtime(Settings(self.folder), journal=mortal, store=faulty)

    def live(self, runtime: Runtime, program: Flow[..., Any]) -> Any:
        """One life: start the execution or find it again, advance it, answer its waits; the result, or `Died`."""
        self.witness.life_begins(self.journal, self.exec_id)
        try:
            return self._live(runtime, program)
        finally:
            self.exec_id = next((e.exec_id for e in self.journal.executions()), None)
            self.witness.life_ended(self.journal, self.exec_id)

    def _live(self, runtime: Runtime, program: Flow[..., Any]) -> Any:
        keyed = program.with_options(key="the one", runtime=runtime)
        parameter = next(iter(program.signature.parameters))
        exec_id = create_execution(runtime, keyed, {parameter: WIDTH}).exec_id
        while runtime.journal.execution(exec_id).status is not ExecutionStatus.COMPLETED:
            outcome = advance(runtime, exec_id, keyed, poll_seconds=0)
            if isinstance(outcome.error, Paused) and is_dead(runtime):
                raise Died("the keeper's thread died first, and made the flow let go")
            if outcome.error is not None and outcome.status is not ExecutionStatus.WAITING:
                raise outcome.error
            for wait in runtime.journal.waits(exec_id=exec_id):
                body = {"value": ANSWERS[wait.name], "by": "ann", "via": "client"}
                runtime.journal.append(exec_id, [Event(exec_id, "wait.resolved", wait.wait_id, time.time(), body)])
        return keyed.run(WIDTH).get()


def is_dead(runtime: Runtime) -> bool:
    """Whether this runtime has died."""
    journal, store = cast(MortalJournal, runtime.journal), cast(FaultyStore, runtime.store)
    return journal.fate.dead or store.fate.dead


@pytest.fixture
def worlds(
    tmp_path: Path,
    dead_pid: int,
    journals: Callable[[str], str | None],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Callable[[], World]]:
    """Makes worlds whose journal is the test's parameter, memory by default."""
    kind = getattr(request, "param", "memory")
    counter = itertools.count()
    opened: list[Journal] = []

    def make() -> World:
        folder = tmp_path / f"world-{next(counter)}"
        url = journals(kind) or {"sqlite": f"sqlite://{folder}.db", "memory": f"memory://{folder}"}[kind]
        journal = open_journal(url, durability="process")
        opened.append(journal)
        world = World(folder, journal, dead_pid)
        monkeypatch.setenv("CRASH_RAN", str(world.witness.side_file))
        return world

    yield make
    for journal in opened:
        journal.close()


def undisturbed(worlds: Callable[[], World], program: Flow[..., Any]) -> tuple[Any, Recorded]:
    """What the program returns and records when nothing happens."""
    world = worlds()
    result = world.live(world.mortal(), program)
    assert world.exec_id is not None
    return result, Recorded.of(world.journal, world.exec_id)


def crash_everywhere(
    worlds: Callable[[], World],
    program: Flow[..., Any],
    where: Literal["journal", "store"],
    when: When,
    *,
    deaths: int,
    stride: int = 1,
) -> int:
    """Die at operation n of ``deaths`` lives in a row, for each n (or each ``stride``-th) until no operation is left;
    how many there were."""
    result, recorded = undisturbed(worlds, program)
    for n in itertools.count(1, stride):
        world = worlds()
        died = 0
        for _ in range(deaths):
            try:
                assert world.live(world.mortal(when=when, **{where: n}), program) == result
            except Died:
                died += 1
        assert world.live(world.mortal(), program) == result
        assert world.exec_id is not None
        world.witness.verdict(world.journal, world.exec_id, recorded)
        if not died:
            return n - 1
    raise AssertionError


@pytest.mark.parametrize(
    ("worlds", "program", "when"),
    [
        *itertools.product(["memory"], [journey, journey_async], ["before", "after"]),
        ("sqlite", journey, "before"),
        ("sqlite", journey_async, "after"),
        ("postgresql", journey_async, "after"),
        ("http", journey, "after"),
    ],
    indirect=["worlds"],
    ids=lambda value: value.name if isinstance(value, Flow) else str(value),
)
def test_death_at_any_operation_of_the_journal_loses_nothing_and_repeats_nothing(
    worlds: Callable[[], World],
    program: Flow[..., Any],
    when: When,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stride = 1 if request.node.callspec.params["worlds"] in ("memory", "sqlite") else 4
    operations = crash_everywhere(worlds, program, "journal", when, deaths=1, stride=stride)
    with capsys.disabled():
        print(f"\n{program.name}: died {when} each of {operations} operations of the journal")
    assert operations > 40


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("program", [journey, journey_async], ids=lambda f: f.name)
def test_death_at_any_operation_of_the_store_loses_nothing_and_repeats_nothing(
    worlds: Callable[[], World], program: Flow[..., Any], when: When, capsys: pytest.CaptureFixture[str]
) -> None:
    operations = crash_everywhere(worlds, program, "store", when, deaths=1)
    with capsys.disabled():
        print(f"\n{program.name}: died {when} each of {operations} operations of the store")
    assert operations > 15


@pytest.mark.parametrize("when", ["before", "after"])
def test_dying_three_times_at_the_same_operation_loses_nothing_and_repeats_nothing(
    worlds: Callable[[], World], when: When
) -> None:
    assert crash_everywhere(worlds, journey, "journal", when, deaths=3) > 40


def test_an_execution_whose_every_life_is_one_step_long_still_arrives(worlds: Callable[[], World]) -> None:
    result, recorded = undisturbed(worlds, stairs)
    world = worlds()
    for _ in range(WIDTH):
        with pytest.raises(Died):
            world.live(world.mortal(journal=STEP, when="after"), stairs)
    assert world.live(world.mortal(), stairs) == result
    assert world.exec_id is not None
    assert len(world.witness.bodies()) == WIDTH
    world.witness.verdict(world.journal, world.exec_id, recorded)
