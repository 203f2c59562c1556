"""The decisions that all back ends share, at their exact edges."""

from __future__ import annotations

import sys
from typing import Any

import pydantic_core
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kitaru_nb.errors import KitaruBackendError, KitaruLeaseError
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


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.just("half \ud800 a pair"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.text(), _JSON, max_size=4), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_both_parsers_of_bodies_read_the_same(bodies: list[dict[str, Any]]) -> None:
    batch = rules.prepare("kr-1", [Event("kr-1", "metadata", "", 1.0, body) for body in bodies])
    stored = [(seq, *row) for seq, row in enumerate(batch.rows, 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pydantic_core", pydantic_core)
        quick = rules.events_of(stored)
        patch.delitem(sys.modules, "pydantic_core")
        assert repr(rules.events_of(stored)) == repr(quick) == repr([rules.event_of(row) for row in stored])


@pytest.mark.parametrize("loaded", [True, False])
def test_an_event_that_is_damaged_is_named_among_many(loaded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic_core", pydantic_core)
    if not loaded:
        monkeypatch.delitem(sys.modules, "pydantic_core")
    stored = [(seq, "kr-1", "metadata", "", 1.0, "{}" if seq != 7 else "{},{}", None, None) for seq in range(1, 10)]
    with pytest.raises(KitaruBackendError, match=r"Event 7 \(metadata\) of kr-1 is damaged"):
        rules.events_of(stored)


def test_an_escaped_surrogate_pair_is_one_character() -> None:
    stored = [(1, "kr-1", "metadata", "", 1.0, '{"a":"\\ud83d\\ude00"}', None, None)]
    assert rules.events_of(stored)[0].body == {"a": "😀"}
