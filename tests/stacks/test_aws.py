"""Workers as tasks of ECS: against a stand-in that runs them as processes, held to botocore's model of the service."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kitaru_nb.config import Settings
from kitaru_nb.core.runners import Job
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruUsageError
from kitaru_nb.stacks.aws import AwsRunner
from kitaru_nb.stacks.definition import parse_stack, runner_for
from tests.stacks.cloud_contract import CRASH, CloudRunnerContract, quick
from tests.stacks.containers import serving
from tests.stacks.ecs import ACCOUNT, REGION, SECRETS, Ecs, error

OPTIONS = {
    "image": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/worker:1",
    "cluster": "agents",
    "region": REGION,
    "subnets": "subnet-1, subnet-2",
    "execution_role": f"arn:aws:iam::{ACCOUNT}:role/kitaru-execution",
}
(SECRET,) = SECRETS


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ecs]:
    cloud = Ecs(tmp_path / "cloud")
    with serving(cloud):
        for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield cloud


def make_runner(cloud: Ecs | None, options: dict[str, object] | None = None, **fields: object) -> AwsRunner:
    fields = {"runner": "aws", "options": OPTIONS | (options or {}), **fields}
    runner: AwsRunner = quick(runner_for(parse_stack("prod", fields, "test")))
    return runner


@pytest.fixture
def runner(cloud: Ecs) -> AwsRunner:
    return make_runner(cloud)


class TestAwsRunner(CloudRunnerContract):
    starting = "RunTask"
    secret = SECRET
    make = staticmethod(make_runner)

    def told(self, cloud: Ecs) -> str:
        return json.dumps([*cloud.definitions.values(), *[task.asked for task in cloud.tasks.values()]])

    def inside(self, cloud: Ecs) -> dict[str, str]:
        return {name: os.environ[name] for name in os.environ if name.startswith("AWS_")}


def test_a_token_of_a_task_that_aws_lists_no_more_does_not_keep_an_execution_from_going_on(
    cloud: Ecs, runner: AwsRunner, runtime: Runtime
) -> None:
    cloud.instead = CRASH
    for number in (1, 2):
        runner._start(runtime, "kr-000000000001", None, "0", 0)
        assert len(cloud.tasks) == number
        for task in cloud.tasks.values():
            task.container.wait()
            task.forgotten = True  # an hour later
    assert [task.asked["clientToken"] for task in cloud.tasks.values()] == [f"kr-000000000001-0-{n}" for n in range(2)]


def test_a_stack_has_one_task_definition_and_another_when_it_changes(
    cloud: Ecs, runtime: Runtime, runner: AwsRunner
) -> None:
    first, again, other = (
        make_runner(cloud, options).task_definition(runtime) for options in ({}, {}, {"memory": 2048})
    )
    assert first == again
    assert first["family"].startswith("kitaru-prod-")
    assert other["family"] != first["family"]
    for _ in range(2):
        assert all(finding.ok for finding in make_runner(cloud).check(runtime))
    registered = [asked for asked in cloud.asked if asked.endswith("RegisterTaskDefinition")]
    assert len(registered) == 1


def test_options_reach_the_task(cloud: Ecs, runtime: Runtime) -> None:
    options = {"spot": True, "public_ip": True, "security_groups": ["sg-1"], "tags": {"team": "a"}, "task_role": None}
    task = make_runner(cloud, options).task("family", "kr-0n8g0r1wwaj8", None, "3", 1)
    assert task["capacityProviderStrategy"] == [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    assert "launchType" not in task
    assert task["networkConfiguration"]["awsvpcConfiguration"] == {
        "subnets": ["subnet-1", "subnet-2"],
        "securityGroups": ["sg-1"],
        "assignPublicIp": "ENABLED",
    }
    assert task["tags"] == [{"key": "team", "value": "a"}]
    assert task["clientToken"] == "kr-0n8g0r1wwaj8-3-1"


@pytest.mark.parametrize(
    ("resources", "size"),
    [
        ({}, {}),
        ({"cpu": "2"}, {"cpu": "2048", "memory": "4096"}),
        ({"cpu": "300m"}, {"cpu": "512", "memory": "1024"}),
        ({"memory": "10Gi"}, {"cpu": "2048", "memory": "10240"}),
        ({"cpu": "8", "memory": "17Gi"}, {"cpu": "8192", "memory": "20480"}),
    ],
    ids=["none", "cores", "a part of a core", "memory", "both"],
)
def test_a_job_gets_the_least_machine_that_holds_it(resources: dict[str, str], size: dict[str, str]) -> None:
    asked = make_runner(None).task("family", "kr-1", Job("0a", 1, 1, resources), "0a-1-1", 0)
    assert {name: value for name, value in asked["overrides"].items() if name in ("cpu", "memory")} == size
    assert asked["startedBy"] == "kr-1/0a-1-1"


def test_a_job_that_no_machine_holds_is_refused() -> None:
    for resources, words in (
        ({"memory": "200Gi"}, "Fargate has no task with"),
        ({"cpu": "two"}, "cpu is 'two'; expected cores"),
        ({"memory": "4 GB"}, "memory is '4 GB'; expected bytes"),
    ):
        with pytest.raises(KitaruUsageError, match=words):
            make_runner(None).task("family", "kr-1", Job("0a", 1, 1, resources), "0a-1-1", 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"subnets": []}, "subnets is \\[\\]"),
        ({"execution_role": "kitaru"}, "execution_role is 'kitaru'"),
        ({"cpu": 300}, "cpu is 300.*256, 512, 1024"),
        ({"memory": 512}, "memory is 512.*with cpu=512 Fargate has 1024 to 4096 in steps of 1024"),
        ({"memory": 1500}, "memory is 1500.*steps of 1024"),
        ({"stop_timeout": 600}, "stop_timeout is 600"),
        ({"vpc": "x"}, "no 'vpc'"),
    ],
    ids=["no subnet", "role", "cpu", "too little", "step", "timeout", "unknown"],
)
def test_an_option_that_cannot_be_is_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(KitaruUsageError, match=words):
        make_runner(cloud, options)


def test_a_secret_that_is_no_arn_is_refused() -> None:
    with pytest.raises(KitaruUsageError, match=r"secret KEY of stack 'prod' is 'sk-123'; expected the ARN") as caught:
        make_runner(cloud, secrets={"KEY": "sk-123"})
    assert caught.value.fix is not None
    assert "--secret KEY=arn:aws:secretsmanager" in caught.value.fix


@pytest.mark.parametrize(
    ("what", "url"),
    [
        ("journal", "postgresql://kitaru:s3cret@db/x"),
        ("journal", "postgresql://db/x?password=s3cret"),
        ("journal", "https://kt_s3cret@db"),
        ("store", "sftp://ann:s3cret@host/x"),
    ],
    ids=["password", "parameter", "token", "store"],
)
def test_a_password_is_refused_before_anything_is_asked(cloud: Ecs, tmp_path: Path, what: str, url: str) -> None:
    runtime = Runtime(Settings(home=tmp_path / "home", **{what: url}))
    with pytest.raises(KitaruUsageError, match=f"The {what} of .* has a password, which workers must get") as caught:
        make_runner(cloud).task_definition(runtime)
    assert str(caught.value.fix).endswith(f"--secret KITARU_{what.upper()}=REFERENCE")
    assert cloud.asked == []


def test_what_is_missing_is_told_with_the_line_that_mends_it(
    cloud: Ecs, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cluster,) = make_runner(cloud, {"cluster": "agentz"}).check(runtime)
    assert (cluster.ok, cluster.seen) == (False, f"There is no active cluster 'agentz' in {REGION}; it is missing.")
    assert cluster.fix == f"aws ecs create-cluster --cluster-name agentz --region {REGION}"
    cloud.refuse["RegisterTaskDefinition"] = error("AccessDeniedException", "not authorized to perform: iam:PassRole")
    *_, refused = make_runner(cloud).check(runtime)
    assert refused.what == "task definition"
    assert "iam:PassRole" in refused.seen
    assert refused.fix == "allow iam:PassRole to those who start workers, in IAM"
    cloud.refuse["RegisterTaskDefinition"] = error("AccessDeniedException", "denied")
    *_, refused = make_runner(cloud).check(runtime)
    assert refused.fix == "allow ecs:RegisterTaskDefinition to those who start workers, in IAM"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    (nobody,) = make_runner(cloud).check(runtime)
    assert (nobody.ok, nobody.fix) == (False, "aws configure")
    with pytest.raises(KitaruUsageError, match="names no region") as caught:
        make_runner(cloud, {"region": None}).status("kr-1")
    assert "--option region=" in str(caught.value.fix)
    with pytest.raises(KitaruUsageError, match="nobody"):
        make_runner(cloud, {"profile": "nobody"}).status("kr-1")


def test_a_place_without_capacity_and_one_that_is_not_there_are_told(
    cloud: Ecs, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = make_runner(cloud)
    family = runner._registered_family(runtime)
    cloud.no_capacity = True
    with pytest.raises(KitaruBackendError, match=r"AWS didn't start a worker for stack 'prod': Capacity is unavail"):
        runner._start(runtime, "kr-1", None, "0", 0)
    assert family in cloud.definitions
    with pytest.raises(KitaruBackendError, match="ClusterNotFoundException") as caught:
        make_runner(cloud, {"cluster": "gone"}).status("kr-1")
    assert caught.value.fix == "aws ecs create-cluster --cluster-name gone"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(KitaruBackendError, match=r"AWS didn't list workers.*127\.0\.0\.1:1"):
        make_runner(cloud).status("kr-1")
