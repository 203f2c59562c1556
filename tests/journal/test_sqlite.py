"""The SQLite journal keeps the contract, between processes too, and agrees with the memory journal."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from kitaru_nb.journal.base import Journal
from kitaru_nb.journal.open import open_journal
from kitaru_nb.testing.journal import JournalMachine, SharedJournalContract


class TestSqliteJournal(SharedJournalContract):
    one_clock = False  # processes on one file are on one machine, and it has one clock

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite://{tmp_path}/journal.db"


class SqliteMachine(JournalMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()

    def open_handle(self) -> Journal:
        return open_journal(f"sqlite://{self.folder}/journal.db", durability="process")

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.folder)


TestSqliteMachine = SqliteMachine.TestCase
TestSqliteMachine.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
