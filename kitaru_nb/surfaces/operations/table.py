"""The table. A row is a route in both hosts, an MCP tool, a part of the OpenAPI document and a line of the docs."""

from __future__ import annotations

from kitaru_nb.core.control import Started
from kitaru_nb.core.diff import ExecutionDiff
from kitaru_nb.core.graph import ExecutionGraph
from kitaru_nb.core.replay import ReplayPreview
from kitaru_nb.model import Artifact, CheckpointCall, Deployment, DeploymentChange, Execution
from kitaru_nb.promote.schedules import Schedule, ScheduleChange
from kitaru_nb.stacks.views import StackView
from kitaru_nb.surfaces.checkup import Check
from kitaru_nb.surfaces.operations import actions, deployments, reads, schedules, stacks, system, waits
from kitaru_nb.surfaces.operations import arguments as a
from kitaru_nb.surfaces.operations.base import (
    ArtifactDetail,
    Content,
    Count,
    Follow,
    InboxWait,
    Info,
    LogPage,
    News,
    Operation,
    Page,
    Role,
    Stats,
)

_ONE = "executions/{exec_id}"
_WAIT = "executions/{exec_id}/waits/{wait_id}"
_FLOW = "deployments/{flow}"

#: Literal paths before those with parameters: the first that fits is taken.
OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "info", "GET", "info", a.Nothing, Info, system.info, None, "Who is asking whom: version, user, role, home."
    ),
    Operation(
        "doctor", "POST", "doctor", a.Nothing, tuple[Check, ...], system.doctor, None,
        "Check that journal, store and disk of the server are well.", role=Role.ADMIN,
    ),
    Operation(
        "executions.list", "GET", "executions", a.ListExecutions, Page[Execution], reads.list_executions,
        "executions.list", "List executions, newest first, without details.",
    ),
    Operation(
        "executions.stats", "GET", "executions/stats", a.Nothing, Stats, reads.stats, None,
        "Count executions by status and flow, and pending waits.", tool="kitaru_status",
    ),
    Operation(
        "executions.latest", "GET", "executions/latest", a.LatestExecution, Execution, reads.latest,
        "executions.latest", "Read the newest execution.",
    ),
    Operation(
        "executions.run", "POST", "executions", a.Run, Started, actions.run, None,
        "Start a notebook, or a flow of a Python file, as a new execution.", role=Role.WORK, idempotent=False,
    ),
    Operation(
        "executions.get", "GET", _ONE, a.OneExecution, Execution, reads.get, "executions.get",
        "Read one execution: status, inputs, waits, failure, result, metadata.",
    ),
    Operation(
        "executions.graph", "GET", f"{_ONE}/graph", a.OneExecution, ExecutionGraph, reads.graph,
        "executions.graph",
        "Read the lineage of an execution: its calls and waits, and what passed between them.",
    ),
    Operation(
        "executions.checkpoints", "GET", f"{_ONE}/checkpoints", a.ListCheckpoints, Page[CheckpointCall],
        reads.checkpoints, "executions.checkpoints", "List the checkpoints of an execution with inputs and outputs.",
    ),
    Operation(
        "executions.checkpoint", "GET", f"{_ONE}/checkpoints/{{call_id}}", a.OneCheckpoint, CheckpointCall,
        reads.checkpoint, "executions.checkpoint", "Read one checkpoint: inputs, outputs, attempts, metadata.",
    ),
    Operation(
        "executions.logs", "GET", f"{_ONE}/logs", a.ReadLogs, LogPage, reads.logs, "executions.logs",
        "Read what an execution printed and logged.", tool="get_execution_logs",
    ),
    Operation(
        "executions.diff", "GET", f"{_ONE}/diff", a.Diff, ExecutionDiff, reads.diff, "executions.diff",
        "Compare two executions, checkpoint by checkpoint.",
    ),
    Operation(
        "executions.replay_plan", "POST", f"{_ONE}/replay/plan", a.Replay, ReplayPreview, actions.replay_plan,
        "executions.replay_plan", "Show what a replay would run again and reuse; nothing is started.",
    ),
    Operation(
        "executions.replay", "POST", f"{_ONE}/replay", a.Replay, Started, actions.replay, "executions.replay",
        "Make a new execution from an old one: chosen checkpoints and what depends on them run again.",
        role=Role.OPERATE, idempotent=False,
    ),
    Operation(
        "executions.resume", "POST", f"{_ONE}/resume", a.OneExecution, Started, actions.resume, "executions.resume",
        "Go on with an interrupted execution, or one whose wait was answered.", role=Role.OPERATE,
    ),
    Operation(
        "executions.retry", "POST", f"{_ONE}/retry", a.OneExecution, Started, actions.retry, "executions.retry",
        "Run a failed execution again from where it failed.", role=Role.OPERATE, idempotent=False,
    ),
    Operation(
        "executions.cancel", "POST", f"{_ONE}/cancel", a.OneExecution, Execution, actions.cancel,
        "executions.cancel", "End an execution for good.", role=Role.OPERATE, destructive=True,
    ),
    Operation(
        "waits.list", "GET", "waits", a.ListWaits, Page[InboxWait], waits.list_waits, "executions.pending_waits",
        "List what waits for an answer, oldest first.",
    ),
    Operation(
        "waits.count", "GET", "waits/count", a.Nothing, Count, waits.count_waits, "executions.pending_waits",
        "Count what waits for an answer.",
    ),
    Operation(
        "waits.get", "GET", _WAIT, a.OneWait, InboxWait, waits.get_wait, "executions.pending_waits",
        "Read one wait: its question, the schema of its answer, who answered.",
    ),
    Operation(
        "waits.resolve", "POST", f"{_WAIT}/resolve", a.Resolve, Started, actions.resolve, "executions.input",
        "Answer a wait; the execution goes on. The answer must fit the wait's schema, and counts once.",
        role=Role.OPERATE, idempotent=False, limited=True, tool="kitaru_executions_input",
    ),
    Operation(
        "waits.abort", "POST", f"{_WAIT}/abort", a.OneWait, Started, actions.abort, "executions.abort_wait",
        "Close a wait without an answer: the flow gets an error there.",
        role=Role.OPERATE, destructive=True, limited=True,
    ),
    Operation(
        "artifacts.list", "GET", f"{_ONE}/artifacts", a.ListArtifacts, Page[Artifact], reads.list_artifacts,
        "artifacts.list", "List the artifacts of an execution with previews.",
    ),
    Operation(
        "artifacts.get", "GET", "artifact", a.OneArtifact, ArtifactDetail, reads.get_artifact, "artifacts.get",
        "Read what an artifact is, its preview, and which calls read it.",
    ),
    Operation(
        "artifacts.content", "GET", "artifact/content", a.ReadContent, Content, reads.content, "artifacts.get",
        "Read stored bytes of an artifact; nothing is unpickled.",
    ),
    Operation(
        "deployments.list", "GET", "deployments", a.ListDeployments, Page[Deployment], deployments.list_deployments,
        "deployments.list", "List deployments: the versions of flows with their tags, newest first.",
    ),
    Operation(
        "deployments.get", "GET", _FLOW, a.OneDeployment, Deployment, deployments.get, "deployments.get",
        "Read one deployment: its tags, the schema of its inputs, its commit.",
    ),
    Operation(
        "deployments.history", "GET", f"{_FLOW}/history", a.DeploymentHistory, Page[DeploymentChange],
        deployments.history, "deployments.history",
        "Read who made, tagged and deleted versions of a flow, and when, oldest first.",
    ),
    Operation(
        "deployments.invoke", "POST", f"{_FLOW}/invoke", a.Invoke, Started, deployments.invoke, "deployments.invoke",
        "Start an execution of a deployment. Inputs must fit its schema.", role=Role.WORK, idempotent=False,
    ),
    Operation(
        "deployments.tag", "POST", f"{_FLOW}/tag", a.MoveTag, Deployment, deployments.tag, "deployments.tag",
        "Put a tag on a version; it leaves the one that it was on.", role=Role.WORK,
    ),
    Operation(
        "deployments.untag", "POST", f"{_FLOW}/untag", a.OneTag, Deployment, deployments.untag, "deployments.untag",
        "Take a tag away from the version that it is on.", role=Role.WORK,
    ),
    Operation(
        "deployments.rollback", "POST", f"{_FLOW}/rollback", a.Rollback, Deployment, deployments.rollback,
        "deployments.rollback", "Move a tag back to the version that it was on before.",
        role=Role.WORK, idempotent=False,
    ),
    Operation(
        "deployments.delete", "POST", f"{_FLOW}/delete", a.OneVersion, Deployment, deployments.delete,
        "deployments.delete", "Delete a version that no tag is on and no execution runs.",
        role=Role.ADMIN, destructive=True,
    ),
    Operation(
        "schedules.list", "GET", "schedules", a.ListSchedules, Page[Schedule], schedules.list_schedules,
        "schedules.list", "List schedules: deployments that are started by the clock.",
    ),
    Operation(
        "schedules.get", "GET", "schedules/{name}", a.OneSchedule, Schedule, schedules.get, "schedules.get",
        "Read one schedule: what it starts, when it comes next, and what came of it last.",
    ),
    Operation(
        "schedules.history", "GET", "schedules/{name}/history", a.ScheduleHistory, Page[ScheduleChange],
        schedules.history, "schedules.history",
        "Read who made and deleted a schedule, and what it started when, oldest first.",
    ),
    Operation(
        "schedules.create", "POST", "schedules", a.CreateSchedule, Schedule, schedules.create, "schedules.create",
        "Have a deployment started by the clock, as a cron expression says.", role=Role.WORK, idempotent=False,
    ),
    Operation(
        "schedules.delete", "POST", "schedules/{name}/delete", a.OneSchedule, Schedule, schedules.delete,
        "schedules.delete", "Have a deployment no longer started by the clock.", role=Role.WORK,
    ),
    Operation(
        "stacks.list", "GET", "stacks", a.Nothing, Page[StackView], stacks.list_stacks, "stacks.list",
        "List the stacks: where flows run and keep their state.",
    ),
    Operation(
        "stacks.get", "GET", "stacks/{name}", a.OneStack, StackView, stacks.get, "stacks.get",
        "Read one stack, without the values of variables.",
    ),
    Operation(
        "events", "GET", "events", a.ReadEvents, Follow, system.events, "executions.follow",
        "Follow changes of all executions, or of one, as server-sent events.",
    ),
    Operation(
        "events.poll", "GET", "events/poll", a.PollEvents, News, system.poll, "executions.follow",
        "Read changes since a seq; waits for the first one if asked to.",
    ),
)  # fmt: skip


def by_tool(name: str) -> Operation | None:
    """The operation of an MCP tool."""
    return next((operation for operation in OPERATIONS if operation.tool_name == name), None)
