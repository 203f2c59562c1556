"""History → what a person sees: an execution with its checkpoints, artifacts, waits and logs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from datetime import datetime
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
    """Inverse of `pack_artifact`. Written out by position: a resume does this for each value that it gives back."""
    get = body.get
    serializer, digest = body["serializer"], body["digest"]
    token = get("token")
    data = None
    if (inline := get("inline")) is not None:
        start, length = inline
        data = (blob or b"")[start : start + length]
    return Artifact(
        get("artifact_id", ""),
        get("name", ""),
        get("kind", "output"),
        serializer,
        get("python_type", ""),
        get("media_type", ""),
        digest,
        body["size"],
        f"{serializer}:{digest}" if token is True else token,
        get("preview") or {},
        data,
        tuple(get("names", ())),
        exec_id,
        get("producing_call"),
        tuple(get("tags", ())),
        get("metadata") or {},
    )


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
    """Builds the details event by event. Calls stay fields until `finish`: a frozen value is costly to make anew."""

    def __init__(self, exec_id: str) -> None:
        self.exec_id = exec_id
        self.calls: dict[str, dict[str, Any]] = {}
        self.attempts: dict[str, dict[int, CheckpointAttempt]] = {}
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
        for call_id, fields in sorted(self.calls.items(), key=lambda item: item[1]["started_at"]):
            name = fields["name"]
            n = counts[name] = counts.get(name, 0) + 1
            if (logged := self.call_metadata.get(call_id)) is not None:
                fields["metadata"] = {**logged, **fields.get("metadata", {})}
            finished.append(
                CheckpointCall(
                    call_id=call_id,
                    selector=name if n == 1 else f"{name}#{n}",
                    attempts=tuple(self.attempts[call_id].values()),
                    **fields,
                )
            )
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
        if previous is not None and previous["status"] in ("completed", "reused"):
            return  # flushed by the keeper at the very moment when the call completed
        self._attempt(event, "running", utc(event.at), None)
        self.calls[event.key] = self._call(body, "running", utc(body.get("started_at", event.at)), None)

    def _checkpoint_failed(self, event: Event) -> None:
        body, ended = event.body, utc(event.at)
        failure = FailureInfo(**body["failure"])
        self._attempt(event, "failed", utc(body["attempt_at"]), ended, failure)
        fields = self._call(body, "failed" if body["final"] else "running", utc(body["started_at"]), ended)
        fields["failure"] = failure
        self.calls[event.key] = fields

    def _checkpoint_completed(self, event: Event) -> None:
        body = event.body
        reused = body.get("reused")
        at = body.get("started_at", event.at)
        started, ended = utc(at), utc(at + body.get("duration", 0.0))
        self._attempt(event, "completed", started, ended)
        fields = self._call(body, "reused" if reused else "completed", started, ended)
        fields["artifacts"] = tuple([unpack_artifact(a, event.blob, self.exec_id) for a in body.get("outputs", ())])
        if "metadata" in body:
            fields["metadata"] = body["metadata"]
        if "partial" in body:
            fields["partial"] = tuple(body["partial"])
        if reused:
            fields["original_exec_id"], fields["original_call_id"] = reused["exec_id"], reused["call_id"]
        self.calls[event.key] = fields

    def _attempt(
        self, event: Event, status: str, started: datetime, ended: datetime | None, failure: FailureInfo | None = None
    ) -> None:
        """The last word on each attempt: its end replaces its start."""
        number = event.body.get("attempt", 1)
        attempts = self.attempts.setdefault(event.key, {})
        if (before := attempts.get(number)) is not None and before.started_at is not None:
            started = before.started_at
        attempts[number] = CheckpointAttempt(f"{event.key}/{number}", status, started, ended, failure)

    def _call(self, body: Mapping[str, Any], status: str, started: datetime, ended: datetime | None) -> dict[str, Any]:
        """The fields of a call that all of its events tell."""
        inputs = []
        sources: dict[str, None] = {}
        for name, token, preview, found in body.get("inputs", ()):
            inputs.append(CallInput(name, token, preview, tuple(found)))
            for source in found:
                if ":" not in source:
                    sources[source] = None
        return {
            "name": body["name"],
            "checkpoint_type": body.get("type"),
            "status": status,
            "started_at": started,
            "ended_at": ended,
            "parent": body.get("parent") or None,
            "parent_call_ids": tuple(sources),
            "after": tuple(body.get("after", ())),
            "inputs": tuple(inputs),
            "code": body.get("code"),
        }

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
