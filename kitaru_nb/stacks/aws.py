"""Workers as tasks of Amazon ECS on Fargate (``RunTask``).

A stack has one task definition, named after what is in it. Each turn of an execution is a task that was started by it
(``startedBy``), with a token that makes AWS start it once however often it is asked. Fargate doesn't start a task again
that died; whoever looks after the executions does (`kitaru server`).
"""

from __future__ import annotations

import functools
import math
import re
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError, ProfileNotFound
from pydantic import Field, ValidationInfo, field_validator

from kitaru_nb.core.runners import Job, WorkerStatus
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.stacks.base import Finding, worker_command, worker_environment
from kitaru_nb.stacks.cloud import (
    TURN,
    Changed,
    CloudRunner,
    CloudWorker,
    Names,
    Unknown,
    cores,
    digest,
    mebibytes,
    tried,
    wrong_secret,
)
from kitaru_nb.stacks.definition import Options, Stack

#: CPU units of Fargate → memory in MiB that goes with them: least, most, step.
SIZES = {
    256: (512, 2048, 512),
    512: (1024, 4096, 1024),
    1024: (2048, 8192, 1024),
    2048: (4096, 16384, 1024),
    4096: (8192, 30720, 1024),
    8192: (16384, 61440, 4096),
    16384: (32768, 122880, 8192),
}
_SECRET = re.compile(r"arn:aws[\w-]*:(secretsmanager|ssm):[\w-]+:\d{12}:(secret:|parameter/).+")
_CONTAINER = "worker"
_STREAMS = "kitaru"
_STARTING = ("PROVISIONING", "PENDING", "ACTIVATING")
_ENDED = ("DEPROVISIONING", "STOPPED", "DELETED")
_DENIED = ("AccessDeniedException", "AccessDenied", "UnauthorizedOperation")
_TRIES = 5
#: Seconds: a task that ended is listed for longer than this.
_RECENT = 1800.0


class AwsOptions(Options):
    """Options of a stack on AWS.

    Attributes:
        image: image of the worker: Python, uv, and kitaru-nb with what the journal and the store need.
        subnets: of the tasks; they must reach the journal, the store and the registry of the image.
        execution_role: ARN of the role with which ECS fetches the image and the secrets, and writes the log.
        task_role: ARN of the role that the worker has, for the bucket and what the flow needs.
        region, profile: default: those of the AWS configuration.
        cluster: name or ARN.
        security_groups: default: that of the VPC.
        public_ip: give tasks a public address; needed in a subnet without a NAT gateway.
        cpu: CPU units: 1024 are one core.
        memory: MiB. Not every size goes with every number of CPU units.
        architecture: of the image.
        spot: use spare capacity, for less money. A worker that has to go lets go, and another one goes on.
        stop_timeout: seconds that a worker has between SIGTERM and SIGKILL.
        log_group: of CloudWatch Logs; made when it isn't there, if the execution role may.
        tags: of the tasks.
    """

    image: str
    subnets: Names = Field(min_length=1)
    execution_role: str = Field(pattern=r"^arn:aws[\w-]*:iam::\d{12}:role/.+")
    task_role: str | None = Field(default=None, pattern=r"^arn:aws[\w-]*:iam::\d{12}:role/.+")
    region: str | None = None
    profile: str | None = None
    cluster: str = "default"
    security_groups: Names = Field(default_factory=list)
    public_ip: bool = False
    cpu: int = 512
    memory: int = 1024
    architecture: Literal["X86_64", "ARM64"] = "X86_64"
    spot: bool = False
    stop_timeout: int = Field(default=30, ge=2, le=120)
    log_group: str = "/kitaru/workers"
    tags: dict[str, str] = Field(default_factory=dict)

    @field_validator("cpu")
    @classmethod
    def _is_a_size(cls, cpu: int) -> int:
        if cpu not in SIZES:
            raise ValueError(f"Fargate has {', '.join(map(str, SIZES))}")
        return cpu

    @field_validator("memory")
    @classmethod
    def _goes_with_the_cpu(cls, memory: int, info: ValidationInfo) -> int:
        if (size := SIZES.get(info.data.get("cpu", 0))) is not None:
            least, most, step = size
            if not least <= memory <= most or memory % step:
                raise ValueError(f"with cpu={info.data['cpu']} Fargate has {least} to {most} in steps of {step}")
        return memory


class AwsRunner(CloudRunner):
    """Starts workers as tasks of Fargate."""

    cloud = "AWS"

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.options = AwsOptions.of(stack)
        for variable, reference in stack.secrets.items():
            if not _SECRET.fullmatch(reference):
                expected = "the ARN of a secret of Secrets Manager, or of a parameter of Systems Manager"
                example = "arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME"
                raise wrong_secret(stack, variable, expected, example)
        self._registered: set[str] = set()
        self._making = threading.Lock()  # clients may be used by several threads, but not made

    @functools.cached_property
    def session(self) -> boto3.Session:
        """Credentials and region. Raises `KitaruUsageError` when there is no such profile or no region."""
        try:
            session = boto3.Session(profile_name=self.options.profile, region_name=self.options.region)
        except ProfileNotFound as error:
            raise KitaruUsageError(f"Stack {self.stack.name!r}: {error}.", fix="aws configure list-profiles") from error
        if session.region_name is None:
            raise KitaruUsageError(
                f"Stack {self.stack.name!r} names no region, and the AWS configuration has none.",
                fix=f"kitaru stack create {self.stack.name} aws ... --option region=eu-central-1",
            )
        return session

    def _client(self, service: str) -> Any:
        with self._making:
            if service not in self._clients:
                config = Config(connect_timeout=5, read_timeout=30)
                self._clients[service] = self.session.client(service, config=config)
            return self._clients[service]

    @functools.cached_property
    def _clients(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        """Close the connections; they open again when needed."""
        for client in self.__dict__.pop("_clients", {}).values():
            client.close()

    def task_definition(self, runtime: Runtime) -> dict[str, Any]:
        """What ECS runs, without the command: the same for all executions of the stack.

        Raises:
            KitaruUsageError: the journal's password would be readable in it.
        """
        options, variables = self.options, worker_environment(runtime, self.stack)
        container = {
            "name": _CONTAINER,
            "image": options.image,
            "essential": True,
            "stopTimeout": options.stop_timeout,
            "environment": [{"name": n, "value": v} for n, v in variables.items() if n not in self.stack.secrets],
            "secrets": [{"name": name, "valueFrom": reference} for name, reference in self.stack.secrets.items()],
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {
                    "awslogs-group": options.log_group,
                    "awslogs-region": self.session.region_name,
                    "awslogs-stream-prefix": _STREAMS,
                    "awslogs-create-group": "true",
                },
            },
        }
        definition = {
            "requiresCompatibilities": ["FARGATE"],
            "networkMode": "awsvpc",
            "cpu": str(options.cpu),
            "memory": str(options.memory),
            "executionRoleArn": options.execution_role,
            "runtimePlatform": {"cpuArchitecture": options.architecture, "operatingSystemFamily": "LINUX"},
            "containerDefinitions": [container],
        }
        if options.task_role is not None:
            definition["taskRoleArn"] = options.task_role
        return {"family": f"kitaru-{self.stack.name}-{digest(definition)}", **definition}

    def task(self, family: str, exec_id: str, job: Job | None, turn: str, attempt: int) -> dict[str, Any]:
        """What is asked for one turn of an execution, or for a job.

        Raises:
            KitaruUsageError: Fargate has no machine of the size that the job needs.
        """
        options = self.options
        network = {"subnets": options.subnets, "assignPublicIp": "ENABLED" if options.public_ip else "DISABLED"}
        if options.security_groups:
            network["securityGroups"] = options.security_groups
        worker = {
            "name": _CONTAINER,
            "command": worker_command(exec_id, job),
            "environment": [{"name": TURN, "value": turn}],
        }
        # Asking for no tags at all needs no right to tag.
        tags = {"tags": [{"key": key, "value": value} for key, value in options.tags.items()]} if options.tags else {}
        where = (
            {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]}
            if options.spot
            else {"launchType": "FARGATE"}
        )
        return {
            "cluster": options.cluster,
            "taskDefinition": family,
            "count": 1,
            "startedBy": _starter(exec_id, job),
            "clientToken": f"{exec_id}-{turn}-{attempt}",
            "networkConfiguration": {"awsvpcConfiguration": network},
            "overrides": {"containerOverrides": [worker], **self._size(job)},
            **tags,
            **where,
        }

    def _size(self, job: Job | None) -> dict[str, str]:
        """The size of a job's task, where it is another than the stack's: the least that holds what it needs."""
        if job is None or not job.resources:
            return {}
        needed = job.resources
        cpu = int(cores(needed["cpu"]) * 1024) if "cpu" in needed else self.options.cpu
        memory = mebibytes(needed["memory"]) if "memory" in needed else self.options.memory
        for units, (least, most, step) in SIZES.items():
            if units >= cpu and most >= memory:
                return {"cpu": str(units), "memory": str(max(least, math.ceil(memory / step) * step))}
        raise KitaruUsageError(
            f"Fargate has no task with {dict(needed)}; it has up to 16 cores and 120Gi.",
            fix='resources={"cpu": "4", "memory": "16Gi"}',
        )

    def _start(self, runtime: Runtime, exec_id: str, job: Job | None, turn: str, attempt: int) -> None:
        family = self._registered_family(runtime)
        # A task that ended an hour ago isn't listed any more, but its token still stands for it, for a day.
        for number in range(attempt, attempt + _TRIES):
            wanted = self.task(family, exec_id, job, turn, number)
            try:
                answer = self._ask("start a worker", self._client("ecs").run_task, **wanted)
            except Changed:
                return  # somebody was faster, with another definition of the stack
            if answer["failures"]:
                failure = answer["failures"][0]
                raise self.refused("start a worker", f"{failure.get('reason')} {failure.get('detail', '')}")
            task = answer["tasks"][0]
            if task["lastStatus"] not in _ENDED or time.time() - task["createdAt"].timestamp() < _RECENT:
                return
        raise self.refused("start a worker", f"it ended {_TRIES} times before it took {exec_id} up")

    def _registered_family(self, runtime: Runtime) -> str:
        """The name of the stack's task definition, which is registered by now."""
        definition = self.task_definition(runtime)
        family = str(definition["family"])
        if family not in self._registered:
            ecs = self._client("ecs")
            try:
                self._ask("find the task definition", ecs.describe_task_definition, taskDefinition=family)
            except Unknown:
                self._ask("register the task definition", ecs.register_task_definition, **definition)
            self._registered.add(family)
        return family

    def _workers(self, exec_id: str, job: Job | None) -> list[CloudWorker]:
        starter = _starter(exec_id, job)
        return self._described(self._listed("RUNNING", startedBy=starter) + self._listed("STOPPED", startedBy=starter))

    def _workers_of_jobs(self, exec_id: str) -> list[CloudWorker]:
        return self._described(self._listed("RUNNING"), f"{exec_id}/")

    def _listed(self, desired: str, **more: str) -> list[str]:
        pages = self._client("ecs").get_paginator("list_tasks")
        asked = {"cluster": self.options.cluster, "desiredStatus": desired, **more}
        found = self._ask("list workers", lambda: [arn for page in pages.paginate(**asked) for arn in page["taskArns"]])
        return list(found)

    def _described(self, arns: list[str], prefix: str = "") -> list[CloudWorker]:
        """The tasks that were started by something with this prefix, the newest first."""
        tasks: list[dict[str, Any]] = []
        for begin in range(0, len(arns), 100):  # AWS describes no more at once
            asked = {"cluster": self.options.cluster, "tasks": arns[begin : begin + 100]}
            tasks += self._ask("describe workers", self._client("ecs").describe_tasks, **asked)["tasks"]
        ours = [task for task in tasks if task.get("startedBy", "").startswith(prefix)]
        ours.sort(key=lambda task: task["createdAt"], reverse=True)
        return [CloudWorker(task["taskArn"], _turn(task), self._status(task)) for task in ours]

    def _status(self, task: dict[str, Any]) -> WorkerStatus:
        begun_at, output = task["createdAt"].timestamp(), self._shown_by(_stream(task["taskArn"]))
        state = task["lastStatus"]
        if state in _STARTING:
            return WorkerStatus("starting", None, state, begun_at, output)
        if state not in _ENDED:
            return WorkerStatus("running", None, "", begun_at, output)
        container = task["containers"][0] if task.get("containers") else {}
        code = container.get("exitCode")
        told = [task.get("stopCode"), task.get("stoppedReason"), container.get("reason")]
        return WorkerStatus("ended", code, "" if code == 0 else ": ".join(filter(None, told)), begun_at, output)

    def _stop(self, exec_id: str, worker: CloudWorker) -> None:
        cluster, why = self.options.cluster, f"{exec_id} was cancelled"
        self._ask("end a worker", self._client("ecs").stop_task, cluster=cluster, task=worker.name, reason=why)

    def _output(self, worker: CloudWorker) -> str:
        lines: list[str] = []
        asked: dict[str, Any] = {
            "logGroupName": self.options.log_group,
            "logStreamName": _stream(worker.name),
            "startFromHead": True,
        }
        token = None
        while True:
            try:
                answer = self._ask("read logs", self._client("logs").get_log_events, **asked)
            except Unknown:
                return ""  # it has printed nothing yet
            lines += [event["message"] + "\n" for event in answer["events"]]
            if answer["nextForwardToken"] == token:  # how the last page is told
                return "".join(lines)
            token = asked["nextToken"] = answer["nextForwardToken"]

    def _where(self, exec_id: str, job: Job | None) -> str:
        return self._shown_by(_STREAMS)

    def _shown_by(self, stream: str) -> str:
        return (
            f"aws logs tail {self.options.log_group} --log-stream-name-prefix {stream} "
            f"--region {self.session.region_name}"
        )

    def check(self, runtime: Runtime) -> list[Finding]:
        """The cluster, its tasks, and the stack's task definition, which is registered for real. No task is started."""
        name, region = self.options.cluster, self.session.region_name

        def cluster() -> str:
            found = self._ask("find the cluster", self._client("ecs").describe_clusters, clusters=[name])
            states = [found["status"] for found in found["clusters"]]
            if states != ["ACTIVE"]:
                raise KitaruUsageError(
                    f"There is no active cluster {name!r} in {region}; it is {(states or ['missing'])[0]}.",
                    fix=f"aws ecs create-cluster --cluster-name {name.rpartition('/')[2]} --region {region}",
                )
            return f"{name} in {region}"

        def workers() -> str:
            self._workers("kr-000000000000", None)
            return "can be listed"

        return tried(
            {"cluster": cluster, "workers": workers, "task definition": lambda: self._registered_family(runtime)}
        )

    def _ask(self, doing: str, work: Callable[..., Any], **asked: Any) -> Any:
        """Ask AWS something; its errors as ours."""
        try:
            return work(**asked)
        except ClientError as error:
            told, operation = error.response.get("Error", {}), error.operation_name
            code, words = told.get("Code", ""), f"{told.get('Code')}: {told.get('Message')}"
            if code == "ConflictException" and operation == "RunTask":
                raise self.refused(doing, words, kind=Changed) from error
            if code == "ResourceNotFoundException" or (code, operation) == ("ClientException", _DESCRIBE):
                raise self.refused(doing, words, kind=Unknown) from error
            fix = None
            if code in _DENIED:
                named = re.search(r"perform: (\w+:\w+)", str(told.get("Message")))  # not always what was asked for
                action = named[1] if named else error_action(operation)
                fix = f"allow {action} to those who start workers, in IAM"
            elif code == "ClusterNotFoundException":
                fix = f"aws ecs create-cluster --cluster-name {self.options.cluster.rpartition('/')[2]}"
            raise self.refused(doing, words, fix) from error
        except (NoCredentialsError, NoRegionError) as error:
            raise KitaruUsageError(f"Stack {self.stack.name!r}: {error}.", fix="aws configure") from error
        except BotoCoreError as error:
            raise self.refused(doing, error) from error


_DESCRIBE = "DescribeTaskDefinition"


def error_action(operation: str) -> str:
    """What a policy calls an operation."""
    return f"{'logs' if operation == 'GetLogEvents' else 'ecs'}:{operation}"


def _starter(exec_id: str, job: Job | None) -> str:
    return exec_id if job is None else f"{exec_id}/{job.name}"


def _stream(arn: str) -> str:
    return f"{_STREAMS}/{_CONTAINER}/{arn.rpartition('/')[2]}"


def _turn(task: dict[str, Any]) -> str:
    for container in task.get("overrides", {}).get("containerOverrides", []):
        for variable in container.get("environment", []):
            if variable["name"] == TURN:
                return str(variable["value"])
    return ""
