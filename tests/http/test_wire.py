"""What is written for the wire is JSON, whatever people and models wrote."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest

from kitaru_nb.core.graph import Node
from kitaru_nb.core.lineage import Edge
from kitaru_nb.model import Event
from kitaru_nb.surfaces.http.wire import encode


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"a": [1, None, True], "ü": "\u2028"}, '{"a":[1,null,true],"ü":"\u2028"}'),
        ([float("nan"), float("inf"), -float("inf"), 1.5], "[null,null,null,1.5]"),
        (["half \ud800 a pair", float("nan"), "ü"], '["half \\ud800 a pair",null,"ü"]'),
        (2**80, "1208925819614629174706176"),
        (Edge("a", "b", "data"), '{"source":"a","target":"b","kind":"data"}'),
        (Event("kr-1", "metadata", "", 1.0, {"n": 1}, b"bytes"),
         '{"exec_id":"kr-1","kind":"metadata","key":"","at":1.0,"body":{"n":1},"seq":0,"cache_key":null}'),
    ],
    ids=["text", "numbers", "surrogate", "large", "edge", "event"],
)  # fmt: skip
def test_what_is_written_is_json_in_utf8(value: Any, written: str) -> None:
    assert encode(value) == written.encode()


def test_depth_is_no_obstacle() -> None:
    deep: Any = "below"
    for _ in range(400):
        deep = [deep]
    assert json.loads(encode(deep)) == deep


def test_an_instant_is_iso_8601() -> None:
    at = datetime(2026, 1, 2, tzinfo=timezone.utc)
    node = json.loads(encode(Node("a", "checkpoint", "a", "a", None, "running", at)))
    assert (node["started_at"], node["ended_at"]) == ("2026-01-02T00:00:00+00:00", None)
