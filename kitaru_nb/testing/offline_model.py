"""A real language model that needs no key and no network, behind the API that agents already speak.

`OfflineModel` serves OpenAI's Chat Completions and Anthropic's Messages on loopback, tools and streaming included, with
the small model of `kitaru_nb.testing.language_model`. Every completion is counted, so that a resumed or replayed run
can show what it did not pay for again. In a shell::

    python -m kitaru_nb.testing.offline_model --port 8080 --log calls.jsonl
    export OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=offline
    curl http://127.0.0.1:8080/calls
"""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import sys
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from kitaru_nb.errors import KitaruError, KitaruStateError, KitaruUsageError
from kitaru_nb.testing.language_model import MODEL_NAME, Engine, Generated, Plan, plan
from kitaru_nb.testing.messages_api import MessageEvents, as_chat, message


class OfflineModel:
    """The server. As a context manager it is started on a free port and stopped at the end.

    Args:
        log: file that gets one JSON line for each completion: ``call at kind seconds prompt_tokens completion_tokens
            prompt text``. Counting goes on after the lines that it already has.
    """

    def __init__(self, *, log: str | Path | None = None) -> None:
        self._ledger = _Ledger(Path(log) if log is not None else None)
        self._http: _HTTPServer | None = None
        self._thread: threading.Thread | None = None

    def start(self, port: int = 0) -> str:
        """Loads the model, listens on loopback (port 0: a free one) and returns `base_url`.

        Raises:
            KitaruFeatureNotAvailableError: the model's packages are not installed.
            KitaruStateError: it was started already, or the port is taken.
        """
        if self._http is not None:
            raise KitaruStateError(f"The offline model already serves {self.base_url}.")
        try:
            http = _HTTPServer(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise KitaruStateError(f"Port {port} can't be opened: {error}.", fix="choose another, or 0") from error
        try:
            http.engine, http.ledger = Engine(), self._ledger
        except KitaruError:
            http.server_close()
            raise
        self._http = http
        self._thread = threading.Thread(target=http.serve_forever, name="offline-model", daemon=True)
        self._thread.start()
        return self.base_url

    @property
    def base_url(self) -> str:
        """What ``OPENAI_BASE_URL`` has to be: ``http://127.0.0.1:<port>/v1``.

        Raises:
            KitaruStateError: the server isn't running.
        """
        if self._http is None:
            raise KitaruStateError("The offline model is not running.", fix="OfflineModel().start()")
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def calls(self) -> int:
        """How many completions the model has written: also those whose client left, never a refused request."""
        return self._ledger.totals()["calls"]

    def stop(self) -> None:
        """Stops listening and lets the model go. Harmless when it isn't running."""
        if self._http is None or self._thread is None:
            return
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self._http = self._thread = None

    def __enter__(self) -> OfflineModel:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()


class _Ledger:
    """Counts completions and writes them down, safe for threads."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._totals = {"calls": 0, "prompt_tokens": 0, "completion_tokens": 0}
        if path is not None and path.exists():
            self._resume(path)

    def _add(self, call: Mapping[str, Any]) -> int:
        self._totals["calls"] += 1
        self._totals["prompt_tokens"] += call["prompt_tokens"]
        self._totals["completion_tokens"] += call["completion_tokens"]
        return self._totals["calls"]

    def _resume(self, path: Path) -> None:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                self._add(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise KitaruUsageError(
                    f"Line {number} of {path} is not a call of the offline model: {line[:60]!r}.", fix=f"rm {path}"
                ) from error

    def record(self, call: Mapping[str, Any]) -> None:
        with self._lock:
            line = {"call": self._add(call), **call}
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def totals(self) -> dict[str, int]:
        with self._lock:
            return dict(self._totals)


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    engine: Engine
    ledger: _Ledger

    def write(self, asked: Plan, on_text: Any = None) -> Generated:
        """One completion by the model, counted before anybody sees the end of it."""
        began = time.time()
        answer = self.engine.generate(asked, on_text)
        self.ledger.record(
            {
                "at": round(began, 3),
                "kind": "tool" if asked.tool else "json" if asked.schema is not None else "text",
                "seconds": round(time.time() - began, 3),
                "prompt_tokens": answer.prompt_tokens,
                "completion_tokens": answer.completion_tokens,
                "prompt": asked.messages[-1]["content"],
                "text": answer.text,
            }
        )
        return answer


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.0, one request for each connection: on loopback that costs nothing beside a completion's second."""

    server: _HTTPServer
    streaming = False

    @property
    def _asked_path(self) -> str:
        return self.path.partition("?")[0].removeprefix("/v1")

    def do_GET(self) -> None:
        path = self._asked_path
        if path == "/calls":
            self._send(self.server.ledger.totals())
        elif path == "/models":
            self._send({"object": "list", "data": [{"id": MODEL_NAME, "object": "model", "owned_by": "offline"}]})
        else:
            self._not_found()

    def do_POST(self) -> None:
        answered = {"/chat/completions": self._complete, "/messages": self._write_message}.get(self._asked_path)
        if answered is None:
            self._not_found()
            return
        try:
            answered(self._request())
        except KitaruError as error:
            status = HTTPStatus.BAD_REQUEST if isinstance(error, KitaruUsageError) else HTTPStatus.BAD_GATEWAY
            if self.streaming:
                self.send_event(_error(status, str(error)), "error")
            else:
                self._send(_error(status, str(error)), status)

    def _complete(self, request: Mapping[str, Any]) -> None:
        asked = plan(request)
        if request.get("stream"):
            _Stream(self, request).run(asked)
        else:
            self._send(_completion(request, asked, self.server.write(asked)))

    def _write_message(self, request: Mapping[str, Any]) -> None:
        asked = plan(as_chat(request))
        if not request.get("stream"):
            self._send(message(request, asked, self.server.write(asked)))
            return
        events = MessageEvents(request, asked, lambda kind, body: self.send_event(body, kind))
        events.end(self.server.write(asked, None if asked.tool else events.text))

    def _request(self) -> Mapping[str, Any]:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            request = json.loads(body)
        except ValueError as error:
            raise KitaruUsageError(f"The body is not JSON: {error}.") from error
        if not isinstance(request, dict):
            raise KitaruUsageError(f"The body is {type(request).__name__}; expected a JSON object.")
        return request

    def _not_found(self) -> None:
        said = (
            f"{self.command} {self.path} is not served; expected POST /v1/chat/completions, POST /v1/messages, "
            "GET /v1/models or GET /calls. The OpenAI Agents SDK asks for the first with OpenAIChatCompletionsModel."
        )
        self._send(_error(HTTPStatus.NOT_FOUND, said), HTTPStatus.NOT_FOUND)

    def _send(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.send_body(body)

    def send_event(self, data: Mapping[str, Any], name: str | None = None) -> None:
        """A server-sent event. Headers go out with the first, so that a refusal before it is still a 4xx."""
        if not self.streaming:
            self.streaming = True
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
        head = b"" if name is None else f"event: {name}\n".encode()
        self.send_body(head + b"data: " + json.dumps(data).encode() + b"\n\n")

    def send_body(self, body: bytes) -> None:
        """Writes to the client, if it is still there."""
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def flush_headers(self) -> None:
        try:
            super().flush_headers()
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the ledger keeps what matters, and a notebook's output stays clean."""


class _Stream:
    """Server-sent events of one completion."""

    def __init__(self, handler: _Handler, request: Mapping[str, Any]) -> None:
        self._handler = handler
        self._head = _head(request, "chat.completion.chunk")
        self._with_usage = bool((request.get("stream_options") or {}).get("include_usage"))

    def run(self, asked: Plan) -> None:
        answer = self._handler.server.write(asked, None if asked.tool else lambda text: self._delta({"content": text}))
        if asked.tool:
            self._delta({"tool_calls": [{"index": 0, **_tool_call(asked.tool, answer)}]})
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": _finish_reason(asked, answer)}]})
        if self._with_usage:
            self._event({"choices": [], "usage": _usage(answer)})
        self._handler.send_body(b"data: [DONE]\n\n")

    def _delta(self, delta: Mapping[str, Any]) -> None:
        self._event({"choices": [{"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": None}]})

    def _event(self, chunk: Mapping[str, Any]) -> None:
        self._handler.send_event({**self._head, **chunk})


def _error(status: HTTPStatus, said: str) -> dict[str, Any]:
    """In the shape of both interfaces."""
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "api_error"
    return {"type": "error", "error": {"message": said, "type": kind, "code": status.value}}


def _head(request: Mapping[str, Any], kind: str) -> dict[str, Any]:
    model = request.get("model") or MODEL_NAME
    return {"id": f"chatcmpl-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": model}


def _completion(request: Mapping[str, Any], asked: Plan, answer: Generated) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None if asked.tool else answer.text}
    if asked.tool:
        message["tool_calls"] = [_tool_call(asked.tool, answer)]
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(asked, answer)}
    return {**_head(request, "chat.completion"), "choices": [choice], "usage": _usage(answer)}


def _tool_call(name: str, answer: Generated) -> dict[str, Any]:
    arguments = json.dumps(json.loads(answer.text), ensure_ascii=False)
    return {
        "id": f"call_{secrets.token_hex(8)}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _finish_reason(asked: Plan, answer: Generated) -> str:
    return "tool_calls" if asked.tool else answer.finish_reason


def _usage(answer: Generated) -> dict[str, int]:
    total = answer.prompt_tokens + answer.completion_tokens
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": total,
    }


def main(arguments: list[str] | None = None) -> int:
    """Serves in the foreground until SIGTERM or SIGINT; prints the base URL as one line once it is ready."""
    parser = argparse.ArgumentParser(prog="python -m kitaru_nb.testing.offline_model", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on loopback; 0, the default, takes a free one")
    parser.add_argument("--log", type=Path, help="file that gets a JSON line for each completion")
    options = parser.parse_args(arguments)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        model = OfflineModel(log=options.log)
        print(model.start(options.port), flush=True)
    except KitaruError as error:
        print(error, file=sys.stderr)
        return 1
    ended.wait()
    model.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
