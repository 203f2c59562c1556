"""Fresh processes without the seconds that importing an SDK takes.

A server process imports the modules once, stays single-threaded, and forks for each process that is asked for. What
comes out behaves like ``python -m MODULE ARGUMENT ...``: it has its own pid, session, environment, folder and output,
and may be killed. Two things are not fresh, and tests that are about them start a real process: imported modules are
there already, and all forks share the server's hash seed, so that sets have the same order in all of them.

    with ForkServer(["my_agents", "kitaru_nb.worker"], folder="tests") as server:
        process = server.start("kitaru_nb.worker", exec_id, stdout=file)
        assert process.wait(60) == 0

Where a command line is wanted, as for a Jupyter kernel, `ForkServer.command` gives one. A forked process ends when
whoever asked for it is gone.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

START_SECONDS = 120.0


class Forked:
    """A process that a server forked; the words are those of `subprocess.Popen`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answers = connection.makefile("r", encoding="utf-8")
        self._lock = threading.Lock()
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, if it has ended: negative for the signal that killed it."""
        return self._read(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end: exit code. Raises `subprocess.TimeoutExpired`."""
        code = self._read(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def _read(self, timeout: float | None) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
                self.returncode = int(self._answers.readline() or -signal.SIGKILL)
                self._answers.close()
                self._connection.close()
            return self.returncode

    def terminate(self) -> None:
        """SIGTERM, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


class ForkServer:
    """A server process; as a context manager it is stopped at the end.

    Args:
        modules: what it imports. None of them may start a thread.
        folder: goes to the front of ``sys.path`` first.
        environment: what it imports them under; None: this process's.
    """

    def __init__(
        self, modules: Sequence[str], *, folder: str | Path = ".", environment: Mapping[str, str] | None = None
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="kitaru-fork-"))
        self.address = str(self._folder / "socket")
        command = [sys.executable, "-P", __file__, "serve", self.address, str(folder), *modules]
        # Standard input is what keeps it alive: it ends with this process, whatever becomes of that.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)

    @property
    def pid(self) -> int:
        """Of the server's process, the parent of those that it forks."""
        return self._process.pid

    def start(
        self,
        module: str,
        *arguments: str,
        stdout: BinaryIO,
        environment: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
    ) -> Forked:
        """``python -m module arguments``, with standard output and errors in ``stdout``.

        Args:
            environment: all of it; None: this process's.
            cwd: its folder; None: this process's.

        Raises:
            RuntimeError: the server ended, e.g. because a module can't be imported; its output says why.
        """
        self._wait_until_ready()
        asked = _asked([module, *arguments], environment, cwd)
        return Forked(_ask(self.address, asked, [stdout.fileno(), stdout.fileno()]))

    def command(self, module: str, *arguments: str) -> list[str]:
        """A command line that forks a process, passes its output on, and ends as it does and when it does."""
        self._wait_until_ready()
        return [sys.executable, "-S", "-P", __file__, "run", self.address, module, *arguments]

    def stop(self) -> None:
        """End the server, and with it what it forked."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(START_SECONDS)
        shutil.rmtree(self._folder)

    def _wait_until_ready(self) -> None:
        # The address is bound, by renaming, when everything is imported.
        ended = threading.Event()
        for _ in range(int(START_SECONDS / 0.02)):
            if os.path.exists(self.address):
                return
            if (code := self._process.poll()) is not None:
                raise RuntimeError(f"The fork server ended with {code}; its output says why.")
            ended.wait(0.02)
        raise RuntimeError(f"The fork server is not ready after {START_SECONDS:g} s.")

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()


def _asked(arguments: Sequence[str], environment: Mapping[str, str] | None, cwd: str | Path | None) -> dict[str, Any]:
    return {
        "arguments": list(arguments),
        "environment": dict(os.environ if environment is None else environment),
        "cwd": str(cwd or os.getcwd()),
    }


def _ask(address: str, asked: Mapping[str, Any], outputs: Sequence[int]) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(address)
    socket.send_fds(connection, [b"\n"], list(outputs))
    connection.sendall(json.dumps(asked).encode() + b"\n")
    return connection


class _Server:
    """The server's loop: forks for each connection, and tells it the pid at once and the exit code in the end."""

    def __init__(self, address: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(f"{address}.new")
        self._listener.listen(64)
        os.rename(f"{address}.new", address)
        self._children: dict[int, socket.socket] = {}
        self._heard, self._hears = socket.socketpair()
        for end in (self._heard, self._hears):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that the descriptor below hears of it
        signal.set_wakeup_fd(self._hears.fileno(), warn_on_full_buffer=False)

    def serve(self) -> dict[str, Any] | None:
        """In the server: until standard input ends, None. In a forked child: what is asked of it."""
        while True:
            waiting: list[Any] = [sys.stdin, self._listener, self._heard, *self._children.values()]
            ready = select.select(waiting, [], [])[0]
            if self._heard in ready:
                self._heard.recv(4096)
                self._reap()
            if sys.stdin in ready:
                for pid in self._children:
                    _kill_group(pid)
                return None
            for pid, connection in list(self._children.items()):
                if connection in ready:  # it never says more: whoever asked is gone
                    self._children.pop(pid).close()
                    _kill_group(pid)
            if self._listener in ready and (asked := self._accept()) is not None:
                return asked

    def _accept(self) -> dict[str, Any] | None:
        connection, _ = self._listener.accept()
        outputs = socket.recv_fds(connection, 1, 2)[1]
        with connection.makefile("r", encoding="utf-8") as lines:
            line = lines.readline()
        if not line:
            connection.close()
            return None
        pid = os.fork()
        if pid == 0:
            os.setsid()
            for number, descriptor in enumerate([os.open(os.devnull, os.O_RDONLY), *outputs]):
                os.dup2(descriptor, number)
                os.close(descriptor)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for inherited in (self._listener, self._heard, self._hears, connection, *self._children.values()):
                inherited.close()
            asked: dict[str, Any] = json.loads(line)
            return asked
        for descriptor in outputs:
            os.close(descriptor)
        self._children[pid] = connection
        _tell(connection, pid)
        return None

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if connection := self._children.pop(pid, None):
                _tell(connection, os.waitstatus_to_exitcode(status))
                connection.close()


def _tell(connection: socket.socket, number: int) -> None:
    try:
        connection.sendall(f"{number}\n".encode())
    except BrokenPipeError:
        return  # whoever asked is gone; the loop sees that too


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _serve(address: str, folder: str, modules: Sequence[str]) -> None:
    """The server process, and every process that comes out of it."""
    sys.path.insert(0, os.path.abspath(folder))
    for module in modules:
        importlib.import_module(module)
    if threading.active_count() > 1:
        raise RuntimeError(f"A process with threads can't be forked: {threading.enumerate()}")
    asked = _Server(address).serve()
    if asked is not None:
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.chdir(asked["cwd"])
        sys.path.insert(0, asked["cwd"])  # as ``python -m`` does
        sys.argv = list(asked["arguments"])
        sys.modules.pop(sys.argv[0], None)  # it runs anew; what it imports is there
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _run(address: str, arguments: Sequence[str]) -> int:
    """The command line: a forked process with this one's output; its exit code."""
    # Its parent is the server, so it can't watch for the end of the one that Jupyter names: that one's end is ours.
    environment = {name: value for name, value in os.environ.items() if name != "JPY_PARENT_PID"}
    passed_on = (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)  # they wait until it is known to whom
    forked = Forked(_ask(address, _asked(arguments, environment, None), [1, 2]))
    for number in passed_on:
        signal.signal(number, lambda received, _: os.kill(forked.pid, received))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
    code = forked.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        sys.exit(_run(sys.argv[2], sys.argv[3:]))
