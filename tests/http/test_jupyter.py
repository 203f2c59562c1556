"""The Jupyter Server extension in a real server: its own login and XSRF hold, its base URL is honoured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.surfaces.operations.table import OPERATIONS
from tests.http import flows
from tests.http.httpkit import SECONDS, until
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
BASE = "/hub/ana/"
TOKEN = "a-jupyter-token"


@dataclass(frozen=True)
class Jupyter:
    """A running Jupyter server, and what the home of its folder holds."""

    url: str
    runtime: Runtime

    def client(self, *, token: bool = True) -> httpx.Client:
        """With Jupyter's token, or as a stranger. Close it."""
        headers = {"authorization": f"token {TOKEN}"} if token else {}
        return httpx.Client(base_url=f"{self.url}{BASE}", headers=headers, timeout=SECONDS)

    def run(self, topic: str) -> str:
        """An execution that waits."""
        exec_id = create_execution(self.runtime, flows.twice, {}).exec_id
        assert topic
        advance(self.runtime, exec_id, flows.twice, poll_seconds=0.0)
        return exec_id


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """One server for all tests of this module."""
    root, private = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("private")
    (root / ".kitaru").mkdir()
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KITARU_", "JUPYTER_"))}
    environment |= {f"JUPYTER_{kind}_DIR": str(private / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    environment |= {"KITARU_USER": "ana", "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(private / "ipython")}
    command = [
        *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"),
        *("--ServerApp.port_retries=0", f"--ServerApp.base_url={BASE}", f"--IdentityProvider.token={TOKEN}"),
        *("--ServerApp.jpserver_extensions={'kitaru_nb': True}", f"--ServerApp.root_dir={root}"),
        "--ServerApp.authorizer_class=tests.http.readers.Readers",
    ]
    with (private / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=private, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, (private / "log").read_text()
        try:
            return httpx.get(f"{url}{BASE}api", headers={"authorization": f"token {TOKEN}"}).status_code == 200
        except httpx.TransportError:
            return False

    runtime = Runtime(Settings(root / ".kitaru", durability="process"))
    try:
        until(ready, "Jupyter")
        yield Jupyter(url, runtime)
    finally:
        process.terminate()
        process.wait(SECONDS)
        runtime.journal.close()


def test_without_jupyters_token_nothing_is_told(jupyter: Jupyter) -> None:
    exec_id = jupyter.run("x")
    with jupyter.client(token=False) as client:
        for path in ("kitaru/api/info", "kitaru/api/executions", "kitaru/api/events", "kitaru/api/openapi.json"):
            assert client.get(path).status_code == 403
        assert client.post(f"kitaru/api/executions/{exec_id}/cancel", json={}).status_code == 403
    assert not jupyter.runtime.journal.execution(exec_id).status.ended


def test_the_home_of_the_servers_folder_is_read(jupyter: Jupyter) -> None:
    exec_id = jupyter.run("x")
    with jupyter.client() as client:
        info = client.get("kitaru/api/info").json()
        assert (info["user"], info["role"], info["host"]) == ("ana", "admin", "jupyter")
        assert info["home"] == str(jupyter.runtime.home)
        assert exec_id in [item["exec_id"] for item in client.get("kitaru/api/executions").json()["items"]]


def test_every_operation_is_there(jupyter: Jupyter) -> None:
    with jupyter.client() as client:
        paths = client.get("kitaru/api/openapi.json").json()["paths"]
        assert {(m.upper(), p[1:]) for p, ms in paths.items() for m in ms} == {(o.method, o.path) for o in OPERATIONS}
        for operation in OPERATIONS:
            if operation.method == "GET" and operation.path_parameters:
                answer = client.get(f"kitaru/api/{operation.path}".replace("{", "no-").replace("}", ""))
                assert answer.status_code in (400, 404), operation.name
                assert answer.json()["error"]["message"]


def test_a_cookie_needs_jupyters_xsrf_token_to_act(jupyter: Jupyter) -> None:
    exec_id = jupyter.run("x")
    path = f"kitaru/api/executions/{exec_id}/waits/first/resolve"
    with jupyter.client(token=False) as client:
        assert client.get("login", params={"token": TOKEN}, follow_redirects=True).status_code in (200, 404)
        assert client.get("kitaru/api/info").status_code == 200
        assert client.post(path, json={"value": True}).status_code == 403
        client.get("login")
        headers = {"x-xsrftoken": client.cookies["_xsrf"]}
        assert client.post(path, json={"value": True}, headers=headers).status_code == 200
    (event,) = [e for e in jupyter.runtime.journal.history(exec_id) if e.kind == "wait.resolved"]
    assert event.body == {"value": True, "by": "ana", "via": "jupyter"}


def test_whom_jupyters_authorizer_lets_only_read_cant_act(jupyter: Jupyter) -> None:
    exec_id = jupyter.run("x")
    path = f"kitaru/api/executions/{exec_id}"
    with jupyter.client() as client:
        reader = {"x-only-reads": "kitaru"}
        assert client.get(path, headers=reader).status_code == 200
        assert client.head(path, headers=reader).status_code == 200
        assert client.post(f"{path}/cancel", json={}, headers=reader).status_code == 403
        assert client.get(path, headers={"x-only-reads": "contents"}).status_code == 403
        assert client.get(path).json()["status"] == "waiting"
        assert client.post(f"{path}/cancel", json={}).status_code == 200


def test_what_jupyters_pages_add_to_addresses_is_left_out(jupyter: Jupyter) -> None:
    with jupyter.client() as client:
        assert client.get("kitaru/api/executions?limit=1&1795403626000").status_code == 200
        assert client.get(f"kitaru/api/executions?token={TOKEN}").status_code == 200
        assert client.get("kitaru/api/executions?colour=1").status_code == 400


def test_content_comes_in_ranges_here_too(jupyter: Jupyter) -> None:
    exec_id = create_execution(jupyter.runtime, flows.said, {"text": "long " * 100_000}).exec_id
    advance(jupyter.runtime, exec_id, flows.said, poll_seconds=0.0)
    with jupyter.client() as client:
        where = {"id": f"{exec_id}/research"}
        whole = client.get("kitaru/api/artifact/content", params=where)
        assert whole.text == "notes on " + "long " * 100_000
        assert whole.headers["content-type"] == "text/plain; charset=utf-8"
        assert whole.headers["x-content-type-options"] == "nosniff"
        part = client.get("kitaru/api/artifact/content", params=where, headers={"range": "bytes=0-4"})
        assert (part.status_code, part.text) == (206, "notes")
        head = client.head("kitaru/api/artifact/content", params=where)
        assert (head.status_code, head.content) == (200, b"")


def test_events_stream_here_too(jupyter: Jupyter) -> None:
    exec_id = jupyter.run("x")
    with jupyter.client() as client:
        parameters: dict[str, str | int] = {"after": 0, "exec_id": exec_id}
        with client.stream("GET", "kitaru/api/events", params=parameters) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            first = next(json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: "))
        assert first["kind"] == "execution.created"
        news = client.get("kitaru/api/events/poll", params=parameters).json()
        assert news["events"][0] == first


def test_large_bodies_are_refused_here_too(jupyter: Jupyter) -> None:
    with jupyter.client() as client:
        body = {"inputs": {"text": "x" * 3_000_000}}
        assert client.post("kitaru/api/executions/latest/replay", json=body).status_code == 413
        assert client.put("kitaru/api/executions", json={}).status_code == 405


@pytest.mark.parametrize("renamed", ["essay.ipynb", "drafts"])
def test_a_notebook_that_is_renamed_keeps_its_execution(jupyter: Jupyter, renamed: str) -> None:
    """JupyterLab asks for a name when Untitled.ipynb is first saved: nothing may be paid again for that."""
    root, journal = jupyter.runtime.home.parent, jupyter.runtime.journal
    folder = renamed != "essay.ipynb"
    before, after = ("old/Untitled.ipynb", "drafts/Untitled.ipynb") if folder else ("Untitled.ipynb", renamed)
    (root / before).parent.mkdir(exist_ok=True)
    (root / before).write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    journal.set_reference(f"notebook:{root / before}", "kr-000000000001", expected=None, by="ana")
    with jupyter.client() as client:
        old = "old" if folder else before
        assert client.patch(f"api/contents/{old}", json={"path": renamed}).status_code == 200
    until(lambda: journal.reference(f"notebook:{root / after}") == "kr-000000000001", "the execution moves along")
    until(lambda: journal.reference(f"notebook:{root / before}") is None, "a new notebook of the old name has none")
