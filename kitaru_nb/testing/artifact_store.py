"""What every artifact store must do. Subclass it in three lines:

class TestMyStore(ArtifactStoreContract):
    def make_store(self, folder, **options):
        return ArtifactStore("my://bucket", **options)
"""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict, deque
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

import pytest

from kitaru_nb.artifacts import ArtifactStore
from kitaru_nb.artifacts.exact_json import encode
from kitaru_nb.errors import KitaruArtifactError, KitaruError, KitaruSerializationError
from kitaru_nb.model import Artifact


class Level(Enum):
    """A member of the contract's values."""

    LOW = 1
    HIGH = "high"


@dataclasses.dataclass
class Note:
    """A dataclass among the contract's values."""

    text: str
    tags: Any = None


VALUES: dict[str, Any] = {
    "none": None,
    "bool": True,
    "int": 1,
    "big int": -(10**5000),
    "float": -0.0,
    "text": "naïve — 日本語",
    "lone surrogate": ["\ud83d\ude00"],
    "bytes": b"\x00\xff",
    "nested": {"b": [1, 1.0, True, None], "a": ({"$": "tuple", "v": [1]}, {1: "one", None: "none"})},
    "sets": {frozenset({1, 2}), frozenset({"a"})},
    "numbers": [1j, Decimal("1.50"), Fraction(1, 3), float("inf")],
    "times": [datetime(2024, 1, 2, 3, tzinfo=timezone(timedelta(hours=1), "X")), timedelta(-1, 2, 3)],
    "containers": [OrderedDict(b=1, a=2), deque([1], 3), range(3), slice(1, None)],
    "names": [UUID(int=5), PurePosixPath("a/b"), Level.HIGH],
    "dataclass": Note("hi", tags=[Note("inner")]),
    "long text": "x" * 50_000,
    "long bytes": bytes(range(256)) * 500,
}


class ArtifactStoreContract:
    """Behaviour that callers of `ArtifactStore` rely on, wherever the bytes are kept."""

    def make_store(self, folder: Path, **options: Any) -> ArtifactStore:
        """An empty store; each call with the same folder gives another handle on the same data."""
        raise NotImplementedError

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """What tells this test's data from those of others."""
        return tmp_path

    @pytest.mark.parametrize("label", VALUES)
    def test_a_value_comes_back_exactly(self, folder: Path, label: str) -> None:
        """Value, types and order, from another handle."""
        artifact = self.make_store(folder).write(VALUES[label], name="v")
        again = self.make_store(folder).read(artifact)
        assert again == VALUES[label]
        assert type(again) is type(VALUES[label])
        assert encode(again) == encode(VALUES[label])

    @pytest.mark.parametrize("label", VALUES)
    def test_the_token_of_a_value_is_that_of_its_artifact(self, folder: Path, label: str) -> None:
        """Before writing, after reading, and in the artifact."""
        store = self.make_store(folder)
        artifact = store.write(VALUES[label], name="v")
        assert artifact.token is not None
        assert artifact.token == store.token(VALUES[label]) == store.token(store.read(artifact))

    def test_values_that_differ_have_different_tokens(self, folder: Path) -> None:
        """Also those that Python calls equal: ``1``, ``True`` and ``1.0``."""
        store = self.make_store(folder)
        alike = [1, True, 1.0, "1", b"1", [1], (1,), {1}, {"1": 1}, {1: 1}, Decimal(1), Fraction(1), 1 + 0j, "true"]
        assert len({store.token(value) for value in alike}) == len(alike)
        assert store.token({"a": 1, "b": 2}) != store.token({"b": 2, "a": 1})

    def test_digest_and_size_are_those_of_the_stored_bytes(self, folder: Path) -> None:
        """Whether inline or not."""
        store = self.make_store(folder)
        for value in ("small", "x" * 50_000):
            artifact = store.write(value, name="v")
            data = store.read_bytes(artifact)
            assert (artifact.digest, artifact.size) == (sha256(data).hexdigest(), len(data))
            with store.open(artifact) as file:
                assert file.read() == data

    def test_bytes_are_in_the_artifact_or_in_the_store(self, folder: Path) -> None:
        """Never in neither."""
        for limit in (0, 16384):
            store = self.make_store(folder, inline_max_bytes=limit)
            for value in ("", "x" * 20_000):
                artifact = store.write(value, name="v")
                inline = artifact.size <= limit
                assert (artifact.data is not None) == inline
                assert inline or store.exists(artifact.digest)

    def test_an_unknown_digest_doesnt_exist(self, folder: Path) -> None:
        """Also in a store that nobody has written to."""
        assert not self.make_store(folder).exists("0" * 64)

    @pytest.mark.parametrize(
        "value", ["x" * 50_000, {"a": "x" * 50_000}, b"x" * 3_000_000], ids=["text", "json", "big"]
    )
    def test_damaged_bytes_are_never_a_value(self, folder: Path, value: Any) -> None:
        """One flipped bit, a lost end, or other bytes: the error names the artifact."""
        store = self.make_store(folder)
        artifact = store.write(value, name="report", exec_id="kr-1")
        data = store.read_bytes(artifact)
        for damaged in (bytes([data[0] ^ 1]) + data[1:], data[:-1], b"", data + b"\n"):
            bad = self.damage(store, artifact, damaged)
            for read in (store.read, store.read_bytes, store.open):
                with pytest.raises(KitaruArtifactError, match=r"kr-1//report .*damaged"):
                    read(bad)

    def damage(self, store: ArtifactStore, artifact: Artifact, data: bytes) -> Artifact:
        """Replace the stored bytes; return the artifact to read."""
        if artifact.data is not None:
            return dataclasses.replace(artifact, data=data)
        import fsspec

        with fsspec.open(store.location(artifact.digest), "wb") as file:
            file.write(data)
        return artifact

    def test_missing_bytes_are_named(self, folder: Path) -> None:
        """The artifact and the place where they should be."""
        store = self.make_store(folder, inline_max_bytes=0)
        artifact = dataclasses.replace(store.write("text", name="answer"), digest="0" * 64)
        for read in (store.read, store.read_bytes, store.open):
            with pytest.raises(KitaruArtifactError, match=r"answer.*missing"):
                read(artifact)

    def test_equal_bytes_are_stored_once(self, folder: Path) -> None:
        """And may be written by several threads at a time."""
        store = self.make_store(folder, inline_max_bytes=0)
        text = "y" * 2_000_000
        found: list[Artifact] = []
        threads = [threading.Thread(target=lambda: found.append(store.write(text, name="v"))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({artifact.digest for artifact in found}) == 1
        assert all(store.read(artifact) == text for artifact in found)

    def test_a_pickle_is_loaded_only_from_a_trusted_store(self, folder: Path) -> None:
        """Everything else is."""
        trusted, careful = self.make_store(folder), self.make_store(folder, trust_pickle=False)
        artifact = trusted.write(ValueError("why"), name="error")
        assert (artifact.serializer, artifact.token) == ("pickle", None)
        assert repr(trusted.read(artifact)) == "ValueError('why')"
        with pytest.raises(KitaruArtifactError, match="trusted"):
            careful.read(artifact)
        assert careful.read(trusted.write([1], name="list")) == [1]

    def test_what_lives_in_one_process_is_refused_and_leaves_nothing(self, folder: Path) -> None:
        """The error says where it is."""
        store = self.make_store(folder, inline_max_bytes=0)
        with pytest.raises(KitaruSerializationError, match=r"\['lock'\] is a threading\.lock") as caught:
            store.write({"text": "x", "lock": threading.Lock()}, name="state")
        assert isinstance(caught.value, KitaruError)
        assert caught.value.fix
