"""``save``, ``load`` and ``log``: named artifacts, values of other executions, structured metadata."""

from __future__ import annotations

import math
import time
from typing import Any

from kitaru_nb.core.context import current, require_frame
from kitaru_nb.core.runtime import Runtime, default_runtime
from kitaru_nb.errors import KitaruNotFoundError, KitaruUsageError
from kitaru_nb.journal.fold import fold, pack_artifact
from kitaru_nb.model import Artifact, Event, Execution

KINDS = ("prompt", "response", "context", "input", "output", "blob")


def save(name: str, value: Any, *, type: str = "output", tags: list[str] | None = None) -> Artifact:
    """Keep a value under a name of its own, beside what checkpoints return. Saving again makes a new version.

    Args:
        type: ``prompt``, ``response``, ``context``, ``input``, ``output`` or ``blob``.

    Raises:
        KitaruContextError: outside an execution.
        KitaruUsageError: a name, type or tags that can't be.
        KitaruSerializationError: the value can't be persisted.
    """
    frame = require_frame("save()")
    if type not in KINDS:
        raise KitaruUsageError(
            f"type={type!r} is no kind of artifact. Kinds are: {', '.join(KINDS)}.", fix=f"save({name!r}, value)"
        )
    if not name or not _is_text(name):
        raise KitaruUsageError(f"save() was given the name {name!r}; expected a text.", fix="save('notes', value)")
    if tags is not None and not (isinstance(tags, list | tuple) and all(map(_is_text, tags))):
        raise KitaruUsageError(
            f"save() was given tags={tags!r}; expected a list of texts.", fix=f"save({name!r}, value, tags=['draft'])"
        )
    run = frame.run
    with run.runtime_code():
        artifact = run.store.write(
            value,
            name=name,
            kind=type,
            artifact_id=f"{run.exec_id}/{frame.call_id}/{name}",
            exec_id=run.exec_id,
            producing_call=frame.call_id or None,
        )
        identity = (name, artifact.digest, frame.call_id)
        if identity not in run.engine.saved:  # a resumed flow saves again what it had saved
            run.engine.saved.add(identity)
            blob = bytearray()
            packed = pack_artifact(artifact, blob) | ({"tags": list(tags)} if tags else {})
            body = {"artifact": packed, "call": frame.call_id}
            run.hold(Event(run.exec_id, "artifact.saved", name, time.time(), body, bytes(blob) or None))
    return artifact


def log(**metadata: Any) -> None:
    """Attach structured metadata to the running checkpoint, or to the execution in the body of a flow.

    Known fields are summed up in reports: ``tokens`` (or ``input_tokens`` and ``output_tokens``) and ``cost`` (USD).

    Raises:
        KitaruContextError: outside an execution.
        KitaruUsageError: a value that isn't JSON.
    """
    frame = require_frame("log()")
    for name, value in metadata.items():
        if not _is_json(value):
            raise KitaruUsageError(
                f"log({name}={value!r}): metadata must be JSON (text, finite numbers, true, false, null, lists, "
                f"objects), found {value.__class__.__name__}.",
                fix=f"save({name!r}, value)",
            )
    if frame.call_id:
        frame.metadata.update(metadata)
        return
    with frame.run.runtime_code():
        frame.run.hold(Event(frame.run.exec_id, "metadata", "", time.time(), metadata))


def load(exec_id: str, name: str, *, runtime: Runtime | None = None) -> Any:
    """The value that another execution recorded: ``name`` is a checkpoint's selector, a saved name, a notebook
    variable, or ``result`` for what the flow returned.

    Raises:
        KitaruNotFoundError: no such execution, or nothing of this name; lists what there is.
        KitaruArtifactError: the stored value is missing or damaged.
    """
    frame = current.get()
    if frame is None:
        return _load(runtime or default_runtime(), exec_id, name)[0]
    with frame.run.runtime_code():
        value, artifact = _load(runtime or frame.run.runtime, exec_id, name)
        frame.run.engine.produced(artifact.token, f"artifact:{artifact.artifact_id}")
        return value


def _load(runtime: Runtime, exec_id: str, name: str) -> tuple[Any, Artifact]:
    execution = fold(runtime.journal.execution(exec_id), runtime.journal.history(exec_id))
    artifact = find_artifact(execution, name)
    return runtime.store.read(artifact), artifact


def find_artifact(execution: Execution, name: str) -> Artifact:
    """The newest artifact that ``name`` means. Raises `KitaruNotFoundError`."""
    if name == "result" and execution.result is not None:
        return execution.result
    for call in reversed(execution.checkpoints):
        if name in (call.selector, call.call_id) and call.artifacts and not call.artifacts[0].names:
            return call.artifacts[0]
    for artifact in reversed(execution.artifacts):
        if name in (artifact.name, artifact.artifact_id, *artifact.names):
            return artifact
    there = [c.selector for c in execution.checkpoints if c.artifacts]
    there += sorted({n for a in execution.artifacts for n in (a.names or (a.name,))} - set(there))
    there += ["result"] if execution.result is not None else []
    raise KitaruNotFoundError(
        f"{execution.exec_id} has no artifact {name!r}. It has: {', '.join(there) or 'none'}.",
        fix=f"kitaru artifacts list {execution.exec_id}",
    )


def _is_text(value: object) -> bool:
    """Whether a journal can store it: no lone surrogates."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _is_json(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if value is None or isinstance(value, str | bool | int):
        return True
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_json(v) for k, v in value.items())
    return isinstance(value, list | tuple) and all(_is_json(v) for v in value)
