"""The artifact store: any value in, one `Artifact` out, and exactly that value back.

store = ArtifactStore("artifacts")
artifact = store.write({"score": 0.9}, name="result")
store.read(artifact)
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from hashlib import sha256
from typing import Any, BinaryIO, Literal

from kitaru_nb.artifacts import denylist
from kitaru_nb.artifacts.blobs import VerifyingSource, blobs_at
from kitaru_nb.artifacts.preview import preview, small_preview
from kitaru_nb.artifacts.protocol import CHUNK, Dumped, Serializer, Streaming, Unfit, Unreadable
from kitaru_nb.artifacts.serializers import BYTES, JSON, PICKLES, TEXT, candidates, has_custom_first, serializer_named
from kitaru_nb.config import DEFAULT_INLINE_MAX_BYTES, shown
from kitaru_nb.errors import (
    KitaruArtifactError,
    KitaruBackendError,
    KitaruSerializationError,
    KitaruStorageError,
    KitaruUsageError,
)
from kitaru_nb.model import Artifact

# Below this a value of JSON types is small enough for its whole repr.
_SMALL = 1_000
# Up to here bytes are hashed before they are written, so that what is stored already costs nothing.
_HASH_FIRST = CHUNK
_PLAIN: frozenset[type] = frozenset({int, float, bool, type(None), list, dict, tuple, set})
_QUICK: dict[type, Serializer] = {**dict.fromkeys(_PLAIN, JSON), str: TEXT, bytes: BYTES}
#: What reads a small value without looking at anything but its bytes.
_PLAIN_LOADS = {chosen.name: chosen.load for chosen in (JSON, TEXT, BYTES)}
_EMPTY = sha256()
_TYPE_NAMES = {kind: f"builtins.{kind.__name__}" for kind in _QUICK}


class ArtifactStore:
    """Values under the digest of their bytes; small ones stay in the `Artifact` itself. Safe to use from threads.

    Args:
        url: a folder, or any URL of fsspec (``file://``, ``memory://``, ``s3://`` …).
        inline_max_bytes: up to this size the bytes are `Artifact.data`; 0 sends all to the store.
        trust_pickle: whether pickled values may be loaded; loading them can run any code.
        durability: ``power``: what was written survives power loss; ``process``: only the death of processes.
    """

    def __init__(
        self,
        url: str,
        *,
        inline_max_bytes: int = DEFAULT_INLINE_MAX_BYTES,
        trust_pickle: bool = True,
        durability: Literal["power", "process"] = "power",
    ) -> None:
        self.url = url
        self._where = shown(url)
        self.inline_max_bytes = inline_max_bytes
        self.trust_pickle = trust_pickle
        self._blobs = blobs_at(url, flush=durability == "power")

    def write(
        self,
        value: Any,
        *,
        name: str,
        kind: str = "output",
        artifact_id: str = "",
        exec_id: str = "",
        producing_call: str | None = None,
        names: tuple[str, ...] = (),
        serializer: str | None = None,
    ) -> Artifact:
        """Persist a value. Its bytes are in the store, or in `Artifact.data`, before this returns.

        Args:
            artifact_id: made of the other ids when empty.
            serializer: use this one alone instead of choosing by type.

        Raises:
            KitaruSerializationError: the value can't be persisted; says which part of it, and what to do.
            KitaruUsageError: there is no such serializer.
            KitaruStorageError: the store can't be written; nothing half-written is left.
        """
        chosen, dumped = _dump(value, serializer, name)
        cls = type(value)
        if type(dumped) is bytes:
            size = len(dumped)
            digest = hexdigest(dumped)
            token = f"{chosen.name}:{digest}" if chosen.canonical else None
            data = self._keep_small(dumped, digest, size)
        else:
            assert isinstance(dumped, Dumped)
            size = dumped.size
            data, digest, token = self._keep(chosen, dumped)
        small = size <= _SMALL and cls in _PLAIN and chosen is JSON
        return Artifact(
            artifact_id or f"{exec_id}/{producing_call or ''}/{name}",
            name,
            kind,
            chosen.name,
            _TYPE_NAMES.get(cls) or f"{cls.__module__}.{cls.__qualname__}",
            chosen.media_type,
            digest,
            size,
            token,
            small_preview(value) if small else preview(value),
            data,
            names,
            exec_id,
            producing_call,
        )

    def _keep_small(self, data: bytes, digest: str, size: int) -> bytes | None:
        if size <= self.inline_max_bytes:
            return data
        self._blobs.put((data,), digest)
        return None

    def _keep(self, chosen: Serializer, dumped: Dumped) -> tuple[bytes | None, str, str | None]:
        data = None
        if dumped.size <= max(self.inline_max_bytes, _HASH_FIRST):
            whole = b"".join(dumped.chunks)
            digest = hexdigest(whole)
            data = self._keep_small(whole, digest, len(whole))
        else:
            digest = self._blobs.put(dumped.chunks, None)
        if not dumped.canonical:
            return data, digest, None
        identity = digest if dumped.identity is None else hexdigest(dumped.identity)
        return data, digest, f"{chosen.name}:{identity}"

    def token(self, value: Any) -> str | None:
        """Identity of a value: equal for equal values, different for different ones, None where that can't be exact.

        It is the token of the artifact that this value would be written as. Nothing is stored. A value that can't be
        persisted has none. Raises `KitaruSerializationError` only when a registered serializer fails.
        """
        found = _chosen(value, for_token=True)
        if found is None:
            return None
        chosen, dumped = found
        if type(dumped) is bytes:
            return f"{chosen.name}:{hexdigest(dumped)}" if chosen.canonical else None
        assert isinstance(dumped, Dumped)
        if not dumped.canonical:
            return None
        hasher = sha256()
        for chunk in (dumped.identity,) if dumped.identity is not None else dumped.chunks:
            hasher.update(chunk)
        return f"{chosen.name}:{hasher.hexdigest()}"

    def read(self, artifact: Artifact) -> Any:
        """The value, new at each call. Its bytes are verified first, or while they are read.

        Raises:
            KitaruArtifactError: the bytes are missing or damaged, may not be loaded here (a pickle from a store that
                isn't trusted), or no longer give a value (a class is gone or has changed).
            KitaruStorageError: the store can't be read.
        """
        try:
            chosen = serializer_named(artifact.serializer)
        except KitaruUsageError as error:
            raise _bad(
                artifact, f"was written by a serializer that isn't registered: {error.message}", error.fix
            ) from error
        if chosen.executes and not self.trust_pickle:
            raise _bad(
                artifact,
                "is a pickle, and loading one can run any code; this store isn't trusted",
                "KITARU_TRUST_PICKLE=true  # if you trust all who can write to the store",
            )
        try:
            if artifact.data is None and isinstance(chosen, Streaming):
                return self._read_stream(artifact, chosen)
            return chosen.load(self.read_bytes(artifact))
        except KitaruBackendError:
            raise
        except Unreadable as error:
            raise _bad(artifact, f"can't be loaded: {error}", "load it with the code that wrote it") from error
        except Exception as error:  # a pickle, or a serializer of a user, may raise anything
            raise _bad(
                artifact,
                f"({artifact.python_type}, {artifact.serializer}) can't be loaded: {type(error).__name__}: {error}",
                "import or run what defines its classes, in the version that wrote it",
            ) from error

    def read_inline(self, serializer: str, digest: str, data: bytes, *, artifact: Callable[[], Artifact]) -> Any:
        """`read` of ``artifact()``, whose inline bytes are ``data``; the artifact is made only where it is needed."""
        load = _PLAIN_LOADS.get(serializer)
        if load is None or hexdigest(data) != digest:
            return self.read(artifact())
        try:
            return load(data)
        except Exception:
            return self.read(artifact())  # says what is wrong, and with which artifact

    def _read_stream(self, artifact: Artifact, chosen: Streaming) -> Any:
        with self._open(artifact) as file:
            source = VerifyingSource(file, self._where)
            try:
                value = chosen.load_from(source, artifact.size)
            except KitaruStorageError:
                raise  # what wasn't read can't be told from what is damaged
            except Exception:
                self._verify(source, artifact)  # damaged bytes explain any failure
                raise
            self._verify(source, artifact)
            return value

    def read_bytes(self, artifact: Artifact) -> bytes:
        """The stored bytes, verified. Raises `KitaruArtifactError`."""
        data = artifact.data
        if data is not None:
            if hexdigest(data) != artifact.digest:
                raise _damaged(artifact, "the journal")
            return data
        with self._open(artifact) as file:
            source = VerifyingSource(file, self._where)
            data = source.read()
            self._verify(source, artifact)
        return data

    def open(self, artifact: Artifact) -> BinaryIO:
        """The stored bytes as a file at its beginning, already verified. The caller closes it."""
        if artifact.data is not None:
            return io.BytesIO(self.read_bytes(artifact))
        file = self._open(artifact)
        local = isinstance(file, io.FileIO)  # one that costs little to read twice
        target: Any = file if local else tempfile.SpooledTemporaryFile(max_size=8 * CHUNK)  # noqa: SIM115 - it is returned
        try:
            source = VerifyingSource(file, self._where)
            if not local:
                source.copy_to(target)
            self._verify(source, artifact)
            target.seek(0)
        except BaseException:
            target.close()
            raise
        finally:
            if not local:
                file.close()
        return target  # type: ignore[no-any-return]

    def _verify(self, source: VerifyingSource, artifact: Artifact) -> None:
        if source.digest() != artifact.digest:
            raise _damaged(artifact, self._blobs.location(artifact.digest))

    def _open(self, artifact: Artifact) -> BinaryIO:
        try:
            return self._blobs.open(artifact.digest)
        except FileNotFoundError as error:
            where = self._blobs.location(artifact.digest)
            raise _bad(
                artifact, f"is missing from the store: there is no {where}", "restore it from a backup"
            ) from error

    def exists(self, digest: str) -> bool:
        """Whether the store holds bytes under this digest."""
        return self._blobs.size(digest) is not None

    def location(self, digest: str) -> str:
        """Path or URL of the bytes with this digest, whether or not they exist."""
        return self._blobs.location(digest)


def hexdigest(data: bytes) -> str:
    """SHA-256 of some bytes. For a few bytes, copying a hash object takes half the time of making one."""
    hasher = _EMPTY.copy()
    hasher.update(data)
    return hasher.hexdigest()


def _dump(value: Any, named: str | None, name: str) -> tuple[Serializer, bytes | Dumped]:
    if named is not None:
        chosen = serializer_named(named)
        dumped = _try(chosen, value)
        if dumped is None:
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            raise KitaruSerializationError(
                f"The serializer {named!r} can't hold {name}, a {kind}, exactly.",
                fix="leave serializer= out, so that one is chosen by type",
            )
        return chosen, dumped
    return _chosen(value) or _pickled(value, name)


def _chosen(value: Any, *, for_token: bool = False) -> tuple[Serializer, bytes | Dumped] | None:
    """The first serializer before pickle that takes the value. None when there is none, or its type is refused."""
    quick = _QUICK.get(type(value))
    if quick is not None and not has_custom_first():
        try:
            return quick, quick.dump(value)
        except Unfit:
            pass  # asked again below, where a bundle or pickle follows
    elif denylist.reason(type(value)):
        return None
    for chosen in candidates(value):
        if for_token and chosen.executes and not chosen.canonical:
            return None
        dumped = _try(chosen, value)
        if dumped is not None:
            return chosen, dumped
    return None


def _try(chosen: Serializer, value: Any) -> bytes | Dumped | None:
    try:
        return chosen.dump(value) if chosen.accepts(value) else None
    except Unfit:
        return None
    except Exception as error:  # a serializer of a user may raise anything
        raise KitaruSerializationError(
            f"The serializer {chosen.name!r} failed on a {type(value).__qualname__}: {type(error).__name__}: {error}",
            fix="raise Unfit in its dump for values that it can't hold",
        ) from error


def _pickled(value: Any, name: str) -> tuple[Serializer, bytes | Dumped]:
    if finding := denylist.find(value):
        raise _refused(name, finding.path, finding.reason.what, finding.reason.fix)
    why = ""
    for chosen in PICKLES:
        try:
            return chosen, chosen.dump(value)
        except Unfit as error:
            why = str(error)
    path, part = denylist.blame(value, _pickles)
    what = f"a {type(part).__module__}.{type(part).__qualname__} that can't be pickled ({why})"
    raise _refused(name, path, what, "keep the data that it is made from, and make it again where it is used")


def _pickles(value: Any) -> bool:
    for chosen in PICKLES:
        try:
            chosen.dump(value)
        except Unfit:
            continue
        return True
    return False


def _refused(name: str, path: str, what: str, fix: str) -> KitaruSerializationError:
    return KitaruSerializationError(f"{name} can't be persisted: {path or name} is {what}.", fix=fix)


def _title(artifact: Artifact) -> str:
    return f"Artifact {artifact.artifact_id} ({artifact.name}, digest {artifact.digest[:12]}…)"


def _bad(artifact: Artifact, problem: str, fix: str | None) -> KitaruArtifactError:
    return KitaruArtifactError(f"{_title(artifact)} {problem}.", fix=fix)


def _damaged(artifact: Artifact, where: str) -> KitaruArtifactError:
    return _bad(artifact, f"is damaged: the bytes in {where} don't have its digest", "restore it from a backup")
