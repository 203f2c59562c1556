"""A notebook as a team's deployment on Kubernetes: journal in PostgreSQL, store in a bucket, workers as pods."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lightkube
import pytest
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Secret

from tests.stacks import cluster
from tests.stacks.cluster import Cluster
from tests.ui.team import STACK, Server, Team, evidence, is_gone, team, until, write_notebook

pytestmark = [
    pytest.mark.skipif(
        cluster.program() is None, reason="no control plane: no etcd, or no cluster.py where KITARU_TEST_K8S points"
    ),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with cluster.running(tmp_path_factory.mktemp("kubernetes")) as found, team(tmp_path_factory.mktemp("team")) as made:
        _keep_secrets(found, made)
        options = {"image": "ignored", "namespace": "default", "kubeconfig": found.kubeconfig}
        variables = {"KITARU_HOME": str(made.home.with_name("pods"))}
        variables |= {n: v for n, v in made.bucket.items() if n != "AWS_SECRET_ACCESS_KEY"}
        words = ["stack", "create", STACK, "kubernetes", "--journal", made.journal, "--store", made.store]
        words += [word for name, value in options.items() for word in ("--option", f"{name}={value}")]
        words += [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
        words += ["--secret", "KITARU_JOURNAL=team/journal", "--secret", "AWS_SECRET_ACCESS_KEY=team/bucket"]
        made.kitaru(*words)
        made.kitaru("stack", "use", STACK)
        yield made


def _keep_secrets(found: Cluster, made: Team) -> None:
    client = lightkube.Client(lightkube.KubeConfig.from_file(found.kubeconfig).get(), trust_env=False)
    values = {"journal": made.journal, "bucket": made.bucket["AWS_SECRET_ACCESS_KEY"]}
    client.create(Secret(metadata=ObjectMeta(name="team", namespace="default"), stringData=values))
    client.close()


def approve(server: Server, exec_id: str, *, value: bool) -> None:
    """Answer as the dashboard does."""
    wait = server.ask("GET", f"executions/{exec_id}")["waits"][0]["wait_id"]
    server.ask("POST", f"executions/{exec_id}/waits/{wait}/resolve", {"value": value})


def test_two_editions_of_a_notebook_run_in_pods(place: Team, tmp_path: Path) -> None:
    assert {found["ok"] for found in place.kitaru("stack", "check", STACK)["items"]} == {True}
    notebook = tmp_path / "brief.ipynb"
    write_notebook(notebook)
    place.kitaru("promote", str(notebook), "--tag", "prod")
    dunes = place.kitaru("invoke", "brief@prod", "-i", "topic=dunes", "-i", f"evidence={tmp_path / 'ran'}", code=75)
    first = dunes["item"]["exec_id"]
    turn, draft = evidence(tmp_path / "ran")
    assert (turn.what, draft.what) == ("turn", "draft")
    until("its pod has ended", lambda: is_gone(turn.worker) and is_gone(turn.kernel))

    notebook.write_text(notebook.read_text().replace("first edition", "second edition"))
    place.kitaru("promote", str(notebook), "--tag", "prod")
    second = place.kitaru("invoke", "brief@prod", "-i", "topic=fjords", code=75)["item"]["exec_id"]
    place.kitaru("deployments", "rollback", "brief", "--tag", "prod")
    third = place.kitaru("invoke", "brief@prod", "-i", "topic=atolls", code=75)["item"]["exec_id"]

    with Server(place).running() as server:
        for exec_id, value in ((first, True), (second, True), (third, False)):
            approve(server, exec_id, value=value)
        for exec_id in (first, second, third):
            until(f"{exec_id} ends", lambda exec_id=exec_id: place.client.executions.get(exec_id).status == "completed")
    assert [place.client.executions.get(e).deployment for e in (first, second, third)] == [
        "brief@v1",
        "brief@v2",
        "brief@v1",
    ]
    assert [place.result(e) for e in (first, second, third)] == [
        "FIRST EDITION, DUNES",
        "SECOND EDITION, FJORDS",
        "withdrawn",
    ]
    # Two turns in two pods; the draft was made once, and the text published once.
    ran = evidence(tmp_path / "ran")
    assert [found.what for found in ran] == ["turn", "draft", "turn", "publish"]
    assert len({found.worker for found in ran}) == 2
