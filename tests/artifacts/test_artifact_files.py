"""Files of the store: where they are, when they appear, and what a failing disk leaves."""

from __future__ import annotations

import errno
import fcntl
import importlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy
import pytest

from kitaru_nb.artifacts import ArtifactStore, Dumped
from kitaru_nb.artifacts.blobs import LEFT_AFTER, FolderBlobs, blobs_at
from kitaru_nb.errors import (
    KitaruArtifactError,
    KitaruBackendError,
    KitaruError,
    KitaruFeatureNotAvailableError,
    KitaruStorageError,
)

LARGE = os.urandom(3_000_000)


def files(folder: Path) -> list[str]:
    """All files below, relative."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("value", ["x" * 20_000, LARGE], ids=["small", "large"])
def test_bytes_lie_under_their_digest_and_are_written_once(tmp_path: Path, value: Any) -> None:
    store = ArtifactStore(str(tmp_path))
    artifact = store.write(value, name="v")
    assert files(tmp_path) == [f"{artifact.digest[:2]}/{artifact.digest}"]
    assert store.location(artifact.digest) == str(tmp_path / artifact.digest[:2] / artifact.digest)
    inode = os.stat(store.location(artifact.digest)).st_ino
    store.write(value, name="again")
    assert os.stat(store.location(artifact.digest)).st_ino == inode
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("value", ["x" * 20_000, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("size", [0, 10_000])
def test_a_file_that_lost_its_end_is_written_again(tmp_path: Path, value: Any, size: int) -> None:
    store = ArtifactStore(str(tmp_path), durability="process")
    artifact = store.write(value, name="v")
    os.truncate(store.location(artifact.digest), size)
    with pytest.raises(KitaruArtifactError, match="damaged"):
        store.read(artifact)
    store.write(value, name="again")
    assert store.read(artifact) == value


def test_making_a_store_touches_nothing(tmp_path: Path) -> None:
    for url in (str(tmp_path / "a"), f"file://{tmp_path / 'a'}", "memory://x", "s3://bucket/x", "nonsense://x"):
        store = ArtifactStore(url)
        assert store.write(5, name="n").data == b"5"
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("value", ["x" * 20_000, LARGE], ids=["small", "large"])
def test_a_full_disk_leaves_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, value: Any
) -> None:
    def full(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    store = ArtifactStore(str(tmp_path))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        KitaruBackendError, match="No space is left" if number != errno.EIO else "could not be written"
    ) as caught:
        store.write(value, name="v")
    assert str(tmp_path) in str(caught.value)
    assert "KITARU_STORE" in str(caught.value.fix)
    assert files(tmp_path) == []


@pytest.mark.parametrize("scheme", ["", "local://", "memory://"])
def test_a_value_that_breaks_off_leaves_nothing(tmp_path: Path, scheme: str) -> None:
    class Breaking:
        def __init__(self) -> None:
            self.rounds = 0

        def __iter__(self) -> Any:
            yield b"x" * 100_000
            self.rounds += 1
            if scheme and self.rounds == 1:
                return  # it is hashed first
            raise MemoryError

    blobs = blobs_at(f"{scheme}{tmp_path}", flush=True)
    with pytest.raises((MemoryError, KitaruBackendError)):
        blobs.put(Dumped(Breaking(), 1).chunks, None)
    assert files(tmp_path) == []
    if scheme == "memory://":
        import fsspec

        assert not [path for path in fsspec.filesystem("memory").find("/") if str(tmp_path) in path]


def test_a_folder_that_cant_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for url in (str(tmp_path / "file"), f"file://{tmp_path}/file/below", f"local://{tmp_path}/file"):
        store = ArtifactStore(url)
        with pytest.raises(KitaruBackendError, match="file") as caught:
            store.write("x" * 20_000, name="v")
        assert caught.value.fix
    assert files(tmp_path) == ["file"]


@pytest.mark.parametrize("value", ["x" * 20_000, numpy.zeros(500_000)], ids=["whole", "streamed"])
def test_a_read_that_breaks_off_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    class Breaking(io.FileIO):
        """Breaks once, and has nothing more to say then."""

        broken = False

        def readinto(self, buffer: Any) -> int:
            if self.tell() and not self.broken:
                self.broken = True
                raise ConnectionError("the server has gone")
            return 0 if self.broken else super().readinto(buffer[:1000])

        def read(self, size: int = -1) -> bytes:
            return b"" if self.readinto(room := bytearray(1000)) == 0 else bytes(room)

    store = ArtifactStore(str(tmp_path))
    artifact = store.write(value, name="v")
    monkeypatch.setattr(store._blobs, "open", lambda digest: Breaking(store.location(digest)))
    with pytest.raises(KitaruStorageError, match="could not be read: ConnectionError"):
        store.read(artifact)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize("scheme", ["", "local://"], ids=["folder", "fsspec"])
def test_a_read_only_folder_is_named(scheme: str) -> None:
    value = "x" * 20_000
    with tempfile.TemporaryDirectory() as folder:
        ArtifactStore(f"{scheme}{folder}/other").write(value, name="v")  # loads what another user can't
        os.chmod(folder, 0o755)
        inside = Path(folder) / sha256(value.encode()).hexdigest()[:2]
        inside.mkdir(mode=0o555)
        superuser = os.geteuid() == 0
        if superuser:  # for whom modes don't hold
            os.seteuid(65534)
        try:
            with pytest.raises(KitaruBackendError, match="could not be written: PermissionError"):
                ArtifactStore(scheme + folder).write(value, name="v")
        finally:
            if superuser:
                os.seteuid(0)


@pytest.mark.parametrize(
    ("url", "driver", "extra"),
    [("s3://b/x", "s3fs", "aws"), ("gs://b/x", "gcsfs", "gcp"), ("az://b/x", "adlfs", "azure")],
    ids=["s3", "gs", "az"],
)
def test_a_missing_driver_is_named_with_its_install_line(
    url: str, driver: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, url.partition(":")[0], raising=False)
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(KitaruFeatureNotAvailableError) as caught:
        ArtifactStore(url, inline_max_bytes=0).write("x", name="v")
    assert caught.value.fix == f"pip install 'kitaru-nb[{extra}]'"


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(KitaruError, match="nonsense://x"):
        ArtifactStore("nonsense://x", inline_max_bytes=0).write("x", name="v")


@pytest.mark.parametrize("scheme", ["ftp", "nonsense"])
def test_the_password_in_a_url_is_never_shown(scheme: str) -> None:
    """FTP's driver connects at once; nobody listens on port 1."""
    store = ArtifactStore(f"{scheme}://ann:sekret@127.0.0.1:1/folder", inline_max_bytes=0)
    with pytest.raises(KitaruBackendError, match=rf"{scheme}://ann@127\.0\.0\.1:1/folder") as caught:
        store.write("x", name="n")
    assert "sekret" not in str(caught.value)
    assert "sekret" not in store.location("ab" * 32)


def test_any_file_system_holds_values(tmp_path: Path) -> None:
    store = ArtifactStore(f"local://{tmp_path}", inline_max_bytes=0)
    artifact = store.write(LARGE, name="v")
    assert files(tmp_path) == [f"{artifact.digest[:2]}/{artifact.digest}"]
    assert store.read(artifact) == LARGE


def test_a_writer_that_is_killed_publishes_nothing(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from kitaru_nb.artifacts.blobs import blobs_at\n"
        "def chunks():\n"
        "    yield b'x' * 2_000_000\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "blobs_at(sys.argv[1], flush=True).put(chunks(), None)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert ended.returncode < 0
    assert all(name.endswith(".tmp") for name in files(tmp_path))


def test_what_killed_writers_left_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    now, long_ago = time.time(), time.time() - LEFT_AFTER - 1
    for name in ("left", "fresh", "written"):
        (tmp_path / f".{name}.tmp").write_bytes(b"half")
    seen: list[list[str]] = []

    def chunks(store: FolderBlobs) -> Iterator[bytes]:
        yield b"x"
        (own,) = set(files(tmp_path)) - {".left.tmp", ".fresh.tmp", ".written.tmp"}
        os.utime(tmp_path / own, (long_ago, long_ago))  # its process was stopped for long
        store.put([b"y" * 10], None)
        seen.append(files(tmp_path))
        assert own in seen[-1]
        yield b"z"

    with (tmp_path / ".written.tmp").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for name, at in (("left", long_ago), ("fresh", now), ("written", long_ago)):
            os.utime(tmp_path / f".{name}.tmp", (at, at))
        writer, other = (FolderBlobs(tmp_path, flush=False) for _ in range(2))
        digest = writer.put(chunks(other), None)
    assert {".fresh.tmp", ".written.tmp"} < set(seen[0])
    assert ".left.tmp" not in seen[0]
    assert Path(writer.location(digest)).read_bytes() == b"xz"


def test_artifact_ids_are_made_of_execution_call_and_name(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    made = store.write(1, name="n", exec_id="kr-1", producing_call="c1", kind="input", names=("a", "b"))
    assert (made.artifact_id, made.kind, made.names) == ("kr-1/c1/n", "input", ("a", "b"))
    assert (made.exec_id, made.producing_call, made.python_type) == ("kr-1", "c1", "builtins.int")
    assert store.write(1, name="n", artifact_id="mine").artifact_id == "mine"
    assert made.preview == {"text": "1"}


def test_importing_artifacts_loads_no_optional_package() -> None:
    code = (
        "import sys, kitaru_nb.artifacts\n"
        "store = kitaru_nb.artifacts.ArtifactStore('/nowhere')\n"
        "store.read(store.write({'a': 1}, name='n'))\n"
        "heavy = {'numpy', 'pandas', 'polars', 'pyarrow', 'matplotlib', 'PIL', 'fsspec', 'pydantic', 'cloudpickle'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == "[]"
