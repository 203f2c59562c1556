"""Answers about what is there (executions, waits, artifacts, deployments): each is as the OpenAPI document says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kitaru_nb.core.runtime import Runtime
from kitaru_nb.surfaces.http.openapi import document
from kitaru_nb.surfaces.operations.base import Content, Follow, News
from kitaru_nb.surfaces.operations.table import OPERATIONS
from tests.http import flows
from tests.http.deploying import Deployer
from tests.http.httpkit import Direct, Ran

#: What is asked for, where it isn't the execution that waits.
ASKED: dict[str, dict[str, Any]] = {
    "executions.checkpoint": {"call_id": "research"},
    "executions.diff": {"exec_id": "latest", "other": "latest"},
    "waits.get": {"wait_id": "approve"},
    "artifacts.get": {"id": "latest/research"},
    "deployments.get": {"flow": "brief"},
    "deployments.history": {"flow": "brief"},
    "schedules.get": {"name": "nightly"},
    "schedules.history": {"name": "nightly"},
    "stacks.get": {"name": "local"},
}


def test_answers_are_as_they_are_described(
    ran: Ran, direct: Direct, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Deployer(runtime, tmp_path, monkeypatch)()
    direct.json(
        "POST", "schedules", {"flow": "brief", "cron": "0 7 * * *", "name": "nightly", "inputs": {"topic": "x"}}
    )
    ran(flows.failing)
    ran(flows.brief)
    described = document()
    checked = []
    for operation in OPERATIONS:
        if operation.method == "GET" and operation.result not in (Content, Follow, News):
            given = {"exec_id": "latest"} | ASKED.get(operation.name, {})
            query = {name: value for name, value in given.items() if name in ("id", "other")}
            answer = direct.json("GET", operation.path.format(**given), **query)
            assert answer.get("items") != [], f"{operation.name} has nothing that could be held against its description"
            good = described["paths"][f"/{operation.path}"]["get"]["responses"]["200"]["content"]["application/json"]
            jsonschema.Draft202012Validator({**described, **good["schema"]}).validate(answer)
            checked.append(operation.name)
    assert set(ASKED) <= set(checked)
