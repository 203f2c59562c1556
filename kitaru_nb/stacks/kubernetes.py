"""Workers as Jobs of a Kubernetes cluster (``batch/v1``).

A Job is named after the execution and its turn, so that asking twice starts one. A pod that dies (evicted, its node
lost) is started again by the Job; the new worker waits until the lease of the old one is free and goes on from the
last finished checkpoint. A worker that has recorded what became of its turn ends with 0, also when that is a failure or
a wait: the journal is the truth, the Job only its witness.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import httpx2
import lightkube
from lightkube import operators
from lightkube.core.exceptions import ApiError, ConfigError, LoadResourceError
from lightkube.core.selector import build_selector
from lightkube.models.authorization_v1 import ResourceAttributes, SelfSubjectAccessReviewSpec
from lightkube.models.batch_v1 import JobSpec
from lightkube.models.core_v1 import (
    Container,
    EnvVar,
    EnvVarSource,
    PodSpec,
    PodTemplateSpec,
    ResourceRequirements,
    SecretKeySelector,
    Toleration,
)
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.authorization_v1 import SelfSubjectAccessReview
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Pod
from lightkube.types import CascadeType
from pydantic import Field

from kitaru_nb.core.runners import Job as CheckpointJob
from kitaru_nb.core.runners import WorkerStatus
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruUsageError
from kitaru_nb.stacks.base import Finding, worker_command, worker_environment
from kitaru_nb.stacks.definition import Options, Stack

MANAGED_BY = "kitaru"
#: Label with the id of the execution.
EXECUTION = "kitaru.dev/execution"
#: Label of the Job of an isolated checkpoint, with its name.
CHECKPOINT = "kitaru.dev/checkpoint"


#: Selects objects by their labels, in lightkube's terms.
Labels: TypeAlias = dict[str, str | operators.Operator[Any] | Iterable[str] | None]


class KubernetesOptions(Options):
    """Options of a stack on Kubernetes.

    Attributes:
        image: image of the worker: Python, uv, and kitaru-nb with what the journal and the store need.
        namespace: default: that of the context.
        context: of the kubeconfig; default: the current one, or the cluster's own inside a pod.
        kubeconfig: path; default: ``KUBECONFIG`` or ``~/.kube/config``.
        service_account: of the pods.
        cpu, memory: request and limit, as ``500m`` and ``1Gi``.
        restarts: how often the Job starts a pod again that died.
        deadline: seconds after which a Job is ended, or None.
        keep: seconds for which an ended Job and its logs are kept.
        node_lost_after: seconds after which the pod of a node that is silent is given up. Kubernetes' own default is
            300; less is safe here, because a lost worker that comes back can't write any more.
        labels, annotations, node_selector: of the pods.
        image_pull_secrets: names of secrets.
    """

    image: str
    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    service_account: str | None = None
    cpu: str | None = None
    memory: str | None = None
    restarts: int = Field(default=3, ge=0, le=100)
    deadline: int | None = Field(default=None, gt=0)
    keep: int = Field(default=86_400, ge=0)
    node_lost_after: int = Field(default=30, ge=0)
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)
    image_pull_secrets: list[str] = Field(default_factory=list)


class KubernetesRunner:
    """Starts workers as Jobs."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.options = KubernetesOptions.of(stack)

    @functools.cached_property
    def client(self) -> lightkube.Client:
        """A client of the cluster. Raises `KitaruUsageError` when the kubeconfig has no such context."""
        options = self.options
        try:
            if options.kubeconfig is not None:
                config = lightkube.KubeConfig.from_file(options.kubeconfig)
            else:
                config = lightkube.KubeConfig.from_env()
            single = config.get(context_name=options.context)
            return lightkube.Client(config=single, namespace=options.namespace, trust_env=False)
        except (ConfigError, LoadResourceError, OSError) as error:
            raise KitaruUsageError(
                f"Stack {self.stack.name!r} finds no cluster: {error}.",
                fix="kubectl config get-contexts, then: kitaru stack create ... --context NAME",
            ) from error

    def close(self) -> None:
        """Close the connections; they open again when needed."""
        if (client := self.__dict__.pop("client", None)) is not None:
            client.close()

    def submit(self, runtime: Runtime, exec_id: str, job: CheckpointJob | None = None) -> str:
        execution = runtime.journal.execution(exec_id)
        made = self.job(runtime, exec_id, execution.flow_name, execution.epoch, job)
        assert made.metadata is not None
        name, selected = str(made.metadata.name), selected_by(exec_id, job)
        for attempt in itertools.count(1):
            try:
                self._ask("start a worker", lambda: self.client.create(made))
                break
            except _Conflict:  # somebody was faster: this turn has its worker
                if job is not None or self._is_alive(selected, str(made.metadata.name)):
                    break
                made.metadata.name = f"{name}-{attempt}"  # that one ended before it took the execution up
        text = build_selector(selected)
        return f"kubectl logs --namespace {self.client.namespace} --selector '{text}'"

    def job(self, runtime: Runtime, exec_id: str, flow: str, epoch: int, job: CheckpointJob | None = None) -> Job:
        """The Job of one turn of an execution, or of one of its isolated checkpoints."""
        options = self.options
        labels = {"app.kubernetes.io/managed-by": MANAGED_BY, "app.kubernetes.io/name": label(flow), EXECUTION: exec_id}
        size = {k: v for k, v in (("cpu", options.cpu), ("memory", options.memory)) if v is not None}
        if job is not None:
            labels[CHECKPOINT] = job.name
            size |= job.resources
        variables = worker_environment(runtime, self.stack)
        env = [EnvVar(name=name, value=value) for name, value in variables.items() if name not in self.stack.secrets]
        env += [
            EnvVar(name=n, valueFrom=EnvVarSource(secretKeyRef=secret(n, r))) for n, r in self.stack.secrets.items()
        ]
        container = Container(
            name="worker",
            image=options.image,
            command=worker_command(exec_id, job),
            env=env,
            resources=ResourceRequirements(requests=dict(size), limits=dict(size)) if size else None,
        )
        pod = PodSpec(
            containers=[container],
            restartPolicy="Never",
            serviceAccountName=options.service_account,
            nodeSelector=options.node_selector or None,
            terminationGracePeriodSeconds=30,
            tolerations=[
                Toleration(
                    key=f"node.kubernetes.io/{trouble}",
                    operator="Exists",
                    effect="NoExecute",
                    tolerationSeconds=options.node_lost_after,
                )
                for trouble in ("not-ready", "unreachable")
            ],
        )
        if options.image_pull_secrets:
            from lightkube.models.core_v1 import LocalObjectReference

            pod.imagePullSecrets = [LocalObjectReference(name=name) for name in options.image_pull_secrets]
        return Job(
            metadata=ObjectMeta(name=f"{exec_id}-{job.name if job is not None else epoch}", labels=labels),
            spec=JobSpec(
                backoffLimit=options.restarts,
                activeDeadlineSeconds=options.deadline,
                ttlSecondsAfterFinished=options.keep,
                template=PodTemplateSpec(
                    metadata=ObjectMeta(labels={**options.labels, **labels}, annotations=options.annotations or None),
                    spec=pod,
                ),
            ),
        )

    def status(self, exec_id: str, job: CheckpointJob | None = None) -> WorkerStatus:
        selected = selected_by(exec_id, job)
        return self._status(selected, next(iter(self._jobs(selected)), None))

    def _status(self, selected: Labels, job: Job | None) -> WorkerStatus:
        if job is None or job.metadata is None:
            return WorkerStatus("none")
        begun = job.metadata.creationTimestamp
        begun_at = begun.timestamp() if begun is not None else 0.0
        output = f"kubectl logs --namespace {self.client.namespace} job/{job.metadata.name}"
        for condition in (job.status.conditions or []) if job.status is not None else []:
            if condition.status == "True" and condition.type in ("Complete", "Failed"):
                reason = "" if condition.type == "Complete" else f"{condition.reason}: {condition.message}"
                code = 0 if condition.type == "Complete" else self._exit_code(selected)
                return WorkerStatus("ended", code, reason, begun_at, output)
        state, reason = self._pod_state(selected)
        return WorkerStatus(state, None, reason, begun_at, output)

    def _is_alive(self, selected: Labels, name: str) -> bool:
        named = [job for job in self._jobs(selected) if job.metadata is not None and job.metadata.name == name]
        return any(self._status(selected, job).alive for job in named)

    def _pod_state(self, selected: Labels) -> tuple[Literal["starting", "running"], str]:
        reason = ""
        for pod in self._pods(selected):
            if pod.status is None or (pod.metadata is not None and pod.metadata.deletionTimestamp):
                continue
            if pod.status.phase == "Running":
                return "running", ""
            for container in pod.status.containerStatuses or []:
                if container.state is not None and container.state.waiting is not None:
                    reason = f"{container.state.waiting.reason}: {container.state.waiting.message or ''}".strip(": ")
        return "starting", reason

    def _exit_code(self, selected: Labels) -> int | None:
        for pod in self._pods(selected):
            for container in (pod.status.containerStatuses or []) if pod.status is not None else []:
                if container.state is not None and container.state.terminated is not None:
                    return container.state.terminated.exitCode
        return None

    def cancel(self, exec_id: str, job: CheckpointJob | None = None) -> None:
        for made in self._jobs({EXECUTION: exec_id} if job is None else selected_by(exec_id, job)):
            assert made.metadata is not None
            name = str(made.metadata.name)
            with contextlib.suppress(_Gone):  # it ended by itself
                self._ask("end a worker", functools.partial(self._delete, name))

    def _delete(self, name: str) -> None:
        self.client.delete(Job, name, cascade=CascadeType.FOREGROUND)

    def logs(self, exec_id: str, job: CheckpointJob | None = None) -> str:
        texts = []
        for pod in reversed(self._pods(selected_by(exec_id, job))):
            assert pod.metadata is not None
            name = str(pod.metadata.name)
            try:
                texts.append("".join(self._ask("read logs", lambda name=name: list(self.client.log(name)))))
            except (_Gone, _Unready):
                continue  # removed, or not started yet
        return "".join(texts)

    def check(self, runtime: Runtime) -> list[Finding]:
        """What the runner may do in the cluster, and whether the cluster would take a Job. No worker is started."""
        made = self.job(runtime, "kr-000000000000", "check", 0)
        findings = []
        for verb, resource, group in (
            ("create", "jobs", "batch"),
            ("list", "jobs", "batch"),
            ("delete", "jobs", "batch"),
            ("list", "pods", ""),
            ("get", "pods/log", ""),
        ):
            kind, _, sub = resource.partition("/")
            wanted = ResourceAttributes(
                namespace=self.client.namespace, verb=verb, resource=kind, group=group, subresource=sub or None
            )
            review = SelfSubjectAccessReview(spec=SelfSubjectAccessReviewSpec(resourceAttributes=wanted))
            answer = self._ask("ask for its rights", lambda review=review: self.client.create(review))
            allowed = bool(answer.status is not None and answer.status.allowed)
            fix = None if allowed else self._granting(verb, resource)
            findings.append(Finding(f"{verb} {resource}", allowed, "allowed" if allowed else "refused", fix))
        if all(found.ok for found in findings):
            try:
                self._ask("take a Job", lambda: self.client.create(made, dry_run=True))
            except KitaruBackendError as error:
                return [*findings, Finding("a worker's Job", False, error.message, error.fix)]
            findings.append(Finding("a worker's Job", True, "would be taken"))
        return findings

    def _granting(self, verb: str, resource: str) -> str:
        """The line that grants a right."""
        role, there = f"kitaru-{verb}-{resource.replace('/', '-')}", f"--namespace {self.client.namespace}"
        kind = f"{resource}.batch" if resource == "jobs" else resource
        made = f"kubectl create role {role} --verb={verb} --resource={kind} {there}"
        return f"{made} && kubectl create rolebinding {role} --role={role} --user=YOU {there}"

    def _jobs(self, selected: Labels) -> list[Job]:
        """Jobs with these labels, the newest turn first."""
        found = self._ask("list Jobs", lambda: list(self.client.list(Job, labels=selected)))
        return sorted(found, key=lambda job: _turn(job.metadata.name if job.metadata else ""), reverse=True)

    def _pods(self, selected: Labels) -> list[Pod]:
        """Pods with these labels, the newest first."""
        found = self._ask("list pods", lambda: list(self.client.list(Pod, labels=selected)))
        return sorted(found, key=lambda pod: str(pod.metadata and pod.metadata.creationTimestamp), reverse=True)

    def _ask(self, what: str, work: Any) -> Any:
        try:
            return work()
        except ApiError as error:
            code = error.status.code
            if code == 409:
                raise _Conflict from error
            if code == 404:
                raise _Gone from error
            if code == 400 and what == "read logs":
                raise _Unready from error
            raise KitaruBackendError(
                f"Kubernetes refused to {what} for stack {self.stack.name!r}: {error.status.message or error}.",
                fix=f"kitaru stack check {self.stack.name}",
            ) from error
        except httpx2.HTTPError as error:
            raise KitaruBackendError(
                f"The cluster of stack {self.stack.name!r} can't be reached to {what}: {error}.",
                fix=f"kitaru stack check {self.stack.name}",
            ) from error


class _Conflict(Exception):
    """There is one of this name already."""


class _Gone(Exception):
    """There is none of this name."""


class _Unready(Exception):
    """The container hasn't started."""


def secret(variable: str, reference: str) -> SecretKeySelector:
    """``name/key`` of a Secret. Raises `KitaruUsageError` for another form."""
    name, separator, key = reference.partition("/")
    if not (name and separator and key):
        raise KitaruUsageError(
            f"The secret {variable} is {reference!r}; expected 'NAME/KEY' of a Kubernetes Secret.",
            fix=f"secrets: {{{variable}: agents-keys/openai}}",
        )
    return SecretKeySelector(name=name, key=key)


def selected_by(exec_id: str, job: CheckpointJob | None) -> Labels:
    """What selects the Jobs and pods of an execution's own workers, or those of one isolated checkpoint."""
    return {EXECUTION: exec_id, CHECKPOINT: operators.not_exists() if job is None else job.name}


def label(text: str) -> str:
    """``text`` as the value of a label: 63 characters of letters, digits, '-', '_' and '.'."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:63].strip("-_.") or "flow"


def _turn(name: str | None) -> tuple[int, ...]:
    """Turn and attempt of a Job: ``kr-ID-TURN``, ``kr-ID-TURN-ATTEMPT``."""
    return tuple(int(part) if part.isdigit() else 0 for part in str(name).split("-")[2:])
