"""Snapshots: an immutable zip in the artifact store, under the digest of its bytes.

Entries are sorted and carry no time, so the same files give the same digest.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path, PurePosixPath

from kitaru_nb.artifacts.store import ArtifactStore
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruArtifactError, KitaruBackendError
from kitaru_nb.model import Artifact
from kitaru_nb.promote.manifest import Manifest, load_manifest

MANIFEST, FLOW, NOTEBOOK, LOCK = "manifest.json", "flow.py", "notebook.ipynb", "requirements.lock"
WHEELS = "wheels/"

# The earliest time that a zip can say.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A package of a flow.

    Attributes:
        files: path in the zip → content; without the manifest.
        data: the zip.
    """

    manifest: Manifest
    files: Mapping[str, bytes]
    data: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the zip, hexadecimal."""
        return sha256(self.data).hexdigest()


def make_snapshot(manifest: Manifest, files: Mapping[str, bytes]) -> Snapshot:
    """A snapshot of these files; their digests are put into the manifest."""
    digests = {path: sha256(content).hexdigest() for path, content in sorted(files.items())}
    complete = replace(manifest, files=digests)
    return Snapshot(complete, dict(files), pack({**files, MANIFEST: complete.dump()}))


def pack(files: Mapping[str, bytes], *, compressed: bool = False) -> bytes:
    """A zip of these files, always the same bytes. Not compressed by default: compressors differ between machines."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path, _NO_TIME)
            entry.external_attr = 0o100644 << 16
            entry.create_system = 3
            entry.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
            archive.writestr(entry, files[path])
    return target.getvalue()


def save_snapshot(runtime: Runtime, snapshot: Snapshot) -> None:
    """Put a snapshot into the artifact store. Raises `KitaruBackendError` when that can't be written."""
    settings = runtime.settings
    # Never inside an event: a deployment refers to it by its digest alone.
    store = ArtifactStore(runtime.store.url, inline_max_bytes=0, durability=settings.durability)
    store.write(snapshot.data, name="snapshot", kind="blob")


def load_snapshot(runtime: Runtime, digest: str, size: int) -> Snapshot:
    """A snapshot from the artifact store, its bytes and its entries verified.

    Raises:
        KitaruArtifactError: it is missing or damaged, has the wrong digest, or is no snapshot.
    """
    artifact = Artifact(f"snapshot/{digest}", "snapshot", "blob", "bytes", "builtins.bytes", "", digest, size)
    return read_snapshot(runtime.store.read_bytes(artifact))


def read_snapshot(data: bytes) -> Snapshot:
    """A snapshot from its zip. Raises `KitaruArtifactError` when an entry lies about its place or its content."""
    digest = sha256(data).hexdigest()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            for entry in entries:
                _check_entry(entry, digest)
            files = {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise KitaruArtifactError(f"Snapshot {digest[:12]} is no readable zip: {error}.") from error
    if len(files) != len(entries):
        raise _refused(digest, "it has two entries of one name")
    if MANIFEST not in files:
        raise _refused(digest, f"it has no {MANIFEST}")
    manifest = load_manifest(files.pop(MANIFEST), digest)
    found = {path: sha256(content).hexdigest() for path, content in files.items()}
    if found != dict(manifest.files):
        wrong = sorted(p for p in {*found, *manifest.files} if found.get(p) != manifest.files.get(p))
        raise _refused(digest, f"{wrong[0]!r} is not what its manifest says")
    return Snapshot(manifest, files, data)


def _check_entry(entry: zipfile.ZipInfo, digest: str) -> None:
    path = PurePosixPath(entry.filename)
    outside = path.is_absolute() or ".." in path.parts or "\\" in entry.filename or ":" in entry.filename
    if outside or entry.is_dir() or not path.parts:
        raise _refused(digest, f"the entry {entry.filename!r} is no file inside of it")
    if (entry.external_attr >> 16) & 0o170000 not in (0, 0o100000):
        raise _refused(digest, f"the entry {entry.filename!r} is a link, not a file")


def _refused(digest: str, why: str) -> KitaruArtifactError:
    return KitaruArtifactError(
        f"Snapshot {digest[:12]} is refused: {why}.", fix="promote the notebook again, and invoke that version"
    )


def unpack(snapshot: Snapshot, folder: Path) -> None:
    """Write what a snapshot runs with into ``folder``: all but its wheels. What else is there stays.

    Raises:
        KitaruBackendError: that can't be written.
    """
    try:
        for path, content in {**snapshot.files, MANIFEST: snapshot.manifest.dump()}.items():
            if path.startswith(WHEELS):
                continue
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists() or target.read_bytes() != content:
                target.write_bytes(content)
    except OSError as error:
        raise KitaruBackendError(
            f"The snapshot can't be unpacked into {folder}: {error.strerror or error}.", fix=f"make {folder} writable"
        ) from error
