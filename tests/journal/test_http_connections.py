"""How the journal over HTTP reaches its server: TLS, proxies, and what of them is told."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kitaru_nb.errors import KitaruBackendError
from kitaru_nb.journal.open import open_journal
from kitaru_nb.testing.journal import new_execution
from tests.journal.http_server import JournalServer, serving


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate for 127.0.0.1 that nobody else signed, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a journal")])
    now = datetime.datetime.now(datetime.timezone.utc)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture(scope="module")
def secured(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JournalServer]:
    with serving(tmp_path_factory.mktemp("secured"), certificate) as server:
        yield server


def test_a_server_whose_certificate_is_trusted_is_used(
    secured: JournalServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    journal = open_journal(secured.url())
    assert journal.url.startswith("https://")
    execution = journal.create(new_execution(), [])
    assert journal.executions() == [execution]
    journal.close()


def test_a_server_whose_certificate_is_not_trusted_is_refused_at_once(secured: JournalServer) -> None:
    began = time.monotonic()
    with pytest.raises(KitaruBackendError, match="certificate verify failed"):
        open_journal(secured.url())
    assert time.monotonic() - began < 15


class Proxy:
    """A proxy that knows CONNECT and nothing else. ``asked`` is the first line of each connection."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel, args=(client,), daemon=True).start()

    def _tunnel(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as head:
            asked = head.readline().decode()
            while head.readline().strip():
                pass
            self.asked.append(asked)
            host, port = asked.split()[1].split(":")
            with socket.create_connection((host, int(port))) as server:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=pass_on, args=(server, client), daemon=True)
                back.start()
                pass_on(client, server)
                back.join()


def pass_on(source: socket.socket, target: socket.socket) -> None:
    """All bytes until either end is gone, be it without a word."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    found = Proxy()
    yield found
    found.listener.close()


def test_a_proxy_of_the_environment_is_used_unless_the_host_is_excepted(
    proxy: Proxy, secured: JournalServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    journal = open_journal(secured.url())
    assert journal.executions() == []
    journal.close()
    assert proxy.asked
    assert {line.split()[:2] == ["CONNECT", f"127.0.0.1:{secured.port}"] for line in proxy.asked} == {True}
    proxy.asked.clear()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    journal = open_journal(secured.url())
    assert journal.executions() == []
    journal.close()
    assert proxy.asked == []
