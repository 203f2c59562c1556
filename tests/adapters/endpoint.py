"""The recorded model endpoint: aimock behind a thin front, started as a process of its own (see aimock/serve.mjs).

    def test_it(endpoint):                                     # fixture of conftest.py; fresh for each test
        endpoint.script("weather", use("look_up", key="Rome"), say("sunny"))
        ...                                                    # run an agent with the prompt "weather"
        assert endpoint.paid == 2

A turn is found by the last user message (first turn) or by the id of the last tool call that was answered (later ones),
so one script serves Chat Completions, Responses and Messages, streamed or not, and needs no state of its own.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from kitaru_nb.testing.adapter.script import Fault, Request, Turn

FOLDER = Path(__file__).with_name("aimock")

#: Tokens of each answer, in the words of all three interfaces.
USAGE = {"prompt_tokens": 40, "completion_tokens": 7, "total_tokens": 47, "input_tokens": 40, "output_tokens": 7}

_NOT_MODEL_CALLS = ("/recorded", "/__aimock", "/v1/models", "/health", "/api/hello")


class RecordedEndpoint:
    """The endpoint's process; `stop` ends it."""

    def __init__(self) -> None:
        install()
        self._process = subprocess.Popen(
            ["node", "serve.mjs"], cwd=FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:"), f"aimock did not start: {self.url!r}"

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()

    @property
    def environment(self) -> dict[str, str]:
        """Variables that point the SDKs of OpenAI and Anthropic here."""
        return {
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "OPENAI_API_KEY": "recorded",
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_API_KEY": "recorded",
        }

    def script(self, prompt: str, *turns: Turn) -> None:
        """Play these turns to conversations whose last user message contains ``prompt``."""
        matches: list[dict[str, Any]] = [{"userMessage": prompt, "hasToolResult": False}]
        fixtures = []
        for number, turn in enumerate(turns):
            fixtures += [fixture for match in matches for fixture in _fixtures(match, turn, _ids(prompt, number, turn))]
            matches = [{"toolCallId": call_id} for call_id in _ids(prompt, number, turn)]
        answer = self._post("/__aimock/fixtures", {"fixtures": fixtures})
        assert answer == {"added": len(fixtures)}, answer

    def requests(self) -> Sequence[Request]:
        """The model requests so far, oldest first."""
        with urllib.request.urlopen(f"{self.url}/recorded", timeout=10) as reply:
            found = [Request(**entry) for entry in json.load(reply)]
        return [request for request in found if not request.path.startswith(_NOT_MODEL_CALLS)]

    @property
    def paid(self) -> int:
        """How many answers went out whole."""
        return sum(request.paid for request in self.requests())

    def hold(self, after: int = 0) -> None:
        """Answer ``after`` more requests and keep all later ones waiting."""
        self._post("/recorded/hold", {"after": after})

    def wait_held(self, count: int = 1, *, seconds: float = 60.0) -> Sequence[Request]:
        """Wait until ``count`` requests are kept waiting; those."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            held = [request for request in self.requests() if request.held and request.body]
            if len(held) >= count:
                return held
            time.sleep(0.02)
        raise TimeoutError(f"{count} requests were to be kept waiting; there are {len(held)} after {seconds:g} s")

    def let_go(self) -> None:
        """Drop the connections of those that wait, and answer again from now on."""
        self._post("/recorded/let-go", {})

    def reset(self) -> None:
        """Forget scripts and requests."""
        self._post("/recorded/reset", {})

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.load(reply)


def install() -> None:
    """Fetch aimock as its lock file says, once."""
    if not (FOLDER / "node_modules" / "@copilotkit" / "aimock").is_dir():
        subprocess.run(["npm", "ci", "--ignore-scripts", "--silent"], cwd=FOLDER, check=True, timeout=300)


def _ids(prompt: str, number: int, turn: Turn) -> list[str]:
    """Ids of a turn's tool calls, the same in every run."""
    name = blake2b(prompt.encode(), digest_size=4).hexdigest()
    return [f"call_{name}_{number}_{n}" for n in range(len(turn.uses))]


def _fixtures(match: Mapping[str, Any], turn: Turn, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The faults, each for one request, then the answer."""
    answer: dict[str, Any] = {"usage": USAGE}
    if turn.text or not turn.uses:
        answer["content"] = turn.text
    if turn.uses:
        answer["toolCalls"] = [
            {"id": call_id, "name": used.name, "arguments": json.dumps(dict(used.arguments))}
            for call_id, used in zip(ids, turn.uses, strict=True)
        ]
    plain: dict[str, Any] = {"match": match, "response": answer, "chunkSize": 4}
    if turn.pause:
        plain["latency"] = round(turn.pause * 1000)
    if turn.seconds:
        plain["chaos"] = {"latencyMs": round(turn.seconds * 1000)}
    faulty = [
        {**plain, "match": {**match, "sequenceIndex": n}, **_FAULTS[fault]} for n, fault in enumerate(turn.faults)
    ]
    return [*faulty, plain]


_FAULTS: dict[Fault, dict[str, Any]] = {
    "429": {
        "response": {"error": {"message": "Slow down", "type": "rate_limit_error"}, "status": 429, "retryAfter": 0}
    },
    "500": {"response": {"error": {"message": "Out of order", "type": "server_error"}, "status": 500}},
    "disconnect": {"chaos": {"disconnectRate": 1}},
    "malformed": {"chaos": {"malformedRate": 1}},
    "cut": {"truncateAfterChunks": 3, "latency": 20},  # the pause lets the pieces go out before the end
}
