"""The arguments of operations. Unknown names and values that can't be right are refused before anything runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from kitaru_nb.model import ExecutionStatus
from kitaru_nb.promote.deployments import DEFAULT
from kitaru_nb.promote.schedules import CatchUp

ExecutionId = Annotated[
    str, Field(min_length=1, max_length=40, description="An execution's id, its beginning or end, or: latest.")
]
Cursor = Annotated[str | None, Field(max_length=1000, description="The `next` of the page before.")]
Text = Annotated[str | None, Field(max_length=200, description="Search text.")]
Name = Annotated[str, Field(min_length=1, max_length=1000)]
Limit = Annotated[int, Field(ge=1, le=500, description="How many.")]
Seq = Annotated[int, Field(ge=0, le=2**63 - 1)]


def _without_v(version: Any) -> Any:
    return version[1:] if isinstance(version, str) and version.startswith("v") else version


def _no_version(tag: str) -> str:
    if tag.lstrip("v").isdigit():
        raise ValueError("this is a version's number, and no tag")
    return tag


def _written_out(instant: Any) -> Any:
    try:
        float(instant)
    except (TypeError, ValueError):
        return instant
    # Pydantic would take it for seconds, or milliseconds, since 1970: `since=2030` as well as `since=0.5`.
    raise ValueError(f"{instant!r} is a number; expected a date and time with its zone, 2026-01-31T08:00:00Z")


Instant = Annotated[AwareDatetime, BeforeValidator(_written_out)]
FlowName = Annotated[str, Field(max_length=500, pattern=r"^[^@]+$", description="The flow's name.")]
FlowSelector = Annotated[
    str, Field(min_length=1, max_length=500, description="The flow's name; also with a version or tag: brief@prod.")
]
Version = Annotated[int, BeforeValidator(_without_v), Field(ge=1, le=10**9, description="A version, such as 2.")]
Tag = Annotated[
    str,
    Field(max_length=200, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$", description="A tag, such as prod."),
    AfterValidator(_no_version),
]
StackName = Annotated[
    str, Field(max_length=40, pattern=r"^[a-z][a-z0-9-]*$", description="A stack's name, such as local.")
]


class Arguments(BaseModel):
    """What all arguments share."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True)


class Nothing(Arguments):
    """No arguments."""


class ListExecutions(Arguments):
    """Which executions."""

    flow: Annotated[str | None, Field(max_length=500, description="Only of this flow.")] = None
    status: Annotated[ExecutionStatus | None, Field(description="Only those that stand so.")] = None
    text: Annotated[
        str | None, Field(max_length=200, description="Part of the flow's name, key or deployment, or of the id.")
    ] = None
    since: Annotated[Instant | None, Field(description="Only those created at this instant or later.")] = None
    deployment: Annotated[str | None, Field(max_length=500, description="Only of this deployment.")] = None
    original: Annotated[str | None, Field(max_length=40, description="Only replays of this execution.")] = None
    limit: Limit = 50
    cursor: Cursor = None


class LatestExecution(Arguments):
    """Which newest execution."""

    flow: Annotated[str | None, Field(max_length=500, description="Of this flow.")] = None
    status: Annotated[ExecutionStatus | None, Field(description="That stands so.")] = None


class OneExecution(Arguments):
    """Which execution."""

    exec_id: ExecutionId


class ListCheckpoints(OneExecution):
    """Which checkpoints of an execution."""

    status: Annotated[
        Literal["running", "completed", "reused", "failed"] | None, Field(description="Only those that stand so.")
    ] = None
    text: Text = None
    parent: Annotated[str | None, Field(max_length=1000, description="Only calls inside this call.")] = None
    limit: Limit = 100
    cursor: Cursor = None


class OneCheckpoint(OneExecution):
    """Which checkpoint."""

    call_id: Annotated[Name, Field(description="A call id, or a selector: name or name#2.")]


class ReadLogs(OneExecution):
    """Which log lines."""

    checkpoint: Annotated[str | None, Field(max_length=1000, description="Only of this checkpoint or call id.")] = None
    source: Annotated[Literal["stdout", "stderr", "logging"] | None, Field(description="Only from here.")] = None
    limit: Limit = 200
    cursor: Annotated[
        str | None, Field(max_length=1000, description="A `next` or `previous`; without one the last lines are read.")
    ] = None


class Diff(OneExecution):
    """Which two executions."""

    other: Annotated[ExecutionId, Field(description="The other execution.")]


class Replay(OneExecution):
    """What runs again."""

    from_: Annotated[
        list[Name],
        Field(alias="from", max_length=100, description="Checkpoints to begin with: name, name#2, a call id."),
    ] = []
    overrides: Annotated[
        dict[str, Any],
        Field(
            description="checkpoint.NAME or wait.NAME to a value that is used instead; arguments.NAME to new inputs."
        ),
    ] = {}
    inputs: Annotated[dict[str, Any], Field(description="New inputs of the flow, by name.")] = {}
    scope: Annotated[
        Literal["downstream", "after"], Field(description="after: also all that came later in program order.")
    ] = "downstream"


class Run(Arguments):
    """What to start."""

    target: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1000,
            description="notebook.ipynb or file.py:flow, below the folder that the server was started in.",
        ),
    ]
    inputs: Annotated[dict[str, Any], Field(description="Inputs by name; of a notebook, its parameters.")] = {}
    key: Annotated[
        str | None, Field(min_length=1, max_length=500, description="The same key is the same execution.")
    ] = None


class ListWaits(Arguments):
    """Which waits."""

    status: Annotated[
        Literal["pending", "resolved", "aborted", "all"],
        Field(description="Other than pending ones need an execution."),
    ] = "pending"
    exec_id: Annotated[ExecutionId | None, Field(description="Only of this execution.")] = None
    flow: Annotated[str | None, Field(max_length=500, description="Only of this flow.")] = None
    text: Text = None
    limit: Limit = 100
    cursor: Cursor = None


class OneWait(OneExecution):
    """Which wait."""

    wait_id: Annotated[Name, Field(description="Its name or id.")]


class Resolve(OneWait):
    """An answer to a named wait."""

    value: Annotated[Any, Field(description="The answer: JSON that fits the wait's schema.")]


class ListArtifacts(OneExecution):
    """Which artifacts of an execution."""

    name: Annotated[str | None, Field(max_length=1000, description="Only of this name.")] = None
    kind: Annotated[
        Literal["prompt", "response", "context", "input", "output", "blob"] | None, Field(description="Only this kind.")
    ] = None
    call: Annotated[str | None, Field(max_length=1000, description="Only those that this call made.")] = None
    limit: Limit = 100
    cursor: Cursor = None


class OneArtifact(Arguments):
    """Which artifact."""

    id: Annotated[Name, Field(description="An artifact's id, or EXECUTION/NAME.")]


class ReadContent(OneArtifact):
    """Which bytes of an artifact."""

    offset: Annotated[int, Field(ge=0, le=2**53, description="First byte, where no Range is given.")] = 0
    length: Annotated[
        int | None,
        Field(ge=1, le=1_000_000, description="How many bytes from there; else all of them, or 65,536 as a tool."),
    ] = None


class ReadEvents(Arguments):
    """Which events."""

    after: Annotated[Seq | None, Field(description="Only later ones than this; without it from now on.")] = None
    exec_id: Annotated[ExecutionId | None, Field(description="Only of this execution.")] = None


class PollEvents(ReadEvents):
    """Which events, and how long to wait for the first."""

    limit: Annotated[int, Field(ge=1, le=1000, description="How many.")] = 200
    timeout: Annotated[float, Field(ge=0, le=30, description="How many seconds to wait for one.")] = 0.0


class ListDeployments(Arguments):
    """Which deployments."""

    flow: Annotated[FlowName | None, Field(description="Only of this flow.")] = None
    limit: Limit = 100
    cursor: Cursor = None


class OneDeployment(Arguments):
    """Which deployment: by version or by tag; without either it is the one under `default`."""

    flow: FlowSelector
    version: Version | None = None
    tag: Tag | None = None


class Invoke(OneDeployment):
    """What to start, and with what."""

    inputs: Annotated[dict[str, Any], Field(description="Inputs by name, as its `parameters` say.")] = {}
    stack: Annotated[StackName | None, Field(description="Where it runs; else where its deployment says.")] = None
    key: Annotated[
        str | None, Field(min_length=1, max_length=500, description="The same key is the same execution.")
    ] = None


class DeploymentHistory(Arguments):
    """Whose history."""

    flow: FlowName
    tag: Annotated[Tag | None, Field(description="Only of this tag.")] = None
    limit: Limit = 100
    cursor: Cursor = None


class OneVersion(Arguments):
    """Which version of a flow."""

    flow: FlowName
    version: Version


class MoveTag(OneVersion):
    """Which tag goes on which version."""

    tag: Tag


class OneTag(Arguments):
    """Which tag of a flow."""

    flow: FlowName
    tag: Tag


class Rollback(Arguments):
    """Which tag goes back, and how far."""

    flow: FlowName
    tag: Tag = DEFAULT
    to: Annotated[Version | None, Field(description="A version; else the one that the tag was on before.")] = None


ScheduleName = Annotated[
    str, Field(max_length=100, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", description="The schedule's name.")
]


class ListSchedules(Arguments):
    """Which schedules."""

    flow: Annotated[FlowName | None, Field(description="Only of this flow.")] = None
    limit: Limit = 100
    cursor: Cursor = None


class OneSchedule(Arguments):
    """Which schedule."""

    name: ScheduleName


class ScheduleHistory(OneSchedule):
    """Whose history."""

    limit: Limit = 100
    cursor: Cursor = None


class CreateSchedule(OneDeployment):
    """What to start, when, and with what."""

    cron: Annotated[
        str,
        Field(
            min_length=1,
            max_length=200,
            description="Five fields: minute, hour, day of the month, month, day of the week; such as 0 7 * * 1-5.",
        ),
    ]
    timezone: Annotated[str, Field(max_length=100, description="Where the hours are read: Europe/Berlin.")] = "UTC"
    name: Annotated[ScheduleName | None, Field(description="The schedule's name; else the flow's.")] = None
    inputs: Annotated[dict[str, Any], Field(description="Inputs by name, as its `parameters` say.")] = {}
    stack: Annotated[StackName | None, Field(description="Where it runs; else where its deployment says.")] = None
    catch_up: Annotated[
        CatchUp, Field(description="Which of the times that came while no server ran are made up for.")
    ] = "skip"


class OneStack(Arguments):
    """Which stack."""

    name: StackName
