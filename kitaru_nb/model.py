"""One vocabulary of frozen values: what is stored, sent, printed and typed on the screen.

Instants are UTC. In events they are Unix seconds (float); in the values that people see, aware ``datetime``.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from typing import Any, Literal, NamedTuple

from kitaru_nb.errors import KitaruContextError

# Crockford's base 32: its digits sort as their values do, so ids sort by time.
_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"
_ID_EPOCH_MS = 1_704_067_200_000  # 2024-01-01; 42 bits of milliseconds from here last until 2163
_EXEC_ID = re.compile(r"kr-[0-9a-z]{12}")
_id_lock = threading.Lock()
_last_id = 0


class ExecutionStatus(str, Enum):
    """Stored statuses, and ``interrupted``: a ``running`` execution that no live worker holds."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    __str__ = str.__str__

    @property
    def ended(self) -> bool:
        """Whether the execution will not advance by itself any more."""
        return self in (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)


#: Event kinds that change the status of their execution.
STATUS_OF: Mapping[str, ExecutionStatus] = {
    "execution.created": ExecutionStatus.PENDING,
    "execution.claimed": ExecutionStatus.RUNNING,
    "execution.waiting": ExecutionStatus.WAITING,
    "execution.completed": ExecutionStatus.COMPLETED,
    "execution.failed": ExecutionStatus.FAILED,
    "execution.cancelled": ExecutionStatus.CANCELLED,
}

#: Event kinds that may be recorded once for each (execution, key).
ONCE: frozenset[str] = frozenset({"checkpoint.completed", "wait.created", "wait.resolved"})

ArtifactKind = Literal["prompt", "response", "context", "input", "output", "blob"]


class Event(NamedTuple):
    """One line of a journal. ``kind`` and ``body`` are described in `kitaru_nb.journal.base`.

    A named tuple, because histories have thousands of them: a frozen dataclass takes five times as long to make.

    Attributes:
        key: what it is about inside the execution: a call id, a wait id, an artifact name, or "".
        at: when, in Unix seconds.
        body: JSON values only.
        blob: bytes that ``body`` refers to by offset and length.
        seq: given by the journal; increasing over all executions of that journal. 0 before it is stored.
        cache_key: content key under which other executions may reuse a completed checkpoint.
    """

    exec_id: str
    kind: str
    key: str
    at: float
    body: Mapping[str, Any]
    blob: bytes | None = None
    seq: int = 0
    cache_key: str | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that may hold leases, recognisable after its death on the same host.

    Attributes:
        started: the process's start time in clock ticks since boot (from /proc), or 0 where that can't be read.
        nonce: tells apart two workers inside one process.
    """

    host: str
    pid: int
    started: int
    nonce: str


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to advance an execution until ``expires_at``; ``epoch`` is its fencing token."""

    exec_id: str
    owner: Owner
    epoch: int
    expires_at: float


@dataclass(frozen=True, slots=True)
class FailureInfo:
    """Why something failed. ``origin`` is ``user``, ``runtime`` or ``backend``."""

    message: str
    exception_type: str
    traceback: str | None = None
    origin: str = "user"


@dataclass(frozen=True, slots=True)
class Artifact:
    """One persisted value.

    Attributes:
        artifact_id: ``<exec_id>/<call_id or "">/<name>``, unique in a journal.
        serializer: name of the serializer that wrote it, e.g. ``json``.
        python_type: ``module.Qualname`` of the value.
        digest: SHA-256 of the stored bytes, hexadecimal.
        size: number of stored bytes.
        token: identity of the value, equal for equal values, or None where that can't be told exactly.
        preview: made when it was written, safe to show: ``{"text": str}`` and optionally
            ``{"table": {"columns": [...], "rows": [[...]], "shape": [n, m]}}`` or ``{"image": "<base64 PNG>"}``.
        data: the stored bytes when they travel inside the event; None when they are in the artifact store.
        names: notebook variables that this value restores (more than one when they are aliases of each other).
    """

    artifact_id: str
    name: str
    kind: str
    serializer: str
    python_type: str
    media_type: str
    digest: str
    size: int
    token: str | None = None
    preview: Mapping[str, Any] = field(default_factory=dict)
    data: bytes | None = field(default=None, repr=False)
    names: tuple[str, ...] = ()
    exec_id: str = ""
    producing_call: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Any:
        """The value. Raises `KitaruContextError` here: a client gives artifacts that know where they are kept."""
        raise KitaruContextError(
            f"The artifact {self.artifact_id!r} doesn't know where it is kept; expected one that a client gave.",
            fix=f"KitaruClient().artifacts.get({self.artifact_id!r}).load()",
        )


@dataclass(frozen=True, slots=True)
class CallInput:
    """One input of a call: its token (None: not exactly identifiable), a short preview, and where it came from.

    ``sources`` are call ids whose output it is, ``input:NAME`` for an input of the flow, or ``wait:ID``.
    """

    name: str
    token: str | None
    preview: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckpointAttempt:
    """One try of a checkpoint."""

    attempt_id: str
    status: str
    started_at: datetime | None
    ended_at: datetime | None
    failure: FailureInfo | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CheckpointCall:
    """One call of a checkpoint inside an execution, folded from the journal.

    Attributes:
        selector: ``name`` or ``name#2``: what a person types to mean this call.
        parent: call id of the enclosing checkpoint, or None at flow level.
        parent_call_ids: calls whose outputs it read (data edges).
        after: call ids that precede it in program order where no data edge is known.
        original_call_id: call id in the execution that this one was reused from, with ``original_exec_id``.
        status: ``running``, ``completed``, ``reused`` or ``failed``.
    """

    call_id: str
    name: str
    selector: str
    checkpoint_type: str | None
    status: str
    started_at: datetime | None
    ended_at: datetime | None
    parent: str | None = None
    parent_call_ids: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    inputs: tuple[CallInput, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    attempts: tuple[CheckpointAttempt, ...] = ()
    failure: FailureInfo | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    original_exec_id: str | None = None
    original_call_id: str | None = None
    code: str | None = None
    partial: tuple[Mapping[str, str], ...] = ()

    @property
    def duration(self) -> float | None:
        """Seconds that the completed call took when it ran."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class Wait:
    """A named pause. ``schema`` is JSON Schema of the answer; ``status`` is pending, resolved or aborted.

    Attributes:
        until: instant at which the clock resolves it, or None.
        via: how it was answered: ``cli``, ``notebook``, ``client``, ``clock``, ``http`` …
    """

    wait_id: str
    exec_id: str
    name: str
    question: str | None
    schema: Mapping[str, Any]
    status: str
    created_at: datetime
    metadata: Mapping[str, Any] = field(default_factory=dict)
    until: datetime | None = None
    value: Any = None
    resolved_by: str | None = None
    via: str | None = None
    resolved_at: datetime | None = None
    after: tuple[str, ...] = ()
    parent: str | None = None

    @property
    def entered_waiting_at(self) -> datetime:
        """Kitaru's name of ``created_at``."""
        return self.created_at


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line that a checkpoint printed or logged; ``source`` is stdout, stderr or logging."""

    message: str
    level: str
    timestamp: datetime
    source: str
    checkpoint_name: str | None = None
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of a flow. Lists fill the fields above ``details``; reading one execution fills all."""

    exec_id: str
    flow_name: str
    status: ExecutionStatus
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None
    original_exec_id: str | None = None
    deployment: str | None = None
    stack: str = "local"
    key: str | None = None
    epoch: int = 0
    lease: Lease | None = None
    # details, folded from the journal
    inputs: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    failure: FailureInfo | None = None
    checkpoints: tuple[CheckpointCall, ...] = ()
    waits: tuple[Wait, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    result: Artifact | None = None

    @property
    def started_at(self) -> datetime:
        """Kitaru's name of ``created_at``."""
        return self.created_at

    @property
    def stack_name(self) -> str:
        """Kitaru's name of ``stack``."""
        return self.stack

    @property
    def pending_wait(self) -> Wait | None:
        """The first wait that nobody has answered yet."""
        return next((w for w in self.waits if w.status == "pending"), None)


@dataclass(frozen=True, slots=True)
class Deployment:
    """One numbered snapshot of a flow. Everything but ``tags`` never changes.

    Attributes:
        digest: SHA-256 of the snapshot, hexadecimal; ``size`` its bytes in the artifact store.
        parameters: JSON Schema of the inputs, an object with one property for each.
        kind: ``notebook`` or ``function``.
        stack: where its executions run unless one says otherwise.
        tags: those that route to this version now.
        commit_sha, commit_dirty: of the Git repository that it was promoted from, and whether it had changes.
    """

    flow: str
    version: int
    digest: str
    size: int
    parameters: Mapping[str, Any]
    created_at: datetime
    created_by: str
    kind: str = "notebook"
    stack: str = "local"
    python: str = ""
    commit_sha: str | None = None
    commit_dirty: bool = False
    tags: tuple[str, ...] = ()

    @property
    def deployment_id(self) -> str:
        """``flow@v2``: what executions carry, and what a person types."""
        return f"{self.flow}@v{self.version}"

    @property
    def schema(self) -> Mapping[str, Any]:
        """Kitaru's name of ``parameters``."""
        return self.parameters


@dataclass(frozen=True, slots=True)
class DeploymentChange:
    """One line of a flow's history: a version was created or deleted, or a tag was moved.

    Attributes:
        what: ``created``, ``deleted``, ``tagged`` or ``untagged``.
        before: the version that the tag was on, for ``tagged`` and ``untagged``.
    """

    at: datetime
    by: str
    what: str
    version: int | None
    tag: str | None = None
    before: int | None = None


def new_exec_id() -> str:
    """A fresh execution id: ``kr-`` and 12 base-32 characters that sort by time (42 bits) then chance (18 bits)."""
    global _last_id
    value = ((time.time_ns() // 1_000_000 - _ID_EPOCH_MS) << 18) | secrets.randbits(18)
    with _id_lock:
        # Two ids of one process keep their order even inside one millisecond.
        value = _last_id = max(value, _last_id + 1)
    return "kr-" + "".join(_BASE32[(value >> shift) & 31] for shift in range(55, -1, -5))


def is_exec_id(text: str) -> bool:
    """Whether a text has the form of an execution's id."""
    return _EXEC_ID.fullmatch(text) is not None


def utc(seconds: float) -> datetime:
    """Unix seconds as an aware UTC datetime."""
    return datetime.fromtimestamp(seconds, timezone.utc)


_JSON_AS_IT_IS = frozenset({str, int, float, bool, type(None)})


@functools.cache
def json_fields(kind: type[Any]) -> tuple[str, ...] | None:
    """What is written of a dataclass or a named tuple; None for other kinds."""
    if dataclasses.is_dataclass(kind):
        names = tuple(f.name for f in dataclasses.fields(kind))
    elif issubclass(kind, tuple) and hasattr(kind, "_fields"):
        names = kind._fields
    else:
        return None
    return tuple(name for name in names if name not in ("data", "blob"))


def to_json(value: Any) -> Any:
    """A value of this module as JSON values: datetimes in ISO 8601, bytes left out, tuples as lists."""
    kind: Any = type(value)
    if kind in _JSON_AS_IT_IS:
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if (names := json_fields(kind)) is not None:
        found = {}
        for name in names:
            part = getattr(value, name)
            if type(part) in _JSON_AS_IT_IS:
                found[name] = part
            elif not isinstance(part, bytes):
                found[name] = to_json(part)
        return found
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    return value
