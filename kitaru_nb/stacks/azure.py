"""Workers as executions of Azure Container Apps jobs.

Each execution of a flow has a job of its own, named after it and started by hand; each turn is an execution of that
job. Azure starts a worker again that died, with the same turn. A job that hasn't run for a while is deleted when others
are started; the next turn makes it anew.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import requests
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import DefaultAzureCredential
from azure.mgmt.appcontainers import ContainerAppsAPIClient, models
from azure.mgmt.core.tools import is_valid_resource_id, parse_resource_id
from pydantic import Field

from kitaru_nb.core.runners import Job, WorkerStatus
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruLogRetrievalError, KitaruUsageError
from kitaru_nb.stacks.base import Finding, worker_command, worker_environment
from kitaru_nb.stacks.cloud import (
    MANAGED_BY,
    TURN,
    Changed,
    CloudRunner,
    CloudWorker,
    Sweep,
    Unknown,
    cores,
    digest,
    mebibytes,
    tried,
    wrong_secret,
)
from kitaru_nb.stacks.definition import Options, Stack

ARM, LOGS = "https://management.azure.com", "https://api.loganalytics.io"
#: Tags of a job: what manages it, for whom, and the digest of what it was made from.
_MANAGER, _STACK, _EXECUTION, _DEFINITION = "managed-by", "kitaru-stack", "kitaru-execution", "kitaru-definition"
_ENDED = ("Succeeded", "Failed", "Stopped")
_VAULT = ".vault."
_IDENTITY = r"^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.ManagedIdentity/userAssignedIdentities/.+"


class AzureOptions(Options):
    """Options of a stack on Azure.

    Attributes:
        subscription, resource_group: where the jobs are.
        environment: the Container Apps environment that they run in: its name, or its resource id.
        image: image of the worker: Python, uv, and kitaru-nb with what the journal and the store need.
        identity: resource id of the managed identity that workers have, for images, secrets and the store.
        registry: server of a private registry that the identity may read, as ``acme.azurecr.io``.
        workload_profile: of the environment; default: Consumption.
        cpu, memory: as ``0.5`` and ``1Gi``; on Consumption a core goes with 2Gi.
        restarts: how often a worker is started again that died.
        deadline: seconds that a worker has; one that needs more lets go, and is started again.
        keep: seconds after which the job of an execution that doesn't run is deleted.
        tags: of the jobs.
        endpoint, logs_endpoint: of Azure Resource Manager and of Log Analytics, in clouds other than the public one.
    """

    subscription: str = Field(min_length=1)
    resource_group: str = Field(min_length=1)
    environment: str = Field(min_length=1)
    image: str
    identity: str | None = Field(default=None, pattern=_IDENTITY)
    registry: str | None = None
    workload_profile: str | None = None
    cpu: float = Field(default=0.5, gt=0)
    memory: str = Field(default="1Gi", pattern=r"^\d+(\.\d+)?Gi$")
    restarts: int = Field(default=3, ge=0, le=10)
    deadline: int = Field(default=86_400, gt=0)
    keep: int = Field(default=86_400, ge=0)
    tags: dict[str, str] = Field(default_factory=dict)
    endpoint: str = ARM
    logs_endpoint: str = LOGS


class AzureRunner(CloudRunner):
    """Starts workers as executions of Container Apps jobs."""

    cloud = "Azure"
    #: Seconds between two looks at a job that is being made, and after which nobody looks any more.
    poll = 2.0
    patience = 120.0

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.options = options = AzureOptions.of(stack)
        self._group = options.resource_group
        self._sweep = Sweep(options.keep)
        for variable, reference in stack.secrets.items():
            if not (reference.startswith("https://") and _VAULT in reference and "/secrets/" in reference):
                expected = "the URL of a secret of Key Vault"
                raise wrong_secret(stack, variable, expected, "https://VAULT.vault.azure.net/secrets/NAME")
        if options.identity is None and (stack.secrets or options.registry):
            raise KitaruUsageError(
                f"Stack {stack.name!r} needs an identity to read its {'secrets' if stack.secrets else 'registry'}.",
                fix=f"kitaru stack create {stack.name} azure ... --option identity=/subscriptions/...",
            )

    @functools.cached_property
    def credential(self) -> Any:
        """That of the environment: variables, managed identity, ``az login``."""
        return DefaultAzureCredential()

    @functools.cached_property
    def client(self) -> ContainerAppsAPIClient:
        """The client of Container Apps."""
        options = self.options
        scopes = [f"{options.endpoint.rstrip('/')}/.default"]
        return ContainerAppsAPIClient(
            self.credential, options.subscription, base_url=options.endpoint, credential_scopes=scopes
        )

    def close(self) -> None:
        """Close the connections; they open again when needed."""
        if (client := self.__dict__.pop("client", None)) is not None:
            client.close()

    @functools.cached_property
    def environment(self) -> Any:
        """Where the jobs run. Raises `Unknown` when there is none of this name."""
        name, group = self.options.environment, self._group
        if is_valid_resource_id(name):
            parts = parse_resource_id(name)
            name, group = str(parts["name"]), str(parts["resource_group"])
        return self._ask("find the environment", self.client.managed_environments.get, group, name)

    def job(self, runtime: Runtime, exec_id: str, job: Job | None = None) -> Any:
        """The Container Apps job of an execution, the same for all its turns; or that of one of its own jobs.

        Raises:
            KitaruUsageError: the journal's password would be readable in it.
        """
        options, identity = self.options, self.options.identity
        variables, secrets = worker_environment(runtime, self.stack), self.stack.secrets
        env = [models.EnvironmentVar(name=n, value=v) for n, v in variables.items() if n not in secrets]
        env += [models.EnvironmentVar(name=name, secret_ref=_secret_name(name)) for name in secrets]
        needed = job.resources if job is not None else {}
        cpu = cores(needed["cpu"]) if "cpu" in needed else options.cpu
        memory = f"{mebibytes(needed['memory']) / 1024:g}Gi" if "memory" in needed else options.memory
        container = models.Container(
            name="worker",
            image=options.image,
            command=worker_command(exec_id, job),
            env=env,
            resources=models.ContainerResources(cpu=cpu, memory=memory),
        )
        configuration = models.JobConfiguration(
            trigger_type="Manual",
            replica_timeout=options.deadline,
            replica_retry_limit=options.restarts,
            manual_trigger_config=models.JobConfigurationManualTriggerConfig(parallelism=1, replica_completion_count=1),
            secrets=[
                models.Secret(name=_secret_name(name), key_vault_url=url, identity=identity)
                for name, url in secrets.items()
            ],
            registries=[models.RegistryCredentials(server=options.registry, identity=identity)]
            if options.registry
            else [],
        )
        properties = models.JobProperties(
            environment_id=self.environment.id,
            workload_profile_name=options.workload_profile,
            configuration=configuration,
            template=models.JobTemplate(containers=[container]),
        )
        tags = {_MANAGER: MANAGED_BY, _STACK: self.stack.name, _EXECUTION: exec_id}
        made = models.Job(
            location=self.environment.location,
            tags={**options.tags, **tags, _DEFINITION: digest([properties.as_dict(), identity])},
            properties=properties,
        )
        if identity is not None:
            assigned = {identity: models.UserAssignedIdentity()}
            made.identity = models.ManagedServiceIdentity(type="UserAssigned", user_assigned_identities=assigned)
        return made

    def _start(self, runtime: Runtime, exec_id: str, job: Job | None, turn: str, attempt: int) -> None:
        name, wanted = _name(exec_id, job), self.job(runtime, exec_id, job)
        self._make(name, wanted)
        (container,) = wanted.properties.template.containers
        started = models.JobExecutionContainer(
            name=container.name,
            image=container.image,
            command=container.command,
            env=[*container.env, models.EnvironmentVar(name=TURN, value=turn)],
            resources=container.resources,
        )
        template = models.JobExecutionTemplate(containers=[started])
        # Not tried again by the client: where the answer is lost, who asked looks whether it runs.
        once = {"polling": False, "retry_total": 0}
        self._ask("start a worker", self.client.jobs.begin_start, self._group, name, template, **once)
        self._sweep.when_due(self._delete_unused)

    def _make(self, name: str, wanted: Any) -> None:
        """Have the job as it is wanted; one that is so already stays."""
        try:
            found = self._ask("find the job", self.client.jobs.get, self._group, name)
            if (found.tags or {}).get(_DEFINITION) == wanted.tags[_DEFINITION]:
                return
        except Unknown:
            pass  # the first time; it is made below
        making = self._ask(
            "make the job",
            self.client.jobs.begin_create_or_update,
            self._group,
            name,
            wanted,
            polling_interval=self.poll,
        )
        self._ask("make the job", making.wait, self.patience)
        if not making.done():
            raise self.refused("make the job", f"it isn't made after {self.patience:g} seconds")

    def _workers(self, exec_id: str, job: Job | None) -> list[CloudWorker]:
        return self._executions_of(_name(exec_id, job))

    def _workers_of_jobs(self, exec_id: str) -> list[CloudWorker]:
        names = [job.name for job in self._jobs() if (job.tags or {}).get(_EXECUTION) == exec_id]
        return [run for name in names if name != exec_id for run in self._executions_of(name)]

    def _jobs(self) -> list[Any]:
        """The jobs of this stack."""
        found = self._ask("list jobs", lambda: list(self.client.jobs.list_by_resource_group(self._group)))
        ours = (MANAGED_BY, self.stack.name)
        return [j for j in found if ((j.tags or {}).get(_MANAGER), (j.tags or {}).get(_STACK)) == ours]

    def _executions_of(self, job: str) -> list[CloudWorker]:
        """The executions of a Container Apps job, the newest first."""
        try:
            found = self._ask("list workers", lambda: list(self.client.jobs_executions.list(self._group, job)))
        except Unknown:
            return []
        found.sort(key=lambda run: run.properties.start_time.timestamp(), reverse=True)
        return [CloudWorker(f"{job}/{run.name}", _turn(run), self._status(run)) for run in found]

    def _status(self, run: Any) -> WorkerStatus:
        told = run.properties
        begun_at, output = told.start_time.timestamp(), self._shown_by(str(run.name))
        reason = ": ".join(filter(None, (told.reason, told.message)))
        if told.status in _ENDED or told.end_time is not None:
            code = 0 if told.status == "Succeeded" else _exit_code(run)
            return WorkerStatus("ended", code, "" if code == 0 else reason or str(told.status), begun_at, output)
        if told.status in ("Running", "Degraded"):
            return WorkerStatus("running", None, "", begun_at, output)
        return WorkerStatus("starting", None, reason, begun_at, output)

    def _stop(self, exec_id: str, worker: CloudWorker) -> None:
        job, _, name = worker.name.partition("/")
        try:
            self._ask("end a worker", self.client.jobs.begin_stop_execution, self._group, job, name, polling=False)
        except (Unknown, Changed):
            return  # it has ended by itself

    def _output(self, worker: CloudWorker) -> str:
        asked = {"query": self._query(worker.name.rpartition("/")[2])}
        url = f"{self.options.logs_endpoint}/v1/workspaces/{self._workspace()}/query"
        token = self._ask("read logs", self.credential.get_token, f"{self.options.logs_endpoint}/.default").token
        answer = self._ask(
            "read logs", requests.post, url, json=asked, headers={"Authorization": f"Bearer {token}"}, timeout=60
        )
        if answer.status_code != 200:
            raise self.refused("read logs", answer.text, kind=KitaruLogRetrievalError)
        rows = answer.json()["tables"][0]["rows"]
        return "".join(f"{row[0]}\n" for row in rows)

    def _workspace(self) -> str:
        """The id of the Log Analytics workspace of the environment."""
        kept = self.environment.properties.app_logs_configuration
        if kept is None or kept.log_analytics_configuration is None:
            raise self.refused(
                "read logs",
                "its environment keeps none in Log Analytics",
                f"az containerapp env update --name {self.options.environment} --resource-group {self._group} "
                "--logs-destination log-analytics --logs-workspace-id ID --logs-workspace-key KEY",
                KitaruLogRetrievalError,
            )
        return str(kept.log_analytics_configuration.customer_id)

    def _query(self, name: str) -> str:
        which = f"where ContainerGroupName_s startswith '{name}'"
        return f"ContainerAppConsoleLogs_CL | {which} | order by _timestamp_d asc | project Log_s"

    def _where(self, exec_id: str, job: Job | None) -> str:
        return self._shown_by(_name(exec_id, job))

    def _shown_by(self, name: str) -> str:
        return f'az monitor log-analytics query --workspace WORKSPACE --analytics-query "{self._query(name)}"'

    def _delete_unused(self, keep: float) -> None:
        """Delete the jobs of this stack that were made, and ran, more than ``keep`` seconds ago."""
        before = time.time() - keep
        for job in self._jobs():
            made = job.system_data.last_modified_at if job.system_data is not None else None
            if made is not None and made.timestamp() > before:
                continue
            workers = self._executions_of(str(job.name))
            if not any(worker.status.alive or worker.status.begun_at > before for worker in workers):
                self._ask("delete a job", self.client.jobs.begin_delete, self._group, job.name, polling=False)

    def check(self, runtime: Runtime) -> list[Finding]:
        """The environment, and a job that is made for real and deleted again. No worker is started."""
        name = "kitaru-check"

        def environment() -> str:
            state = self.environment.properties.provisioning_state
            return f"{self.environment.name} in {self.environment.location}: {state}"

        def made() -> str:
            self._make(name, self.job(runtime, name))
            self._ask("delete a job", self.client.jobs.begin_delete, self._group, name, polling=False)
            return "made and deleted"

        return tried({"environment": environment, "a worker's job": made})

    def _ask(self, doing: str, work: Callable[..., Any], *args: Any, **asked: Any) -> Any:
        """Ask Azure something; its errors as ours."""
        try:
            return work(*args, **asked)
        except ResourceNotFoundError as error:
            raise self.refused(doing, error.message, kind=Unknown) from error
        except ClientAuthenticationError as error:
            raise self.refused(doing, error.message, "az login") from error
        except HttpResponseError as error:
            if error.status_code == 409:
                raise self.refused(doing, error.message, kind=Changed) from error
            fix = None
            if error.status_code == 403:
                scope = f"/subscriptions/{self.options.subscription}/resourceGroups/{self._group}"
                fix = f"az role assignment create --assignee YOU --role Contributor --scope {scope}"
            raise self.refused(doing, error.message, fix) from error
        except (AzureError, requests.RequestException) as error:
            raise self.refused(doing, error) from error


def _name(exec_id: str, job: Job | None) -> str:
    """Azure's names have 32 characters at most."""
    return exec_id if job is None else f"{exec_id}-{digest(job.name)}"


def _secret_name(variable: str) -> str:
    return variable.lower().replace("_", "-")


def _turn(run: Any) -> str:
    template = run.properties.template
    for container in (template.containers or []) if template is not None else []:
        for variable in container.env or []:
            if variable.name == TURN:
                return str(variable.value)
    return ""


def _exit_code(run: Any) -> int | None:
    """The exit code of the last container that Azure tells one of."""
    told = run.properties.detailed_status
    replicas = (told.replicas or []) if told is not None else []
    codes = [container.code for replica in replicas for container in replica.containers or []]
    return next((code for code in reversed(codes) if code is not None), None)
