"""A small server that answers as the API does, from values in memory; for the pages' own tests only."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import samples

from kitaru_nb.model import Artifact, CheckpointCall, Deployment, Execution, LogEntry, Wait, to_json
from kitaru_nb.stacks.views import StackView
from kitaru_nb.surfaces.frontend import static_folder

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html; charset=utf-8"}


class Refused(Exception):
    """An error answer."""

    def __init__(self, status: int, message: str, kind: str = "KitaruError", fix: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"type": kind, "message": message, "fix": fix, "details": {}}}


@dataclass
class World:
    """What the server knows. Tests change it and see the page follow."""

    executions: list[Execution] = field(default_factory=samples.listed)
    calls: list[CheckpointCall] = field(default_factory=samples.calls)
    logs: list[LogEntry] = field(default_factory=samples.logs)
    graph: dict[str, Any] | None = None
    contents: dict[str, bytes] = field(default_factory=dict)
    deployments: list[Deployment] = field(default_factory=list)
    stacks: list[StackView] = field(default_factory=list)
    refuse: Refused | None = None
    elsewhere: bool = False
    posted: list[tuple[str, Any]] = field(default_factory=list)
    news: list[dict[str, Any]] = field(default_factory=list)
    closed: bool = False
    down: bool = False

    def tell(self, exec_id: str, kind: str) -> None:
        """An event that pages hear of."""
        seq = 101 + len(self.news)
        self.news.append(
            {"seq": seq, "exec_id": exec_id, "kind": kind, "key": "", "at": time.time(), "name": None, "status": None}
        )

    def find(self, exec_id: str) -> Execution:
        """One execution."""
        for execution in self.executions:
            if execution.exec_id == exec_id:
                return execution
        raise Refused(404, f"There is no execution {exec_id!r}.", "KitaruNotFoundError", "kitaru executions list")

    def change(self, exec_id: str, **fields: Any) -> None:
        """Change an execution and say so."""
        self.executions = [replace(e, **fields) if e.exec_id == exec_id else e for e in self.executions]
        self.tell(exec_id, "execution.changed")

    def waits(self) -> list[Wait]:
        """All pending waits."""
        return [w for e in self.executions for w in e.waits if w.status == "pending"]

    def artifacts(self) -> list[Artifact]:
        """All artifacts."""
        return [a for c in self.calls for a in c.artifacts]

    # answers

    def get(self, path: list[str], query: dict[str, str]) -> Any:
        """The answer to a read."""
        match path:
            case ["executions"]:
                return self.page(self.listed(query), query)
            case ["executions", "stats"]:
                counts: dict[str, int] = {}
                for e in self.executions:
                    counts[e.status.value] = counts.get(e.status.value, 0) + 1
                total = len(self.executions)
                return {"total": total, "by_status": counts, "flows": [], "pending_waits": len(self.waits())}
            case ["executions", exec_id]:
                return self.find(exec_id)
            case ["executions", exec_id, "graph"]:
                return self.graph or samples.graph(self.find(exec_id), self.calls)
            case ["executions", _, "checkpoints"]:
                return self.page([c for c in self.calls if query.get("parent") in (None, c.parent)], query)
            case ["executions", _, "checkpoints", call]:
                return next(c for c in self.calls if call in (c.call_id, c.selector))
            case ["executions", _, "logs"]:
                wanted = query.get("checkpoint")
                return self.page([x for x in self.logs if wanted in (None, x.call_id)], query) | {"previous": None}
            case ["executions", _, "artifacts"]:
                return self.page(self.artifacts(), query)
            case ["executions", left, "diff"]:
                return diff(left, query["other"])
            case ["waits"]:
                flows = {e.exec_id: e.flow_name for e in self.executions}
                found = [to_json(w) | {"flow_name": flows[w.exec_id]} for w in self.waits()]
                return self.page(found, query)
            case ["waits", "count"]:
                return {"pending": len(self.waits())}
            case ["artifact"]:
                return next(a for a in self.artifacts() if a.artifact_id == query["id"])
            case ["deployments"]:
                return self.page(self.deployments, query)
            case ["stacks"]:
                return self.page(self.stacks, query)
            case ["events", "poll"]:
                told = int(query.get("after", 100 + len(self.news))) - 100
                return {"events": self.news[told:], "seq": 100 + len(self.news)}
            case ["info"]:
                return {"version": "0", "user": "ana", "role": "work", "host": "server", "features": []}
        raise Refused(404, f"No route {'/'.join(path)}.")

    def listed(self, query: dict[str, str]) -> list[Execution]:
        """Executions that fit a filter."""
        text = query.get("text", "").lower()
        return [
            e
            for e in self.executions
            if query.get("status", e.status.value) == e.status.value
            and query.get("flow", e.flow_name) == e.flow_name
            and (text in e.flow_name.lower() or text in e.exec_id)
        ]

    def page(self, items: list[Any], query: dict[str, str]) -> dict[str, Any]:
        """One page."""
        start, limit = int(query.get("cursor", 0)), int(query.get("limit", 50))
        after = start + limit
        return {"items": items[start:after], "next": str(after) if after < len(items) else None, "total": len(items)}

    def post(self, path: list[str], body: Any) -> Any:
        """The answer to an action."""
        self.posted.append(("/".join(path), body))
        if self.refuse is not None:
            raise self.refuse
        match path:
            case ["executions", exec_id, "waits", wait_id, "resolve"]:
                waits = tuple(
                    replace(w, status="resolved", value=body["value"], resolved_by="ana", via="http")
                    if w.wait_id == wait_id
                    else w
                    for w in self.find(exec_id).waits
                )
                self.change(exec_id, waits=waits)
            case ["executions", _, "replay", "plan"]:
                saved = {"tokens_saved": 2052, "cost_saved": 0.0031, "seconds_saved": 4.0}
                return {
                    "original_exec_id": path[1],
                    "runs": body["from"],
                    "enters": [],
                    "reused": ["load", "chart"],
                    "overridden": [],
                    "asks": ["approve"],
                    **saved,
                }
        return {"exec_id": path[1], "worker": None, "by_notebook": False, "elsewhere": self.elsewhere}


def diff(left: str, right: str) -> dict[str, Any]:
    """Two executions, one call of which differs."""
    call = {"why": "", "left": "same", "right": "same", "seconds": [1.0, 1.0], "tokens": [0, 0]}
    changed = {"selector": "analyst", "change": "output", "why": "ran again", "seconds": [14.6, 11.2]}
    texts = {"left": "Prices fall.\nRisk is low.\nBuy.", "right": "Prices fall.\nRisk is high.\nBuy."}
    same = [call | {"selector": name, "change": "same"} for name in ("load", "chart")]
    return {
        "left": left,
        "right": right,
        "calls": [*same, call | changed | texts],
        "waits": [["approve", "True", "False"]],
        "result": ["published", "rejected"],
    }


@contextmanager
def serving(world: World, pages: Path | None = None) -> Iterator[str]:
    """Serve ``world`` on loopback; gives the address of the dashboard. ``pages`` has more files to serve."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(world, pages))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        world.closed = True
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(world: World, pages: Path | None) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = dict(parse_qsl(url.query))
            if world.down:
                return self.reply(503, "text/plain", b"down")
            if url.path == "/api/events":
                return self.stream(query)
            if url.path == "/api/artifact/content":
                return self.content(query["id"])
            if url.path.startswith("/api/"):
                return self.answer(lambda: world.get(_parts(url.path), query))
            return self.file(url.path)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.headers["X-Kitaru"] == "1"
            self.answer(lambda: world.post(_parts(urlsplit(self.path).path), body))

        def answer(self, make: Callable[[], Any]) -> None:
            try:
                status, body = 200, to_json(make())
            except Refused as refused:
                status, body = refused.status, refused.body
            self.reply(status, "application/json", json.dumps(body).encode())

        def content(self, artifact_id: str) -> None:
            whole = world.contents.get(artifact_id, b'"nothing"')
            first, last = (int(n) for n in self.headers["Range"].removeprefix("bytes=").split("-"))
            part = whole[first : last + 1]
            ranges = {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(whole)}"}
            self.reply(206, "application/octet-stream", part, ranges)

        def stream(self, query: dict[str, str]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            after = self.headers.get("Last-Event-ID") or query.get("after")
            told = int(after) - 100 if after else len(world.news)
            self.close_connection = True
            try:
                self.wfile.write(b"retry: 200\n\n")
                if not after:
                    self.wfile.write(b"id: %d\nevent: reset\ndata: {}\n\n" % (100 + told))
                while not world.closed and not world.down:
                    for event in world.news[told:]:
                        data = f"id: {event['seq']}\nevent: change\ndata: {json.dumps(event)}\n\n"
                        self.wfile.write(data.encode())
                    told = len(world.news)
                    self.wfile.flush()
                    time.sleep(0.02)
            except OSError:  # the page went away
                return

        def file(self, path: str) -> None:
            name = Path(path).name or "index.html"
            folder = pages if pages is not None and (pages / name).is_file() else static_folder()
            found = folder / name
            if not found.is_file():
                return self.reply(404, "text/plain", b"nothing here")
            return self.reply(200, _TYPES.get(found.suffix, "application/octet-stream"), found.read_bytes())

        def reply(self, status: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {
                "Content-Type": kind,
                "Content-Length": str(len(body)),
                "Content-Security-Policy": POLICY,
                "X-Content-Type-Options": "nosniff",
                **(headers or {}),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler


def _parts(path: str) -> list[str]:
    return [unquote(part) for part in path.removeprefix("/api/").split("/")]
