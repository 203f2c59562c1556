"""The contract, for a folder, an fsspec file system, and artifacts that travel inside events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kitaru_nb.artifacts import ArtifactStore
from kitaru_nb.testing.artifact_store import ArtifactStoreContract


class TestFolder(ArtifactStoreContract):
    def make_store(self, folder: Path, **options: Any) -> ArtifactStore:
        return ArtifactStore(str(folder), **options)


class TestFileUrl(ArtifactStoreContract):
    def make_store(self, folder: Path, **options: Any) -> ArtifactStore:
        return ArtifactStore(f"file://{folder}", **{"inline_max_bytes": 0, "durability": "process", **options})


class TestMemory(ArtifactStoreContract):
    def make_store(self, folder: Path, **options: Any) -> ArtifactStore:
        return ArtifactStore(f"memory://{folder.name}", **{"inline_max_bytes": 0, **options})


class TestInline(ArtifactStoreContract):
    def make_store(self, folder: Path, **options: Any) -> ArtifactStore:
        return ArtifactStore(str(folder), **{"inline_max_bytes": 1 << 30, **options})
