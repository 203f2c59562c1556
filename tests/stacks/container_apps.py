"""Azure Container Apps jobs and Log Analytics as far as the runner asks them; executions are processes.

Every body of a request and of an answer is read by the official models; fields that they don't know are refused.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from azure.mgmt.appcontainers import models

from tests.stacks.containers import Cloud, Container, Refusal

SUBSCRIPTION, GROUP, WORKSPACE = "00000000-0000-0000-0000-000000000001", "agents", "workspace-1"
RESOURCES = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers"
IDENTITY = f"{RESOURCES}/Microsoft.ManagedIdentity/userAssignedIdentities/worker"
SECRETS = {"https://acme.vault.azure.net/secrets/user": "from-secret"}


class ContainerApps(Cloud):
    """One resource group with one environment named ``agents``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.executions: dict[str, tuple[str, dict[str, Any], Container]] = {}
        self.logs_destination = "log-analytics"
        self.stuck = False  # jobs that are made never are ready

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any] | None:
        path = path.partition("?")[0]
        if path == "/identity":  # how a container gets tokens of its managed identity
            assert headers["X-IDENTITY-HEADER"] == "of-test"
            return {"access_token": "of-test-arm", "expires_on": str(int(time.time()) + 3600), "token_type": "Bearer"}
        scope = "logs" if path.startswith("/logs/") else "arm"
        assert headers["Authorization"] == f"Bearer of-test-{scope}"
        asked = json.loads(body) if body else {}
        with self.lock:
            for pattern, verb, name in _ROUTES:
                if verb == method and (found := re.fullmatch(pattern, path)):
                    return getattr(self, name)(*found.groups(), asked=asked)
        raise AssertionError(f"nobody answers {method} {path}")

    def environment(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        if name != "agents":
            raise error(
                404, "ResourceNotFound", f"The Resource 'Microsoft.App/managedEnvironments/{name}' is not found."
            )
        logs: dict[str, Any] = {"destination": self.logs_destination}
        if self.logs_destination == "log-analytics":
            logs["logAnalyticsConfiguration"] = {"customerId": WORKSPACE}
        found = {
            "id": f"{RESOURCES}/Microsoft.App/managedEnvironments/{name}",
            "name": name,
            "location": "westeurope",
            "properties": {"provisioningState": "Succeeded", "appLogsConfiguration": logs},
        }
        return known(models.ManagedEnvironment, found)

    def put_job(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        assert re.fullmatch(r"[a-z][a-z0-9-]{0,30}[a-z0-9]", name), f"Azure takes no job named {name}"
        known(models.Job, asked)
        for secret in asked["properties"]["configuration"]["secrets"]:
            if secret["keyVaultUrl"] not in SECRETS:
                raise error(400, "SecretNotFound", f"Unable to get value of {secret['keyVaultUrl']} using {IDENTITY}.")
        job = {**asked, "name": name, "id": f"{RESOURCES}/Microsoft.App/jobs/{name}"}
        job["properties"] = {**asked["properties"], "provisioningState": "InProgress"}
        job["systemData"] = {"lastModifiedAt": moment(time.time())}
        self.jobs[name] = job
        return known(models.Job, job)

    def get_job(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        answer = json.loads(json.dumps(self.known(name)))
        self.jobs[name]["properties"]["provisioningState"] = "InProgress" if self.stuck else "Succeeded"
        return known(models.Job, answer)

    def known(self, name: str) -> dict[str, Any]:
        if name not in self.jobs:
            raise error(404, "ResourceNotFound", f"The Resource 'Microsoft.App/jobs/{name}' was not found.")
        return self.jobs[name]

    def list_jobs(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"value": [known(models.Job, job) for job in self.jobs.values()]}

    def delete_job(self, name: str, asked: dict[str, Any]) -> None:
        del self.jobs[name]

    def start(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        job = self.known(name)
        known(models.JobExecutionTemplate, asked)
        configuration = job["properties"]["configuration"]
        assert asked["containers"][0]["image"] == job["properties"]["template"]["containers"][0]["image"]
        secrets = {secret["name"]: SECRETS[secret["keyVaultUrl"]] for secret in configuration["secrets"]}
        (container,) = asked["containers"]
        variables = {v["name"]: secrets[v["secretRef"]] if "secretRef" in v else v["value"] for v in container["env"]}
        process = self.run(
            container["command"],
            variables,
            restarts=configuration["replicaRetryLimit"],
            deadline=configuration["replicaTimeout"],
        )
        execution = f"{name}-{len(self.executions):07x}"
        self.executions[execution] = (name, asked, process)
        answer = {"name": execution, "id": f"{RESOURCES}/Microsoft.App/jobs/{name}/executions/{execution}"}
        return known(models.JobExecutionBase, answer)

    def list_executions(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        self.known(name)
        ours = [(key, kept) for key, kept in self.executions.items() if kept[0] == name]
        return {"value": [known(models.JobExecution, told(key, *kept[1:])) for key, kept in ours]}

    def stop(self, name: str, execution: str, asked: dict[str, Any]) -> dict[str, Any]:
        self.executions[execution][2].stop()
        return {}

    def query(self, asked: dict[str, Any]) -> dict[str, Any]:
        (wanted,) = re.findall(r"startswith '([^']+)'", asked["query"])
        rows = [[text] for name, kept in self.executions.items() if name == wanted for text in kept[2].lines()]
        return {"tables": [{"name": "PrimaryResult", "columns": [{"name": "Log_s", "type": "string"}], "rows": rows}]}


_JOB = f"{RESOURCES}/Microsoft.App/jobs/([^/]+)"
_ROUTES = [
    (f"{RESOURCES}/Microsoft.App/managedEnvironments/([^/]+)", "GET", "environment"),
    (f"{RESOURCES}/Microsoft.App/jobs", "GET", "list_jobs"),
    (_JOB, "PUT", "put_job"),
    (_JOB, "GET", "get_job"),
    (_JOB, "DELETE", "delete_job"),
    (f"{_JOB}/start", "POST", "start"),
    (f"{_JOB}/executions", "GET", "list_executions"),
    (f"{_JOB}/executions/([^/]+)/stop", "POST", "stop"),
    (f"/logs/v1/workspaces/{WORKSPACE}/query", "POST", "query"),
]


def told(name: str, template: dict[str, Any], container: Container) -> dict[str, Any]:
    """An execution as it is by now."""
    properties: dict[str, Any] = {"startTime": moment(container.begun_at), "template": template, "status": "Running"}
    if container.ended_at is not None:
        well = container.code == 0 and not container.stopped
        properties["status"] = "Succeeded" if well else "Stopped" if container.stopped else "Failed"
        properties["endTime"] = moment(container.ended_at)
        one = {"name": "worker", "code": container.code, "status": "Terminated"}
        properties["detailedStatus"] = {"replicas": [{"name": f"{name}-abc", "containers": [one]}]}
        if not well:
            properties["reason"] = "DeadlineExceeded" if container.late else "BackoffLimitExceeded"
            properties["message"] = "Job was active longer than specified deadline" if container.late else "It failed"
    return {"name": name, "properties": properties}


def known(model: Any, found: dict[str, Any]) -> dict[str, Any]:
    """``found``, whose fields the model knows, also those inside."""
    read = model(found)
    names = {field._rest_name: name for name, field in read._attr_to_rest_field.items()}
    unknown = set(found) - set(names)
    assert not unknown, f"{model.__name__} has no {sorted(unknown)}"
    for rest, value in found.items():
        inside = getattr(read, names[rest])
        pairs = zip(inside, value, strict=True) if isinstance(value, list) else [(inside, value)]
        for part, given in pairs:
            if hasattr(part, "_attr_to_rest_field"):
                known(type(part), given)
    return found


def moment(at: float) -> str:
    """A moment as Azure writes it."""
    return datetime.fromtimestamp(at, timezone.utc).isoformat()


def error(status: int, code: str, message: str) -> Refusal:
    """A refusal as Azure Resource Manager has it."""
    return Refusal(status, {"error": {"code": code, "message": message}})
