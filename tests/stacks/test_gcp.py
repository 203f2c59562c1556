"""Workers as runs of Cloud Run jobs: the official client against a stand-in that runs them as processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.oauth2.credentials import Credentials

from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruUsageError
from kitaru_nb.stacks import gcp
from kitaru_nb.stacks.definition import parse_stack, runner_for
from kitaru_nb.stacks.gcp import GcpRunner
from tests.stacks.cloud_contract import CRASH, RestartingCloudContract, quick
from tests.stacks.cloud_run import PARENT, PROJECT, REGION, CloudRun, error
from tests.stacks.containers import serving

OPTIONS = {"project": PROJECT, "region": REGION, "image": "europe-docker.pkg.dev/acme/worker:1"}


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[CloudRun]:
    cloud = CloudRun(tmp_path / "cloud")
    with serving(cloud):
        yield cloud


def make_runner(cloud: CloudRun | None, options: dict[str, object] | None = None, **fields: object) -> GcpRunner:
    where = {"endpoint": cloud.url, "logging_endpoint": cloud.url} if cloud is not None else {}
    fields = {"runner": "gcp", "options": OPTIONS | where | (options or {}), **fields}
    runner: GcpRunner = quick(runner_for(parse_stack("prod", fields, "test")))
    runner.credentials = Credentials(token="of-test")
    return runner


@pytest.fixture
def runner(cloud: CloudRun) -> GcpRunner:
    return make_runner(cloud)


class TestGcpRunner(RestartingCloudContract):
    starting = ":run"
    secret = "user"
    late = "timeout was reached"
    make = staticmethod(make_runner)

    def told(self, cloud: CloudRun) -> str:
        return str([*cloud.jobs.values(), *[run for run, _ in cloud.runs.values()]])

    def inside(self, cloud: CloudRun) -> dict[str, str]:
        where = cloud.url.removeprefix("http://")
        return {"GCE_METADATA_HOST": where, "GCE_METADATA_IP": where}


def test_two_who_ask_at_once_start_one_worker(cloud: CloudRun, runner: GcpRunner, runtime: Runtime) -> None:
    wanted = runner.job(runtime, "kr-0n8g0r1wwaj8")
    stale = runner._made(wanted)
    cloud.instead = CRASH
    runner._start(runtime, "kr-0n8g0r1wwaj8", None, "0", 0)
    runner._made = lambda wanted: stale  # type: ignore[method-assign]
    with pytest.raises(KitaruBackendError, match="Conflict for resource"):
        runner._start(runtime, "kr-0n8g0r1wwaj8", None, "0", 0)
    assert len(cloud.runs) == 1


def test_the_job_of_an_execution_changes_with_its_stack(cloud: CloudRun, runtime: Runtime) -> None:
    for options, made in (({}, 1), ({}, 1), ({"memory": "2Gi"}, 2)):
        runner = make_runner(cloud, options)
        runner._made(runner.job(runtime, "kr-0n8g0r1wwaj8"))
        assert len([asked for asked in cloud.asked if asked.startswith("PATCH")]) == made
    (job,) = cloud.jobs.values()
    assert job.template.template.containers[0].resources.limits["memory"] == "2Gi"


def test_jobs_that_nobody_uses_are_deleted(cloud: CloudRun, runtime: Runtime) -> None:
    cloud.instead = CRASH
    for name, stack in (("kr-000000000001", "prod"), ("kr-000000000002", "prod"), ("kr-000000000003", "other")):
        runner = make_runner(cloud)
        runner.stack = parse_stack(stack, {"runner": "gcp"}, "test")
        runner._start(runtime, name, None, "0", 0)
    for container in cloud.containers:
        container.wait()
    runner = make_runner(cloud, {"keep": 3600})
    runner._delete_unused(3600.0)
    assert len(cloud.jobs) == 3
    cloud.runs[next(iter(cloud.runs))][1].ended_at = time.time() - 7200
    list(cloud.runs.values())[2][1].ended_at = time.time() - 7200
    runner._delete_unused(3600.0)
    assert sorted(cloud.jobs) == [f"{PARENT}/jobs/kr-00000000000{number}" for number in (2, 3)]


def test_options_reach_the_job(runtime: Runtime) -> None:
    options = {
        "service_account": f"worker@{PROJECT}.iam.gserviceaccount.com",
        "cpu": 2,
        "network": "default",
        "subnet": "agents",
        "network_tags": "db",
        "labels": {"team": "a"},
        "deadline": 600,
        "restarts": 5,
    }
    job = make_runner(None, options, secrets={"KEY": "projects/other/secrets/key:3"}).job(runtime, "kr-1")
    task = job.template.template
    assert (task.timeout.total_seconds(), task.max_retries) == (600, 5)
    assert task.service_account.startswith("worker@")
    assert task.containers[0].resources.limits == {"cpu": "2", "memory": "1Gi"}
    (interface,) = task.vpc_access.network_interfaces
    assert (interface.network, interface.subnetwork, list(interface.tags)) == ("default", "agents", ["db"])
    assert job.labels["team"] == "a"
    (secret,) = [variable.value_source.secret_key_ref for variable in task.containers[0].env if variable.name == "KEY"]
    assert (secret.secret, secret.version) == ("projects/other/secrets/key", "3")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"project": "Acme"}, "project is 'Acme'"),
        ({"region": "europe"}, "region is 'europe'"),
        ({"deadline": 700_000}, "deadline is 700000"),
        ({"restarts": 11}, "restarts is 11"),
        ({"service_account": "worker"}, "service_account is 'worker'"),
        ({"zone": "a"}, "no 'zone'"),
    ],
    ids=["project", "region", "deadline", "restarts", "account", "unknown"],
)
def test_an_option_that_cannot_be_is_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(KitaruUsageError, match=words):
        make_runner(None, options)


@pytest.mark.parametrize("reference", ["", "key:", "a key", "other/key"])
def test_a_secret_of_another_form_is_refused(reference: str) -> None:
    with pytest.raises(KitaruUsageError, match=r"secret KEY of stack 'prod' is .*NAME:VERSION"):
        make_runner(None, secrets={"KEY": reference})


def test_the_check_finds_what_works_and_what_does_not(
    cloud: CloudRun, runner: GcpRunner, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [(f.what, f.ok) for f in runner.check(runtime)] == [("jobs", True), ("a worker's job", True)]
    assert cloud.jobs == {}
    *_, secret = make_runner(cloud, secrets={"KEY": "gone"}).check(runtime)
    assert (secret.ok, "Secret gone was not found" in secret.seen) == (False, True)
    cloud.refuse["jobs"] = error(403, "PERMISSION_DENIED", "Permission 'run.jobs.list' denied", "IAM_DENIED")
    (denied,) = runner.check(runtime)
    assert (
        denied.fix == f"gcloud projects add-iam-policy-binding {PROJECT} --member=user:YOU --role=roles/run.developer"
    )
    assert "run.jobs.list" in denied.seen
    cloud.refuse["jobs"] = error(403, "PERMISSION_DENIED", "Cloud Run Admin API is disabled", "SERVICE_DISABLED")
    (disabled,) = runner.check(runtime)
    assert disabled.fix == f"gcloud services enable run.googleapis.com --project {PROJECT}"
    cloud.refuse["jobs"] = error(404, "NOT_FOUND", "Location nowhere1 is not found")
    (nowhere,) = runner.check(runtime)
    assert "Location nowhere1" in nowhere.seen
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/nowhere")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    stranger = make_runner(cloud)
    del stranger.credentials
    (nobody,) = stranger.check(runtime)
    assert nobody.fix == "gcloud auth application-default login"


def test_a_quota_and_a_place_that_does_not_answer_are_told(
    cloud: CloudRun, runner: GcpRunner, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.stuck = True
    monkeypatch.setattr(gcp, "_SECONDS", 0.1)
    with pytest.raises(KitaruBackendError, match=r"Google Cloud didn't make the job.*did not complete"):
        runner._start(runtime, "kr-000000000001", None, "0", 0)
    cloud.stuck = False
    cloud.refuse[":run"] = error(429, "RESOURCE_EXHAUSTED", "Quota exceeded for total allowable CPU")
    with pytest.raises(KitaruBackendError, match=r"Google Cloud didn't start a worker.*Quota exceeded"):
        runner._start(runtime, "kr-000000000001", None, "0", 0)
    with pytest.raises(KitaruBackendError, match="didn't list workers"):
        make_runner(None, {"endpoint": "http://127.0.0.1:1"}).status("kr-1")
