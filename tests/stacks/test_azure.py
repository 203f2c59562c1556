"""Workers as executions of Container Apps jobs: the official client against a stand-in that runs them as processes."""

from __future__ import annotations

import ipaddress
import os
import ssl
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError
from azure.mgmt.appcontainers import models
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kitaru_nb.core.runners import Job
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruLogRetrievalError, KitaruUsageError
from kitaru_nb.stacks.azure import AzureRunner
from kitaru_nb.stacks.definition import parse_stack, runner_for
from tests.stacks.cloud_contract import CRASH, RestartingCloudContract, quick
from tests.stacks.container_apps import GROUP, IDENTITY, SUBSCRIPTION, ContainerApps, error, known, moment
from tests.stacks.containers import serving

OPTIONS = {
    "subscription": SUBSCRIPTION,
    "resource_group": GROUP,
    "environment": "agents",
    "image": "acme.azurecr.io/worker:1",
}
SECRET = "https://acme.vault.azure.net/secrets/user"


class Credential:
    """Gives tokens that say what they are for."""

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        return AccessToken(f"of-test-{'arm' if 'logs' not in scopes[0] else 'logs'}", int(time.time()) + 3600)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of this machine's loopback address, with its key: Azure's client sends tokens over TLS alone."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "t")])
    now = datetime.now(timezone.utc)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(key.private_bytes(*form) + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def cloud(tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ContainerApps]:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    cloud = ContainerApps(tmp_path / "cloud")
    with serving(cloud, tls):
        yield cloud


def make_runner(cloud: ContainerApps | None, options: dict[str, object] | None = None, **fields: object) -> AzureRunner:
    where = {"endpoint": cloud.url, "logs_endpoint": f"{cloud.url}/logs"} if cloud else {}
    fields = {"runner": "azure", "options": OPTIONS | where | (options or {}), **fields}
    runner: AzureRunner = quick(runner_for(parse_stack("prod", fields, "test")))
    runner.poll = 0.05
    runner.credential = Credential()
    return runner


@pytest.fixture
def runner(cloud: ContainerApps) -> AzureRunner:
    return make_runner(cloud)


class TestAzureRunner(RestartingCloudContract):
    starting = "/start"
    secret = SECRET
    with_secret: ClassVar[dict[str, object]] = {"identity": IDENTITY}
    late = "DeadlineExceeded"
    make = staticmethod(make_runner)

    def told(self, cloud: ContainerApps) -> str:
        return str([*cloud.jobs.values(), *[asked for _, asked, _ in cloud.executions.values()]])

    def inside(self, cloud: ContainerApps) -> dict[str, str]:
        identity = {"IDENTITY_ENDPOINT": f"{cloud.url}/identity", "IDENTITY_HEADER": "of-test"}
        return {**identity, "REQUESTS_CA_BUNDLE": os.environ["REQUESTS_CA_BUNDLE"]}


def test_the_job_of_an_execution_changes_with_its_stack(cloud: ContainerApps, runtime: Runtime) -> None:
    for options, made in (({}, 1), ({}, 1), ({"memory": "2Gi"}, 2)):
        runner = make_runner(cloud, options)
        runner._make("kr-0n8g0r1wwaj8", runner.job(runtime, "kr-0n8g0r1wwaj8"))
        assert len([asked for asked in cloud.asked if asked.startswith("PUT")]) == made
    (container,) = cloud.jobs["kr-0n8g0r1wwaj8"]["properties"]["template"]["containers"]
    assert container["resources"] == {"cpu": 0.5, "memory": "2Gi"}


def test_jobs_that_nobody_uses_are_deleted(cloud: ContainerApps, runtime: Runtime) -> None:
    cloud.instead = CRASH
    for name, stack in (("kr-000000000001", "prod"), ("kr-000000000002", "prod"), ("kr-000000000003", "other")):
        runner = make_runner(cloud)
        runner.stack = parse_stack(stack, {"runner": "azure"}, "test")
        runner._start(runtime, name, None, "0", 0)
    for container in cloud.containers:
        container.wait()
    runner = make_runner(cloud)
    runner._delete_unused(3600.0)
    assert len(cloud.jobs) == 3
    for job in cloud.jobs.values():
        job["systemData"]["lastModifiedAt"] = moment(time.time() - 7200)
    cloud.containers[0].begun_at = time.time() - 7200
    runner._delete_unused(3600.0)
    assert sorted(cloud.jobs) == ["kr-000000000002", "kr-000000000003"]


def test_options_reach_the_job(cloud: ContainerApps, runtime: Runtime) -> None:
    options = {
        "environment": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.App/"
        "managedEnvironments/agents",
        "identity": IDENTITY,
        "registry": "acme.azurecr.io",
        "workload_profile": "d4",
        "deadline": 600,
        "restarts": 5,
        "tags": {"team": "a"},
    }
    runner = make_runner(cloud, options)
    needs = Job("0a1b2c3d4e5f6071", 3, 1, {"cpu": "500m", "memory": "3Gi"})
    made = known(models.Job, runner.job(runtime, "kr-0n8g0r1wwaj8", needs).as_dict())
    properties = made["properties"]
    assert properties["workloadProfileName"] == "d4"
    configuration = properties["configuration"]
    assert (configuration["replicaTimeout"], configuration["replicaRetryLimit"]) == (600, 5)
    assert configuration["registries"] == [{"server": "acme.azurecr.io", "identity": IDENTITY}]
    assert made["identity"] == {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}}
    assert made["tags"]["team"] == "a"
    (container,) = properties["template"]["containers"]
    assert container["resources"] == {"cpu": 0.5, "memory": "3Gi"}
    assert needs.name in container["command"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"environment": ""}, "environment is ''"),
        ({"cpu": 0}, "cpu is 0"),
        ({"memory": "512Mi"}, "memory is '512Mi'"),
        ({"identity": "worker"}, "identity is 'worker'"),
        ({"registry": "acme.azurecr.io"}, "needs an identity to read its registry"),
        ({"zone": "a"}, "no 'zone'"),
    ],
    ids=["environment", "cpu", "memory", "identity", "registry", "unknown"],
)
def test_an_option_that_cannot_be_is_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(KitaruUsageError, match=words):
        make_runner(None, options)


def test_a_secret_of_another_form_or_without_an_identity_is_refused() -> None:
    with pytest.raises(KitaruUsageError, match=r"secret KEY of stack 'prod' is 'key'; expected the URL"):
        make_runner(None, secrets={"KEY": "key"})
    with pytest.raises(KitaruUsageError, match="needs an identity to read its secrets") as caught:
        make_runner(None, secrets={"KEY": SECRET})
    assert "--option identity=" in str(caught.value.fix)


def test_the_check_finds_what_works_and_what_does_not(
    cloud: ContainerApps, runner: AzureRunner, runtime: Runtime
) -> None:
    assert [(f.what, f.ok) for f in runner.check(runtime)] == [("environment", True), ("a worker's job", True)]
    assert cloud.jobs == {}
    (missing,) = make_runner(cloud, {"environment": "agentz"}).check(runtime)
    assert "managedEnvironments/agentz' is not found" in missing.seen
    unknown = make_runner(cloud, {"identity": IDENTITY}, secrets={"KEY": SECRET.replace("user", "gone")})
    *_, secret = unknown.check(runtime)
    assert (secret.ok, "Unable to get value" in secret.seen) == (False, True)
    cloud.refuse["/jobs/kitaru-check"] = error(403, "AuthorizationFailed", "no Microsoft.App/jobs/write")
    *_, denied = runner.check(runtime)
    assert "Microsoft.App/jobs/write" in denied.seen
    assert str(denied.fix).startswith("az role assignment create")

    class Nobody:
        def get_token(self, *scopes: str, **options: Any) -> AccessToken:
            raise ClientAuthenticationError("DefaultAzureCredential failed to retrieve a token")

    stranger = make_runner(cloud)
    stranger.credential = Nobody()
    (nobody,) = stranger.check(runtime)
    assert (nobody.ok, nobody.fix) == (False, "az login")


def test_a_quota_logs_that_nobody_keeps_and_a_place_that_does_not_answer_are_told(
    cloud: ContainerApps, runner: AzureRunner, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.instead = CRASH
    runner._start(runtime, "kr-000000000001", None, "0", 0)
    cloud.logs_destination = "none"
    with pytest.raises(KitaruLogRetrievalError, match="keeps none in Log Analytics"):
        make_runner(cloud).logs("kr-000000000001")
    cloud.stuck = True
    runner.patience = 0.1
    with pytest.raises(KitaruBackendError, match=r"Azure didn't make the job.*isn't made after 0\.1 seconds"):
        runner._start(runtime, "kr-000000000003", None, "0", 0)
    cloud.stuck, runner.patience = False, AzureRunner.patience
    cloud.refuse["/start"] = error(429, "QuotaExceeded", "The core quota of the environment is reached")
    with pytest.raises(KitaruBackendError, match="Azure didn't start a worker"):
        runner._start(runtime, "kr-000000000002", None, "0", 0)
    unreachable = make_runner(cloud, {"endpoint": "https://127.0.0.1:1"})
    unreachable.client._config.retry_policy.total_retries = 0
    with pytest.raises(KitaruBackendError, match="didn't list workers"):
        unreachable.status("kr-1")
