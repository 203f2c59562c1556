"""The HTTP API of a real server on loopback: big lists, a full inbox, a big execution, live events.

python -m benchmarks.api [FOLDER]
"""

from __future__ import annotations

import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import uvicorn

from benchmarks.journal import fill
from benchmarks.scale import CHECKPOINTS, EXECUTIONS, long_flow
from benchmarks.timing import in_turns
from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.model import Event, Execution, ExecutionStatus, new_exec_id, utc
from kitaru_nb.surfaces.http.api import Api
from kitaru_nb.surfaces.http.app import create_app
from kitaru_nb.surfaces.http.security import Gate
from kitaru_nb.surfaces.http.tokens import Tokens
from kitaru_nb.surfaces.operations.base import Desk

WAITS = 1_000
EVENTS = 50
TURNS = 9
_SECRET = "the-token"


@contextmanager
def serving(runtime: Runtime) -> Iterator[httpx.Client]:
    """A client of a server on a thread of this process."""
    gate = Gate(Tokens(runtime.journal), owner="bench", secret=_SECRET, port=0)
    app = create_app(Api(Desk(KitaruClient(runtime), "server", Path())), gate)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    headers = {"authorization": f"Bearer {_SECRET}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/", headers=headers, timeout=60) as client:
        yield client
    server.servers[0].get_loop().call_soon_threadsafe(app.state.server.pulse.close)
    server.should_exit = True
    thread.join()


def ask(runtime: Runtime, count: int) -> None:
    """Executions that wait."""
    for number in range(count):
        exec_id, now = new_exec_id(), time.time()
        execution = Execution(exec_id, "brief", ExecutionStatus.PENDING, utc(now), utc(now))
        body = {"name": "approve", "question": f"Publish number {number}?", "schema": {"type": "boolean"}}
        wait = Event(
            exec_id, "wait.created", "w1", now, {**body, "metadata": {}, "until": None, "parent": None, "after": []}
        )
        events = [
            Event(exec_id, "execution.created", "", now, {"flow": "brief", "ref": {"kind": "here"}, "inputs": {}}),
            wait,
            Event(exec_id, "execution.waiting", "", now, {"waits": ["w1"]}),
        ]
        runtime.journal.create(execution, events)


def get(client: httpx.Client, path: str) -> Callable[[], Any]:
    """A request, whose answer must be good."""

    def work() -> Any:
        answer = client.get(path)
        answer.raise_for_status()
        return answer.content

    return work


def event_latencies(runtime: Runtime, client: httpx.Client, exec_id: str) -> list[float]:
    """Seconds from the commit of an event to its arrival at a client."""
    arrived: queue.Queue[float] = queue.Queue()

    def listen() -> None:
        heard = 0
        with client.stream("GET", "events") as stream:
            for line in stream.iter_lines():
                if line == "event: reset":  # how it begins
                    arrived.put(0.0)
                if line == "event: change":
                    arrived.put(time.perf_counter())
                    heard += 1
                    if heard == EVENTS:
                        return

    thread = threading.Thread(target=listen)
    thread.start()
    arrived.get()
    found = []
    for number in range(EVENTS):
        runtime.journal.append(exec_id, [Event(exec_id, "metadata", "", time.time(), {"number": number})])
        begun = time.perf_counter()
        found.append(arrived.get() - begun)
        time.sleep(0.037)
    thread.join()
    return found


def main(folder: str | None = None) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(dir=folder) as home:
        runtime = Runtime(Settings(Path(home), durability="process"))
        exec_id = create_execution(runtime, long_flow, {"count": CHECKPOINTS}).exec_id
        advance(runtime, exec_id, long_flow, poll_seconds=0)
        fill(Path(home) / "journal.db", EXECUTIONS)
        ask(runtime, WAITS)
        with serving(runtime) as client:
            page = client.get("executions").json()
            executions, waits = f"of {EXECUTIONS:,} executions", f"of {WAITS:,} pending waits"
            checkpoints = f"of an execution with {CHECKPOINTS:,} checkpoints"
            begun = time.perf_counter()
            get(client, f"executions/{exec_id}/graph")()
            first_look = time.perf_counter() - begun
            works = {
                "who is asking (the least that a request costs)": get(client, "info"),
                f"first page {executions}": get(client, "executions"),
                f"second page {executions}": get(client, f"executions?cursor={page['next']}"),
                f"waiting {executions}": get(client, "executions?status=waiting"),
                f"a search that finds nothing {executions}": get(client, "executions?text=nothing-like-it"),
                f"counts {executions}": get(client, "executions/stats"),
                f"first page {waits}": get(client, "waits"),
                f"500 {waits}": get(client, "waits?limit=500"),
                f"count {waits}": get(client, "waits/count"),
                f"summary {checkpoints}": get(client, f"executions/{exec_id}"),
                f"graph {checkpoints}": get(client, f"executions/{exec_id}/graph"),
                f"first page {checkpoints}": get(client, f"executions/{exec_id}/checkpoints"),
            }
            print(f"{'milliseconds':62}{'median':>8}{'quickest':>9}")
            for name, taken in in_turns(works, TURNS).items():
                print(f"{name:62}{taken.median * 1e3:8.1f}{taken.quickest * 1e3:9.1f}")
            print(f"{f'graph {checkpoints}, first look, once':62}{first_look * 1e3:8.1f}")
            took = sorted(event_latencies(runtime, client, exec_id))
            print(f"{'an event, from its commit to a client':62}{median(took) * 1e3:8.1f}{took[0] * 1e3:9.1f}")
            print(f"{'  the slowest of ' + str(EVENTS):62}{took[-1] * 1e3:8.1f}")
        runtime.journal.close()


if __name__ == "__main__":
    main(*sys.argv[1:2])
