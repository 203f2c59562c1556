"""A deployment is kept where its stack keeps its executions, and its workers look there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kitaru_nb.client import KitaruClient
from kitaru_nb.core.flow import Flow
from kitaru_nb.core.runtime import settings_in_use
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.promote.environment import closure, runtime_for
from kitaru_nb.promote.functions import find_flow
from kitaru_nb.stacks.definition import parse_stack, save_stack, use_stack
from tests.promote.conftest import Desk
from tests.promote.test_magic import CELLS, Kernel, kernel

assert kernel  # a fixture


@pytest.fixture
def greet(desk: Desk) -> Flow[..., Any]:
    """A flow in a script."""
    desk.file(
        "flows.py",
        "from kitaru_nb import flow\n@flow\ndef greet(name: str) -> str:\n    return f'Good day, {name}'\n",
    )
    return find_flow(desk.client.runtime, "flows.py:greet")


@pytest.fixture
def team(desk: Desk, tiny_lock: Any) -> KitaruClient:
    """A client of a stack with a journal and a store of its own."""
    tiny_lock()
    own = {"journal": f"sqlite://{desk.folder}/team.db", "store": str(desk.folder / "team")}
    save_stack(parse_stack("team", {"runner": "process", **own}, "test"))
    return KitaruClient(stack="team")


def kept(client: KitaruClient) -> list[tuple[str, str]]:
    return [(found.deployment_id, found.stack) for found in client.deployments.list()]


def shown(kernel: Kernel) -> str:
    """What the last cell displayed, as a front end shows it."""
    return str(kernel.shell.display_pub.outputs[-1]["data"]["text/html"])


def test_a_client_of_a_stack_keeps_and_starts_deployments_there(
    desk: Desk, team: KitaruClient, greet: Flow[..., Any]
) -> None:
    team.deployments.create(desk.write("a = 1"), stack="team")
    greet.deploy(stack="team")
    assert kept(team) == [("brief@v1", "team"), ("greet@v1", "team")]
    assert kept(desk.client) == []
    handle = team.deployments.invoke("greet", inputs={"name": "ann"})
    assert (desk.done(handle), team.executions.get(handle.exec_id).stack) == ("Good day, ann", "team")


def test_a_stack_that_keeps_its_executions_elsewhere_is_refused(desk: Desk, team: KitaruClient) -> None:
    words = r"Stack 'team' has a journal or a store of its own"
    with pytest.raises(KitaruUsageError, match=words) as refused:
        desk.client.deployments.create(desk.write("a = 1"), stack="team")
    assert refused.value.fix == "KitaruClient(stack='team'), or in a shell: --stack team"
    desk.client.deployments.create(desk.path)
    with pytest.raises(KitaruUsageError, match=words):
        desk.client.deployments.invoke("brief", stack="team")
    assert (kept(team), kept(desk.client)) == ([], [("brief@v1", "local")])
    assert desk.client.executions.list() == []


def test_the_stack_in_use_is_the_default(desk: Desk, team: KitaruClient, greet: Flow[..., Any]) -> None:
    use_stack("team")
    desk.client.deployments.create(desk.write("a = 1"))
    greet.deploy()
    assert kept(desk.client) == kept(team) == [("brief@v1", "team"), ("greet@v1", "team")]
    assert [found.deployment_id for found in greet.deployments()] == ["greet@v1"]


def test_a_notebook_is_promoted_to_a_stack_that_is_not_in_use(kernel: Kernel, desk: Desk, team: KitaruClient) -> None:
    kernel.run(*CELLS[:3], "%promote --stack team --tag prod")
    assert "Start it: KITARU_STACK=team kitaru invoke brief --tag prod" in shown(kernel)
    assert (kept(team), kept(desk.client)) == ([("brief@v1", "team")], [])


def test_the_lock_has_what_starts_workers_on_the_stack(desk: Desk, team: KitaruClient) -> None:
    options = {"image": "acme/worker:1"}
    save_stack(parse_stack("k8s", {"runner": "kubernetes", "options": options, "journal": "postgresql://db/k"}, "test"))
    assert runtime_for(settings_in_use("k8s")) == "kitaru-nb[kubernetes,postgres]"
    assert runtime_for(settings_in_use("team")) == "kitaru-nb[]"
    assert "lightkube" in closure({"kitaru-nb[kubernetes]"})


def test_the_stack_in_use_is_found_from_a_folder_on(
    desk: Desk, team: KitaruClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = desk.folder / "project"
    (project / ".kitaru").mkdir(parents=True)
    (project / "notebooks").mkdir()
    save_stack(parse_stack("ours", {"runner": "process", "store": "s3://acme/ours"}, "test"), project / ".kitaru")
    use_stack("ours", project / ".kitaru")
    monkeypatch.delenv("KITARU_HOME")
    found = settings_in_use(start=project / "notebooks")
    assert (found.home, found.stack, found.store, found.inline_max_bytes) == (
        Path(project / ".kitaru"),
        "ours",
        "s3://acme/ours",
        0,
    )
