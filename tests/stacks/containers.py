"""Containers that are processes of this machine, and the loopback server of a cloud that runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

#: What a container inherits of this machine; the rest of its environment is what the cloud was told.
INHERITED = {"PATH", "LANG", "PYTHONPATH"}


class Container:
    """The command of a container, run as a process, and again when it dies, up to ``restarts`` times.

    Attributes:
        begun_at, ended_at: Unix seconds; the latter is None while it goes on.
        code: exit code of its last process, or None.
        stopped: whether it was told to end.
        deadline: seconds after which it is ended, or None.
        late: whether it was.
    """

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        restarts: int = 0,
        grace: float = 10.0,
        deadline: float | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.begun_at = time.time()
        self.ended_at: float | None = None
        self.code: int | None = None
        self.stopped = False
        self.late = False
        self.output = folder / "output"
        self.deadline = deadline
        self._folder, self._grace = folder, grace
        self._command = [sys.executable if word == "python" else word for word in command]
        inherited = {name: value for name, value in os.environ.items() if name in INHERITED}
        self._environment = {**inherited, "HOME": str(folder), **environment}
        self._told = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(restarts,))
        self._thread.start()

    @property
    def running(self) -> bool:
        return self.ended_at is None

    def stop(self) -> None:
        """SIGTERM now, SIGKILL after the grace."""
        self.stopped = True
        self._told.set()

    def expire(self) -> None:
        """Its deadline passes now."""
        assert self.deadline is not None, "it was given none"
        self.late = True
        self._told.set()

    def wait(self) -> None:
        self._thread.join()

    def lines(self) -> list[str]:
        return self.output.read_text(errors="replace").splitlines() if self.output.exists() else []

    def _run(self, restarts: int) -> None:
        for _ in range(restarts + 1):
            self.code = self._once()
            if self.code == 0 or self._told.is_set():
                break
        self.ended_at = time.time()

    def _once(self) -> int:
        with self.output.open("ab") as output:
            process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, stdout=output, stderr=output
            )
        threading.Thread(target=self._end_when_told, args=(process,), daemon=True).start()
        return process.wait()

    def _end_when_told(self, process: subprocess.Popen[bytes]) -> None:
        told = self._told.wait(self.deadline)
        if process.poll() is None:
            self.late |= not told
            process.terminate()
            try:
                process.wait(self._grace)
            except subprocess.TimeoutExpired:
                process.kill()


class Refusal(Exception):
    """What the cloud answers instead: a status of HTTP and a body."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(body)
        self.status, self.body = status, body


class Cloud:
    """A cloud in this process. Subclasses answer requests.

    Attributes:
        lose: how many answers get lost from now on, of requests whose path or target ends with ``lose_of``.
        refuse: end of a path or target → the refusal that it gets.
        containers, commands, environments: what was started.
        instead: what runs instead of the command.
        headers: of every answer.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.lose, self.lose_of = 0, ""
        self.refuse: dict[str, Refusal] = {}
        self.containers: list[Container] = []
        self.commands: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.instead: list[str] | None = None
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []
        self.lock = threading.Lock()

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any] | None:
        """The body of the answer. Raises `Refusal`."""
        raise NotImplementedError

    def name(self, method: str, path: str, headers: Mapping[str, str]) -> str:
        """What a request is called in `asked`, `refuse` and `lose_of`."""
        return f"{method} {path.partition('?')[0]}"

    def run(self, command: Sequence[str], environment: Mapping[str, str], **options: Any) -> Container:
        """Start a container."""
        folder = self.folder / f"container-{len(self.containers)}"
        self.commands.append(list(command))
        self.environments.append(dict(environment))
        container = Container(folder, self.instead or command, environment, **options)
        self.containers.append(container)
        return container

    def is_lost(self, name: str) -> bool:
        with self.lock:
            if self.lose and name.endswith(self.lose_of):
                self.lose -= 1
                return True
        return False


@contextmanager
def serving(cloud: Cloud, tls: Any = None) -> Iterator[None]:
    """Serve a cloud at ``cloud.url`` for as long as the context lasts; its containers end with it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            name = cloud.name(self.command, self.path, self.headers)
            cloud.asked.append(name)
            status, answer = 200, None
            try:
                for end, refusal in cloud.refuse.items():
                    if name.endswith(end):
                        raise refusal
                answer = cloud.answer(self.command, self.path, self.headers, body)
            except Refusal as refusal:
                status, answer = refusal.status, refusal.body
            if cloud.is_lost(name):
                self.close_connection = True
                return
            content = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(204 if answer is None else status)
            for header, value in {"Content-Type": "application/json", **cloud.headers}.items():
                self.send_header(header, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    cloud.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for container in cloud.containers:
            container.stop()
            container.wait()
