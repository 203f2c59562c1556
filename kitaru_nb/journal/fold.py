"""History → what a person sees: an execution with its checkpoints, artifacts, waits and logs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

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
_PACKED = frozenset(_ARTIFACT_FIELDS)


def pack_artifact(artifact: Artifact, blob: bytearray) -> dict[str, Any]:
    """The artifact as a JSON body; its inline bytes are added to ``blob``. Empty fields are left out."""
    body: dict[str, Any] = {}
    for name in _ARTIFACT_FIELDS:
        value = getattr(artifact, name)
        if value or name == "size":
            body[name] = value
    if artifact.data is not None:
        body["inline"] = [len(blob), len(artifact.data)]
        blob += artifact.data
    if artifact.token is not None and artifact.token.endswith(artifact.digest):
        # The token of a canonical serializer repeats the digest: say only that it does.
        body["token"] = True
    return body


def unpack_artifact(body: Mapping[str, Any], blob: bytes | None, exec_id: str) -> Artifact:
    """Inverse of `pack_artifact`."""
    fields = {name: value for name, value in body.items() if name in _PACKED}
    for name in ("names", "tags"):
        if name in fields:
            fields[name] = tuple(fields[name])
    if fields.get("token") is True:
        fields["token"] = f"{fields['serializer']}:{fields['digest']}"
    if (inline := body.get("inline")) is not None:
        start, length = inline
        fields["data"] = (blob or b"")[start : start + length]
    return Artifact(exec_id=exec_id, **fields)


def fold(execution: Execution, history: Iterable[Event]) -> Execution:
    """``execution`` (a row without details) with all details that its history tells."""
    folding = _Folding(execution.exec_id)
    for event in history:
        folding.take(event)
    calls = folding.finish()
    return dataclasses.replace(
        execution,
        inputs=folding.inputs,
        metadata=folding.metadata,
        failure=folding.failure,
        checkpoints=calls,
        waits=tuple(folding.waits.values()),
        artifacts=tuple(a for call in calls for a in call.artifacts) + tuple(folding.saved),
        result=folding.result,
    )


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


class _Folding:
    """Builds the details event by event; `finish` gives calls their selectors."""

    def __init__(self, exec_id: str) -> None:
        self.exec_id = exec_id
        self.calls: dict[str, CheckpointCall] = {}
        self.waits: dict[str, Wait] = {}
        self.saved: list[Artifact] = []
        self.inputs: dict[str, str] = {}
        self.metadata: dict[str, Any] = {}
        self.call_metadata: dict[str, dict[str, Any]] = {}
        self.failure: FailureInfo | None = None
        self.result: Artifact | None = None

    def take(self, event: Event) -> None:
        handler = getattr(self, "_" + event.kind.replace(".", "_"), None)
        if handler is not None:
            handler(event)

    def finish(self) -> tuple[CheckpointCall, ...]:
        counts: dict[str, int] = {}
        finished = []
        for call in sorted(self.calls.values(), key=lambda c: c.started_at or utc(0)):
            n = counts[call.name] = counts.get(call.name, 0) + 1
            metadata = {**self.call_metadata.get(call.call_id, {}), **call.metadata}
            selector = call.name if n == 1 else f"{call.name}#{n}"
            finished.append(dataclasses.replace(call, selector=selector, metadata=metadata))
        return tuple(finished)

    def _execution_created(self, event: Event) -> None:
        for name, body in event.body.get("inputs", {}).items():
            self.inputs[name] = body.get("preview", {}).get("text", "")

    def _execution_completed(self, event: Event) -> None:
        self.failure = None
        if body := event.body.get("result"):
            self.result = unpack_artifact(body, event.blob, self.exec_id)

    def _execution_failed(self, event: Event) -> None:
        self.failure = FailureInfo(**event.body["failure"])

    def _execution_claimed(self, event: Event) -> None:
        self.failure = None

    def _checkpoint_started(self, event: Event) -> None:
        body = event.body
        previous = self.calls.get(event.key)
        if previous is not None and previous.status in ("completed", "reused"):
            return  # flushed by the keeper at the very moment when the call completed
        call = self._call(event, "running", body.get("started_at", event.at), None)
        attempt = CheckpointAttempt(f"{event.key}/{body['attempt']}", "running", utc(event.at), None)
        attempts = (*previous.attempts, attempt) if previous else (attempt,)
        self.calls[event.key] = dataclasses.replace(call, attempts=_one_per_attempt(attempts))

    def _checkpoint_failed(self, event: Event) -> None:
        body = event.body
        failure = FailureInfo(**body["failure"])
        call = self._call(event, "failed" if body["final"] else "running", body["started_at"], event.at)
        attempt = CheckpointAttempt(
            f"{event.key}/{body['attempt']}", "failed", utc(body["attempt_at"]), utc(event.at), failure
        )
        previous = self.calls.get(event.key)
        attempts = (*previous.attempts, attempt) if previous else (attempt,)
        self.calls[event.key] = dataclasses.replace(call, failure=failure, attempts=_one_per_attempt(attempts))

    def _checkpoint_completed(self, event: Event) -> None:
        body = event.body
        reused = body.get("reused")
        started = body.get("started_at", event.at)
        ended = started + body.get("duration", 0.0)
        call = self._call(event, "reused" if reused else "completed", started, ended)
        previous = self.calls.get(event.key)
        attempt = CheckpointAttempt(f"{event.key}/{body.get('attempt', 1)}", "completed", utc(started), utc(ended))
        artifacts = tuple(unpack_artifact(a, event.blob, self.exec_id) for a in body.get("outputs", ()))
        self.calls[event.key] = dataclasses.replace(
            call,
            artifacts=artifacts,
            attempts=_one_per_attempt((*previous.attempts, attempt) if previous else (attempt,)),
            metadata=body.get("metadata", {}),
            original_exec_id=reused and reused["exec_id"],
            original_call_id=reused and reused["call_id"],
            partial=tuple(body.get("partial", ())),
        )

    def _call(self, event: Event, status: str, started: float, ended: float | None) -> CheckpointCall:
        body = event.body
        inputs = tuple(
            CallInput(name, token, preview, tuple(sources)) for name, token, preview, sources in body.get("inputs", ())
        )
        sources = dict.fromkeys(s for i in inputs for s in i.sources if ":" not in s)
        return CheckpointCall(
            call_id=event.key,
            name=body["name"],
            selector=body["name"],
            checkpoint_type=body.get("type"),
            status=status,
            started_at=utc(started),
            ended_at=None if ended is None else utc(ended),
            parent=body.get("parent") or None,
            parent_call_ids=tuple(sources),
            after=tuple(body.get("after", ())),
            inputs=inputs,
            code=body.get("code"),
        )

    def _wait_created(self, event: Event) -> None:
        body = event.body
        until = body.get("until")
        self.waits[event.key] = Wait(
            wait_id=event.key,
            exec_id=self.exec_id,
            name=body["name"],
            question=body.get("question"),
            schema=body["schema"],
            status="pending",
            created_at=utc(event.at),
            metadata=body.get("metadata", {}),
            until=None if until is None else utc(until),
            after=tuple(body.get("after", ())),
        )

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

    def _metadata(self, event: Event) -> None:
        target = self.call_metadata.setdefault(event.key, {}) if event.key else self.metadata
        target.update(event.body)

    def _artifact_saved(self, event: Event) -> None:
        self.saved.append(unpack_artifact(event.body["artifact"], event.blob, self.exec_id))


def _one_per_attempt(attempts: tuple[CheckpointAttempt, ...]) -> tuple[CheckpointAttempt, ...]:
    """The last word on each attempt: its end replaces its start."""
    latest: dict[str, CheckpointAttempt] = {}
    for attempt in attempts:
        before = latest.get(attempt.attempt_id)
        started = before.started_at if before and before.started_at else attempt.started_at
        latest[attempt.attempt_id] = dataclasses.replace(attempt, started_at=started)
    return tuple(latest.values())
