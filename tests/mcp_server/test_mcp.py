"""A real MCP client over both transports: an agent lists, inspects, compares, answers and replays."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import Implementation
from PIL import Image

from kitaru_nb import checkpoint, flow
from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.flow import Flow
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.surfaces.operations.limits import RateLimit
from kitaru_nb.surfaces.operations.table import OPERATIONS
from tests.http import flows
from tests.http.deploying import Deployer
from tests.http.httpkit import SECONDS, Served, until

ROOT = Path(__file__).parents[2]
Connect = Callable[..., Any]


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    """Settings with a home in a temporary folder."""
    found = Runtime(Settings(tmp_path / "home", durability="process"))
    yield found
    found.journal.close()


def run(runtime: Runtime, program: Flow[..., Any], *args: Any) -> str:
    """Run a flow here until it ends or lets go."""
    exec_id = create_execution(runtime, program, program.bind(args, {})).exec_id
    advance(runtime, exec_id, program, poll_seconds=0.0)
    return exec_id


def environment(runtime: Runtime) -> dict[str, str]:
    """Of a process that works with the same home."""
    return {
        "KITARU_HOME": str(runtime.home),
        "KITARU_DURABILITY": "process",
        "KITARU_USER": "ana",
        "PYTHONPATH": str(ROOT),
        "PATH": os.environ["PATH"],
    }


@asynccontextmanager
async def over_stdio(runtime: Runtime, role: str = "operate", mode: str = "legacy") -> AsyncIterator[Client]:
    """A client of ``kitaru mcp``, started as clients start it."""
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "kitaru_nb", "mcp", "--role", role], env=environment(runtime), cwd=ROOT
    )
    info = Implementation(name="claude-code", version="1")
    async with Client(stdio_client(server), mode=mode, client_info=info) as client:
        yield client


@asynccontextmanager
async def over_http(
    served: Served, role: str = "operate", mode: str = "legacy", name: str = "claude-code"
) -> AsyncIterator[Client]:
    """A client of a server's ``/mcp``."""
    async with httpx_client({"Authorization": f"Bearer {served.tokens[role]}"}) as http:
        transport = streamable_http_client(f"{served.url}/mcp", http_client=http)
        info = Implementation(name=name, version="1")
        async with Client(transport, mode=mode, client_info=info) as client:
            yield client


def httpx_client(headers: dict[str, str]) -> Any:
    """The HTTP client of the library that the SDK uses."""
    from mcp.shared._httpx_utils import create_mcp_http_client

    return create_mcp_http_client(headers=headers)


async def call(client: Client, name: str, **arguments: Any) -> Any:
    """The structured answer of a tool, which must not be an error."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    assert json.loads(result.content[0].text) is not None  # type: ignore[union-attr]
    return result.structured_content


async def an_agents_day(client: Client, runtime: Runtime, by: str) -> None:
    """List, inspect, compare, answer a wait, replay."""
    exec_id, other = run(runtime, flows.brief, "x"), run(runtime, flows.brief, "y")
    status = await call(client, "kitaru_status")
    assert status["by_status"] == {"waiting": 2}
    listed = await call(client, "kitaru_executions_list", flow="brief")
    assert [item["exec_id"] for item in listed["items"]] == [other, exec_id]
    graph = await call(client, "kitaru_executions_graph", exec_id=exec_id)
    assert {node["name"] for node in graph["nodes"]} == {"topic", "research", "approve"}
    logs = await call(client, "get_execution_logs", exec_id=exec_id)
    assert logs["items"][0]["message"] == "looking for x"
    diff = await call(client, "kitaru_executions_diff", exec_id=exec_id, other=other)
    assert diff["calls"][0]["change"] == "output"
    content = await call(client, "kitaru_artifacts_content", id=f"{exec_id}/research", offset=6, length=4)
    assert (content["text"], content["size"]) == ("on x", 10)
    news = await call(client, "kitaru_events_poll", after=0, exec_id=exec_id)
    assert news["events"][0]["kind"] == "execution.created"

    refused = await client.call_tool("kitaru_executions_input", {"exec_id": exec_id, "wait_id": "approve", "value": 3})
    assert refused.is_error
    assert "true or false" in refused.content[0].text  # type: ignore[union-attr]
    await call(client, "kitaru_executions_input", exec_id=exec_id, wait_id="approve", value=True)
    (wait,) = KitaruClient(runtime).executions.get(exec_id).waits
    assert (wait.resolved_by, wait.via) == (by, "mcp")
    again = await client.call_tool("kitaru_executions_input", {"exec_id": exec_id, "wait_id": "approve", "value": True})
    assert again.is_error
    assert by in again.content[0].text  # type: ignore[union-attr]
    until(lambda: runtime.journal.execution(exec_id).status.ended, "the end")

    plan = await call(client, "kitaru_executions_replay_plan", exec_id=exec_id, **{"from": ["publish"]})
    assert plan["runs"] == ["publish"]
    replayed = await call(client, "kitaru_executions_replay", exec_id=exec_id, **{"from": ["publish"]})
    new = replayed["exec_id"]
    until(lambda: runtime.journal.execution(new).status.ended, "the replay")
    assert runtime.journal.history(new)[0].body["by"] == by


async def test_an_agents_day_over_stdio(runtime: Runtime) -> None:
    async with over_stdio(runtime) as client:
        await an_agents_day(client, runtime, "claude-code for ana")


async def test_an_agents_day_over_http(runtime: Runtime, tmp_path: Path) -> None:
    with serving(runtime, tmp_path) as served:
        async with over_http(served) as client:
            await an_agents_day(client, runtime, "claude-code for the operate")


@checkpoint
def paint(color: str) -> Any:
    return Image.effect_noise((64, 64), 90).convert("RGB") if color == "noise" else Image.new("RGB", (64, 64), color)


@flow
def gallery() -> int:
    return len([paint(color) for color in ("noise", "red")])


async def test_a_picture_is_shown_as_one_and_never_told_as_text(runtime: Runtime, tmp_path: Path) -> None:
    exec_id = run(runtime, gallery)
    with serving(runtime, tmp_path) as served:
        async with over_http(served, "view") as client:
            listed = await client.call_tool("kitaru_artifacts_list", {"exec_id": exec_id})
            assert [part.type for part in listed.content] == ["text"]
            assert len(listed.content[0].text) < 4_000  # type: ignore[union-attr]
            noise, _ = [item["artifact_id"] for item in listed.structured_content["items"] if item["name"] == "paint"]  # type: ignore[index]
            one = await client.call_tool("kitaru_artifacts_get", {"id": noise})
    text, picture = one.content
    assert len(text.text) < 4_000  # type: ignore[union-attr]
    assert (picture.type, picture.mime_type) == ("image", "image/png")  # type: ignore[union-attr]
    assert Image.open(BytesIO(base64.b64decode(picture.data))).size == (64, 64)  # type: ignore[union-attr]


class serving:
    """A server while it lasts."""

    def __init__(self, runtime: Runtime, root: Path) -> None:
        self.served = Served(runtime, root)

    def __enter__(self) -> Served:
        self.served.start()
        return self.served

    def __exit__(self, *_: object) -> None:
        from kitaru_nb.stacks.process import _children

        self.served.close()
        for process, *_ in (worker for workers in _children.values() for worker in workers):
            process.wait(timeout=SECONDS)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_both_versions_of_the_protocol_say_who_asks(runtime: Runtime, tmp_path: Path, mode: str) -> None:
    exec_id = run(runtime, flows.twice)
    with serving(runtime, tmp_path) as served:
        async with over_http(served, mode=mode) as client:
            await call(client, "kitaru_executions_input", exec_id=exec_id, wait_id="first", value=True)
    (first, *_) = KitaruClient(runtime).executions.get(exec_id).waits
    assert first.resolved_by == "claude-code for the operate"


async def test_a_client_that_changes_its_name_gets_no_more_tries(runtime: Runtime, tmp_path: Path) -> None:
    given = {"exec_id": run(runtime, flows.twice), "wait_id": "first", "value": "no"}
    said = []
    with serving(runtime, tmp_path) as served:
        served.api.desk.answers = RateLimit(burst=1, seconds=3600.0)
        for name in ("one", "two"):
            async with over_http(served, name=name) as client:
                said.append((await client.call_tool("kitaru_executions_input", given)).content[0].text)  # type: ignore[union-attr]
    assert "true or false" in said[0]
    assert "Too many tries" in said[1]


@pytest.mark.parametrize(
    ("role", "there", "missing"),
    [
        ("view", "kitaru_executions_replay_plan", "kitaru_executions_input"),
        ("operate", "kitaru_executions_input", "kitaru_executions_run"),
        ("work", "kitaru_executions_run", "kitaru_doctor"),
        ("admin", "kitaru_doctor", None),
    ],
)
async def test_only_the_tools_that_the_role_allows_are_there(
    runtime: Runtime, tmp_path: Path, role: str, there: str, missing: str | None
) -> None:
    with serving(runtime, tmp_path) as served:
        async with over_http(served, role) as client:
            tools = {tool.name: tool.annotations for tool in (await client.list_tools()).tools}
            names = set(tools)
            assert there in names
            assert missing not in names
            if missing is None:
                assert names == {operation.tool_name for operation in OPERATIONS}
                said = {name: (found.read_only_hint, found.destructive_hint) for name, found in tools.items() if found}
                assert said == {o.tool_name: (o.read_only, o.destructive) for o in OPERATIONS}
                assert said["kitaru_executions_list"] == (True, False)
                assert said["kitaru_executions_cancel"] == (False, True)
            else:
                refused = await client.call_tool(missing, {})
                assert refused.is_error
                assert f"has the role {role}" in refused.content[0].text  # type: ignore[union-attr]
                assert "fix: kitaru server token create NAME --role" in refused.content[0].text  # type: ignore[union-attr]


async def test_a_reader_over_stdio_answers_nothing(runtime: Runtime) -> None:
    exec_id = run(runtime, flows.twice)
    async with over_stdio(runtime, "view") as client:
        refused = await client.call_tool(
            "kitaru_executions_input", {"exec_id": exec_id, "wait_id": "first", "value": True}
        )
        assert refused.is_error
        assert refused.content[0].text.endswith("fix: kitaru mcp --role operate")  # type: ignore[union-attr]
        with pytest.raises(MCPError, match="no tool 'kitaru_nonsense'"):
            await client.call_tool("kitaru_nonsense", {})
        deep: Any = 1
        for _ in range(150):
            deep = [deep]
        hostile = await client.call_tool("kitaru_executions_list", {"text": deep})
        assert hostile.is_error
        assert (await call(client, "kitaru_waits_count"))["pending"] == 1


def post(served: Served, body: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
    """One request, without the SDK."""
    return httpx.post(f"{served.url}/mcp", json=body, headers=headers, timeout=SECONDS)


def test_without_a_token_there_is_no_mcp(runtime: Runtime, tmp_path: Path) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    headers = {"accept": "application/json, text/event-stream"}
    with serving(runtime, tmp_path) as served:
        assert post(served, body, headers).status_code == 401
        bad = headers | {"authorization": f"Bearer {served.tokens['view']}", "origin": "http://evil.example"}
        assert post(served, body, bad).status_code == 403


def test_a_session_belongs_to_the_token_that_began_it(runtime: Runtime, tmp_path: Path) -> None:
    start = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}},
    }
    headers = {"accept": "application/json, text/event-stream"}
    with serving(runtime, tmp_path) as served:
        mine = headers | {"authorization": f"Bearer {served.tokens['admin']}"}
        began = post(served, start, mine)
        assert began.status_code == 200
        theirs = headers | {"authorization": f"Bearer {served.tokens['view']}"}
        theirs |= {"mcp-session-id": began.headers["mcp-session-id"]}
        stolen = post(served, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}, theirs)
        assert stolen.status_code in (400, 403, 404)


@pytest.fixture
def deploy(runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployer:
    """Deploys flows into the journal."""
    return Deployer(runtime, tmp_path, monkeypatch)


async def test_an_agent_lists_reads_invokes_and_routes_deployments(
    runtime: Runtime, tmp_path: Path, deploy: Deployer
) -> None:
    deploy("brief")
    deploy("brief", tags="prod")
    by = "claude-code for the work"
    with serving(runtime, tmp_path) as served:
        async with over_http(served, "work") as client:
            listed = await call(client, "kitaru_deployments_list", flow="brief")
            assert [(d["version"], d["tags"]) for d in listed["items"]] == [(2, ["prod"]), (1, ["default"])]
            found = await call(client, "kitaru_deployments_get", flow="brief@prod")
            assert found["parameters"]["required"] == ["topic"]
            refused = await client.call_tool("kitaru_deployments_invoke", {"flow": "brief", "inputs": {"topic": 3}})
            assert refused.is_error
            assert "Input 'topic' of brief@v1 is 3" in refused.content[0].text  # type: ignore[union-attr]
            started = await call(client, "kitaru_deployments_invoke", flow="brief@prod", inputs={"topic": "tides"})
            await call(client, "kitaru_deployments_tag", flow="brief", version=1, tag="prod")
            back = await call(client, "kitaru_deployments_rollback", flow="brief", tag="prod")
            assert back["version"] == 2
            await call(client, "kitaru_deployments_untag", flow="brief", tag="prod")
            history = await call(client, "kitaru_deployments_history", flow="brief", tag="prod")
            assert [(c["by"], c["version"]) for c in history["items"]] == [("ana", 2), (by, 1), (by, 2), (by, None)]
            stacks = await call(client, "kitaru_stacks_list")
            assert [s["name"] for s in stacks["items"]] == ["local", "process"]
        exec_id = started["exec_id"]
        until(lambda: runtime.journal.execution(exec_id).status.ended, "the end")
    assert KitaruClient(runtime).artifacts.get(f"{exec_id}/result").load() == "all about tides, edition 2"
    assert runtime.journal.history(exec_id)[0].body["by"] == by


@pytest.mark.parametrize(
    ("role", "refused"),
    [
        ("view", ["invoke", "tag", "untag", "rollback", "delete"]),
        ("operate", ["invoke", "tag", "untag", "rollback", "delete"]),
        ("work", ["delete"]),
        ("admin", []),
    ],
)
async def test_who_may_not_doesnt_even_see_the_tool(
    runtime: Runtime, tmp_path: Path, deploy: Deployer, role: str, refused: list[str]
) -> None:
    deploy("brief")
    with serving(runtime, tmp_path) as served:
        async with over_http(served, role) as client:
            there = {tool.name for tool in (await client.list_tools()).tools}
            acts = ("invoke", "tag", "untag", "rollback", "delete")
            assert [act for act in acts if f"kitaru_deployments_{act}" not in there] == refused
            for act in refused:
                answer = await client.call_tool(f"kitaru_deployments_{act}", {"flow": "brief"})
                assert answer.is_error
                assert f"has the role {role}; deployments.{act} needs" in answer.content[0].text  # type: ignore[union-attr]
    assert runtime.journal.executions(limit=1) == []
    assert len(deploy.deployments.history("brief")) == 2
