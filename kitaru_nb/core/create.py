"""New executions: from a flow and its inputs, or from an old execution."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kitaru_nb.core.executors import check_executor
from kitaru_nb.core.reference import reference_of
from kitaru_nb.core.replay import Scope, plan_replay
from kitaru_nb.core.runtime import Runtime, whoami
from kitaru_nb.errors import KitaruNotFoundError, KitaruUsageError
from kitaru_nb.journal.fold import pack_artifact, unpack_artifact
from kitaru_nb.model import Event, Execution, ExecutionStatus, new_exec_id, utc

if TYPE_CHECKING:
    from kitaru_nb.core.flow import Flow


def create_execution(runtime: Runtime, flow: Flow[..., Any], inputs: Mapping[str, Any]) -> Execution:
    """A pending execution of ``flow``; with ``flow.key`` the existing one of this key, if there is one.

    Raises:
        KitaruSerializationError: an input can't be persisted.
        KitaruUsageError: its executor can't be.
        KitaruFeatureNotAvailableError: what its executor needs isn't installed.
    """
    check_executor(flow.executor or runtime.settings.executor)
    blob = bytearray()
    body = {
        "ref": reference_of(flow, runtime, blob),
        "inputs": pack_inputs(runtime, inputs, blob),
        "options": {"cache": flow.cache, "retries": flow.retry.attempts}
        | ({"executor": flow.executor} if flow.executor else {}),
    }
    return write_created(runtime, flow.name, flow.stack or runtime.settings.stack, body, blob, key=flow.key)


def create_replay(
    runtime: Runtime,
    exec_id: str,
    *,
    from_: str | Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    scope: Scope = "downstream",
    inputs: Mapping[str, Any] | None = None,
    flow: Flow[..., Any] | None = None,
    line: Mapping[str, Any] | None = None,
) -> Execution:
    """A pending execution that replays ``exec_id`` (see `kitaru_nb.core.replay`), with ``flow``'s code if given.

    ``line``: what a notebook keeps of the line that asked for it.
    """
    created = created_event(runtime, exec_id)
    original = runtime.journal.execution(exec_id)
    if flow is not None and flow.name != original.flow_name:
        raise KitaruUsageError(
            f"{exec_id} is an execution of flow {original.flow_name!r}, not of {flow.name!r}.",
            fix=f"{original.flow_name}.replay({exec_id!r}, ...)",
        )
    blob = bytearray()
    values = read_inputs(runtime, created)
    if unknown := sorted(set(inputs or ()) - set(values)):
        raise KitaruUsageError(
            f"Flow {original.flow_name!r} has no input {unknown[0]!r}. Inputs are: {', '.join(values) or 'none'}.",
            fix=f"kitaru executions replay {exec_id} --set {next(iter(values), 'NAME')}=VALUE",
        )
    plan = plan_replay(
        runtime, exec_id, from_=from_, overrides=overrides, scope=scope, changed_inputs=list(inputs or ()), blob=blob
    )
    body = {
        "ref": reference_of(flow, runtime, blob) if flow else _same_reference(created, blob),
        "inputs": pack_inputs(runtime, {**values, **(inputs or {})}, blob),
        "options": created.body.get("options", {}),
        "original": exec_id,
        "plan": plan.body,
    } | ({"line": line} if line else {})
    return write_created(
        runtime,
        original.flow_name,
        original.stack,
        body,
        blob,
        original=exec_id,
        deployment=None if flow else original.deployment,
    )


def merged_inputs(inputs: Mapping[str, Any] | None, more: Mapping[str, Any]) -> dict[str, Any]:
    """New inputs from both ways to give them. Raises `KitaruUsageError`."""
    named = dict(inputs or {})
    if twice := sorted(set(named) & set(more)):
        raise KitaruUsageError(
            f"The input {twice[0]!r} was given twice, in inputs= and by itself.", fix=f"inputs={{{twice[0]!r}: value}}"
        )
    return {**named, **more}


def write_created(
    runtime: Runtime,
    flow_name: str,
    stack: str,
    body: dict[str, Any],
    blob: bytearray,
    *,
    key: str | None = None,
    original: str | None = None,
    deployment: str | None = None,
) -> Execution:
    """Store a new execution with its ``execution.created`` event."""
    exec_id, now = new_exec_id(), time.time()
    execution = Execution(
        exec_id,
        flow_name,
        ExecutionStatus.PENDING,
        utc(now),
        utc(now),
        original_exec_id=original,
        deployment=deployment,
        stack=stack,
        key=key,
    )
    body = {"flow": flow_name, "by": whoami()} | body
    event = Event(exec_id, "execution.created", "", now, body, bytes(blob) or None)
    return runtime.journal.create(execution, [event])


def created_event(runtime: Runtime, exec_id: str) -> Event:
    """The event that began an execution. Raises `KitaruNotFoundError`."""
    history = runtime.journal.tail(0, exec_id=exec_id, limit=1)
    if not history:
        raise KitaruNotFoundError(f"There is no execution {exec_id!r}.", fix="kitaru executions list")
    return history[0]


def pack_inputs(runtime: Runtime, inputs: Mapping[str, Any], blob: bytearray) -> dict[str, Any]:
    """Inputs as packed artifacts."""
    return {
        name: pack_artifact(runtime.store.write(value, name=name, kind="input"), blob) for name, value in inputs.items()
    }


def read_inputs(runtime: Runtime, created: Event) -> dict[str, Any]:
    """The inputs that an execution began with."""
    return {
        name: runtime.store.read(unpack_artifact(body, created.blob, created.exec_id))
        for name, body in created.body.get("inputs", {}).items()
    }


def _same_reference(created: Event, blob: bytearray) -> dict[str, Any]:
    ref = dict(created.body["ref"])
    for name in ("flow", "notebook"):
        if name in ref:
            ref[name] = pack_artifact(unpack_artifact(ref[name], created.blob, created.exec_id), blob)
    return ref
