"""Where bytes are kept under their digest: a local folder, or any file system of fsspec."""

from __future__ import annotations

import errno
import functools
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

from kitaru_nb.artifacts.parts import PART, Gone, Upload, part_size, parts_of, upload_to
from kitaru_nb.artifacts.protocol import CHUNK, Buffer
from kitaru_nb.config import secrets_in, shown
from kitaru_nb.errors import KitaruBackendError, KitaruFeatureNotAvailableError, KitaruStorageError

#: Scheme → the extra that brings its driver.
EXTRAS = {"s3": "aws", "s3a": "aws", "gs": "gcp", "gcs": "gcp", "az": "azure", "abfs": "azure", "abfss": "azure"}
# Their files appear whole, when they are closed. Elsewhere a file is written aside and moved.
_ATOMIC = frozenset(EXTRAS)
#: Seconds between the tries of what may pass: a lost connection, a server that is busy or restarts.
_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)
#: Seconds after which a file that nobody has gone on writing, and whose writer doesn't live here, is left over.
LEFT_AFTER = 3600.0


class Blobs(Protocol):
    """Bytes by SHA-256, at ``<digest[:2]>/<digest>``. Raises `KitaruStorageError` when the storage fails."""

    def put(self, chunks: Iterable[Buffer], digest: str | None) -> str:
        """Store bytes and return their digest; they are durable then. What is there already isn't written again.

        ``digest`` may be given where it is known. ``chunks`` may be iterated more than once.
        """

    def open(self, digest: str) -> BinaryIO:
        """The bytes, unverified. Raises `FileNotFoundError`."""

    def size(self, digest: str) -> int | None:
        """Number of bytes, or None when there are none under this digest."""

    def location(self, digest: str) -> str:
        """Path or URL."""


def blobs_at(url: str, *, flush: bool) -> Blobs:
    """The storage of a folder path or fsspec URL. Nothing is touched before it is used."""
    if url.startswith("file://"):
        url = url.removeprefix("file://")
    return FileSystemBlobs(url) if "://" in url else FolderBlobs(Path(url).expanduser().absolute(), flush=flush)


class FolderBlobs:
    """A local folder. ``flush``: what was put survives power loss, not only the death of processes."""

    def __init__(self, folder: Path, *, flush: bool) -> None:
        self.folder = folder
        self.flush = flush
        self._swept = False

    def _path(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest

    def location(self, digest: str) -> str:
        return str(self._path(digest))

    def size(self, digest: str) -> int | None:
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed("read", self.folder, error) from error

    def open(self, digest: str) -> BinaryIO:
        try:
            return self._path(digest).open("rb", buffering=0)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _failed("read", self.folder, error) from error

    def put(self, chunks: Iterable[Buffer], digest: str | None) -> str:
        if digest is not None and self.size(digest) == sum(memoryview(chunk).nbytes for chunk in chunks):
            return digest
        # In the folder itself, because a rename is atomic only inside one file system.
        temporary = self.folder / f".{uuid.uuid4().hex}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            try:
                return self._publish(temporary, chunks, digest)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise _failed("written", self.folder, error) from error

    def _publish(self, temporary: Path, chunks: Iterable[Buffer], digest: str | None) -> str:
        hasher = None if digest is not None else sha256()
        with temporary.open("xb") as file:
            _lock(file)
            for chunk in chunks:
                if hasher is not None:
                    hasher.update(chunk)
                file.write(chunk)
            if hasher is not None:
                digest = hasher.hexdigest()
            assert digest is not None
            target = self._path(digest)
            if self.size(digest) == file.tell():  # a file that lost its end with the power is written again
                return digest
            file.flush()
            if self.flush:
                os.fsync(file.fileno())
        fresh = not target.parent.exists()
        target.parent.mkdir(exist_ok=True)
        temporary.replace(target)
        if self.flush:
            _flush_folder(target.parent)
            if fresh:
                _flush_folder(self.folder)
        return digest

    def _sweep(self) -> None:
        """Once per process, remove what writers that were killed have left half-written."""
        if self._swept:
            return
        self._swept = True
        for path in self.folder.glob(".*.tmp"):
            with suppress(OSError):  # removed by another process in this moment, or not to be removed by this user
                if time.time() - path.stat().st_mtime > LEFT_AFTER:
                    with path.open("rb") as file:
                        if _lock(file):
                            path.unlink()


def _lock(file: IO[bytes]) -> bool:
    """Hold a file for as long as it is open here; whether nobody else on this machine holds it."""
    if os.name == "nt":  # where a file that is open can't be removed
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody does, or this file system knows no locks
        return False
    return True


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows has no handle of a folder to flush; its file system journals the rename
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class FileSystemBlobs:
    """Any file system of fsspec, e.g. ``s3://bucket/prefix`` or ``memory://name``."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._where = shown(self.url)
        self._opened: tuple[Any, str] | None = None

    def _fs(self) -> tuple[Any, str]:
        if self._opened is None:
            import fsspec

            try:
                fs, root = fsspec.core.url_to_fs(self.url)
            except ImportError as error:
                scheme = self.url.partition("://")[0]
                extra = EXTRAS.get(scheme)
                raise KitaruFeatureNotAvailableError(
                    f"{scheme}:// needs a package that isn't installed: {error}",
                    fix=f"pip install 'kitaru-nb[{extra}]'" if extra else None,
                ) from error
            except ValueError as error:
                raise KitaruBackendError(
                    f"{self._where} is no artifact store: {self._told(error)}. Expected a folder or a URL that fsspec "
                    "knows.",
                    fix="KITARU_STORE=s3://bucket/prefix",
                ) from error
            except Exception as error:  # some drivers connect at once
                raise self._failed("reached", error) from error
            self._opened = fs, root.rstrip("/")
        return self._opened

    def _told(self, error: BaseException) -> str:
        """What a driver says, without the secrets of the URL."""
        text = str(error)
        for secret in secrets_in(self.url):
            text = text.replace(secret, "…")
        return text

    def _failed(self, verb: str, error: BaseException) -> KitaruStorageError:
        return _failed(verb, self._where, error, self._told(error))

    def _at(self, digest: str) -> tuple[Any, str]:
        fs, root = self._fs()
        return fs, f"{root}/{digest[:2]}/{digest}"

    def location(self, digest: str) -> str:
        return f"{self._where}/{digest[:2]}/{digest}"

    def size(self, digest: str) -> int | None:
        fs, path = self._at(digest)
        try:
            return int(self._patiently("read", lambda: fs.size(path)))
        except FileNotFoundError:
            return None

    def open(self, digest: str) -> BinaryIO:
        fs, path = self._at(digest)
        file: BinaryIO = self._patiently("read", lambda: fs.open(path, "rb"))
        return file

    def put(self, chunks: Iterable[Buffer], digest: str | None) -> str:
        hasher, size = sha256(), 0
        for chunk in chunks:
            size += memoryview(chunk).nbytes
            if digest is None:
                hasher.update(chunk)
        digest = digest or hasher.hexdigest()
        try:
            for _ in _PAUSES:
                if self.size(digest) is not None or self._upload(chunks, digest, size):
                    return digest
        except FileNotFoundError as error:  # the bucket itself
            raise self._failed("written", error) from error
        raise self._failed("written", Gone("others end its uploads again and again"))

    def _patiently(self, verb: str, work: Callable[[], Any]) -> Any:
        """Do ``work``, again after what may pass. Raises `FileNotFoundError` as it is, all else as our own."""
        for pause in (*_PAUSES, None):
            try:
                return work()
            except (FileNotFoundError, Gone):
                raise
            except Exception as error:  # each driver has exceptions of its own
                if pause is None or not _may_pass(error):
                    raise self._failed(verb, error) from error
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _upload(self, chunks: Iterable[Buffer], digest: str, size: int) -> bool:
        """Store bytes; False: another writer of the same bytes came in between, so it is to be looked at again."""
        fs, path = self._at(digest)
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
        if not protocols & _ATOMIC:
            self._patiently("written", lambda: _move_in(fs, path, chunks))
        elif size <= PART:
            whole = b"".join(chunks)
            self._patiently("written", lambda: fs.pipe_file(path, whole))
        elif (upload := self._patiently("written", lambda: upload_to(fs, path))) is not None:
            fs.invalidate_cache(path.rpartition("/")[0])  # what it lists will no longer be so
            return self._send_parts(upload, chunks, part_size(size))
        else:
            self._patiently("written", lambda: _write(fs, path, chunks))
        return True

    def _send_parts(self, upload: Upload, chunks: Iterable[Buffer], size: int) -> bool:
        """Each part is tried again by itself, so what was sent stays sent."""
        number = 0
        try:
            for number, part in enumerate(parts_of(chunks, size), 1):
                self._patiently("written", functools.partial(upload.put, number, part))
            self._patiently("written", lambda: upload.finish(number))
        except Gone:
            return False
        return True


def _write(fs: Any, path: str, chunks: Iterable[Buffer]) -> None:
    """Write a file that appears whole, when it is closed."""
    # Not as a context: closing an upload that failed in the middle would complete it.
    file = fs.open(path, "wb", block_size=PART)
    try:
        for chunk in chunks:
            file.write(chunk)
    except BaseException:
        file.discard()
        raise
    file.close()


def _move_in(fs: Any, path: str, chunks: Iterable[Buffer]) -> None:
    """Write a file beside its place, and move it in when it is whole."""
    beside = f"{path}.{uuid.uuid4().hex}.tmp"
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    try:
        with fs.open(beside, "wb", block_size=PART) as file:
            for chunk in chunks:
                file.write(chunk)
        fs.mv(beside, path)
    except BaseException:
        with suppress(OSError):  # it was not begun, or can't be reached: what went wrong is told, not that
            fs.rm_file(beside)
        raise


def _may_pass(error: BaseException) -> bool:
    """Whether trying again may help: the network and the server's troubles do, refusals and misuse don't."""
    if isinstance(error, PermissionError | ValueError | TypeError | ImportError | AttributeError):
        return False
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return False
    code = _answer_of(error)
    return not (isinstance(code, int) and 400 <= code < 500 and code not in (408, 429))


def _answer_of(error: BaseException | None) -> Any:
    """The HTTP status that a server answered with; drivers wrap such errors in others."""
    while error is not None:
        for name in ("code", "status_code", "status"):
            if isinstance(code := getattr(error, name, None), int):
                return code
        error = error.__cause__
    return None


def _failed(verb: str, where: Path | str, error: BaseException, told: str | None = None) -> KitaruStorageError:
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return KitaruStorageError(
            f"No space is left for the artifact store {where}. Nothing was written.",
            fix="free some space, or choose another place: KITARU_STORE=/path",
        )
    return KitaruStorageError(
        f"The artifact store {where} could not be {verb}: {type(error).__name__}: {told or error}",
        fix="make it readable and writable for this user, or choose another place: KITARU_STORE=/path",
    )


class VerifyingSource:
    """Reads stored bytes and hashes them on the way; a `protocol.Source`.

    Every method raises `KitaruStorageError` when the storage fails.
    """

    def __init__(self, file: Any, where: str) -> None:
        self._file = file
        self._where = where
        self._hasher = sha256()

    def read(self, size: int = -1, /) -> bytes:
        """As `protocol.Source.read`."""
        if size < 0:
            return b"".join(self._pieces())
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: self.readinto(memoryview(buffer))])

    def readinto(self, buffer: memoryview, /) -> int:
        """As `protocol.Source.readinto`."""
        done = 0
        while done < len(buffer):
            # Hashed in pieces that are still in the processor's cache.
            try:
                count = self._file.readinto(buffer[done : done + CHUNK])
            except Exception as error:  # each driver has exceptions of its own
                raise _failed("read", self._where, error) from error
            if not count:
                break
            self._hasher.update(buffer[done : done + count])
            done += count
        return done

    def _pieces(self) -> Iterator[bytes]:
        while True:
            try:
                piece = self._file.read(CHUNK)
            except Exception as error:
                raise _failed("read", self._where, error) from error
            if not piece:
                return
            self._hasher.update(piece)
            yield piece

    def copy_to(self, target: BinaryIO) -> None:
        """Write all bytes that are left to ``target``."""
        for piece in self._pieces():
            target.write(piece)

    def digest(self) -> str:
        """Of all bytes, those that nobody has read yet included."""
        for _ in self._pieces():
            pass
        return self._hasher.hexdigest()
