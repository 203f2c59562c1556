"""Cloud Run jobs and Cloud Logging as far as the runner asks them; runs are processes.

Every body of a request and of an answer is read by the official messages, which know no other fields.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.cloud import run_v2

from tests.stacks.containers import Cloud, Container, Refusal

PROJECT, REGION = "acme-agents", "europe-west1"
PARENT = f"projects/{PROJECT}/locations/{REGION}"
SECRETS = {("user", "latest"): "from-secret"}


#: What a container learns from the metadata server of Google Cloud: its account, and tokens for that.
METADATA: dict[str, Any] = {
    "project/project-id": PROJECT,
    "universe/universe-domain": "googleapis.com",
    "instance/service-accounts/default/": {"email": f"worker@{PROJECT}.iam.gserviceaccount.com", "scopes": []},
    "instance/service-accounts/default/token": {"access_token": "of-test", "expires_in": 3600, "token_type": "Bearer"},
}


class CloudRun(Cloud):
    """One project with one region."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.jobs: dict[str, run_v2.Job] = {}
        self.runs: dict[str, tuple[run_v2.Execution, Container]] = {}
        self.changes = 0
        self.headers = {"Metadata-Flavor": "Google"}
        self.polled: list[str] = []
        self.stuck = False  # operations never are done

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any] | None:
        path, _, query = path.partition("?")
        if headers.get("Metadata-Flavor") == "Google":
            return METADATA.get(path.removeprefix("/computeMetadata/v1/"), {})
        assert headers["Authorization"] == "Bearer of-test"
        with self.lock:
            for pattern, verb, name in _ROUTES:
                if verb == method and (found := re.fullmatch(pattern, path)):
                    return getattr(self, name)(*found.groups(), query=query, body=body)
        raise AssertionError(f"nobody answers {method} {path}")

    def token(self) -> str:
        """Another one for each change."""
        self.changes += 1
        return f'"{self.changes}"'

    def operation(self, name: str, answer: Any) -> dict[str, Any]:
        """An operation that is done when it is asked for again."""
        told = {"@type": f"type.googleapis.com/google.cloud.run.v2.{type(answer).__name__}", **as_json(answer)}
        return {"name": f"{PARENT}/operations/{name}", "done": name in self.polled and not self.stuck, "response": told}

    def create_job(self, query: str, body: bytes) -> dict[str, Any]:
        job = run_v2.Job.from_json(body)
        assert "validateOnly=true" in query, "only the check creates jobs without updating them"
        self.checked(job)
        return {"name": f"{PARENT}/operations/check", "done": True, "metadata": {}}

    def checked(self, job: run_v2.Job) -> None:
        """What Google looks at."""
        (container,) = job.template.template.containers
        for variable in container.env:
            reference = variable.value_source.secret_key_ref
            if reference.secret and (reference.secret, reference.version) not in SECRETS:
                raise error(400, "FAILED_PRECONDITION", f"Secret {reference.secret} was not found")

    def update_job(self, name: str, query: str, body: bytes) -> dict[str, Any]:
        job = run_v2.Job.from_json(body)
        job.name = f"{PARENT}/jobs/{name}"  # which the client takes out of the body, into the path
        assert "allowMissing=true" in query
        self.checked(job)
        before = self.jobs.get(job.name)
        job.create_time = before.create_time if before is not None else now()
        if before is not None:
            job.latest_created_execution = before.latest_created_execution
        job.etag = self.token()
        self.jobs[job.name] = job
        return self.operation(f"made-{name}", job)

    def get_operation(self, name: str, query: str, body: bytes) -> dict[str, Any]:
        self.polled.append(name)
        return self.operation(name, self.jobs[f"{PARENT}/jobs/{name.removeprefix('made-')}"])

    def get_job(self, name: str, query: str, body: bytes) -> dict[str, Any]:
        return as_json(self.known(name))

    def known(self, name: str) -> run_v2.Job:
        job = self.jobs.get(f"{PARENT}/jobs/{name}")
        if job is None:
            raise error(404, "NOT_FOUND", f"Resource '{name}' of kind 'JOB' in region '{REGION}' does not exist.")
        return job

    def list_jobs(self, query: str, body: bytes) -> dict[str, Any]:
        for name, (run, container) in self.runs.items():
            job = self.jobs.get(run.job)
            if job is not None and job.latest_created_execution.name == name and not container.running:
                job.latest_created_execution.completion_time = stamp(container.ended_at)
        return {"jobs": [as_json(job) for job in self.jobs.values()]}

    def delete_job(self, name: str, query: str, body: bytes) -> dict[str, Any]:
        job = self.known(name)
        del self.jobs[job.name]
        self.runs = {n: kept for n, kept in self.runs.items() if kept[0].job != job.name}
        return self.operation(f"deleted-{name}", job)

    def run_job(self, name: str, query: str, body: bytes) -> dict[str, Any]:
        job = self.known(name)
        asked = run_v2.RunJobRequest.from_json(body)
        if asked.etag and asked.etag != job.etag:
            raise error(409, "ABORTED", f"Conflict for resource '{name}': version '{asked.etag}' was specified.")
        task = run_v2.TaskTemplate(job.template.template)
        (container,), (override,) = task.containers, asked.overrides.container_overrides
        container.env.extend(override.env)
        variables = {
            v.name: v.value or SECRETS[v.value_source.secret_key_ref.secret, v.value_source.secret_key_ref.version]
            for v in container.env
        }
        command = [*container.command, *container.args]
        process = self.run(command, variables, restarts=task.max_retries, deadline=task.timeout.total_seconds())
        run = run_v2.Execution(
            name=f"{job.name}/executions/{name}-{len(self.runs):05x}",
            job=job.name,
            create_time=stamp(process.begun_at),
            template=task,
            task_count=1,
        )
        self.runs[run.name] = (run, process)
        job.latest_created_execution = run_v2.ExecutionReference(name=run.name, create_time=run.create_time)
        job.etag = self.token()
        return {"name": f"{PARENT}/operations/run", "done": False}

    def list_executions(self, name: str, query: str, body: bytes) -> dict[str, Any]:
        job = self.known(name)
        return {"executions": [as_json(told(*kept)) for kept in self.runs.values() if kept[0].job == job.name]}

    def cancel(self, job: str, name: str, query: str, body: bytes) -> dict[str, Any]:
        run, container = self.runs[f"{PARENT}/jobs/{job}/executions/{name}"]
        container.stop()
        return self.operation(f"cancelled-{name}", run)

    def list_entries(self, query: str, body: bytes) -> dict[str, Any]:
        asked = json.loads(body)
        (wanted,) = re.findall(r'execution_name"="([^"]+)"', asked["filter"])
        (lines,) = [kept[1].lines() for name, kept in self.runs.items() if name.endswith(wanted)]
        begin = int(asked.get("pageToken", "0"))
        entries = [{"textPayload": text} for text in lines[begin : begin + 2]]
        more = {"nextPageToken": str(begin + 2)} if begin + 2 < len(lines) else {}
        return {"entries": entries, **more}


_JOB = f"/v2/{PARENT}/jobs/([^/:]+)"
_ROUTES = [
    (f"/v2/{PARENT}/jobs", "POST", "create_job"),
    (f"/v2/{PARENT}/jobs", "GET", "list_jobs"),
    (_JOB, "PATCH", "update_job"),
    (_JOB, "GET", "get_job"),
    (_JOB, "DELETE", "delete_job"),
    (f"{_JOB}:run", "POST", "run_job"),
    (f"{_JOB}/executions", "GET", "list_executions"),
    (f"{_JOB}/executions/([^/:]+):cancel", "POST", "cancel"),
    (f"/v2/{PARENT}/operations/([^/]+)", "GET", "get_operation"),
    ("/v2/entries:list", "POST", "list_entries"),
]


def told(run: run_v2.Execution, container: Container) -> run_v2.Execution:
    """A run as it is by now."""
    run = run_v2.Execution(run)
    if container.running:
        run.running_count = 1
        return run
    run.completion_time = stamp(container.ended_at)
    well = container.code == 0 and not container.stopped
    run.succeeded_count, run.failed_count = (1, 0) if well else (0, 1)
    words = f"Task {run.name.rpartition('/')[2]}-task0 failed with message: "
    words += "The configured timeout was reached." if container.late else "The container exited with an error."
    run.conditions = [run_v2.Condition(type_="Completed", message="" if well else words)]
    return run


def as_json(message: Any) -> dict[str, Any]:
    """A message as the REST interface has it."""
    found: dict[str, Any] = json.loads(type(message).to_json(message, use_integers_for_enums=False))
    return found


def stamp(at: float | None) -> dict[str, int]:
    """A moment as a timestamp."""
    assert at is not None
    return {"seconds": int(at), "nanos": int(at % 1 * 1e9)}


def now() -> dict[str, int]:
    """This moment."""
    return stamp(time.time())


def error(code: int, status: str, message: str, reason: str = "") -> Refusal:
    """A refusal as Google has it."""
    kind = "type.googleapis.com/google.rpc.ErrorInfo"
    details = [{"@type": kind, "reason": reason, "domain": "googleapis.com"}] if reason else []
    return Refusal(code, {"error": {"code": code, "status": status, "message": message, "details": details}})
