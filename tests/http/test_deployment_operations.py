"""Deployments and stacks through the API: read, invoked, routed; by whom is recorded, and who may not is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kitaru_nb.core.runtime import Runtime
from kitaru_nb.stacks.definition import parse_stack, save_stack
from kitaru_nb.surfaces.operations.base import Role
from tests.http.deploying import Deployer
from tests.http.httpkit import Direct, Served, until


@pytest.fixture
def deploy(runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployer:
    return Deployer(runtime, tmp_path, monkeypatch)


def result(direct: Direct, exec_id: str) -> str:
    """The preview of an execution's result, once it has ended well."""

    def look() -> Any:
        found = direct.json("GET", f"executions/{exec_id}")
        return found if found["status"] in ("completed", "failed") else None

    found = until(look, f"the end of {exec_id}")
    assert found["status"] == "completed", found["failure"]
    return str(found["result"]["preview"]["text"])


def names(page: Any) -> list[str]:
    return [f"{item['flow']}@v{item['version']}" for item in page["items"]]


def test_versions_are_listed_by_flow_from_the_newest_on_and_in_pages(direct: Direct, deploy: Deployer) -> None:
    assert direct.json("GET", "deployments") == {"items": [], "next": None, "total": None}
    for _ in range(3):
        deploy("brief")
    deploy("letter")
    everything = ["brief@v3", "brief@v2", "brief@v1", "letter@v1"]
    assert names(direct.json("GET", "deployments", role=Role.VIEW)) == everything
    assert names(direct.json("GET", "deployments", flow="letter")) == ["letter@v1"]
    for limit in (1, 2, 3, 4):
        found: list[str] = []
        page = direct.json("GET", "deployments", limit=limit)
        while page["next"] is not None:
            assert len(page["items"]) == limit
            found += names(page)
            page = direct.json("GET", "deployments", limit=limit, cursor=page["next"])
        assert found + names(page) == everything


def test_a_page_that_begins_at_a_deleted_version_misses_none(direct: Direct, deploy: Deployer) -> None:
    for _ in range(3):
        deploy("brief")
    page = direct.json("GET", "deployments", limit=2)
    assert names(page) == ["brief@v3", "brief@v2"]
    direct.json("POST", "deployments/brief/delete", {"version": 2})
    assert names(direct.json("GET", "deployments", limit=2, cursor=page["next"])) == ["brief@v1"]


def test_one_is_found_by_version_by_tag_or_in_the_name(direct: Direct, deploy: Deployer) -> None:
    deploy("brief")
    deploy("brief", tags="prod")
    first = direct.json("GET", "deployments/brief")
    assert (first["version"], first["tags"], first["created_by"]) == (1, ["default"], "ana")
    assert first["parameters"]["required"] == ["topic"]
    for path, query in (
        ("deployments/brief@prod", {}),
        ("deployments/brief@v2", {}),
        ("deployments/brief", {"tag": "prod"}),
        ("deployments/brief", {"version": 2}),
        ("deployments/brief", {"version": "v2"}),
    ):
        assert direct.json("GET", path, **query)["version"] == 2


def test_an_invocation_runs_the_version_that_the_tag_is_on_in_the_callers_name(
    direct: Direct, deploy: Deployer, runtime: Runtime
) -> None:
    deploy("brief")
    deploy("brief", tags="prod")
    body = {"tag": "prod", "inputs": {"topic": "tides"}, "key": "monday"}
    started = direct.json("POST", "deployments/brief/invoke", body, name="bo", role=Role.WORK)
    assert result(direct, started["exec_id"]) == "'all about tides, edition 2'"
    found = direct.json("GET", f"executions/{started['exec_id']}")
    assert (found["deployment"], found["flow_name"], found["key"]) == ("brief@v2", "brief", "monday")
    assert runtime.journal.history(started["exec_id"])[0].body["by"] == "bo"
    again = direct.json("POST", "deployments/brief@prod/invoke", {"inputs": {"topic": "tides"}, "key": "monday"})
    assert again["exec_id"] == started["exec_id"]
    assert names({"items": direct.json("GET", "deployments", flow="brief")["items"]}) == ["brief@v2", "brief@v1"]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "needs the input 'topic'"),
        ({"topic": 3}, "Input 'topic' of brief@v1 is 3; expected"),
        ({"topic": "x", "polite": "yes"}, "Input 'polite' of brief@v1"),
        ({"topic": "x", "tone": "dry"}, "has no input 'tone'. Inputs are: topic, polite."),
    ],
    ids=["missing", "type", "no boolean", "unknown"],
)
def test_inputs_that_dont_fit_start_nothing(direct: Direct, deploy: Deployer, inputs: Any, said: str) -> None:
    deploy("brief")
    error = direct.json("POST", "deployments/brief/invoke", {"inputs": inputs}, expect=400)["error"]
    assert said in error["message"]
    assert error["fix"].startswith("kitaru invoke brief --version 1")
    assert direct.json("GET", "executions")["items"] == []


ACTIONS: dict[str, tuple[dict[str, Any], Role]] = {
    "invoke": ({"inputs": {"topic": "x"}}, Role.WORK),
    "tag": ({"version": 1, "tag": "prod"}, Role.WORK),
    "untag": ({"tag": "default"}, Role.WORK),
    "rollback": ({}, Role.WORK),
    "delete": ({"version": 1}, Role.ADMIN),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_who_may_not_is_refused_and_nothing_happens(direct: Direct, deploy: Deployer, action: str) -> None:
    deploy("brief")
    before = direct.json("GET", "deployments/brief/history")
    body, needed = ACTIONS[action]
    for role in Role:
        if role < needed:
            error = direct.json("POST", f"deployments/brief/{action}", body, role=role, expect=403)["error"]
            assert f"deployments.{action} needs {needed}" in error["message"]
    assert direct.json("GET", "deployments/brief/history") == before
    assert direct.json("GET", "executions")["items"] == []


def test_over_the_network_a_reader_sees_deployments_and_cant_invoke(served: Served, deploy: Deployer) -> None:
    deploy("brief")
    with served.client("view") as reader:
        assert names(reader.get("/api/deployments").json()) == ["brief@v1"]
        refused = reader.post("/api/deployments/brief/invoke", json={"inputs": {"topic": "x"}})
        assert refused.status_code == 403
        assert reader.get("/api/executions").json()["items"] == []
        assert [s["name"] for s in reader.get("/api/stacks").json()["items"]] == ["local", "process"]


def test_tags_move_and_move_back_and_the_history_says_who_did_it(direct: Direct, deploy: Deployer) -> None:
    for _ in range(2):
        deploy("brief")
    path = "deployments/brief"
    assert direct.json("POST", f"{path}/tag", {"version": "v2", "tag": "default"}, name="bo")["tags"] == ["default"]
    assert direct.json("POST", f"{path}/rollback", {}, name="cy")["version"] == 1
    error = direct.json("POST", f"{path}/rollback", {}, expect=409)["error"]
    assert "is back on v1, the first that it was on" in error["message"]
    assert direct.json("POST", f"{path}/rollback", {"to": 2}, name="bo")["version"] == 2
    direct.json("POST", f"{path}/tag", {"version": 1, "tag": "canary"})
    gone = direct.json("POST", f"{path}/untag", {"tag": "canary"}, name="di")
    assert (gone["version"], gone["tags"]) == (1, [])
    page = direct.json("GET", f"{path}/history", tag="default", role=Role.VIEW)
    moves = [(c["by"], c["what"], c["version"], c["before"]) for c in page["items"]]
    assert moves == [("ana", "tagged", 1, None), ("bo", "tagged", 2, 1), ("cy", "tagged", 1, 2), ("bo", "tagged", 2, 1)]
    first = direct.json("GET", f"{path}/history", limit=3)
    assert (len(first["items"]), first["next"], first["total"]) == (3, "3", 8)
    last = direct.json("GET", f"{path}/history", limit=5, cursor="3")["items"]
    assert (last[-1]["by"], last[-1]["what"], last[-1]["tag"]) == ("di", "untagged", "canary")


def test_a_version_in_use_isnt_deleted(direct: Direct, deploy: Deployer) -> None:
    deploy("brief")
    deploy("brief")
    error = direct.json("POST", "deployments/brief/delete", {"version": 1}, expect=409)["error"]
    assert "has the tag 'default'" in error["message"]
    assert direct.json("POST", "deployments/brief/delete", {"version": 2}, name="bo")["version"] == 2
    assert "was deleted" in direct.json("GET", "deployments/brief", expect=404, version=2)["error"]["message"]
    assert direct.json("GET", "deployments/brief/history")["items"][-1]["by"] == "bo"


@pytest.mark.parametrize(
    ("method", "path", "given", "status", "said"),
    [
        ("GET", "deployments/letter", {}, 404, "no deployment of a flow 'letter'. Flows are: brief."),
        ("GET", "deployments/brief@live", {}, 404, "no tag 'live'. Tags are: default."),
        ("GET", "deployments/brief", {"version": 9}, 404, "Version v9 of flow 'brief' does not exist"),
        ("GET", "deployments/brief", {"version": "new"}, 400, "deployments.get: version: Input should be a valid"),
        ("GET", "deployments/brief", {"version": 0}, 400, "deployments.get: version: Input should be greater"),
        ("GET", "deployments/brief", {"version": 1, "tag": "prod"}, 400, "Both version 1 and tag 'prod'"),
        ("GET", "deployments/brief", {"tag": "v1"}, 400, "deployments.get: tag: Value error, this is a version"),
        ("GET", "deployments", {"flow": "letter"}, 404, "no deployment of a flow 'letter'"),
        ("GET", "deployments", {"flow": "brief@v1"}, 400, "deployments.list: flow: String should match"),
        ("GET", "deployments", {"cursor": "brief"}, 400, "'brief' is no cursor of this list"),
        ("GET", "deployments/brief@v1/history", {}, 400, "deployments.history: flow: String should match"),
        ("GET", "deployments/brief/history", {"tag": "v1"}, 400, "this is a version's number"),
        ("POST", "deployments/brief/tag", {"version": 1, "tag": "v7"}, 400, "this is a version's number"),
        ("POST", "deployments/brief/tag", {"version": 1, "tag": "no tag"}, 400, "deployments.tag: tag: String should"),
        ("POST", "deployments/brief/untag", {"tag": "live"}, 404, "has no tag 'live'"),
        ("POST", "deployments/brief/invoke", {"stack": "../secret"}, 400, "deployments.invoke: stack: String should"),
        ("POST", "deployments/brief/invoke", {"stack": "moon", "inputs": {"topic": "x"}}, 501, "no stack 'moon'"),
        ("POST", "deployments/brief/invoke", {"input": {}}, 400, "Arguments are: flow, version, tag, inputs, stack"),
        ("GET", "stacks/moon", {}, 404, "There is no stack 'moon'. Stacks are: local, process."),
        ("GET", "stacks/..%2Fconfig", {}, 400, "stacks.get: name: String should match"),
    ],
)
def test_what_cant_be_is_said(
    direct: Direct, deploy: Deployer, method: str, path: str, given: dict[str, Any], status: int, said: str
) -> None:
    deploy("brief")
    body, query = (given, {}) if method == "POST" else (None, given)
    assert said in direct.json(method, path, body, expect=status, **query)["error"]["message"]
    assert direct.json("GET", "executions")["items"] == []


def test_stacks_are_shown_without_the_values_of_variables(direct: Direct, runtime: Runtime) -> None:
    fields = {
        "runner": "process",
        "journal": "postgresql://kitaru:${PGPASSWORD}@db/kitaru",
        "store": "s3://acme/artifacts",
        "environment": {"MODEL_TOKEN": "hush"},
    }
    save_stack(parse_stack("team", fields, "the test"), runtime.home)
    answer = direct("GET", "stacks", role=Role.VIEW)
    assert isinstance(answer.body, bytes)
    assert b"hush" not in answer.body
    local, process, team = direct.json("GET", "stacks")["items"]
    assert (local["name"], local["runner"], local["built_in"], local["used"]) == ("local", "thread", True, True)
    assert (process["name"], process["runner"]) == ("process", "process")
    assert direct.json("GET", "stacks/team", role=Role.VIEW) == team
    assert team == {
        "name": "team",
        "runner": "process",
        "journal": "postgresql://kitaru:${PGPASSWORD}@db/kitaru",
        "store": "s3://acme/artifacts",
        "inline_max_bytes": None,
        "executor": None,
        "options": {},
        "environment": ["MODEL_TOKEN"],
        "secrets": {},
        "built_in": False,
        "used": False,
    }


def test_a_schedule_is_made_read_and_deleted(direct: Direct, deploy: Deployer) -> None:
    deploy("brief", tags="prod")
    wanted = {"flow": "brief@prod", "cron": "0 7 * * 1-5", "timezone": "Europe/Berlin", "inputs": {"topic": "tides"}}
    made = direct.json("POST", "schedules", {**wanted, "catch_up": "one"}, role=Role.WORK)
    assert (made["name"], made["flow"], made["tag"], made["created_by"]) == ("brief", "brief", "prod", "ana")
    assert made["next_at"].endswith(("T06:00:00+00:00", "T05:00:00+00:00"))
    assert direct.json("GET", "schedules/brief", role=Role.VIEW) == made
    assert direct.json("GET", "schedules", flow="letter")["items"] == []
    assert direct.json("GET", "schedules")["items"] == [made]
    for changed, status, told in (
        ({"cron": "0 25 * * *"}, 400, "its hour can't be"),
        ({"timezone": "Berlin"}, 400, "such as Europe/Berlin"),
        ({"catch_up": "some"}, 400, "catch_up"),
        ({"flow": "letter"}, 404, "no deployment of a flow 'letter'"),
        ({}, 409, "There is a schedule 'brief' already"),
    ):
        refused = direct("POST", "schedules", {**wanted, **changed})
        assert (refused.status, told in refused.body.decode()) == (status, True), refused.body  # type: ignore[union-attr]
    assert direct("POST", "schedules", wanted, role=Role.OPERATE).status == 403
    assert direct.json("POST", "schedules/brief/delete", {}, role=Role.WORK, name="bob")["name"] == "brief"
    assert direct("POST", "schedules/brief/delete", {}).status == 404
    changes = direct.json("GET", "schedules/brief/history")["items"]
    assert [(change["what"], change["by"]) for change in changes] == [("created", "ana"), ("deleted", "bob")]
    history = direct.json("GET", "schedules/brief/history")
    assert [(c["by"], c["what"]) for c in history["items"]] == [("ana", "created"), ("bob", "deleted")]


def test_the_server_says_what_it_has_beside_executions(direct: Direct) -> None:
    assert direct.json("GET", "info")["features"] == ["deployments", "schedules", "stacks"]
