"""A journal, a store and a client to try flows on, and scripts in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from kitaru_nb.client import ExecutionRef, KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import Outcome, advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.flow import Flow
from kitaru_nb.core.handle import FlowHandle
from kitaru_nb.core.local import threads
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruWaitingError
from kitaru_nb.journal.base import Journal
from kitaru_nb.model import Event

T = TypeVar("T")
SECONDS = 60.0


def until(condition: Callable[[], T], seconds: float = SECONDS) -> T:
    """The first true value of ``condition``; asked again and again for at most ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        threading.Event().wait(0.005)
    return found


class Bench:
    """Runs flows against one journal."""

    def __init__(self, home: Path, *, journal: Journal | None = None, memory: bool = True, **settings: Any) -> None:
        url = f"memory://{uuid.uuid4().hex}" if memory else None
        self.home = home
        self.runtime = Runtime(Settings(home, journal=url, **settings), journal=journal)
        self.client = KitaruClient(self.runtime)
        self.executions = self.client.executions

    def bind(self, flow: Flow[..., Any], **options: Any) -> Flow[..., Any]:
        """The flow with this bench's runtime."""
        return flow.with_options(runtime=self.runtime, **options)

    def run(self, flow: Flow[..., Any], *args: Any, **kwargs: Any) -> FlowHandle[Any]:
        """Start an execution on a thread."""
        return self.bind(flow).run(*args, **kwargs)

    def create(self, flow: Flow[..., Any], **inputs: Any) -> str:
        """A pending execution that nobody advances."""
        bound = self.bind(flow)
        return create_execution(self.runtime, bound, bound.bind((), inputs)).exec_id

    def advance(self, exec_id: str, flow: Flow[..., Any], *, poll_seconds: float = 0.0) -> Outcome:
        """Advance an execution in this thread."""
        return advance(self.runtime, exec_id, self.bind(flow), poll_seconds=poll_seconds)

    def finish(self, exec_id: str, flow: Flow[..., Any]) -> Any:
        """Advance an execution in this thread; what it returned. Raises what ended it instead."""
        outcome = self.advance(exec_id, flow)
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def answer(self, handle: FlowHandle[Any] | str, value: Any, **options: Any) -> Any:
        """Answer a wait."""
        return self.executions.input(exec_id_of(handle), value=value, **options)

    def complete(self, handle: FlowHandle[Any], **answers: Any) -> Any:
        """The result, with waits answered by name as they are asked."""
        while True:
            try:
                return handle.wait(SECONDS)
            except KitaruWaitingError:
                pending = self.executions.pending_waits(handle.exec_id)[0]
                self.answer(handle, answers[pending.name], wait=pending.wait_id, by="ann")

    def asked(self, handle: FlowHandle[Any] | str, count: int = 1) -> list[Any]:
        """The pending waits, once there are ``count`` of them."""
        exec_id = exec_id_of(handle)

        def enough() -> list[Any] | None:
            pending = self.executions.pending_waits(exec_id)
            return pending if len(pending) >= count else None

        return until(enough) or []

    def get(self, handle: FlowHandle[Any] | str) -> ExecutionRef:
        """The execution with all details."""
        return self.executions.get(exec_id_of(handle))

    def events(self, handle: FlowHandle[Any] | str) -> list[Event]:
        """Its history."""
        return self.runtime.journal.history(exec_id_of(handle))

    def kinds(self, handle: FlowHandle[Any] | str) -> list[str]:
        """Kinds of the events of its history, without those that come when something takes long."""
        return [e.kind for e in self.events(handle) if e.kind not in ("checkpoint.started", "log.lines")]

    def statuses(self, handle: FlowHandle[Any] | str) -> dict[str, str]:
        """Selector → status of its calls."""
        return {call.selector: call.status for call in self.get(handle).checkpoints}


def exec_id_of(handle: FlowHandle[Any] | str) -> str:
    """The id of an execution."""
    return handle if isinstance(handle, str) else handle.exec_id


def forget(handle: FlowHandle[Any] | str) -> None:
    """As if the process that ran it were gone: its flow is not at hand here any more."""
    local = threads.pop(exec_id_of(handle), None)
    assert local is None or local.ended.wait(SECONDS)


def let_go(handle: FlowHandle[Any]) -> None:
    """Wait until the thread that runs it has let go, and has ended: until then its frames keep things alive."""
    local = handle.local
    assert local is not None
    assert local.ended.wait(SECONDS)
    assert local.thread is not None
    local.thread.join(SECONDS)


class Shop:
    """A folder with scripts, and a home that their processes share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.bench = Bench(self.home, memory=False)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("KITARU_")}
        self.environment = kept | {"KITARU_HOME": str(self.home), "PYTHONPATH": str(Path(__file__).parents[2])}

    def write(self, name: str, source: str) -> Path:
        """A file of the folder."""
        path = self.folder / name
        path.write_text(source)
        return path

    def start(self, *command: str | Path) -> subprocess.Popen[str]:
        """Start a Python process."""
        return subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a Python process to its end."""
        with self.start(*command) as process:
            out, err = process.communicate(timeout=SECONDS * 2)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def ended(self, exec_id: str, status: str = "completed") -> ExecutionRef:
        """The execution, once it has this status. Shows the worker's output when it comes to another end."""
        executions = self.bench.executions

        def there() -> ExecutionRef | None:
            execution = executions.get(exec_id)
            if execution.status == status:
                return execution
            assert not execution.status.ended, (execution.failure, self.output(exec_id))
            return None

        found = until(there, SECONDS * 2)
        assert found is not None
        return found

    def output(self, exec_id: str) -> str:
        """What workers of the execution printed so far. The last words come after the last event: see `prints`."""
        path = self.home / "workers" / f"{exec_id}.log"
        return path.read_text() if path.exists() else ""

    def prints(self, exec_id: str, text: str) -> None:
        """Wait until workers of the execution have printed this."""
        until(lambda: text in self.output(exec_id), SECONDS * 2)
