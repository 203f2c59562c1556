"""Workers as executions of Cloud Run jobs.

Each execution of a flow has a job of its own, named after it; each turn is a run of that job. Cloud Run starts a worker
again that died, with the same turn. A job that hasn't run for a while is deleted when others are started: a region
holds only so many, and the next turn makes it anew.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import google.auth
import requests
from google.api_core.exceptions import (
    Aborted,
    Conflict,
    Forbidden,
    GoogleAPICallError,
    NotFound,
    RetryError,
    from_http_response,
)
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.auth.transport.requests import AuthorizedSession
from google.cloud import run_v2
from pydantic import Field

from kitaru_nb.core.runners import Job, WorkerStatus
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.stacks.base import Finding, worker_command, worker_environment
from kitaru_nb.stacks.cloud import (
    MANAGED_BY,
    TURN,
    Changed,
    CloudRunner,
    CloudWorker,
    Names,
    Sweep,
    Unknown,
    digest,
    tried,
    wrong_secret,
)
from kitaru_nb.stacks.definition import Options, Stack

logger = logging.getLogger(__name__)

RUN, LOGGING = "https://run.googleapis.com", "https://logging.googleapis.com"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
#: Labels of a job: what manages it, for whom, and the digest of what it was made from.
_MANAGER, _STACK, _EXECUTION, _DEFINITION = "managed-by", "kitaru-stack", "kitaru-execution", "kitaru-definition"
_SECONDS = 120.0


class GcpOptions(Options):
    """Options of a stack on Google Cloud.

    Attributes:
        project, region: where the jobs are.
        image: image of the worker: Python, uv, and kitaru-nb with what the journal and the store need.
        service_account: e-mail of the account that workers have; default: that of Compute Engine.
        cpu, memory: limits, as ``1`` and ``1Gi``.
        restarts: how often a worker is started again that died.
        deadline: seconds that a worker has; one that needs more lets go, and is started again.
        keep: seconds after which the job of an execution that doesn't run is deleted.
        network, subnet: direct egress into a VPC, for a journal without a public address.
        network_tags: of that.
        labels: of the jobs.
        endpoint, logging_endpoint: of the services, where they are private.
    """

    project: str = Field(pattern=r"^[a-z][a-z0-9:.-]{4,62}$")
    region: str = Field(pattern=r"^[a-z]+-[a-z]+\d+$")
    image: str
    service_account: str | None = Field(default=None, pattern=r"^[^@\s]+@[^@\s]+$")
    cpu: str = Field(default="1", coerce_numbers_to_str=True)
    memory: str = "1Gi"
    restarts: int = Field(default=3, ge=0, le=10)
    deadline: int = Field(default=86_400, gt=0, le=604_800)
    keep: int = Field(default=86_400, ge=0)
    network: str | None = None
    subnet: str | None = None
    network_tags: Names = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)
    endpoint: str = RUN
    logging_endpoint: str = LOGGING


class GcpRunner(CloudRunner):
    """Starts workers as runs of Cloud Run jobs."""

    cloud = "Google Cloud"

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.options = GcpOptions.of(stack)
        self.parent = f"projects/{self.options.project}/locations/{self.options.region}"
        for variable in stack.secrets:
            _secret(stack, variable)
        self._sweep = Sweep(self.options.keep)

    @functools.cached_property
    def credentials(self) -> Any:
        """Those of the environment. Raises `KitaruUsageError` when there are none."""
        try:
            return google.auth.default(scopes=[_SCOPE])[0]
        except DefaultCredentialsError as error:
            raise KitaruUsageError(
                f"Stack {self.stack.name!r} finds no credentials of Google Cloud.",
                fix="gcloud auth application-default login",
            ) from error

    @functools.cached_property
    def jobs(self) -> run_v2.JobsClient:
        """The client for jobs."""
        return run_v2.JobsClient(**self._asking)

    @functools.cached_property
    def executions(self) -> run_v2.ExecutionsClient:
        """The client for runs of jobs."""
        return run_v2.ExecutionsClient(**self._asking)

    @property
    def _asking(self) -> dict[str, Any]:
        endpoint = {"api_endpoint": self.options.endpoint}
        return {"credentials": self.credentials, "transport": "rest", "client_options": endpoint}

    def close(self) -> None:
        """Close the connections; they open again when needed."""
        for name in ("jobs", "executions"):
            if (client := self.__dict__.pop(name, None)) is not None:
                client.transport.close()

    def job(self, runtime: Runtime, exec_id: str, job: Job | None = None) -> run_v2.Job:
        """The Cloud Run job of an execution, the same for all its turns; or that of one of its own jobs.

        Raises:
            KitaruUsageError: the journal's password would be readable in it.
        """
        options, command = self.options, worker_command(exec_id, job)
        size = {"cpu": options.cpu, "memory": options.memory, **(job.resources if job is not None else {})}
        variables = worker_environment(runtime, self.stack)
        env = [run_v2.EnvVar(name=n, value=v) for n, v in variables.items() if n not in self.stack.secrets]
        for variable in self.stack.secrets:
            name, version = _secret(self.stack, variable)
            reference = run_v2.SecretKeySelector(secret=name, version=version)
            env.append(run_v2.EnvVar(name=variable, value_source=run_v2.EnvVarSource(secret_key_ref=reference)))
        container = run_v2.Container(
            image=options.image,
            command=command[:1],
            args=command[1:],
            env=env,
            resources=run_v2.ResourceRequirements(limits=size),
        )
        task = run_v2.TaskTemplate(
            containers=[container],
            max_retries=options.restarts,
            timeout={"seconds": options.deadline},
            service_account=options.service_account,
        )
        if options.network is not None or options.subnet is not None:
            interface = {"network": options.network, "subnetwork": options.subnet, "tags": options.network_tags}
            task.vpc_access = run_v2.VpcAccess(network_interfaces=[interface])
        template = run_v2.ExecutionTemplate(task_count=1, template=task)
        made_from = digest(run_v2.ExecutionTemplate.to_dict(template))
        labels = {_MANAGER: MANAGED_BY, _STACK: self.stack.name, _EXECUTION: exec_id, _DEFINITION: made_from}
        return run_v2.Job(name=self._name(exec_id, job), labels={**options.labels, **labels}, template=template)

    def _name(self, exec_id: str, job: Job | None) -> str:
        return f"{self.parent}/jobs/{exec_id}" + (f"-{job.name}" if job is not None else "")

    def _start(self, runtime: Runtime, exec_id: str, job: Job | None, turn: str, attempt: int) -> None:
        override = run_v2.RunJobRequest.Overrides.ContainerOverride(env=[run_v2.EnvVar(name=TURN, value=turn)])
        overrides = run_v2.RunJobRequest.Overrides(container_overrides=[override])
        made = self._made(self.job(runtime, exec_id, job))
        # With its etag: whoever asks at the same moment is refused, because a run changes the job.
        request = run_v2.RunJobRequest(name=made.name, etag=made.etag, overrides=overrides)
        self._ask("start a worker", self.jobs.run_job, request)
        self._sweep.when_due(self._delete_unused)

    def _made(self, wanted: run_v2.Job) -> run_v2.Job:
        """The job as it is there, made or changed when it has to be."""
        try:
            found: run_v2.Job = self._ask("find the job", self.jobs.get_job, name=wanted.name)
            if found.labels.get(_DEFINITION) == wanted.labels[_DEFINITION]:
                return found
        except Unknown:
            pass  # the first time; it is made below
        request = run_v2.UpdateJobRequest(job=wanted, allow_missing=True)
        operation = self._ask("make the job", self.jobs.update_job, request)
        made: run_v2.Job = self._ask("make the job", operation.result, timeout=_SECONDS)
        return made

    def _workers(self, exec_id: str, job: Job | None) -> list[CloudWorker]:
        return self._runs_of(self._name(exec_id, job))

    def _workers_of_jobs(self, exec_id: str) -> list[CloudWorker]:
        jobs = self._ask("list jobs", lambda: list(self.jobs.list_jobs(parent=self.parent)))
        ours = [job.name for job in jobs if job.labels.get(_EXECUTION) == exec_id]
        return [run for name in ours if name != self._name(exec_id, None) for run in self._runs_of(name)]

    def _runs_of(self, job: str) -> list[CloudWorker]:
        """The runs of a Cloud Run job, the newest first."""
        try:
            runs = self._ask("list workers", lambda: list(self.executions.list_executions(parent=job)))
        except Unknown:
            return []
        runs.sort(key=lambda run: run.create_time, reverse=True)
        return [CloudWorker(run.name, _turn(run.template.containers), self._status(run)) for run in runs]

    def _status(self, run: run_v2.Execution) -> WorkerStatus:
        begun_at = run.create_time.timestamp()
        output = self._shown_by("execution", run.name)
        told = next((c for c in run.conditions if c.type_ == "Completed"), None)
        reason = told.message if told is not None else ""
        if run.completion_time:
            code = 0 if run.succeeded_count else None
            return WorkerStatus("ended", code, "" if code == 0 else reason, begun_at, output)
        if run.running_count:
            return WorkerStatus("running", None, "", begun_at, output)
        return WorkerStatus("starting", None, reason, begun_at, output)

    def _stop(self, exec_id: str, worker: CloudWorker) -> None:
        try:
            self._ask("end a worker", self.executions.cancel_execution, name=worker.name)
        except (Unknown, Changed):
            logger.debug("%s had ended by itself", worker.name)

    def _output(self, worker: CloudWorker) -> str:
        body = {
            "resourceNames": [f"projects/{self.options.project}"],
            "filter": self._filter("execution", worker.name),
            "orderBy": "timestamp asc",
            "pageSize": 1000,
        }
        lines: list[str] = []
        with AuthorizedSession(self.credentials) as session:  # type: ignore[no-untyped-call]
            while True:
                answer = self._ask("read logs", self._entries, session, body)
                lines += [entry.get("textPayload", "") + "\n" for entry in answer.get("entries", [])]
                if not answer.get("nextPageToken"):
                    return "".join(lines)
                body["pageToken"] = answer["nextPageToken"]

    def _entries(self, session: Any, body: dict[str, Any]) -> dict[str, Any]:
        answer = session.post(f"{self.options.logging_endpoint}/v2/entries:list", json=body, timeout=30)
        if answer.status_code != 200:
            raise from_http_response(answer)  # type: ignore[no-untyped-call]
        found: dict[str, Any] = answer.json()
        return found

    def _filter(self, kind: str, name: str) -> str:
        """The logging filter of the lines of a job or of one run of it."""
        short, of_job = name.rpartition("/")[2], 'resource.type="cloud_run_job"'
        if kind == "job":
            return f'{of_job} AND resource.labels.job_name="{short}"'
        return f'{of_job} AND labels."run.googleapis.com/execution_name"="{short}"'

    def _where(self, exec_id: str, job: Job | None) -> str:
        return self._shown_by("job", self._name(exec_id, job))

    def _shown_by(self, kind: str, name: str) -> str:
        return f"gcloud logging read '{self._filter(kind, name)}' --project {self.options.project} --order asc"

    def _delete_unused(self, keep: float) -> None:
        """Delete the jobs of this stack whose last run ended more than ``keep`` seconds ago."""
        for job in self._ask("list jobs", lambda: list(self.jobs.list_jobs(parent=self.parent))):
            ours = (job.labels.get(_MANAGER), job.labels.get(_STACK)) == (MANAGED_BY, self.stack.name)
            last = job.latest_created_execution
            if not ours or (last.name and not last.completion_time):
                continue
            if time.time() - (last.completion_time or job.create_time).timestamp() > keep:
                request = run_v2.DeleteJobRequest(name=job.name, etag=job.etag)
                try:
                    self._ask("delete a job", self.jobs.delete_job, request)
                except (Unknown, Changed):
                    continue  # it is in use again, or somebody else was faster

    def check(self, runtime: Runtime) -> list[Finding]:
        """Listing jobs, and making one, which Google checks without making it. No worker is started."""

        def listed() -> str:
            found = self._ask("list jobs", lambda: list(self.jobs.list_jobs(parent=self.parent)))
            return f"{len(found)} in {self.parent}"

        def made() -> str:
            job = self.job(runtime, "kr-000000000000")
            job.name = ""
            request = run_v2.CreateJobRequest(parent=self.parent, job=job, job_id="kr-000000000000", validate_only=True)
            self._ask("make a job", self.jobs.create_job, request)
            return "would be taken"

        return tried({"jobs": listed, "a worker's job": made})

    def _ask(self, doing: str, work: Callable[..., Any], *args: Any, **asked: Any) -> Any:
        """Ask Google something; its errors as ours."""
        project = self.options.project
        try:
            return work(*args, **asked)
        except NotFound as error:
            raise self.refused(doing, error.message, kind=Unknown) from error
        except (Aborted, Conflict) as error:
            raise self.refused(doing, error.message, kind=Changed) from error
        except Forbidden as error:
            fix = f"gcloud projects add-iam-policy-binding {project} --member=user:YOU --role=roles/run.developer"
            if error.reason == "SERVICE_DISABLED":
                fix = f"gcloud services enable run.googleapis.com --project {project}"
            raise self.refused(doing, error.message, fix) from error
        except (GoogleAPICallError, RetryError) as error:
            raise self.refused(doing, error.message) from error
        except (GoogleAuthError, requests.RequestException, TimeoutError) as error:
            raise self.refused(doing, error) from error


def _secret(stack: Stack, variable: str) -> tuple[str, str]:
    """Name and version of a secret of Secret Manager: ``NAME``, ``NAME:VERSION``, or ``projects/…/secrets/NAME``."""
    name, colon, version = stack.secrets[variable].partition(":")
    short = name.rpartition("/")[2]
    if not short or " " in name or (colon and not version) or ("/" in name and not name.startswith("projects/")):
        expected = "NAME or NAME:VERSION of a secret of Secret Manager"
        raise wrong_secret(stack, variable, expected, "openai-key:latest")
    return name, version or "latest"


def _turn(containers: Iterable[run_v2.Container]) -> str:
    return next((v.value for c in containers for v in c.env if v.name == TURN), "")
