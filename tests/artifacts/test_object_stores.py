"""The artifact store in buckets: S3, Google Cloud Storage and Azure Blob Storage, each against a real server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import fsspec
import numpy as np
import pytest

from kitaru_nb.artifacts import ArtifactStore
from kitaru_nb.errors import KitaruBackendError
from kitaru_nb.model import Artifact
from kitaru_nb.testing.artifact_store import ArtifactStoreContract
from tests.artifacts import stand_ins

# Sessions of the drivers' event loops are closed when the interpreter ends.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class ObjectStoreContract(ArtifactStoreContract):
    """What holds in a bucket, beside what holds everywhere."""

    serve: ClassVar[Any]
    losses = 3

    @pytest.fixture(scope="class")
    @classmethod
    def bucket(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[stand_ins.Bucket]:
        with environment_restored(), cls.serve(tmp_path_factory.mktemp("server")) as found:
            os.environ.update(found.environment)
            fsspec_forgets()
            yield found

    @pytest.fixture(autouse=True)
    def _bucket(self, bucket: stand_ins.Bucket) -> None:
        type(self).url = bucket.url

    url: ClassVar[str]

    def make_store(self, folder: Path, **options: Any) -> ArtifactStore:
        return ArtifactStore(f"{self.url}/{folder.name}", **{"inline_max_bytes": 0, **options})

    def damage(self, store: ArtifactStore, artifact: Artifact, data: bytes) -> Artifact:
        damaged = super().damage(store, artifact, data)
        fsspec.core.url_to_fs(store.url)[0].invalidate_cache()
        return damaged

    def test_large_values_go_up_in_parts_and_come_back(self, folder: Path) -> None:
        store = self.make_store(folder)
        array = np.random.default_rng(1).integers(0, 255, 40_000_000, dtype=np.uint8)
        artifact = store.write(array, name="array")
        assert np.array_equal(self.make_store(folder).read(artifact), array)

    def test_many_writers_at_once(self, folder: Path) -> None:
        store = self.make_store(folder)
        with ThreadPoolExecutor(8) as pool:
            artifacts = list(pool.map(lambda n: store.write(f"text {n % 10} " * 5_000, name="v"), range(40)))
        assert len({a.digest for a in artifacts}) == 10
        assert all(store.read(a) == f"text {n % 10} " * 5_000 for n, a in enumerate(artifacts))

    def test_a_lost_connection_is_tried_again(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with self.through_a_flaky_network(monkeypatch) as network:
            store = self.make_store(folder)
            network.failures = self.losses
            artifact = store.write("x" * 50_000, name="v")
            network.failures = self.losses
            assert store.read(artifact) == "x" * 50_000
            assert network.failures == 0

    def test_a_writer_that_is_killed_leaves_nothing_and_the_next_one_completes(self, folder: Path) -> None:
        url = f"{self.url}/{folder.name}"
        program = (
            "import os, sys, numpy as np\n"
            "from kitaru_nb.artifacts import ArtifactStore\n"
            "array = np.random.default_rng(2).integers(0, 255, 24_000_000, dtype=np.uint8)\n"
            "print('begin', flush=True)\n"
            f"print(ArtifactStore({url!r}, inline_max_bytes=0).write(array, name='v').digest, flush=True)\n"
        )
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.1)
            os.kill(writer.pid, signal.SIGKILL)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        digest = done.stdout.split()[1]
        fs, path = fsspec.core.url_to_fs(f"{url}/{digest[:2]}")
        fs.invalidate_cache()
        assert [found.rpartition("/")[2] for found in fs.ls(path, detail=False)] == [digest]
        assert self.make_store(folder).exists(digest)

    def through_a_flaky_network(self, monkeypatch: pytest.MonkeyPatch) -> AbstractContextManager[FlakyNetwork]:
        """The server, behind a network that loses connections."""
        raise NotImplementedError


class TestS3(ObjectStoreContract):
    serve = staticmethod(stand_ins.s3)

    @contextmanager
    def through_a_flaky_network(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyNetwork]:
        with FlakyNetwork(os.environ["AWS_ENDPOINT_URL"]) as network:
            monkeypatch.setenv("AWS_ENDPOINT_URL", network.url)
            fsspec_forgets()
            yield network
        fsspec_forgets()

    def test_wrong_credentials_are_told_at_once(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-key")
        fsspec_forgets()
        began = time.monotonic()
        with pytest.raises(KitaruBackendError, match=r"s3://kitaru.* could not be .*PermissionError"):
            self.make_store(folder).write("x" * 50_000, name="v")
        assert time.monotonic() - began < 5
        fsspec_forgets()

    def test_credentials_are_never_in_the_journal(self, folder: Path) -> None:
        program = (
            "from kitaru_nb import flow, checkpoint\n"
            "@checkpoint\n"
            "def big() -> str: return 'y' * 100_000\n"
            "@flow\n"
            "def run() -> int: return len(big())\n"
            "if __name__ == '__main__': print(run.run().wait())\n"
        )
        (folder / "program.py").write_text(program)
        home = folder / "home"
        environment = os.environ | {"KITARU_HOME": str(home), "KITARU_STORE": f"{self.url}/{folder.name}"}
        environment |= {"KITARU_INLINE_MAX_BYTES": "0"}
        done = subprocess.run(
            [sys.executable, "program.py"], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert (done.stdout.strip(), done.returncode) == ("100000", 0), done.stderr
        kept = b"".join(p.read_bytes() for p in home.rglob("*") if p.is_file())
        assert b"checkpoint.completed" in kept
        assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in kept
        assert b"y" * 5_000 not in kept  # beside its preview a value is in the bucket alone


class TestGoogle(ObjectStoreContract):
    serve = staticmethod(stand_ins.google)

    @contextmanager
    def through_a_flaky_network(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyNetwork]:
        with FlakyNetwork(os.environ["STORAGE_EMULATOR_HOST"]) as network:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", network.url)
            fsspec_forgets()
            yield network
        fsspec_forgets()

    def test_a_bucket_that_is_not_there_is_named(self) -> None:
        check_a_missing_bucket(self.url)


class TestAzure(ObjectStoreContract):
    serve = staticmethod(stand_ins.azure)
    losses = 1  # Azure's own client waits 15 s before it tries again

    @contextmanager
    def through_a_flaky_network(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyNetwork]:
        connection = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
        endpoint = next(part for part in connection.split(";") if part.startswith("BlobEndpoint=")).partition("=")[2]
        with FlakyNetwork(endpoint) as network:
            changed = connection.replace(f"http://{urlsplit(endpoint).netloc}", network.url)
            monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", changed)
            fsspec_forgets()
            yield network
        fsspec_forgets()

    def test_a_bucket_that_is_not_there_is_named(self) -> None:
        check_a_missing_bucket(self.url)


def check_a_missing_bucket(url: str) -> None:
    """SeaweedFS can't show this: it makes the buckets that an administrator writes to."""
    store = ArtifactStore(f"{url}-nowhere/x", inline_max_bytes=0)
    with pytest.raises(KitaruBackendError, match=r"kitaru-nowhere/x could not be written") as caught:
        store.write("x" * 50_000, name="v")
    assert caught.value.fix


class FlakyNetwork:
    """A port that leads to a server, and breaks the next ``failures`` connections."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.failures = 0
        self._open: list[socket.socket] = []

    def __enter__(self) -> FlakyNetwork:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # the end
            if self.failures > 0:
                self.failures -= 1
                client.recv(1000)  # the request begins, and is cut off
                client.close()
                continue
            server = socket.create_connection(self._target)
            self._open += [client, server]
            threading.Thread(target=self._copy, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, False), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, cut: bool) -> None:
        try:
            while data := source.recv(65536):
                if cut and self.failures > 0:  # a kept connection breaks too
                    self.failures -= 1
                    break
                target.sendall(data)
        except OSError:
            pass  # the other side has gone
        finally:
            for end in (source, target):
                end.close()


@contextmanager
def environment_restored() -> Iterator[None]:
    """The environment is afterwards as it was."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def fsspec_forgets() -> None:
    """Drivers read the environment when they are made, and are kept."""
    for scheme in ("s3", "gs", "az"):
        fsspec.get_filesystem_class(scheme).clear_instance_cache()
