"""The artifact store in buckets: S3, Google Cloud Storage and Azure Blob Storage, each against a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import fsspec
import pytest

from kitaru_nb import checkpoint, flow
from kitaru_nb.artifacts import ArtifactStore
from kitaru_nb.artifacts.parts import PART
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruStorageError
from kitaru_nb.model import Artifact, ExecutionStatus
from kitaru_nb.testing.artifact_store import ArtifactStoreContract
from tests.artifacts import stand_ins
from tests.artifacts.flaky import FlakyNetwork, numbered_bytes

# Sessions of the drivers' event loops are closed when the interpreter ends.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[stand_ins.Bucket]]]:
    """A bucket of each kind; their servers start side by side."""
    servers = {"google": stand_ins.google, "azure": stand_ins.azure, "s3": stand_ins.s3}  # the slowest is used last
    with environment_restored(), ExitStack() as stack, ThreadPoolExecutor() as pool:
        yield {
            kind: pool.submit(stack.enter_context, serve(tmp_path_factory.mktemp(kind)))
            for kind, serve in servers.items()
        }


class ObjectStoreContract(ArtifactStoreContract):
    """What holds in a bucket, beside what holds everywhere.

    Attributes:
        resumes: whether an upload that broke is gone on with, part by part.
        size: bytes of a large value.
    """

    kind: ClassVar[str]
    losses = 3
    resumes = True
    size = 32_000_000

    @pytest.fixture(scope="class")
    @classmethod
    def bucket(cls, buckets: dict[str, Future[stand_ins.Bucket]]) -> stand_ins.Bucket:
        found = buckets[cls.kind].result()
        os.environ.update(found.environment)
        fsspec_forgets()
        return found

    # How values become bytes has nothing to do with where the bytes are: of each shape one.

    @pytest.mark.parametrize("label", ["none", "nested", "long text", "long bytes"])
    def test_a_value_comes_back_exactly(self, folder: Path, label: str) -> None:
        super().test_a_value_comes_back_exactly(folder, label)

    @pytest.mark.parametrize("label", ["nested", "long bytes"])
    def test_the_token_of_a_value_is_that_of_its_artifact(self, folder: Path, label: str) -> None:
        super().test_the_token_of_a_value_is_that_of_its_artifact(folder, label)

    @pytest.mark.parametrize("value", [b"x" * 3_000_000], ids=["big"])
    def test_damaged_bytes_are_never_a_value(self, folder: Path, value: Any) -> None:
        super().test_damaged_bytes_are_never_a_value(folder, value)

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

    def test_many_writers_at_once(self, folder: Path) -> None:
        store = self.make_store(folder)
        with ThreadPoolExecutor(8) as pool:
            artifacts = list(pool.map(lambda n: store.write(f"text {n % 5} " * 5_000, name="v"), range(16)))
        assert len({a.digest for a in artifacts}) == 5
        assert all(store.read(a) == f"text {n % 5} " * 5_000 for n, a in enumerate(artifacts))

    def test_a_lost_connection_is_tried_again(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with self.through_a_flaky_network(monkeypatch) as network:
            store = self.make_store(folder)
            network.failures = self.losses
            artifact = store.write("x" * 50_000, name="v")
            network.failures = self.losses
            assert store.read(artifact) == "x" * 50_000
            assert network.failures == 0

    def test_a_large_upload_that_breaks_goes_on(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the middle of a part, more than once: no part that arrived is sent twice."""
        value = numbered_bytes(self.size, seed=3)
        with self.through_a_flaky_network(monkeypatch) as network:
            breaks = [at * self.size for at in ((0.3, 0.8) if self.resumes else (0.5,))]

            def break_down(sent: int) -> None:
                if breaks and sent > breaks[0]:
                    network.failures += 1
                    breaks.pop(0)

            network.on_sent = break_down
            artifact = self.make_store(folder).write(value, name="v")
            assert breaks == []
            again = network.sent - self.size
            assert again < 2 * PART + 1_000_000 if self.resumes else again < 1.5 * self.size
        assert self.make_store(folder).read(artifact) == value
        assert self.objects(folder) == [artifact.digest]

    def test_what_a_killed_writer_sent_is_gone_on_with_by_the_next_one(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Meanwhile there is no object, not even a part of one."""
        size = 28_000_000
        program = (
            "from kitaru_nb.artifacts import ArtifactStore\n"
            "from tests.artifacts.flaky import numbered_bytes\n"
            f"store = ArtifactStore({f'{self.url}/{folder.name}'!r}, inline_max_bytes=0)\n"
            f"store.write(numbered_bytes({size}, seed=2), name='v')\n"
        )
        with self.through_a_flaky_network(monkeypatch) as network:
            far, killed = threading.Event(), threading.Event()

            def hold(sent: int) -> None:
                if sent > 0.7 * size:
                    far.set()
                    killed.wait(60)  # what is behind the network never hears the end

            network.on_sent = hold
            environment = os.environ | {"PYTHONPATH": os.getcwd()}
            with subprocess.Popen([sys.executable, "-c", program], env=environment) as writer:
                assert far.wait(60)
                os.kill(writer.pid, signal.SIGKILL)
            killed.set()
            assert self.objects(folder) == []
            sent, network.on_sent = network.sent, lambda _: None
            artifact = self.make_store(folder).write(numbered_bytes(size, seed=2), name="v")
            again = network.sent - sent
            assert again < 0.7 * size if self.resumes else again > size
        assert self.objects(folder) == [artifact.digest]
        assert self.make_store(folder).read(artifact) == numbered_bytes(size, seed=2)

    def test_two_writers_of_one_large_value_do_not_disturb_each_other(self, folder: Path) -> None:
        value = numbered_bytes(20_000_000, seed=4)
        with ThreadPoolExecutor(2) as pool:
            one, other = pool.map(lambda _: self.make_store(folder).write(value, name="v"), range(2))
        assert one.digest == other.digest
        assert self.make_store(folder).read(one) == value

    def objects(self, folder: Path) -> list[str]:
        """Names of all objects of this test."""
        fs, path = fsspec.core.url_to_fs(f"{self.url}/{folder.name}")
        fs.invalidate_cache()
        return [found.rpartition("/")[2] for found in fs.find(path)]

    def through_a_flaky_network(self, monkeypatch: pytest.MonkeyPatch) -> AbstractContextManager[FlakyNetwork]:
        """The server, behind a network that loses connections."""
        raise NotImplementedError


class TestGoogle(ObjectStoreContract):
    kind = "google"
    resumes = False  # an upload belongs to the process that began it

    @contextmanager
    def through_a_flaky_network(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyNetwork]:
        with FlakyNetwork(os.environ["STORAGE_EMULATOR_HOST"]) as network, monkeypatch.context() as patched:
            patched.setenv("STORAGE_EMULATOR_HOST", network.url)
            fsspec_forgets()
            yield network
        fsspec_forgets()

    def test_a_bucket_that_is_not_there_is_named(self) -> None:
        check_a_missing_bucket(self.url)


class TestAzure(ObjectStoreContract):
    kind = "azure"
    losses = 1  # Azure's own client waits 15 s before it tries again

    @contextmanager
    def through_a_flaky_network(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyNetwork]:
        connection = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
        endpoint = next(part for part in connection.split(";") if part.startswith("BlobEndpoint=")).partition("=")[2]
        with FlakyNetwork(endpoint) as network, monkeypatch.context() as patched:
            changed = connection.replace(f"http://{urlsplit(endpoint).netloc}", network.url)
            patched.setenv("AZURE_STORAGE_CONNECTION_STRING", changed)
            fsspec_forgets()
            yield network
        fsspec_forgets()

    def test_a_bucket_that_is_not_there_is_named(self) -> None:
        check_a_missing_bucket(self.url)


class TestS3(ObjectStoreContract):
    kind = "s3"
    size = 70_000_000

    @contextmanager
    def through_a_flaky_network(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyNetwork]:
        with FlakyNetwork(os.environ["AWS_ENDPOINT_URL"]) as network, monkeypatch.context() as patched:
            patched.setenv("AWS_ENDPOINT_URL", network.url)
            fsspec_forgets()
            yield network
        fsspec_forgets()

    def test_wrong_credentials_are_told_at_once(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-key")
        with self.through_a_flaky_network(monkeypatch) as network:
            with pytest.raises(KitaruBackendError, match=r"s3://kitaru.* could not be .*PermissionError"):
                self.make_store(folder).write("x" * 50_000, name="v")
            assert 0 < network.sent < 2000  # one request, which was refused

    def test_a_flow_goes_on_when_its_bucket_is_back(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing failed meanwhile, and what was finished isn't done again."""
        monkeypatch.setattr("kitaru_nb.artifacts.blobs._PAUSES", (0.01,))
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # by itself the driver would try for a minute
        monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
        ran = []

        @checkpoint
        def draft(word: str) -> str:
            ran.append(word)
            network.failures = 1000 * (len(ran) == 2)
            return word * 10_000

        @flow
        def report() -> int:
            return len(draft("one")) + len(draft("two"))

        with self.through_a_flaky_network(monkeypatch) as network:
            settings = Settings(folder / "home", store=f"{self.url}/{folder.name}", inline_max_bytes=0)
            runtime = Runtime(settings)
            exec_id = create_execution(runtime, report, {}).exec_id
            outcome = advance(runtime, exec_id, report, poll_seconds=0.0)
            assert outcome.status is ExecutionStatus.INTERRUPTED
            assert isinstance(outcome.error, KitaruStorageError)
            network.failures = 0
            assert advance(runtime, exec_id, report, poll_seconds=0.0).value == 60_000
            assert ran == ["one", "two", "two"]
            kinds = {event.kind for event in runtime.journal.history(exec_id)}
            assert not {"execution.failed", "checkpoint.failed"} & kinds
            runtime.journal.close()

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


def check_a_missing_bucket(url: str) -> None:
    """SeaweedFS can't show this: it makes the buckets that an administrator writes to."""
    store = ArtifactStore(f"{url}-nowhere/x", inline_max_bytes=0)
    with pytest.raises(KitaruBackendError, match=r"kitaru-nowhere/x could not be written") as caught:
        store.write("x" * 50_000, name="v")
    assert caught.value.fix


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
    for module, scheme in (("s3fs", "s3"), ("gcsfs", "gs"), ("adlfs", "az")):
        if module in sys.modules:
            fsspec.get_filesystem_class(scheme).clear_instance_cache()
