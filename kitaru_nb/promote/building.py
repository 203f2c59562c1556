"""Snapshots of whatever can be promoted: notebooks and flows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kitaru_nb.core.flow import Flow
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.promote.checks import Evidence
from kitaru_nb.promote.functions import find_flow, snapshot_flow
from kitaru_nb.promote.notebooks import snapshot_notebook
from kitaru_nb.promote.rehearsal import rehearsed
from kitaru_nb.promote.snapshot import Snapshot


def build(
    runtime: Runtime,
    target: str | Path | Flow[..., Any],
    *,
    name: str | None = None,
    rehearse: bool = False,
    defaults: Mapping[str, Any] | None = None,
    evidence: Evidence | None = None,
    recorded: Runtime | None = None,
) -> Snapshot:
    """A snapshot of a notebook (its path), of a flow, or of ``file.py:flow``. Nothing is stored, but by a rehearsal.

    Args:
        runtime: where its executions will be kept.
        recorded: where the notebook's own executions are; default: in ``runtime``.

    Raises:
        Refused: there is something to mend; lists all of it.
        KitaruUsageError: the target is neither, or options don't go with it.
    """
    if isinstance(target, str | Path) and str(target).endswith(".ipynb"):
        if defaults:
            raise KitaruUsageError(
                f"A notebook's defaults are in its cell tagged 'parameters'; {next(iter(defaults))!r} was given.",
                fix="change the cell, or give the value with: kitaru invoke NAME -i INPUT=VALUE",
            )
        path = Path(target).absolute()
        snapshot = snapshot_notebook(runtime, path, name=name, evidence=evidence, recorded=recorded)
        return rehearsed(recorded or runtime, path, snapshot) if rehearse else snapshot
    if rehearse:
        raise KitaruUsageError(
            f"A rehearsal replays what a notebook recorded; {target} is no notebook.",
            fix="kitaru promote notebook.ipynb --rehearse",
        )
    flow = target if isinstance(target, Flow) else find_flow(runtime, str(target))
    return snapshot_flow(runtime, flow, name=name, defaults=defaults)
