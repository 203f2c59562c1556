"""The memory journal keeps the contract."""

from __future__ import annotations

import uuid

import pytest

from kitaru_nb.journal.open import open_journal
from kitaru_nb.testing.journal import JournalContract, new_execution


class TestMemoryJournal(JournalContract):
    @pytest.fixture
    def url(self) -> str:
        return f"memory://{uuid.uuid4()}"

    def test_a_name_is_the_same_data_and_another_name_is_not(self, url: str) -> None:
        execution = open_journal(url).create(new_execution(), [])
        assert open_journal(url).executions() == [execution]
        assert open_journal(f"{url}-other").executions() == []
