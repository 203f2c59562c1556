"""The wrappers that die at a chosen moment."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from kitaru_nb.journal.base import Journal
from kitaru_nb.journal.open import open_journal
from kitaru_nb.testing.faults import JOURNAL_WRITES, Died, FaultyJournal, FaultyStore
from kitaru_nb.testing.journal import ELSEWHERE, JournalContract, event, new_execution


@pytest.fixture
def journal() -> Iterator[Journal]:
    handle = open_journal(f"memory://{uuid.uuid4()}")
    yield handle
    handle.close()


class TestFaultyJournalThatLives(JournalContract):
    @pytest.fixture
    def url(self) -> str:
        return f"memory://{uuid.uuid4()}"

    def open(self, url: str) -> Journal:
        return FaultyJournal(open_journal(url))


def three_steps(journal: Journal) -> None:
    """Create, claim, append: three writes, with a read in between."""
    exec_id = journal.create(new_execution(), []).exec_id
    lease = journal.claim(exec_id, ELSEWHERE)
    journal.history(exec_id)
    journal.append(exec_id, [event(exec_id)], lease=lease)


def test_a_rehearsal_counts_the_operations(journal: Journal) -> None:
    everything, writes = FaultyJournal(journal), FaultyJournal(journal, only=JOURNAL_WRITES)
    three_steps(everything)
    three_steps(writes)
    assert (everything.fate.operations, writes.fate.operations) == (4, 3)


@pytest.mark.parametrize(
    ("at", "when", "left"),
    [
        (1, "before", []),
        (1, "after", ["created"]),
        (2, "before", ["created"]),
        (2, "after", ["created", "execution.claimed"]),
        (3, "before", ["created", "execution.claimed"]),
        (3, "after", ["created", "execution.claimed", "metadata"]),
    ],
)
def test_it_dies_before_or_after_the_chosen_operation(journal: Journal, at: int, when: str, left: list[str]) -> None:
    faulty = FaultyJournal(journal, at=at, when=when, only=JOURNAL_WRITES)  # type: ignore[arg-type]
    with pytest.raises(Died):
        three_steps(faulty)
    found = ["created" for _ in journal.executions()] + [e.kind for e in journal.tail(0)]
    assert found == left


def test_after_its_death_nothing_works_but_close(journal: Journal) -> None:
    faulty = FaultyJournal(journal, at=1)
    with pytest.raises(Died):
        faulty.executions()
    for _ in range(2):
        with pytest.raises(Died):
            faulty.create(new_execution(), [])
    assert journal.executions() == []
    faulty.close()


def test_died_is_not_caught_as_an_exception() -> None:
    assert not issubclass(Died, Exception)


class Shelf:
    """A store of the simplest kind."""

    def __init__(self) -> None:
        self.url = "shelf"
        self.books: list[str] = []

    def write(self, book: str, *, twice: bool = False) -> int:
        self.books += [book] * (1 + twice)
        return len(self.books)

    def read(self) -> list[str]:
        return self.books

    def clean(self) -> None:
        self.books.clear()


@pytest.mark.parametrize(("when", "left"), [("before", ["a"]), ("after", ["a", "b", "b"])])
def test_a_faulty_store_dies_at_its_reads_and_writes(when: str, left: list[str]) -> None:
    shelf = Shelf()
    faulty = FaultyStore(shelf, at=3, when=when)  # type: ignore[arg-type]
    assert faulty.url == "shelf"
    assert faulty.write("a") == 1
    assert faulty.read() == ["a"]
    with pytest.raises(Died):
        faulty.write("b", twice=True)
    with pytest.raises(Died):
        faulty.clean()
    assert shelf.books == left
