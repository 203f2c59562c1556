"""Workers as Jobs: against a real control plane, and their manifests against the schemas of every supported version."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import kubernetes_validate
import lightkube
import pytest
import yaml
from lightkube.models.authentication_v1 import TokenRequestSpec
from lightkube.models.core_v1 import NodeSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.models.rbac_v1 import PolicyRule, RoleRef, Subject
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Node, NodeStatus, Pod, Secret, ServiceAccount
from lightkube.resources.core_v1 import ServiceAccountToken as TokenRequest
from lightkube.resources.rbac_authorization_v1 import Role, RoleBinding

from kitaru_nb.core.records import load
from kitaru_nb.core.runners import Runner
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruUsageError
from kitaru_nb.model import ExecutionStatus
from kitaru_nb.stacks.definition import parse_stack, runner_for
from kitaru_nb.stacks.kubernetes import CHECKPOINT, EXECUTION, KubernetesRunner
from kitaru_nb.testing.runner import RestartingRunnerContract
from tests.stacks import cluster
from tests.stacks.cluster import Cluster

needs_cluster = pytest.mark.skipif(
    cluster.program() is None, reason="no control plane: no etcd, or no cluster.py where KITARU_TEST_K8S points"
)
HEAVY = """
import os
from kitaru_nb import checkpoint, flow

@checkpoint(runtime="isolated", resources={"cpu": "100m", "memory": "64Mi"})
def heavy(number):
    print("heavy work")
    return number * 2, os.getpid()

@flow
def weigh(name):
    result, pid = heavy(21)
    return result, pid, os.getpid()
"""
FULL = {
    "image": "ghcr.io/acme/worker:1",
    "namespace": "agents",
    "service_account": "kitaru",
    "cpu": "500m",
    "memory": "1Gi",
    "restarts": 5,
    "deadline": 3600,
    "keep": 600,
    "labels": {"team": "a"},
    "annotations": {"note": "x"},
    "node_selector": {"pool": "agents"},
    "image_pull_secrets": ["registry"],
}


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster.running(tmp_path_factory.mktemp("kubernetes")) as found:
        yield found


class SpareNode:
    """A second node that takes no pods. When all nodes of a cluster are silent, its controller evicts nothing."""

    def __init__(self, client: lightkube.Client) -> None:
        self._client = client
        self._over = threading.Event()
        client.create(Node(metadata=ObjectMeta(name="spare"), spec=NodeSpec(unschedulable=True)))
        self._beat()
        self._thread = threading.Thread(target=self._beats)
        self._thread.start()

    def _beats(self) -> None:
        while not self._over.wait(2.0):
            self._beat()

    def _beat(self) -> None:
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "reason": "Test", "message": "", "lastHeartbeatTime": now}
        ready["lastTransitionTime"] = now
        self._client.patch(NodeStatus, "spare", {"status": {"conditions": [ready]}})

    def leave(self) -> None:
        self._over.set()
        self._thread.join()
        self._client.delete(Node, "spare")


_made: list[KubernetesRunner | lightkube.Client] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _made:
        _made.pop().close()


def client_of(kubernetes: Cluster) -> lightkube.Client:
    client = lightkube.Client(lightkube.KubeConfig.from_file(kubernetes.kubeconfig).get(), trust_env=False)
    _made.append(client)
    return client


def make_runner(kubernetes: Cluster, **fields: object) -> KubernetesRunner:
    options = {"image": "ignored", "namespace": "default", "kubeconfig": kubernetes.kubeconfig} | fields.pop(
        "options", {}
    )
    runner = runner_for(parse_stack("k8s", {"runner": "kubernetes", "options": options, **fields}, "test"))
    assert isinstance(runner, KubernetesRunner)
    _made.append(runner)
    return runner


@needs_cluster
@pytest.mark.timeout(600)
class TestKubernetesRunner(RestartingRunnerContract):
    @pytest.fixture
    def runner(self, kubernetes: Cluster) -> Runner:
        return make_runner(kubernetes)

    def test_a_lost_node_is_survived(
        self, kubernetes: Cluster, runtime: Runtime, program: ModuleType, programs: Path
    ) -> None:
        runner = make_runner(kubernetes, options={"node_lost_after": 3})
        exec_id = self.begin(runtime, program.stay, "lost")
        runner.submit(runtime, exec_id)
        self.until("it runs", (programs / "lost.pid").exists)
        pid = int((programs / "lost.pid").read_text())
        (programs / "lost.pid").unlink()
        spare = SpareNode(client_of(kubernetes))
        kubernetes.lose_node()
        self.kill(pid)
        client = client_of(kubernetes)

        def evicted() -> bool:
            pods = list(client.list(Pod, namespace="default", labels={EXECUTION: exec_id}))
            return any(p.metadata is not None and p.metadata.deletionTimestamp for p in pods) or len(pods) > 1

        try:
            self.until("the pod is evicted", evicted)
        finally:
            kubernetes.bring_node_back()
            spare.leave()
        self.until("it runs again", (programs / "lost.pid").exists)
        (programs / "lost.enough").touch()
        self.until_status(runtime, exec_id, ExecutionStatus.COMPLETED)
        assert self.ran(programs, "lost") == [1]

    def test_an_isolated_checkpoint_is_a_job_of_its_own(self, kubernetes: Cluster, runtime: Runtime) -> None:
        # In a pod the kubeconfig of the stack means nothing; here, where pods are processes, they get one this way.
        runner = make_runner(kubernetes, environment={"KUBECONFIG": kubernetes.kubeconfig})
        defined: dict[str, Any] = {"__name__": "heavy"}
        exec(HEAVY, defined)
        exec_id = self.begin(runtime, defined["weigh"].with_options(stack="k8s"), "weighed")
        runner.submit(runtime, exec_id)
        self.until_status(runtime, exec_id, ExecutionStatus.COMPLETED)
        result, mine, its = load(exec_id, "result", runtime=runtime)
        assert (result, mine == its) == (42, False)
        jobs = list(client_of(kubernetes).list(Job, namespace="default", labels={EXECUTION: exec_id}))
        (job,) = [job for job in jobs if job.metadata is not None and CHECKPOINT in (job.metadata.labels or {})]
        assert len(jobs) == 2
        assert job.spec is not None
        assert job.spec.template.spec is not None
        assert job.spec.template.spec.containers[0].resources is not None
        assert job.spec.template.spec.containers[0].resources.limits == {"cpu": "100m", "memory": "64Mi"}
        # The execution's own worker is told apart from it.
        assert "heavy" not in runner.logs(exec_id)

    def test_an_evicted_pod_lets_go_and_its_successor_goes_on(
        self, kubernetes: Cluster, runner: Runner, runtime: Runtime, program: ModuleType, programs: Path
    ) -> None:
        exec_id = self.begin(runtime, program.stay, "evicted")
        runner.submit(runtime, exec_id)
        self.until("it runs", (programs / "evicted.pid").exists)
        (programs / "evicted.pid").unlink()
        client = client_of(kubernetes)
        (pod,) = client.list(Pod, namespace="default", labels={EXECUTION: exec_id})
        assert pod.metadata is not None
        name = str(pod.metadata.name)
        client.delete(Pod, name)  # what an eviction does; this server is too old for the client's Eviction
        self.until("it runs again", (programs / "evicted.pid").exists)
        (programs / "evicted.enough").touch()
        self.until_status(runtime, exec_id, ExecutionStatus.COMPLETED)
        assert self.ran(programs, "evicted") == [1]
        kinds = [event.kind for event in runtime.journal.history(exec_id)]
        assert "execution.paused" in kinds  # it was told, and gave its lease back itself

    def test_a_deadline_ends_the_worker_and_says_so(
        self, kubernetes: Cluster, runtime: Runtime, program: ModuleType, programs: Path
    ) -> None:
        runner = make_runner(kubernetes, options={"deadline": 6, "restarts": 0})
        exec_id = self.begin(runtime, program.stay, "late")
        runner.submit(runtime, exec_id)
        ended = self.until_ended(runner, exec_id)
        assert ended.reason.startswith("DeadlineExceeded")
        self.until_status(runtime, exec_id, ExecutionStatus.INTERRUPTED, ExecutionStatus.PENDING)

    def test_a_worker_that_never_took_the_execution_up_is_started_again(
        self, kubernetes: Cluster, runner: Runner, runtime: Runtime, program: ModuleType, programs: Path
    ) -> None:
        broken = make_runner(kubernetes, options={"restarts": 0}, environment={"KITARU_JOURNAL": "nowhere://x"})
        exec_id = self.begin(runtime, program.finish, "again")
        for _ in range(2):
            broken.submit(runtime, exec_id)
            assert self.until_ended(broken, exec_id).code == 1
        runner.submit(runtime, exec_id)
        self.until_status(runtime, exec_id, ExecutionStatus.COMPLETED)
        names = [
            str(job.metadata and job.metadata.name)
            for job in client_of(kubernetes).list(Job, namespace="default", labels={EXECUTION: exec_id})
        ]
        assert sorted(names) == [f"{exec_id}-0", f"{exec_id}-0-1", f"{exec_id}-0-2"]

    def test_secrets_reach_the_worker_and_not_the_manifest(
        self, kubernetes: Cluster, runtime: Runtime, program: ModuleType, programs: Path
    ) -> None:
        client = client_of(kubernetes)
        client.create(Secret(metadata=ObjectMeta(name="keys", namespace="default"), stringData={"user": "from-secret"}))
        runner = make_runner(kubernetes, secrets={"KITARU_USER": "keys/user"})
        exec_id = self.begin(runtime, program.finish, "secret")
        runner.submit(runtime, exec_id)
        self.until_status(runtime, exec_id, ExecutionStatus.COMPLETED)
        assert "from-secret" not in json.dumps(runner.job(runtime, exec_id, "finish", 0).to_dict())

    def test_the_check_asks_for_every_right(self, kubernetes: Cluster, runtime: Runtime) -> None:
        findings = make_runner(kubernetes).check(runtime)
        assert [f.what for f in findings if f.ok] == [f.what for f in findings]
        assert [findings[0].what, findings[-1].what] == ["create jobs", "a worker's Job"]
        *_, refused = make_runner(kubernetes, options={"labels": {"team": "no label!"}}).check(runtime)
        assert (refused.what, refused.ok, "no label!" in refused.seen) == ("a worker's Job", False, True)

    def test_rights_that_are_missing_are_told_with_the_line_that_grants_them(
        self, kubernetes: Cluster, runtime: Runtime, tmp_path: Path
    ) -> None:
        client, there = client_of(kubernetes), "default"
        client.create(ServiceAccount(metadata=ObjectMeta(name="narrow", namespace=there)))
        asked = TokenRequestSpec(audiences=["https://kubernetes.default.svc"])
        told = client.create(TokenRequest(metadata=ObjectMeta(namespace=there), spec=asked), "narrow").status
        assert told is not None
        config = yaml.safe_load(Path(kubernetes.kubeconfig).read_text())
        config["users"][0]["user"] = {"token": told.token}
        (tmp_path / "narrow").write_text(json.dumps(config))
        runner = make_runner(kubernetes, options={"kubeconfig": str(tmp_path / "narrow")})
        refused = runner.check(runtime)
        assert [f.what for f in refused if not f.ok] == [f.what for f in refused]
        role = "kitaru-create-jobs"
        assert refused[0].fix == (
            f"kubectl create role {role} --verb=create --resource=jobs.batch --namespace default && "
            f"kubectl create rolebinding {role} --role={role} --user=YOU --namespace default"
        )
        rules = [
            PolicyRule(apiGroups=["batch"], resources=["jobs"], verbs=["create", "list", "delete"]),
            PolicyRule(apiGroups=[""], resources=["pods", "pods/log"], verbs=["get", "list"]),
        ]
        client.create(Role(metadata=ObjectMeta(name="narrow", namespace=there), rules=rules))
        subject = Subject(kind="ServiceAccount", name="narrow", namespace=there)
        given = RoleRef(apiGroup="rbac.authorization.k8s.io", kind="Role", name="narrow")
        client.create(RoleBinding(given, metadata=ObjectMeta(name="narrow", namespace=there), subjects=[subject]))
        self.until("it may", lambda: all(found.ok for found in runner.check(runtime)))


@pytest.mark.parametrize("version", [f"1.{minor}" for minor in range(25, 38)])
@pytest.mark.parametrize("options", [{"image": "x"}, FULL], ids=["least", "full"])
def test_the_manifest_fits_the_schema_of(version: str, options: dict[str, object], runtime: Runtime) -> None:
    stack = parse_stack("k8s", {"runner": "kubernetes", "options": options, "secrets": {"KEY": "keys/openai"}}, "test")
    runner = KubernetesRunner(stack)
    job = runner.job(runtime, "kr-0n8g0r1wwaj8", "a flow: with / odd _ characters ", 3)
    manifest = json.loads(json.dumps(job.to_dict()))
    kubernetes_validate.validate({"apiVersion": "batch/v1", "kind": "Job", **manifest}, version, strict=True)
    assert manifest["metadata"]["name"] == "kr-0n8g0r1wwaj8-3"
    worker = manifest["spec"]["template"]["spec"]["containers"][0]
    assert worker["command"][-2:] == ["--supervised", "kr-0n8g0r1wwaj8"]
    assert {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "openai"}}} in worker["env"]
    assert "KITARU_HOME" not in [e["name"] for e in worker["env"]]


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    from kitaru_nb.config import Settings

    return Runtime(Settings(home=tmp_path))


def test_an_option_that_is_wrong_is_named() -> None:
    for options, words in (({}, "image is missing"), ({"image": "x", "cpus": 1}, "no 'cpus'")):
        with pytest.raises(KitaruUsageError, match=words):
            runner_for(parse_stack("k8s", {"runner": "kubernetes", "options": options}, "test"))


def test_a_secret_of_another_form_is_refused(runtime: Runtime) -> None:
    stack = parse_stack("k8s", {"runner": "kubernetes", "options": {"image": "x"}, "secrets": {"KEY": "keys"}}, "test")
    with pytest.raises(KitaruUsageError, match=r"KEY.*NAME/KEY"):
        KubernetesRunner(stack).job(runtime, "kr-1", "f", 0)


def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "gone",
        "contexts": [{"name": "gone", "context": {"cluster": "gone", "user": "u"}}],
        "clusters": [{"name": "gone", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    options = {"image": "x", "kubeconfig": str(path)}
    runner = runner_for(parse_stack("k8s", {"runner": "kubernetes", "options": options}, "test"))
    assert isinstance(runner, KubernetesRunner)
    _made.append(runner)
    with pytest.raises(KitaruBackendError, match="stack 'k8s' can't be reached"):
        runner.status("kr-1")


def test_no_cluster_at_all_is_told(tmp_path: Path) -> None:
    options = {"image": "x", "kubeconfig": str(tmp_path / "none")}
    runner = runner_for(parse_stack("k8s", {"runner": "kubernetes", "options": options}, "test"))
    with pytest.raises(KitaruUsageError, match="finds no cluster"):
        runner.status("kr-1")
