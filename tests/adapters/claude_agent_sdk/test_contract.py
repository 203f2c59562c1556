"""The contract of adapters, with Claude's Agent SDK: its loop runs in a subprocess, so model calls have no records."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.claude_agent_sdk.program import PREFIX
from adapters.endpoint import RecordedEndpoint
from kitaru_nb.testing.adapter import AdapterContract, Desk, Request, Turn, say, use

#: What the SDK's subprocess adds to the result of the first call after a resume.
GO_ON = "Continue from where you left off."


class Prefixed:
    """The endpoint, whose model knows the tools under the names that the SDK gives them. Requests are told without what
    the SDK's subprocess adds of its own: where the provider is to keep its cache, and that the agent is to go on."""

    def __init__(self, endpoint: RecordedEndpoint) -> None:
        self._endpoint = endpoint

    def __getattr__(self, name: str) -> Any:
        return getattr(self._endpoint, name)

    def script(self, prompt: str, *turns: Turn) -> None:
        """As of the endpoint."""
        named = [replace(t, uses=[replace(use, name=f"{PREFIX}{use.name}") for use in t.uses]) for t in turns]
        self._endpoint.script(prompt, *named)

    def requests(self) -> Sequence[Request]:
        """As of the endpoint."""
        return [replace(request, body=said(request.body)) for request in self._endpoint.requests()]

    def wait_held(self, count: int = 1, *, seconds: float = 60.0) -> Sequence[Request]:
        """As of the endpoint."""
        held = self._endpoint.wait_held(count, seconds=seconds)
        return [replace(request, body=said(request.body)) for request in held]


def said(body: Any) -> Any:
    """A request's body without what the SDK's subprocess adds of its own."""
    if isinstance(body, list):
        return [said(item) for item in body if not (isinstance(item, dict) and item.get("text") == GO_ON)]
    if isinstance(body, dict):
        return {name: said(value) for name, value in body.items() if name != "cache_control"}
    return body


class TestClaudeAgentSDK(AdapterContract):
    program = "adapters.claude_agent_sdk.program"
    records_model_calls = False
    streams = False
    reports_malformed_answers = False

    @pytest.fixture
    def endpoint(self, endpoint: RecordedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prefixed:
        """With the folder of the SDK's subprocess."""
        monkeypatch.setenv("KITARU_TEST_CLAUDE", str(tmp_path))
        return Prefixed(endpoint)

    def test_a_malformed_answer_is_asked_for_again(self, desk: Desk) -> None:
        """By the SDK's subprocess."""
        desk.endpoint.script("question", use("look_up", key="a"), say("fine").after("malformed"))
        assert desk.run("ask", "question")[1] == "fine"
        assert len(desk.endpoint.requests()) == 3
        assert desk.ended == [("look_up", "a")]

    def test_an_agent_ends_with_its_worker(self, desk: Desk) -> None:
        """The SDK's subprocess doesn't go on unseen, although only the worker itself is killed."""
        desk.endpoint.script("question", use("charge", amount=1), use("charge", amount=2), say("fine"))
        exec_id = desk.create("ask", "question")
        desk.endpoint.hold(after=1)
        worker = desk.worker(exec_id)
        desk.endpoint.wait_held()
        left = [pid for pid in children(worker.process.pid) if "claude" in command(pid)]
        assert len(left) == 1
        os.kill(worker.process.pid, signal.SIGKILL)
        desk.until(lambda: "claude" not in command(left[0]), "the agent's process has ended")
        desk.endpoint.let_go()
        assert desk.endpoint.paid == 1
        desk.work(exec_id)
        assert desk.result(exec_id) == "fine"
        assert desk.ended == [("charge", 1), ("charge", 2)]
        assert desk.endpoint.paid == 3


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    ran = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], check=True, capture_output=True, text=True)
    return [int(child) for child, parent in map(str.split, ran.stdout.splitlines()) if int(parent) == pid]


def command(pid: int) -> str:
    """The command line of a process; "" when it is gone."""
    return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True).stdout
