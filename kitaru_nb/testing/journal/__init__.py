"""The contract of `kitaru_nb.journal.base.Journal` as tests, which each back end runs by subclassing:

    class TestMyJournal(SharedJournalContract):
        @pytest.fixture
        def url(self, tmp_path): return f"mine://{tmp_path}"

`JournalContract` works with several handles and threads; `SharedJournalContract` adds processes, for back ends whose
data outlives one; `JournalMachine` compares a back end with the memory journal, step by random step.
"""

from __future__ import annotations

from kitaru_nb.testing.journal.appending import AppendContract
from kitaru_nb.testing.journal.creating import CreateContract
from kitaru_nb.testing.journal.leases import LeaseContract
from kitaru_nb.testing.journal.machine import JournalMachine
from kitaru_nb.testing.journal.reading import ReadContract
from kitaru_nb.testing.journal.setup import (
    ELSEWHERE,
    JournalSetup,
    dead_owner,
    event,
    kinds,
    new_execution,
    replaced_owner,
    together,
)
from kitaru_nb.testing.journal.sharing import SharingContract

__all__ = [
    "ELSEWHERE",
    "JournalContract",
    "JournalMachine",
    "JournalSetup",
    "SharedJournalContract",
    "dead_owner",
    "event",
    "kinds",
    "new_execution",
    "replaced_owner",
    "together",
]


class JournalContract(CreateContract, LeaseContract, AppendContract, ReadContract):
    """The whole contract within one process."""


class SharedJournalContract(JournalContract, SharingContract):
    """The contract, and what holds between processes."""
