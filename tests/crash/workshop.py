"""Worker processes for the tests: started or forked warm, killed by the id that they were started with."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crash.evidence import Recorded, Witness
from kitaru_nb.config import Settings
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.flow import Flow
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruNotFoundError
from kitaru_nb.model import Event, ExecutionStatus

CHILD = Path(__file__).with_name("child.py")
TESTS = CHILD.parents[1]
REPO = TESTS.parent
SECONDS = 120


class Child:
    """One worker process. ``begin`` gives it its work; it begins within microseconds."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self.errors = ""
        self.over = False
        self._ready = False

    def warm(self) -> Child:
        """Wait until it has imported all that it needs."""
        assert self.process.stdout is not None
        self._ready = self._ready or self.process.stdout.readline() == "ready\n"
        assert self._ready, self.process.communicate()[1]
        return self

    def begin(self, exec_id: str, **fate: Any) -> None:
        """Advance ``exec_id``; ``at``, ``when`` and ``only`` say at which operation of its journal it kills itself."""
        self.warm()
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"exec_id": exec_id, **fate}) + "\n")
        self.process.stdin.flush()

    def live_for(self, seconds: float) -> None:
        """Wait until it ends by itself, or ``seconds`` are over."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)

    def kill(self) -> int:
        """SIGKILL, if it still lives; its exit code."""
        self.process.kill()
        return self.end()

    def end(self) -> int:
        """Wait for its end; its exit code. What it said on stderr is in ``errors``."""
        self.errors = self.process.communicate(timeout=SECONDS)[1]
        self.over = True
        return self.process.returncode


class Nursery:
    """A process that forks workers, one at a time: they begin within milliseconds, and have nothing from each other."""

    def __init__(self, environment: Mapping[str, str], errors: Path) -> None:
        self._errors = errors
        self._pipe, theirs = multiprocessing.Pipe()
        command = [sys.executable, str(CHILD), str(theirs.fileno())]
        self._process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()])
        theirs.close()
        self._worker: int | None = None

    def begin(self, exec_id: str, **fate: Any) -> None:
        """As `Child.begin`, in a worker of its own."""
        self._pipe.send({"exec_id": exec_id, "errors": str(self._errors), **fate})
        self._worker = self._receive()

    def live_for(self, seconds: float) -> None:
        """Wait until the worker ends by itself, or ``seconds`` are over."""
        self._pipe.poll(seconds)

    def kill(self) -> int:
        """SIGKILL, if the worker still lives; its exit code."""
        assert self._worker is not None
        if not self._pipe.poll():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._worker, signal.SIGKILL)
        return self.end()

    def end(self) -> int:
        """Wait for the end of the worker; its exit code."""
        self._worker = None
        return self._receive()

    @property
    def errors(self) -> str:
        """What the last worker said on stderr."""
        return self._errors.read_text()

    def close(self) -> None:
        """Kill what a failed test left, and end."""
        if self._worker is not None:
            self.kill()
        self._pipe.close()
        self._process.wait(SECONDS)

    def _receive(self) -> int:
        assert self._pipe.poll(SECONDS), "the nursery doesn't answer"
        found: int = self._pipe.recv()
        return found


class Workshop:
    """A home with its journal, and processes that work on it. ``journal``: the URL of one that isn't in the home."""

    def __init__(
        self, home: Path, side_file: Path, bytecode: Path, *, journal: str | None = None, **environment: str
    ) -> None:
        self.home = home
        self.side_file = side_file
        self.witness = Witness(side_file)
        self.runtime = Runtime(Settings(home, journal=journal))
        self._children: list[Child] = []
        self._nursery: Nursery | None = None
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("KITARU_", "CRASH_"))},
            "KITARU_HOME": str(home),
            "CRASH_RAN": str(side_file),
            "PYTHONPATH": os.pathsep.join([str(TESTS), str(REPO)]),
            "PYTHONPYCACHEPREFIX": str(bytecode),
            **environment,
        }
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        if journal is not None:
            self.environment["KITARU_JOURNAL"] = journal

    @property
    def nursery(self) -> Nursery:
        """Where workers are forked, one at a time."""
        if self._nursery is None:
            self._nursery = Nursery(self.environment, self.side_file.with_name("errors"))
        return self._nursery

    def child(self, **environment: str) -> Child:
        """A process that is warming up."""
        child = Child(self.environment | environment)
        self._children.append(child)
        return child

    def close(self) -> None:
        """Kill the processes that a failed test left, and close the journal."""
        for child in self._children:
            if not child.over:
                child.kill()
        if self._nursery is not None:
            self._nursery.close()
        self.runtime.journal.close()

    def create(self, program: Flow[..., Any], value: int) -> str:
        """A pending execution of ``program``, whose one parameter gets ``value``; its id."""
        return create_execution(self.runtime, program, {next(iter(program.signature.parameters)): value}).exec_id

    def status(self, exec_id: str) -> ExecutionStatus:
        """Where it stands."""
        return self.runtime.journal.execution(exec_id).status

    def recorded(self, exec_id: str) -> Recorded:
        """What its history says."""
        return Recorded.of(self.runtime.journal, exec_id)

    def result(self, exec_id: str) -> Any:
        """What its flow returned."""
        from kitaru_nb.core.records import load

        if self.status(exec_id) is not ExecutionStatus.COMPLETED:
            raise KitaruNotFoundError(f"{exec_id} is {self.status(exec_id)}.")
        return load(exec_id, "result", runtime=self.runtime)

    def answer(self, exec_id: str, answers: Mapping[str, Any]) -> None:
        """Answer what it waits for, as an outsider; the next child goes on."""
        journal = self.runtime.journal
        for wait in journal.waits(exec_id=exec_id):
            body = {"value": answers[wait.name], "by": "ann", "via": "client"}
            journal.append(exec_id, [Event(exec_id, "wait.resolved", wait.wait_id, time.time(), body)])
