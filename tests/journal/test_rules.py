"""The decisions that all back ends share, at their exact edges."""

from __future__ import annotations

import pytest

from kitaru_nb.errors import KitaruLeaseError
from kitaru_nb.journal import rules
from kitaru_nb.journal.rules import ExecutionRow
from kitaru_nb.model import Event, ExecutionStatus
from kitaru_nb.testing.journal import ELSEWHERE, dead_owner


def test_a_lease_is_live_until_the_very_moment_it_expires() -> None:
    row = ExecutionRow("kr-1", "brief", "pending", 0.0, 0.0)
    row.claim(ELSEWHERE, 30.0, 100.0)
    assert row.execution(129.999).status is ExecutionStatus.RUNNING
    with pytest.raises(KitaruLeaseError, match="another 1 s"):
        row.claim(ELSEWHERE, 30.0, 129.999)
    assert row.epoch == 1
    assert row.execution(130.0).status is ExecutionStatus.INTERRUPTED
    assert row.claim(ELSEWHERE, 30.0, 130.0)[0].epoch == 2


def test_a_refused_claim_changes_nothing() -> None:
    row = ExecutionRow("kr-1", "brief", "pending", 0.0, 0.0)
    row.claim(ELSEWHERE, 30.0, 100.0)
    before = row.columns()
    with pytest.raises(KitaruLeaseError):
        row.claim(dead_owner(), 30.0, 101.0)
    assert row.columns() == before


def test_a_list_is_filtered_by_whether_owners_are_alive() -> None:
    rows = []
    for number in range(3):
        row = ExecutionRow(f"kr-{number}", "brief", "pending", 0.0, 0.0)
        row.claim(dead_owner() if number else ELSEWHERE, 1e12, 100.0)
        rows.append(row)
    assert [e.exec_id for e in rules.select(rows, ExecutionStatus.INTERRUPTED)] == ["kr-1", "kr-2"]
    assert [e.exec_id for e in rules.select(rows, ExecutionStatus.RUNNING)] == ["kr-0"]


def test_bodies_are_written_readable_where_that_is_possible() -> None:
    batch = rules.prepare("kr-1", [Event("kr-1", "metadata", "", 1.0, {"a": text}) for text in ("ü", "\ud800")])
    assert [row[4] for row in batch.rows] == ['{"a":"ü"}', '{"a":"\\ud800"}']
