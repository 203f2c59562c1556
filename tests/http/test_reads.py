"""What is read through the API: pages, filters, searches, one execution and its parts."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import pytest

from kitaru_nb.core.runtime import Runtime
from kitaru_nb.model import Event, Execution, ExecutionStatus, new_exec_id, utc
from kitaru_nb.surfaces.operations import paging
from tests.http import flows
from tests.http.httpkit import Direct, Ran


def stored(runtime: Runtime, count: int, *, flow: str = "brief", at: float | None = None) -> list[str]:
    """Executions without a history, oldest first."""
    found = []
    for _ in range(count):
        exec_id, now = new_exec_id(), utc(time.time() if at is None else at)
        execution = Execution(exec_id, flow, ExecutionStatus.PENDING, now, now)
        event = Event(exec_id, "execution.created", "", now.timestamp(), {"flow": flow, "ref": {"kind": "here"}})
        runtime.journal.create(execution, [event])
        found.append(exec_id)
    return found


def pages(direct: Direct, path: str, **query: object) -> list[dict[str, object]]:
    """Items of all pages."""
    items: list[dict[str, object]] = []
    cursor: dict[str, object] = {}
    while True:
        page = direct.json("GET", path, **query, **cursor)
        items += page["items"]
        if page["next"] is None:
            return items
        cursor = {"cursor": page["next"]}


def test_pages_of_executions_hold_each_once_newest_first(runtime: Runtime, direct: Direct) -> None:
    ids = stored(runtime, 7)
    for limit in (1, 3, 7, 50):
        assert [item["exec_id"] for item in pages(direct, "executions", limit=limit)] == ids[::-1]


def test_the_last_full_page_has_no_next(runtime: Runtime, direct: Direct) -> None:
    stored(runtime, 4)
    first = direct.json("GET", "executions", limit=2)
    assert direct.json("GET", "executions", limit=2, cursor=first["next"])["next"] is None


def test_filters_and_search_find_what_fits(runtime: Runtime, direct: Direct) -> None:
    briefs, others = stored(runtime, 3), stored(runtime, 2, flow="Weekly Report")
    assert {i["exec_id"] for i in pages(direct, "executions", text="weekly", limit=1)} == set(others)
    assert [i["exec_id"] for i in pages(direct, "executions", text=briefs[1][-8:].upper())] == [briefs[1]]
    assert len(pages(direct, "executions", flow="brief", limit=2)) == 3
    assert pages(direct, "executions", status="failed") == []
    assert pages(direct, "executions", text="%") == []


def test_a_search_reads_only_so_far_and_then_says_where_to_go_on(
    runtime: Runtime, direct: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "SEARCHED", 4)
    monkeypatch.setattr(paging, "_CHUNK", 2)
    wanted = stored(runtime, 1, flow="needle")
    stored(runtime, 9)
    first = direct.json("GET", "executions", text="needle")
    assert first["items"] == []
    assert first["next"] is not None
    assert [i["exec_id"] for i in pages(direct, "executions", text="needle")] == wanted


def test_since_leaves_out_older_ones(runtime: Runtime, direct: Direct) -> None:
    old = time.time() - 3600
    stored(runtime, 2, at=old)
    new = stored(runtime, 2)
    instant = (datetime.now(timezone.utc) - timedelta(minutes=5)).isoformat()
    assert {i["exec_id"] for i in pages(direct, "executions", since=instant)} == set(new)
    refused = direct.json("GET", "executions", since="2026-01-01T00:00:00", expect=400)
    assert "timezone" in refused["error"]["message"]


def test_stats_count_by_status_and_flow(runtime: Runtime, ran: Ran, direct: Direct) -> None:
    ran(flows.many, 1)
    ran(flows.brief)
    ran(flows.brief)
    stats = direct.json("GET", "executions/stats")
    assert stats == {
        "total": 3,
        "by_status": {"completed": 1, "waiting": 2},
        "flows": [["brief", 2], ["many", 1]],
        "pending_waits": 2,
    }


def test_one_execution_is_read_without_the_parts_that_have_pages(ran: Ran, direct: Direct) -> None:
    exec_id = ran(flows.brief, "x")
    for selector in (exec_id, exec_id[:9], exec_id[-6:], "latest"):
        found = direct.json("GET", f"executions/{selector}")
        assert found["exec_id"] == exec_id
    assert found["status"] == "waiting"
    assert found["inputs"] == {"topic": "'x'"}
    assert found["checkpoints"] == []
    assert found["artifacts"] == []
    assert [w["name"] for w in found["waits"]] == ["approve"]


def test_a_read_sees_what_was_recorded_since_the_last_one(ran: Ran, direct: Direct, runtime: Runtime) -> None:
    exec_id = ran(flows.twice)
    assert direct.json("GET", f"executions/{exec_id}")["waits"][0]["status"] == "pending"
    seq = direct.json("GET", f"executions/{exec_id}/graph")["seq"]
    runtime.journal.append(exec_id, [Event(exec_id, "metadata", "", time.time(), {"mood": "good"})])
    found = direct.json("GET", f"executions/{exec_id}")
    assert found["metadata"] == {"mood": "good"}
    assert direct.json("GET", f"executions/{exec_id}/graph")["seq"] > seq


def test_checkpoints_come_in_pages_and_one_by_one(ran: Ran, direct: Direct) -> None:
    exec_id = ran(flows.many, 5)
    selectors = [c["selector"] for c in pages(direct, f"executions/{exec_id}/checkpoints", limit=2)]
    assert selectors == ["make", "make#2", "make#3", "make#4", "make#5"]
    third = direct.json("GET", f"executions/{exec_id}/checkpoints/make%233")
    assert third["artifacts"][0]["preview"]["text"] == "'value 2'"
    assert direct.json("GET", f"executions/{exec_id}/checkpoints/{third['call_id']}") == third
    assert pages(direct, f"executions/{exec_id}/checkpoints", text="nothing like it") == []
    missing = direct.json("GET", f"executions/{exec_id}/checkpoints/make%239", expect=404)
    assert "make#5" in missing["error"]["message"]


def test_the_graph_joins_inputs_calls_and_waits(ran: Ran, direct: Direct) -> None:
    graph = direct.json("GET", f"executions/{ran(flows.brief, 'x')}/graph")
    kinds = {node["node_id"]: (node["kind"], node["name"], node["status"]) for node in graph["nodes"]}
    assert sorted(kinds.values()) == [
        ("checkpoint", "research", "completed"),
        ("input", "topic", "completed"),
        ("wait", "approve", "pending"),
    ]
    names = {(kinds[edge["source"]][1], kinds[edge["target"]][1], edge["kind"]) for edge in graph["edges"]}
    assert names == {("topic", "research", "data"), ("research", "approve", "order")}
    call = next(node for node in graph["nodes"] if node["kind"] == "checkpoint")
    assert (call["tokens"], call["cost"]) == (12, 0.5)


def test_logs_begin_with_the_last_lines_and_go_both_ways(ran: Ran, direct: Direct) -> None:
    path = f"executions/{ran(flows.said, chr(10).join(f'line {n}' for n in range(10)))}/logs"
    last = direct.json("GET", path, limit=4)
    assert [entry["message"] for entry in last["items"]][-1] == "line 9"
    assert last["next"] is None
    before = direct.json("GET", path, limit=4, cursor=last["previous"])
    assert before["next"] is not None
    assert direct.json("GET", path, limit=4, cursor=before["next"])["items"] == last["items"]
    assert direct.json("GET", path, checkpoint="research")["items"][0]["message"] == "looking for line 0"


def test_artifacts_are_listed_described_and_know_their_readers(ran: Ran, direct: Direct) -> None:
    exec_id = ran(flows.many, 2)
    items = pages(direct, f"executions/{exec_id}/artifacts", limit=1)
    assert [item["preview"]["text"] for item in items] == ["'value 0'", "'value 1'", "2"]
    assert all("data" not in item and "client" not in item for item in items)
    detail = direct.json("GET", "artifact", id=f"{exec_id}/result")
    assert detail["preview"]["text"] == "2"
    assert detail["readers"] == []
    direct.json("GET", "artifact", id=exec_id, expect=404)
    direct.json("GET", "artifact", id=f"{exec_id}/nothing", expect=404)


def test_two_executions_are_compared(ran: Ran, direct: Direct) -> None:
    left, right = ran(flows.said, "a"), ran(flows.said, "b")
    found = direct.json("GET", f"executions/{left}/diff", other=right)
    assert [(call["name"] if "name" in call else call["selector"], call["change"]) for call in found["calls"]] == [
        ("research", "output")
    ]


def test_waits_come_oldest_first_in_pages_and_by_text(ran: Ran, direct: Direct) -> None:
    ids = [ran(flows.brief, f"topic {n}") for n in range(5)]
    ran(flows.twice)
    found = pages(direct, "waits", limit=2)
    assert [wait["exec_id"] for wait in found][:5] == ids
    assert {wait["flow_name"] for wait in found} == {"brief", "twice"}
    assert [w["exec_id"] for w in pages(direct, "waits", text="TOPIC 3")] == [ids[3]]
    assert len(pages(direct, "waits", flow="twice")) == 1
    assert direct.json("GET", "waits/count") == {"pending": 6}
    assert direct.json("GET", "waits", limit=2)["total"] == 6


def test_closed_waits_are_listed_for_an_execution(ran: Ran, direct: Direct) -> None:
    exec_id = ran(flows.twice)
    direct.json("POST", f"executions/{exec_id}/waits/first/resolve", {"value": True})
    closed = direct.json("GET", "waits", exec_id=exec_id, status="resolved")["items"]
    assert [(w["name"], w["value"], w["resolved_by"], w["via"]) for w in closed] == [("first", True, "ana", "http")]
    one = direct.json("GET", f"executions/{exec_id}/waits/first")
    assert one["status"] == "resolved"


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("executions", {"limit": "0"}),
        ("executions", {"limit": "501"}),
        ("executions", {"limit": "many"}),
        ("executions", {"status": "odd"}),
        ("executions", {"colour": "red"}),
        ("waits", {"cursor": "nonsense"}),
        ("waits", {"cursor": "x~kr~w"}),
        ("executions", {"since": "yesterday"}),
        ("executions", {"since": "0.5"}),
        ("executions", {"since": "2026"}),
        ("executions", {"since": "nan"}),
        ("events/poll", {"after": "-1"}),
        ("events/poll", {"timeout": "31"}),
    ],
    ids=str,
)
def test_arguments_that_cant_be_right_are_refused(direct: Direct, path: str, query: dict[str, str]) -> None:
    error = direct.json("GET", path, expect=400, **query)["error"]
    assert error["type"] == "KitaruUsageError"
    assert next(iter(query)) in error["message"] or "cursor" in error["message"]


@pytest.mark.parametrize(
    ("query", "told"),
    [({}, "needs the argument 'id'"), ({"artifact_id": "x"}, "has no argument 'artifact_id'")],
)
def test_an_argument_of_another_name_is_told_with_those_that_there_are(
    direct: Direct, query: dict[str, str], told: str
) -> None:
    error = direct.json("GET", "artifact/content", expect=400, **query)["error"]
    assert error["message"].startswith(f"artifacts.content {told}. Arguments are: id, ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "nothing", 404),
        ("GET", "executions/kr-000000000000", 404),
        ("DELETE", "executions", 405),
        ("GET", "", 404),
    ],
)
def test_what_isnt_there_is_said(direct: Direct, method: str, path: str, status: int) -> None:
    answer = direct(method, path)
    assert answer.status == status
    if status == 405:
        assert answer.headers["allow"] == "GET, POST"
