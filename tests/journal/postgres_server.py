"""A PostgreSQL server of the tests' own, on loopback, in a folder that goes away."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port


def programs() -> Path:
    """The folder of initdb and pg_ctl. `FileNotFoundError` says what to install."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if found:
        return found[-1].parent
    if (initdb := shutil.which("initdb")) is not None:
        return Path(initdb).resolve().parent
    raise FileNotFoundError("The tests start a PostgreSQL server: apt-get install postgresql")


class PostgresServer:
    """``url(database)`` names a database; `stop` and `start` interrupt the service."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        # The server refuses to run as root.
        self._user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        if self._user:
            entry = pwd.getpwnam("postgres")
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        how = ["-A", "trust", "-U", "kitaru", "--no-sync", "-E", "UTF8", "--no-locale"]
        self._run("initdb", "-D", str(self.data), *how)
        self.port = free_port()  # just before it is used: the above takes seconds

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.folder}"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self.data), "-w", "-l", log, "-o", f"{options} -c max_connections=200", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-w", "-m", "immediate", "stop")

    def create(self, database: str) -> str:
        """A new empty database; its URL."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "kitaru", database)
        return self.url(database)

    def url(self, database: str) -> str:
        return f"postgresql://kitaru@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._user, str(programs() / program), *arguments]
        # Not captured through a pipe: the server that pg_ctl leaves behind would keep it open.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd="/", check=False)
            output.seek(0)
            if done.returncode:
                raise RuntimeError(f"{program} failed: {output.read().decode()}")


@contextmanager
def running() -> Iterator[PostgresServer]:
    """A server for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="kitaru-postgres-") as folder:
        server = PostgresServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
