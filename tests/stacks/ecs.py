"""Amazon ECS and CloudWatch Logs as far as the runner asks them; tasks run as processes.

Every request and every answer is held against botocore's own model of the service.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, Shape, StructureShape
from botocore.validate import ParamValidator

from tests.stacks.containers import Cloud, Container, Refusal

ACCOUNT, REGION = "123456789012", "eu-central-1"
SECRETS = {f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:user": "from-secret"}
_MODELS = {
    "AmazonEC2ContainerServiceV20141113": botocore.session.get_session().get_service_model("ecs"),
    "Logs_20140328": botocore.session.get_session().get_service_model("logs"),
}


class Task:
    """One task: what was asked for, and its container."""

    def __init__(self, asked: dict[str, Any], definition: dict[str, Any], arn: str, container: Container) -> None:
        self.asked, self.definition, self.arn, self.container = asked, definition, arn, container
        self.forgotten = False  # AWS lists it no more, but knows its token

    def as_json(self) -> dict[str, Any]:
        ended = not self.container.running
        container: dict[str, Any] = {"name": "worker", "lastStatus": "STOPPED" if ended else "RUNNING"}
        task: dict[str, Any] = {
            "taskArn": self.arn,
            "clusterArn": f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{self.asked['cluster']}",
            "taskDefinitionArn": self.definition["taskDefinitionArn"],
            "createdAt": self.container.begun_at - (7200 if self.forgotten else 0),
            "startedBy": self.asked["startedBy"],
            "overrides": self.asked["overrides"],
            "lastStatus": "STOPPED" if ended else "RUNNING",
            "desiredStatus": "STOPPED" if ended or self.container.stopped else "RUNNING",
            "containers": [container],
        }
        if ended:
            container["exitCode"] = self.container.code
            stopped = self.container.stopped
            task["stopCode"] = "UserInitiated" if stopped else "EssentialContainerExited"
            task["stoppedReason"] = "Task stopped by user" if stopped else "Essential container in task exited"
        return task


class Ecs(Cloud):
    """One cluster named ``agents``."""

    def __init__(self, folder: Any) -> None:
        super().__init__(folder)
        self.definitions: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, Task] = {}
        self.tokens: dict[str, tuple[str, str]] = {}
        self.no_capacity = False

    def name(self, method: str, path: str, headers: Mapping[str, str]) -> str:
        return headers["X-Amz-Target"]

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any] | None:
        service, _, operation = headers["X-Amz-Target"].partition(".")
        model = _MODELS[service].operation_model(operation)
        asked = json.loads(body)
        if (report := ParamValidator().validate(asked, model.input_shape)).has_errors():
            raise error("InvalidParameterException", report.generate_report())
        with self.lock:
            answer = getattr(self, f"do_{operation}")(**asked)
        unknown = list(beyond(answer, model.output_shape))
        assert not unknown, f"the stand-in answers {operation} with {unknown}, which AWS doesn't know"
        found: dict[str, Any] = answer
        return found

    def do_DescribeClusters(self, clusters: list[str]) -> dict[str, Any]:
        known = [{"clusterName": name, "status": "ACTIVE"} for name in clusters if name == "agents"]
        return {"clusters": known, "failures": [{"reason": "MISSING"} for name in clusters if name != "agents"]}

    def do_DescribeTaskDefinition(self, taskDefinition: str) -> dict[str, Any]:
        if taskDefinition not in self.definitions:
            raise error("ClientException", "Unable to describe task definition.")
        return {"taskDefinition": self.definitions[taskDefinition]}

    def do_RegisterTaskDefinition(self, **definition: Any) -> dict[str, Any]:
        arn = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/{definition['family']}:1"
        self.definitions[definition["family"]] = {**definition, "taskDefinitionArn": arn}
        return {"taskDefinition": self.definitions[definition["family"]]}

    def do_RunTask(self, **asked: Any) -> dict[str, Any]:
        if asked["cluster"] != "agents":
            raise error("ClusterNotFoundException", "Cluster not found.")
        if self.no_capacity:
            return {"tasks": [], "failures": [{"reason": "Capacity is unavailable at this time."}]}
        token = asked["clientToken"]
        words = json.dumps(asked, sort_keys=True)
        if token in self.tokens:
            before, arn = self.tokens[token]
            if before != words:
                raise error("ConflictException", "The clientToken is in use with another request.")
            return {"tasks": [self.tasks[arn].as_json()], "failures": []}
        if asked["taskDefinition"] not in self.definitions:
            raise error("ClientException", "TaskDefinition not found.")
        definition = self.definitions[asked["taskDefinition"]]
        (described,), (override,) = definition["containerDefinitions"], asked["overrides"]["containerOverrides"]
        variables = {v["name"]: v["value"] for v in [*described["environment"], *override["environment"]]}
        variables |= {secret["name"]: SECRETS[secret["valueFrom"]] for secret in described["secrets"]}
        container = self.run(override["command"], variables, grace=described["stopTimeout"])
        arn = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/agents/{len(self.tasks):032x}"
        self.tasks[arn] = Task(asked, definition, arn, container)
        self.tokens[token] = (words, arn)
        return {"tasks": [self.tasks[arn].as_json() | {"lastStatus": "PROVISIONING"}], "failures": []}

    def do_ListTasks(self, cluster: str, desiredStatus: str, startedBy: str | None = None) -> dict[str, Any]:
        if cluster != "agents":
            raise error("ClusterNotFoundException", "Cluster not found.")
        found = [task.as_json() for task in self.tasks.values() if not task.forgotten]
        found = [task for task in found if startedBy in (None, task["startedBy"])]
        return {"taskArns": [task["taskArn"] for task in found if task["desiredStatus"] == desiredStatus]}

    def do_DescribeTasks(self, cluster: str, tasks: list[str]) -> dict[str, Any]:
        return {"tasks": [self.tasks[arn].as_json() for arn in tasks], "failures": []}

    def do_StopTask(self, cluster: str, task: str, reason: str) -> dict[str, Any]:
        self.tasks[task].container.stop()
        return {"task": self.tasks[task].as_json()}

    def do_GetLogEvents(
        self,
        logGroupName: str,
        logStreamName: str,
        startFromHead: bool,
        nextToken: str = "f/0",
    ) -> dict[str, Any]:
        for arn, task in self.tasks.items():
            if logStreamName == f"kitaru/worker/{arn.rpartition('/')[2]}" and (lines := task.container.lines()):
                begin = int(nextToken[2:])
                page = lines[begin : begin + 2]  # small, so that there are pages
                now = int(time.time() * 1000)
                events = [{"timestamp": now, "message": text, "ingestionTime": now} for text in page]
                return {"events": events, "nextForwardToken": f"f/{begin + len(page)}", "nextBackwardToken": "b/0"}
        raise error("ResourceNotFoundException", "The specified log stream does not exist.")


def error(code: str, message: str) -> Refusal:
    """A refusal as the JSON protocol has it."""
    return Refusal(400, {"__type": code, "message": message})


def beyond(value: Any, shape: Shape, where: str = "") -> list[str]:
    """The places of a value that the shape doesn't have, or whose type is another."""
    if isinstance(shape, StructureShape):
        assert isinstance(value, dict), where
        unknown = [f"{where}.{name}" for name in value if name not in shape.members]
        known = [n for n in value if n in shape.members]
        return unknown + [p for n in known for p in beyond(value[n], shape.members[n], f"{where}.{n}")]
    if isinstance(shape, ListShape):
        return [place for item in value for place in beyond(item, shape.member, f"{where}[]")]
    if isinstance(shape, MapShape):
        return [] if isinstance(value, dict) else [where]
    types = {"string": str, "integer": int, "long": int, "boolean": bool, "timestamp": (int, float)}
    return [] if isinstance(value, types.get(shape.type_name, object)) else [where]
