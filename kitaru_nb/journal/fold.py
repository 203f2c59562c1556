"""History → what a person sees: an execution with its checkpoints, artifacts, waits and logs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, overload

from kitaru_nb.journal.rules import pending_wait
from kitaru_nb.model import (
    Artifact,
    CallInput,
    CheckpointAttempt,
    CheckpointCall,
    Event,
    Execution,
    FailureInfo,
    LogEntry,
    Wait,
    utc,
)

_ARTIFACT_FIELDS = tuple(f.name for f in dataclasses.fields(Artifact) if f.name not in ("data", "exec_id"))
#: number → (status, started, ended, body of its failure)
Attempts: TypeAlias = dict[int, tuple[str, float, float | None, Mapping[str, Any] | None]]

#: Left out: what nearly all artifacts are, and the media type that goes with the serializer that nearly all have.
_USUAL_KIND = "output"
_USUAL_MEDIA = {"json": "application/json"}


def pack_artifact(artifact: Artifact, blob: bytearray) -> dict[str, Any]:
    """The artifact as a JSON body; its inline bytes are added to ``blob``. Empty and usual fields are left out."""
    body: dict[str, Any] = {}
    for name in _ARTIFACT_FIELDS:
        value = getattr(artifact, name)
        if value or name == "size":
            body[name] = value
    if artifact.kind == _USUAL_KIND:
        del body["kind"]
    if artifact.media_type and artifact.media_type == _USUAL_MEDIA.get(artifact.serializer):
        del body["media_type"]
    if artifact.data is not None:
        body["inline"] = [len(blob), len(artifact.data)]
        blob += artifact.data
    if artifact.token is not None and artifact.token.endswith(artifact.digest):
        # The token of a canonical serializer repeats the digest: say only that it does.
        body["token"] = True
    return body


def pack_outputs(
    artifacts: Iterable[Artifact], blob: bytearray, *, exec_id: str, call_id: str, name: str
) -> list[dict[str, Any]]:
    """What a call of ``name`` made, for the body of its ``checkpoint.completed``: as `pack_artifact`, without what the
    event itself says. `Outputs` is the inverse."""
    packed = []
    for artifact in artifacts:
        body = pack_artifact(artifact, blob)
        if artifact.producing_call == call_id and artifact.artifact_id == f"{exec_id}/{call_id}/{artifact.name}":
            del body["producing_call"], body["artifact_id"]
        if artifact.name == name:
            del body["name"]
        packed.append(body)
    return packed


def unpack_artifact(
    body: Mapping[str, Any], blob: bytes | None, exec_id: str, *, call_id: str | None = None, call_name: str = ""
) -> Artifact:
    """Inverse of `pack_artifact`; ``call_id`` and ``call_name`` are those of the call whose output it is. Written out
    by position, for speed."""
    get = body.get
    serializer, digest, name = body["serializer"], body["digest"], get("name", call_name)
    token = get("token")
    data = None
    if (inline := get("inline")) is not None:
        start, length = inline
        data = (blob or b"")[start : start + length]
    return Artifact(
        get("artifact_id") or f"{exec_id}/{call_id or ''}/{name}",
        name,
        get("kind", _USUAL_KIND),
        serializer,
        get("python_type", ""),
        get("media_type") or _USUAL_MEDIA.get(serializer, ""),
        digest,
        body["size"],
        f"{serializer}:{digest}" if token is True else token,
        get("preview") or {},
        data,
        tuple(get("names", ())),
        exec_id,
        get("producing_call", call_id),
        tuple(get("tags", ())),
        get("metadata") or {},
    )


class Outputs(Sequence[Artifact]):
    """What a ``checkpoint.completed`` event recorded; each artifact is made when somebody asks for it.

    Attributes:
        event: the event.
        exec_id: the execution that the artifacts are said to be of; default: the event's.
    """

    __slots__ = ("_bodies", "event", "exec_id")

    def __init__(self, event: Event, exec_id: str = "") -> None:
        self.event = event
        self.exec_id = exec_id or event.exec_id
        self._bodies: Sequence[Mapping[str, Any]] = event.body.get("outputs", ())

    def __len__(self) -> int:
        return len(self._bodies)

    @overload
    def __getitem__(self, index: int) -> Artifact: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Artifact]: ...

    def __getitem__(self, index: int | slice) -> Artifact | Sequence[Artifact]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        event = self.event
        return unpack_artifact(
            self._bodies[index], event.blob, self.exec_id, call_id=event.key, call_name=event.body.get("name", "")
        )

    def __iter__(self) -> Iterator[Artifact]:
        for index in range(len(self._bodies)):
            yield self[index]

    def tokens(self, *, above: int) -> list[str]:
        """Tokens of those with more than ``above`` bytes."""
        big = [body for body in self._bodies if body["size"] > above and body.get("token")]
        return [f"{b['serializer']}:{b['digest']}" if b["token"] is True else b["token"] for b in big]

    def inline(self, index: int) -> tuple[str, str, bytes] | None:
        """(serializer, digest, bytes) of one whose bytes are in the event; None when they are in the store."""
        body = self._bodies[index]
        if (place := body.get("inline")) is None:
            return None
        start, length = place
        return body["serializer"], body["digest"], (self.event.blob or b"")[start : start + length]


def adopted_outputs(event: Event) -> list[dict[str, Any]]:
    """The outputs of ``event`` as another execution records that it reuses them: with their own ids."""
    adopted = []
    for body in event.body.get("outputs", ()):
        name = body.get("name", event.body.get("name", ""))
        ids = {"artifact_id": f"{event.exec_id}/{event.key}/{name}", "producing_call": event.key, "name": name}
        adopted.append(ids | body)
    return adopted


def fold(execution: Execution, history: Iterable[Event]) -> Execution:
    """``execution`` (a row without details) with all details that its history tells."""
    folding = Folding(execution.exec_id)
    folding.take(history)
    return folding.execution(execution)


def fold_logs(history: Iterable[Event]) -> list[LogEntry]:
    """Every log line of a history, in order of time."""
    history = list(history)
    names = {e.key: str(e.body["name"]) for e in history if e.kind.startswith("checkpoint.")}
    entries = [
        LogEntry(text, level, utc(at), source, names.get(event.key), event.key or None)
        for event in history
        if event.kind == "log.lines"
        for at, source, level, text in event.body["lines"]
    ]
    return sorted(entries, key=lambda entry: entry.timestamp)


@dataclass(slots=True)
class FoldedCall:
    """How one call stands: its newest telling event, from which the details are made when somebody asks.

    Attributes:
        started, ended: Unix seconds.
        attempts: None for one attempt that completed at once.
        selector: ``name`` or ``name#2``, by the order in which calls started.
        details, drawn: what `Folding.detail` and `kitaru_nb.core.graph` made of it, kept until there is news of it.
    """

    event: Event
    status: str
    started: float
    ended: float | None
    attempts: Attempts | None = None
    selector: str = ""
    details: CheckpointCall | None = None
    drawn: tuple[Any, Sequence[Any]] | None = None

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return str(self.event.body["name"])


class Folding:
    """An execution's history as far as it was taken; more can be taken at any time. Not thread-safe.

    Attributes:
        seq: of the last event.
        logged: call id → metadata that was logged for it from outside.
    """

    def __init__(self, exec_id: str) -> None:
        self.exec_id = exec_id
        self.seq = 0
        self.inputs: dict[str, str] = {}
        self.metadata: dict[str, Any] = {}
        self.waits: dict[str, Wait] = {}
        self.failure: FailureInfo | None = None
        self.result: Artifact | None = None
        self.logged: dict[str, dict[str, Any]] = {}
        self._saved: list[Artifact] = []
        self._calls: dict[str, FoldedCall] = {}
        self._in_order: list[FoldedCall] | None = None
        self._takers: Mapping[str, Callable[[Event], None]] = {
            "execution.created": self._created,
            "execution.claimed": self._claimed,
            "execution.completed": self._completed,
            "execution.failed": self._failed,
            "checkpoint.started": self._call_started,
            "checkpoint.failed": self._call_failed,
            "checkpoint.completed": self._call_completed,
            "wait.created": self._wait_created,
            "wait.resolved": self._wait_resolved,
            "metadata": self._logged,
            "artifact.saved": self._artifact_saved,
        }

    @property
    def size(self) -> int:
        """How many calls there are."""
        return len(self._calls)

    def take(self, events: Iterable[Event]) -> None:
        """Account for the next events, in order."""
        takers = self._takers
        for event in events:
            self.seq = event.seq
            if (taker := takers.get(event.kind)) is not None:
                taker(event)

    # what is told

    def execution(self, row: Execution, *, details: bool = True) -> Execution:
        """``row`` with what the history tells; without ``details`` no checkpoints and artifacts."""
        calls = self.checkpoints() if details else ()
        saved = self._saved if details else ()
        return dataclasses.replace(
            row,
            inputs=dict(self.inputs),
            metadata=dict(self.metadata),
            failure=self.failure,
            checkpoints=calls,
            waits=tuple(self.waits.values()),
            artifacts=(*(a for call in calls for a in call.artifacts), *saved),
            result=self.result,
        )

    def calls(self) -> list[FoldedCall]:
        """All calls in the order in which they started, each with its selector."""
        if self._in_order is None:
            self._in_order = sorted(self._calls.values(), key=lambda call: call.started)
            counts: dict[str, int] = {}
            for call in self._in_order:
                name = call.name
                n = counts[name] = counts.get(name, 0) + 1
                selector = name if n == 1 else f"{name}#{n}"
                if selector != call.selector:
                    call.selector, call.details, call.drawn = selector, None, None
        return self._in_order

    def checkpoints(self) -> tuple[CheckpointCall, ...]:
        """All calls with their details, in the order in which they started."""
        return tuple([self.detail(call) for call in self.calls()])

    def detail(self, call: FoldedCall) -> CheckpointCall:
        """A call with all that is known of it."""
        if call.details is None:
            call.details = self._detail(call)
        return call.details

    def _detail(self, call: FoldedCall) -> CheckpointCall:
        event = call.event
        body = event.body
        inputs, parents = _inputs(body)
        reused: Mapping[str, Any] = {}
        artifacts: tuple[Artifact, ...] = ()
        failure = None
        if event.kind == "checkpoint.completed":
            artifacts = tuple(Outputs(event, self.exec_id))
            reused = body.get("reused") or {}
        elif event.kind == "checkpoint.failed":
            failure = FailureInfo(**body["failure"])
        return CheckpointCall(
            event.key,
            body["name"],
            call.selector,
            body.get("type"),
            call.status,
            utc(call.started),
            None if call.ended is None else utc(call.ended),
            body.get("parent") or None,
            parents,
            tuple(body.get("after", ())),
            inputs,
            artifacts,
            tuple(_attempts(call)),
            failure,
            self.metadata_of(call),
            reused.get("exec_id"),
            reused.get("call_id"),
            body.get("code"),
            tuple(body.get("partial", ())),
        )

    def metadata_of(self, call: FoldedCall) -> Mapping[str, Any]:
        """What the call itself logged, and what was logged for it."""
        own: Mapping[str, Any] = call.event.body.get("metadata") or {}
        logged = self.logged.get(call.event.key)
        return own if logged is None else {**logged, **own}

    # events

    def _created(self, event: Event) -> None:
        for name, body in event.body.get("inputs", {}).items():
            self.inputs[name] = body.get("preview", {}).get("text", "")

    def _claimed(self, event: Event) -> None:
        self.failure = None

    def _completed(self, event: Event) -> None:
        self.failure = None
        if body := event.body.get("result"):
            self.result = unpack_artifact(body, event.blob, self.exec_id)

    def _failed(self, event: Event) -> None:
        self.failure = FailureInfo(**event.body["failure"])

    def _call_started(self, event: Event) -> None:
        body = event.body
        before = self._calls.get(event.key)
        if before is not None and before.event.kind == "checkpoint.completed":
            return  # flushed by the keeper at the very moment when the call completed
        attempts = before.attempts if before is not None else None
        self._tell(
            event, "running", body.get("started_at", event.at), None, _with(attempts, event, "running", event.at)
        )

    def _call_failed(self, event: Event) -> None:
        body = event.body
        before = self._calls.get(event.key)
        attempts = before.attempts if before is not None else None
        attempts = _with(attempts, event, "failed", body["attempt_at"], event.at, body["failure"])
        self._tell(event, "failed" if body["final"] else "running", body["started_at"], event.at, attempts)

    def _call_completed(self, event: Event) -> None:
        body = event.body
        started = body.get("started_at", event.at)
        ended = started + body.get("duration", 0.0)
        before = self._calls.get(event.key)
        attempts = None
        if before is not None:
            attempts = _with(before.attempts, event, "completed", started, ended)
        self._tell(event, "reused" if body.get("reused") else "completed", started, ended, attempts)

    def _tell(
        self,
        event: Event,
        status: str,
        started: float,
        ended: float | None,
        attempts: Attempts | None,
    ) -> None:
        self._calls[event.key] = FoldedCall(event, status, started, ended, attempts)
        self._in_order = None

    def _wait_created(self, event: Event) -> None:
        self.waits[event.key] = pending_wait(event)

    def _wait_resolved(self, event: Event) -> None:
        if (wait := self.waits.get(event.key)) is None:
            return
        self.waits[event.key] = dataclasses.replace(
            wait,
            status="aborted" if event.body.get("aborted") else "resolved",
            value=event.body.get("value"),
            resolved_by=event.body["by"],
            via=event.body["via"],
            resolved_at=utc(event.at),
        )

    def _logged(self, event: Event) -> None:
        if not event.key:
            self.metadata.update(event.body)
            return
        self.logged.setdefault(event.key, {}).update(event.body)
        if (call := self._calls.get(event.key)) is not None:
            call.details = call.drawn = None

    def _artifact_saved(self, event: Event) -> None:
        self._saved.append(unpack_artifact(event.body["artifact"], event.blob, self.exec_id))


def _with(
    attempts: Attempts | None,
    event: Event,
    status: str,
    started: float,
    ended: float | None = None,
    failure: Mapping[str, Any] | None = None,
) -> Attempts:
    """``attempts`` with the last word on one of them: its end replaces its start."""
    number = event.body.get("attempt", 1)  # left out by a first attempt that completed
    known = dict(attempts or {})
    if number in known:
        started = known[number][1]
    known[number] = (status, started, ended, failure)
    return known


def _attempts(call: FoldedCall) -> Iterator[CheckpointAttempt]:
    numbered = call.attempts
    if numbered is None:
        numbered = {call.event.body.get("attempt", 1): ("completed", call.started, call.ended, None)}
    for number, (status, started, ended, failure) in numbered.items():
        yield CheckpointAttempt(
            f"{call.event.key}/{number}",
            status,
            utc(started),
            None if ended is None else utc(ended),
            None if failure is None else FailureInfo(**failure),
        )


def _inputs(body: Mapping[str, Any]) -> tuple[tuple[CallInput, ...], tuple[str, ...]]:
    """(inputs of a call, the calls that they came from)."""
    inputs = []
    parents: dict[str, None] = {}
    for name, token, preview, *more in body.get("inputs", ()):
        found = tuple(more[0]) if more else ()
        inputs.append(CallInput(name, token, preview, found))
        for source in found:
            if ":" not in source:
                parents[source] = None
    return tuple(inputs), tuple(parents)
