"""Two versions of a deployment, side by side."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kitaru_nb.model import Deployment
from kitaru_nb.promote.snapshot import LOCK, NOTEBOOK, WHEELS, Snapshot


@dataclass(frozen=True, slots=True)
class DeploymentDiff:
    """What differs. ``files``: path → unified diff; ``packages`` and ``parameters``: name → (left, right).

    None stands for what one side doesn't have.
    """

    left: str
    right: str
    files: Mapping[str, str]
    packages: Mapping[str, tuple[str | None, str | None]]
    parameters: Mapping[str, tuple[object, object]]

    @property
    def same(self) -> bool:
        """Whether both are the very same snapshot, as far as one can see."""
        return not (self.files or self.packages or self.parameters)


def compare(left: Deployment, one: Snapshot, right: Deployment, other: Snapshot) -> DeploymentDiff:
    """Compare two snapshots: code and data as text, packages by version, parameters by schema."""
    paths = sorted({p for p in (*one.files, *other.files) if p not in (LOCK, NOTEBOOK) and not p.startswith(WHEELS)})
    files = {}
    for path in paths:
        before, after = one.files.get(path, b""), other.files.get(path, b"")
        if before != after:
            files[path] = _text_diff(path, before, after, left.deployment_id, right.deployment_id)
    known = [d.parameters.get("properties", {}) for d in (left, right)]
    return DeploymentDiff(
        left.deployment_id,
        right.deployment_id,
        files,
        _changed(one.manifest.packages, other.manifest.packages),
        _changed(known[0], known[1]),
    )


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = sorted({*before, *after})
    return {n: (before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n)}


def _text_diff(path: str, before: bytes, after: bytes, left: str, right: str) -> str:
    try:
        one, other = (data.decode().splitlines(keepends=True) for data in (before, after))
    except UnicodeDecodeError:
        return f"{path}: {len(before)} bytes → {len(after)} bytes\n"
    return "".join(difflib.unified_diff(one, other, fromfile=f"{left}/{path}", tofile=f"{right}/{path}"))
