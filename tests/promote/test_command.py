"""``kitaru promote``, ``deploy``, ``deployments`` and ``invoke``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from kitaru_nb.promote.functions import find_flow
from kitaru_nb.surfaces.cli import app
from tests.promote.conftest import Desk, code

LOAD = "%load_ext kitaru_nb"


@dataclass(frozen=True)
class Result:
    """What a call of the command gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Kitaru = Callable[..., Result]


@pytest.fixture
def kitaru(desk: Desk) -> Kitaru:
    def call(*words: str) -> Result:
        found = CliRunner().invoke(app, list(words), catch_exceptions=False)
        return Result(found.exit_code, found.stdout, found.stderr)

    return call


@pytest.fixture
def brief(desk: Desk, tiny_lock: Any) -> Desk:
    tiny_lock()
    desk.write(LOAD, code("topic: str = 'sea'\nn: int = 1", "parameters"), "%%checkpoint one\na = [topic] * n")
    return desk


def test_promote_and_the_groups_tell_what_they_did(brief: Desk, kitaru: Kitaru) -> None:
    made = kitaru("promote", "brief.ipynb", "--tag", "prod")
    assert made.code == 0, made.err
    assert made.out.splitlines() == [
        "✓ brief@v1  is deployed",
        "  tags: default, prod",
        "  start it: kitaru invoke brief@prod",
    ]
    brief.write(LOAD, code("topic: str = 'sea'", "parameters"), "%%checkpoint one\na = topic")
    assert kitaru("promote", "brief.ipynb", "--json").json["item"]["version"] == 2
    listed = kitaru("deployments", "list")
    assert [line.split()[:2] for line in listed.out.splitlines()[1:]] == [["brief", "v2"], ["brief", "v1"]]
    assert kitaru("deployments", "list", "brief", "--json").json["count"] == 2
    assert "prod  routes to brief@v2" in kitaru("deployments", "tag", "brief", "2", "prod", "--by", "bob").out.replace(
        "prod routes", "prod  routes"
    )
    moved = kitaru("deployments", "history", "brief", "--tag", "prod").out
    assert "prod → v2 (was on v1)" in moved
    assert "bob" in moved
    assert "brief@v1" in kitaru("deployments", "rollback", "brief", "--tag", "prod").out
    shown = kitaru("deployments", "get", "brief@v1").out
    assert 'inputs       topic: string = "sea", n: integer = 1' in shown
    assert "files        flow.py, notebook.ipynb, requirements.lock" in shown
    differing = kitaru("deployments", "diff", "brief", "v1").out
    assert "-a = [topic] * n\n+a = topic" in differing
    assert 'n: {"default": 1, "type": "integer"} → nothing' in differing
    assert kitaru("deployments", "delete", "brief", "v2").out == "brief@v2 is deleted.\n"
    assert kitaru("deployments", "untag", "brief", "prod").code == 0
    gone = kitaru("deployments", "get", "brief", "--version", "2")
    assert (gone.code, gone.err.splitlines()[0]) == (
        1,
        "error: Version v2 of flow 'brief' was deleted. Versions are: v1.",
    )


def test_a_dry_run_stores_nothing(brief: Desk, kitaru: Kitaru) -> None:
    shown = kitaru("promote", "brief.ipynb", "--dry-run")
    assert "what would ship; nothing was stored" in shown.out
    digest = kitaru("promote", "brief.ipynb", "--dry-run", "--json").json["item"]["digest"]
    assert digest in shown.out
    assert kitaru("deployments", "list").out.splitlines() == [
        "Nothing is deployed yet.",
        "  fix: kitaru promote notebook.ipynb",
    ]


def test_refusals_are_listed_on_stderr(desk: Desk, kitaru: Kitaru, tiny_lock: Any) -> None:
    tiny_lock()
    desk.write("b = a", "!ls")
    refused = kitaru("promote", "brief.ipynb")
    assert (refused.code, refused.out) == (1, "")
    assert "brief.ipynb can't be promoted: 2 things to mend." in refused.err
    assert "cell 1: no cell above defines a." in refused.err
    assert "cell 2: it runs a shell line." in refused.err


def test_invoke_follows_the_execution_and_its_code_says_how_it_ended(
    desk: Desk, kitaru: Kitaru, tiny_lock: Any
) -> None:
    tiny_lock()
    parameters = code("topic: str = 'sea'\nn: int = 1", "parameters")
    desk.promote(LOAD, parameters, "%%checkpoint one\na = [topic] * n\nassert topic != 'bad'", "ok = %wait approve")
    wrong = kitaru("invoke", "brief", "-i", "n=two")
    assert (wrong.code, wrong.err.splitlines()[0]) == (
        1,
        "error: Input 'n' of brief@v1 is \"two\"; expected a whole number (n must be integer).",
    )
    waiting = kitaru("invoke", "brief", "-i", "topic=7", "-i", "n=2", "--json")
    assert waiting.code == 75, waiting.err
    exec_id = waiting.json["item"]["exec_id"]
    assert desk.client.artifacts.get(f"{exec_id}/a").load() == ["7", "7"]
    assert kitaru("executions", "input", exec_id, "--value", "true").code == 0
    desk.done(desk.client.executions.handle(exec_id))
    failed = kitaru("deployments", "invoke", "brief@v1", "--args", '{"topic": "bad"}')
    assert failed.code == 1
    detached = kitaru("invoke", "brief", "--detach", "--key", "k")
    assert (detached.code, "runs brief@v1" in detached.out) == (0, True)
    assert desk.promote(LOAD, "b = 2").version == 2
    again = kitaru("invoke", "brief@v2", "--detach", "--key", "k")  # the same execution, which stays where it is
    assert again.out.splitlines()[0] == detached.out.splitlines()[0]
    handle = desk.client.executions.handle(desk.client.executions.latest().exec_id)
    desk.until(handle, "waiting", "failed", "interrupted")


def test_deploy_takes_flows_of_files_and_modules(desk: Desk, kitaru: Kitaru, tiny_lock: Any) -> None:
    tiny_lock()
    desk.file("flows.py", "from kitaru_nb import flow\n\n\n@flow\ndef brief(n: int):\n    return n\n")
    made = kitaru("deploy", "flows.py:brief", "--tag", "prod", "--input", "n=3", "--json")
    assert made.code == 0, made.err
    assert made.json["item"]["parameters"]["properties"] == {"n": {"type": "integer", "default": 3}}
    for target, message in [
        ("flows.py", "'flows.py' names no flow; expected a file or a module, a colon, and the flow's name."),
        ("flows.py:other", "flows.py has no flow 'other'. Flows are: brief."),
        ("nowhere.py:brief", f"There is no file {desk.folder}/nowhere.py. Scripts in {desk.folder}: flows.py."),
        ("no_such_module_here:brief", "Module 'no_such_module_here' can't be imported"),
    ]:
        refused = kitaru("deploy", target)
        assert refused.code == 1
        assert message in refused.err, refused.err
    unknown = kitaru("deploy", "flows.py:brief", "--input", "m=3")
    assert "Flow 'brief' has no input 'm'. It takes brief(n: int)." in unknown.err
    wrong = kitaru("deploy", "flows.py:brief", "--input", "n=many")
    assert "Input 'n' of flow 'brief' is \"many\"; expected a whole number" in wrong.err
    assert [d.version for d in desk.client.deployments.list()] == [1]


def test_a_flow_may_take_what_deploying_takes_too(desk: Desk, kitaru: Kitaru, tiny_lock: Any) -> None:
    tiny_lock()
    desk.file("flows.py", "from kitaru_nb import flow\n\n\n@flow\ndef hello(name: str, by: str = 'me'): ...\n")
    made = kitaru("deploy", "flows.py:hello", "--input", "name=7", "--input", "by=kim", "--json")
    assert made.code == 0, made.err
    assert made.json["item"]["flow"] == "hello"
    assert made.json["item"]["created_by"] != "kim"
    again = find_flow(desk.client.runtime, "flows.py:hello").deploy(name="7", by="kim")
    for properties in (made.json["item"]["parameters"]["properties"], again.parameters["properties"]):
        assert properties == {"name": {"type": "string", "default": "7"}, "by": {"type": "string", "default": "kim"}}
    assert again.deployment_id == "hello@v2"


def test_schedules_are_made_listed_and_deleted(brief: Desk, kitaru: Kitaru) -> None:
    assert kitaru("deployments", "schedules").out.splitlines() == [
        "Nothing is scheduled.",
        '  fix: kitaru deployments schedule FLOW --cron "0 7 * * 1-5"',
    ]
    brief.promote(LOAD, code("topic: str = 'sea'", "parameters"), "%%checkpoint one\na = topic", tags="prod")
    words = ["deployments", "schedule", "brief", "--tag", "prod", "--cron", "0 7 1 1 *", "-i", "topic=7"]
    made = kitaru(*words, "--timezone", "Europe/Berlin", "--catch-up", "one", "--by", "bob")
    assert made.code == 0, made.err
    head, note = made.out.splitlines()[:2]
    assert head == "✓ brief@prod  starts at 0 7 1 1 * (Europe/Berlin)"
    assert "-01-01 06:00Z; a server must run then" in note
    (found,) = kitaru("deployments", "schedules", "--json").json["items"]
    assert (found["inputs"], found["catch_up"], found["created_by"]) == ({"topic": "7"}, "one", "bob")
    row = kitaru("deployments", "schedules", "brief").out.splitlines()[-1]
    assert row.split()[:2] == ["brief", "brief@prod"]
    assert row.endswith("never")
    for wrong, code_, told in (
        (words, 1, "There is a schedule 'brief' already"),
        ([*words, "--name", "x", "--cron", "0 25 * * *"], 1, "its hour can't be"),
        ([*words, "--name", "x", "--timezone", "Berlin"], 1, "fix: --timezone Europe/Berlin"),
        ([*words, "--name", "x", "--catch-up", "some"], 1, "expected skip, one, all"),
        (["deployments", "unschedule", "other"], 1, "There is no schedule 'other'. Schedules are: brief."),
    ):
        refused = kitaru(*wrong)
        assert (refused.code, told in refused.err) == (code_, True), refused.err
    assert kitaru("deployments", "unschedule", "brief").code == 0
    assert [row.split()[-1] for row in kitaru("deployments", "schedule-history", "brief").out.splitlines()[1:]] == [
        "created",
        "deleted",
    ]
