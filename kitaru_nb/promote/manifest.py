"""What a snapshot says about itself: ``manifest.json``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kitaru_nb.errors import KitaruArtifactError

#: Raised by one when an older worker could not read it any more.
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about a snapshot but its files. The same notebook in the same environment gives the same manifest.

    Attributes:
        entry: where a worker begins: ``{"kind": "notebook"}``, or a reference as `kitaru_nb.core.reference` knows it
            (``module`` or ``script``, with ``qualname``), paths relative to the snapshot.
        parameters: JSON Schema of the inputs.
        checkpoints: ``{name, cell, inputs, outputs}`` each, in order; functions have no cell.
        waits: ``{name, question, schema}`` each, as far as they can be read without running anything.
        environment: environment variables that the code reads by name → whether it can't do without. ``secrets`` are
            those that hold one, by their name. Values are never kept.
        python: version that it was promoted with; a worker needs the same minor version.
        packages: distribution → version, all that ``requirements.lock`` pins and the wheels that travel along.
        files: path in the snapshot → SHA-256.
        certificate: what a rehearsal found, or None.
    """

    flow: str
    kind: Literal["notebook", "function"]
    entry: Mapping[str, str]
    parameters: Mapping[str, Any]
    python: str
    platform: str
    checkpoints: Sequence[Mapping[str, Any]] = ()
    waits: Sequence[Mapping[str, Any]] = ()
    environment: Mapping[str, bool] = field(default_factory=dict)
    secrets: Sequence[str] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    certificate: Mapping[str, Any] | None = None
    format: int = FORMAT

    def dump(self) -> bytes:
        """As JSON, always in the same bytes."""
        return (json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n").encode()


def load_manifest(data: bytes, digest: str) -> Manifest:
    """Inverse of `Manifest.dump`. Raises `KitaruArtifactError` for one that is newer than this version, or damaged."""
    try:
        body = json.loads(data)
        found = body.get("format")
    except (ValueError, AttributeError) as error:
        raise KitaruArtifactError(f"Snapshot {digest[:12]} has no readable manifest: {error}.") from error
    if found != FORMAT:
        raise KitaruArtifactError(
            f"Snapshot {digest[:12]} has manifest format {found!r}; this version reads format {FORMAT}.",
            fix="pip install --upgrade kitaru-nb",
        )
    known = {f.name for f in dataclasses.fields(Manifest)}
    try:
        return Manifest(**{name: value for name, value in body.items() if name in known})
    except TypeError as error:
        raise KitaruArtifactError(f"Snapshot {digest[:12]} has an incomplete manifest: {error}.") from error
