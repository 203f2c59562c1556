"""Stacks whose workers run elsewhere: the commands, the image, what is checked, and packages that are missing."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from kitaru_nb.client import KitaruClient
from kitaru_nb.config import load_settings
from kitaru_nb.core.runners import runner_of
from kitaru_nb.core.runtime import Runtime, runtime_of
from kitaru_nb.errors import KitaruFeatureNotAvailableError, KitaruUsageError
from kitaru_nb.promote import environment, functions
from kitaru_nb.promote.environment import Lock, build_environment
from kitaru_nb.stacks.base import worker_environment
from kitaru_nb.stacks.checking import check_stack, try_worker
from kitaru_nb.stacks.definition import ELSEWHERE, RUNNERS, parse_stack, runner_for, save_stack
from kitaru_nb.stacks.image import dockerfile
from tests.promote.test_environment import locked, wheel
from tests.stacks.cloud_contract import CRASH, LINGER, quick
from tests.stacks.commands import home, kitaru
from tests.stacks.containers import serving
from tests.stacks.ecs import ACCOUNT, REGION, Ecs

ROLE = f"arn:aws:iam::{ACCOUNT}:role/kitaru"


assert home  # a fixture, of all tests here


def test_a_stack_on_a_cloud_is_made_by_one_command(home: Path) -> None:
    secret = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:openai"
    options = ["image=worker:1", "subnets=subnet-1,subnet-2", f"execution_role={ROLE}", "cpu=1024", "memory=2048"]
    given = [word for option in options for word in ("--option", option)]
    kitaru("stack", "create", "prod", "aws", "--store", "s3://acme/x", *given, "--secret", f"OPENAI_API_KEY={secret}")
    written = yaml.safe_load((home / "stacks" / "prod.yaml").read_text())
    assert written["runner"] == "aws"
    assert written["options"]["memory"] == 2048
    assert written["secrets"] == {"OPENAI_API_KEY": secret}
    told = kitaru("stack", "create", "prod", "aws", "--option", "image=x", code=1)
    assert "options of stack 'prod': subnets and execution_role are missing." in told
    assert "fix: kitaru stack create prod aws ... --option subnets=... --option execution_role=..." in told


@pytest.fixture
def cloud(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ecs]:
    """A cloud, and the stack ``prod`` on it."""
    options = {"image": "x", "cluster": "agents", "region": REGION, "subnets": ["subnet-1"], "execution_role": ROLE}
    save_stack(parse_stack("prod", {"runner": "aws", "options": options}, "test"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    cloud = Ecs(tmp_path / "cloud")
    with serving(cloud):
        monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)
        yield cloud
        quick(runner_of("prod"))


def test_a_worker_that_is_tried_tells_that_all_works_or_why_not(cloud: Ecs) -> None:
    tried = try_worker("prod")
    assert tried.ok, tried.seen
    assert "100000 bytes written by Python" in tried.seen
    cloud.instead = CRASH
    tried = try_worker("prod")
    assert not tried.ok
    assert "ended with code 3" in tried.seen
    assert "it said: no disk" in tried.seen
    assert str(tried.fix).startswith("aws logs tail")
    cloud.instead = LINGER
    tried = try_worker("prod", timeout=0.5)
    assert "after the time allowed the worker is running" in tried.seen
    cloud.containers[-1].wait()
    cloud.no_capacity = True
    assert "Capacity is unavailable" in try_worker("prod").seen


def test_the_check_asks_the_cloud_and_tells_what_workers_elsewhere_cannot_reach(cloud: Ecs) -> None:
    found = {finding.what: finding for finding in check_stack("prod")}
    assert {what: finding.ok for what, finding in found.items()} == {
        "journal": True,
        "artifact store": True,
        "journal for workers elsewhere": False,
        "store for workers elsewhere": False,
        "cluster": True,
        "workers": True,
        "task definition": True,
        "runner": True,
    }
    journal = found["journal for workers elsewhere"]
    assert journal.seen.startswith("sqlite://")
    assert journal.fix == "kitaru stack create prod ... --journal postgresql://... or https://..."


def test_a_worker_elsewhere_starts_others_on_its_own_stack_without_the_variables_of_the_desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal came to it as a secret: the password that the stack's file names isn't there."""
    monkeypatch.setenv("FOLDER", str(tmp_path))
    fields = {"runner": "kubernetes", "options": {"image": "x"}, "journal": "sqlite://${FOLDER}/j.db"}
    save_stack(prod := parse_stack("prod", {**fields, "secrets": {"KITARU_JOURNAL": "keys/journal"}}, "test"))
    (tmp_path / "flows.py").write_text("from kitaru_nb import flow\n@flow\ndef brief() -> int: return 1\n")
    monkeypatch.setattr(functions, "lock_environment", lambda roots: Lock("", {}, {}))
    KitaruClient(stack="prod").deployments.create(f"{tmp_path}/flows.py:brief")
    variables = worker_environment(runtime_of("prod"), prod)
    monkeypatch.delenv("FOLDER")
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "container"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    made = KitaruClient().deployments.prepare("brief")
    assert (made.stack, made.deployment) == ("prod", "brief@v1")
    assert KitaruClient(stack="prod").executions.get(made.exec_id).exec_id == made.exec_id


def test_a_server_starts_workers_that_reach_only_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the journal in a file of its own; the stack's workers are told the server's address."""
    fields = {"runner": "kubernetes", "options": {"image": "x"}, "journal": "https://kitaru.example/"}
    save_stack(pods := parse_stack("pods", fields, "test"))
    (tmp_path / "flows.py").write_text("from kitaru_nb import flow\n@flow\ndef brief() -> int: return 1\n")
    monkeypatch.setattr(functions, "lock_environment", lambda roots: Lock("", {}, {}))
    server = Runtime(load_settings())
    deployments = KitaruClient(server).deployments
    deployments.create(f"{tmp_path}/flows.py:brief")
    with pytest.raises(KitaruUsageError, match="'pods' has a journal or a store of its own"):
        deployments.prepare("brief", stack="pods")
    server.addresses = frozenset({"https://kitaru.example"})
    assert deployments.prepare("brief", stack="pods").stack == "pods"
    assert worker_environment(server, pods)["KITARU_JOURNAL"] == "https://kitaru.example/"
    server.journal.close()


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_runner_whose_package_is_missing_is_told_with_its_install_line(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = {"kubernetes": "lightkube", "aws": "boto3", "gcp": "google.auth", "azure": "azure.identity"}[kind]
    module = RUNNERS[kind][0].partition(":")[0]
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(KitaruFeatureNotAvailableError, match=f"runs on {kind}, which needs a package") as caught:
        runner_for(parse_stack("prod", {"runner": kind}, "test"))
    assert caught.value.fix == f"pip install 'kitaru-nb[{kind}]'"


@pytest.mark.parametrize(
    ("fields", "extras"),
    [
        ({}, set()),
        ({"runner": "kubernetes", "journal": "postgresql://h/d"}, {"kubernetes", "postgres"}),
        ({"runner": "aws", "journal": "postgresql://h/d", "store": "s3://b/x"}, {"aws", "postgres"}),
        ({"runner": "gcp", "store": "gs://b/x"}, {"gcp"}),
        ({"runner": "azure", "store": "abfs://b/x"}, {"azure"}),
    ],
    ids=["process", "kubernetes", "aws", "gcp", "azure"],
)
def test_the_image_has_what_the_stack_needs(fields: dict[str, object], extras: set[str]) -> None:
    text = dockerfile(parse_stack("prod", fields, "test"), ["anthropic"])
    arguments = dict(line[4:].split("=") for line in text.splitlines() if line.startswith("ARG "))
    assert set(arguments["EXTRAS"].split(",")) == extras | {"anthropic"}
    assert Version(arguments["PYTHON"]).release == sys.version_info[:2]
    (install,) = [line for line in text.splitlines() if line.startswith("RUN pip")]
    wanted = install.rpartition(" ")[2].strip('"')
    for name, value in arguments.items():
        wanted = wanted.replace(f"${{{name}}}", value)
    assert Requirement(wanted).extras == extras | {"anthropic"}


def test_the_dockerfile_is_printed_or_written(tmp_path: Path) -> None:
    save_stack(parse_stack("prod", {"runner": "gcp"}, "test"))
    printed = kitaru("stack", "dockerfile", "prod")
    assert "FROM python:${PYTHON}-slim" in printed
    path = tmp_path / "Dockerfile"
    told = kitaru("stack", "dockerfile", "prod", "--file", str(path))
    assert path.read_text() == printed
    assert "docker build" in told
    assert json.loads(kitaru("stack", "dockerfile", "--json"))["item"]["stack"] == "local"
    assert "can't be written" in kitaru("stack", "dockerfile", "-f", str(path / "x"), code=1)
    with pytest.raises(KitaruUsageError, match="no extra 'openai'; it has anthropic, aws"):
        dockerfile(parse_stack("prod", {}, "test"), ["openai"])


def test_the_image_of_a_deployment_has_what_was_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, content = wheel("tiny_thing", "1.0", {"tiny_thing.py": "VALUE = 7\n"})
    monkeypatch.setattr(functions, "lock_environment", lambda roots: Lock(locked(path, content), {}, {path: content}))
    (tmp_path / "flows.py").write_text("from kitaru_nb import flow\n@flow\ndef brief() -> int: return 1\n")
    kitaru("deploy", f"{tmp_path}/flows.py:brief", "--tag", "prod")
    file = tmp_path / "image" / "Dockerfile"
    told = kitaru("stack", "dockerfile", "--deployment", "brief@prod", "--file", str(file))
    assert f"--file {file} {file.parent}" in told
    text = file.read_text()
    assert f"ARG PYTHON={sys.version_info[0]}.{sys.version_info[1]}\n" in text
    for copied in re.findall(r"COPY (\S+)", text):
        assert (file.parent / copied).exists()
    (install,) = re.findall(r"RUN uv (.* requirements\.lock)", text)
    uv = environment.find_uv()
    subprocess.run([uv, "venv", "--quiet", "env"], cwd=file.parent, check=True)
    python = file.parent / "env" / "bin" / "python"
    words = [word for word in install.split() if word != "--system"]
    subprocess.run([uv, *words, "--quiet", "--python", str(python)], cwd=file.parent, check=True)
    seen = subprocess.run([python, "-c", "import tiny_thing; print(tiny_thing.VALUE)"], capture_output=True, text=True)
    assert seen.stdout == "7\n", seen.stderr
    told = kitaru("stack", "dockerfile", "--deployment", "brief@prod", "--extra", "aws", code=1)
    assert "no others" in told


def test_workers_that_start_at_once_leave_one_environment_and_later_ones_build_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KITARU_CACHE", str(tmp_path / "cache"))
    path, content = wheel("tiny_thing", "1.0", {"tiny_thing.py": "VALUE = 7\n"})
    asked = (locked(path, content), {path: content}, platform.python_version())
    with ThreadPoolExecutor(2) as workers:
        first, second = workers.map(lambda _: build_environment(*asked), range(2))
    assert first == second
    assert len(list((tmp_path / "cache" / "environments").iterdir())) == 1
    monkeypatch.setattr(environment, "find_uv", lambda: pytest.fail("built again"))
    assert build_environment(*asked) == first
