"""Rehearsals: the snapshot runs in a clean process against what the notebook recorded, and nothing new may run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kitaru_nb.core.create import created_event, pack_inputs, read_inputs, write_created
from kitaru_nb.core.handle import FlowHandle
from kitaru_nb.core.launch import start
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruExecutionError, KitaruUsageError, KitaruWaitingError
from kitaru_nb.journal.fold import fold
from kitaru_nb.model import CheckpointCall, Execution
from kitaru_nb.promote.checks import Refusal, refuse_if
from kitaru_nb.promote.snapshot import Snapshot, make_snapshot, save_snapshot

#: Where the clean process is started.
STACK = "process"


def rehearsed(runtime: Runtime, path: Path, snapshot: Snapshot) -> Snapshot:
    """The snapshot with a certificate: each checkpoint was found again, with the digests of what it had made.

    Plain cells run; checkpoints and answered waits are taken from the notebook's current execution.

    Raises:
        Refused: a checkpoint would run anew, or a plain cell failed, in the clean process.
        KitaruUsageError: the notebook recorded nothing that could be compared.
    """
    exec_id = runtime.journal.reference(f"notebook:{path}")
    recorded = None if exec_id is None else _details(runtime, exec_id)
    if recorded is None or not recorded.checkpoints:
        raise KitaruUsageError(
            f"{path.name} has recorded no checkpoint that a rehearsal could compare with.",
            fix="run the notebook's cells, and promote again",
        )
    found = _run(runtime, recorded, snapshot)
    refusals = _differences(recorded, found)
    refuse_if(refusals, f"{path.name} (rehearsed in {found.exec_id})")
    certificate = {
        "rehearsed": snapshot.digest,
        "recorded": recorded.exec_id,
        "checkpoints": [_evidence(call) for call in _outermost(found)],
        "waits": sorted(w.name for w in found.waits if w.status == "resolved"),
    }
    return make_snapshot(replace(snapshot.manifest, certificate=certificate), snapshot.files)


def _run(runtime: Runtime, recorded: Execution, snapshot: Snapshot) -> Execution:
    """The rehearsal's execution, as far as it came. Raises `Refused` when it failed."""
    save_snapshot(runtime, snapshot)
    blob = bytearray()
    created = created_event(runtime, recorded.exec_id)
    body: dict[str, Any] = {
        "ref": {"kind": "snapshot", "digest": snapshot.digest, "size": len(snapshot.data)},
        "inputs": pack_inputs(runtime, read_inputs(runtime, created), blob),
        "options": {},
        "original": recorded.exec_id,
        "plan": {"from": [], "scope": "rehearsal", "rerun": [], "overrides": {}, "wait_overrides": {}, "reask": []},
    }
    name = f"{snapshot.manifest.flow}.rehearsal"
    execution = write_created(runtime, name, STACK, body, blob, original=recorded.exec_id)
    start(runtime, execution)
    try:
        FlowHandle[Any](runtime, execution.exec_id).wait()
    except KitaruWaitingError:
        pass  # as far as the notebook itself has come
    except KitaruExecutionError as error:
        message = f"the rehearsal {error.message}"
        fix = f"kitaru executions get {execution.exec_id}  # shows what happened"
        refuse_if([Refusal(None, message, fix)], snapshot.manifest.flow)
    return _details(runtime, execution.exec_id)


def _details(runtime: Runtime, exec_id: str) -> Execution:
    return fold(runtime.journal.execution(exec_id), runtime.journal.history(exec_id))


def _outermost(execution: Execution) -> list[CheckpointCall]:
    """The checkpoints of the flow's own level, the last of each identity."""
    done = {c.call_id: c for c in execution.checkpoints if c.parent is None and c.status in ("completed", "reused")}
    return list(done.values())


def _evidence(call: CheckpointCall) -> dict[str, Any]:
    return {"name": call.name, "call": call.call_id, "outputs": {a.name: a.digest for a in call.artifacts}}


def _differences(recorded: Execution, found: Execution) -> list[Refusal]:
    """Outputs that aren't what was recorded for the same call."""
    before = {c.call_id: _evidence(c)["outputs"] for c in recorded.checkpoints}
    refusals = []
    for call in _outermost(found):
        outputs = _evidence(call)["outputs"]
        original = before.get(call.original_call_id or call.call_id)
        if original != outputs:
            names = sorted(n for n in {*outputs, *(original or {})} if (original or {}).get(n) != outputs.get(n))
            message = f"checkpoint {call.name!r} gave another {', '.join(names) or 'result'} than was recorded."
            refusals.append(Refusal(None, message, f"kitaru executions diff {recorded.exec_id} {found.exec_id}"))
    return refusals
