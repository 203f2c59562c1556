"""``llm``: one call of a model, durable inside a flow and a plain call outside.

    summary = llm("Summarise: ...", model="openai:gpt-4o-mini")

Models of OpenAI, of any server that speaks its Chat Completions (``OPENAI_BASE_URL``), and of Anthropic. Aliases come
from ``[models]`` in ``config.toml``: with ``fast = "openai:gpt-4o-mini"`` you write ``llm(..., model="fast")``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kitaru_nb.config import load_tables
from kitaru_nb.errors import KitaruFeatureNotAvailableError, KitaruRuntimeError, KitaruUsageError
from kitaru_nb.surfaces.adapters.base import Operation, Part, Recorded, block_on, perform_async
from kitaru_nb.surfaces.adapters.prices import metered

PROVIDERS = ("openai", "anthropic")

#: The alias that stands for the model where none is named.
DEFAULT_ALIAS = "default"

#: What Anthropic's interface is told where ``max_tokens`` is left out; it demands a number.
DEFAULT_MAX_TOKENS = 4096

_SETTINGS = ("temperature", "max_tokens")
_ROLES = ("system", "developer", "user", "assistant")

Show = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered.

    Attributes:
        input_tokens: all of them, those from the provider's cache too; None where the server doesn't say.
        first_text: seconds until the first piece of a streamed answer came.
    """

    text: str
    model: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    stop_reason: str | None = None
    request_id: str | None = None
    first_text: float | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, checked."""

    provider: str
    model: str
    messages: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)


def llm(
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    model: str | None = None,
    system: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    name: str | None = None,
    stream: bool | None = None,
) -> str:
    """Ask a model; its text.

    Inside a flow the call is a checkpoint: its answer is kept, with prompt, tokens, seconds and cost, and is neither
    asked for nor paid again when the execution is resumed. Outside it is a plain call.

    Args:
        prompt: a text, or messages ``{"role": ..., "content": ...}`` as in Chat Completions.
        model: ``openai:NAME``, ``anthropic:NAME``, a name alone, or an alias; default: the alias ``default``.
        system: instructions that come before the prompt.
        max_tokens: of the answer.
        name: what the checkpoint is called; default ``llm``.
        stream: print the text while it comes. Default: in notebooks yes, elsewhere no.

    Raises:
        KitaruUsageError: arguments that can't be, an unknown alias, or no key for the provider. Nothing was asked.
        KitaruFeatureNotAvailableError: the provider's package isn't installed.
    """
    call = Request(check(prompt, model, system, temperature, max_tokens), name, stream)
    return block_on(call.answer, instead="await llm_async(...)")


async def llm_async(
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    model: str | None = None,
    system: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    name: str | None = None,
    stream: bool | None = None,
) -> str:
    """`llm`, awaited: several may be asked at once with ``asyncio.gather``."""
    return await Request(check(prompt, model, system, temperature, max_tokens), name, stream).answer()


def check(
    prompt: str | Sequence[Mapping[str, Any]],
    model: str | None,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
) -> Asked:
    """The request that arguments of `llm` mean. Raises `KitaruUsageError`."""
    provider, name = resolve(model)
    messages = _messages(prompt)
    if system is not None:
        messages = [{"role": "system", "content": system}, *messages]
    if temperature is not None and not (isinstance(temperature, int | float) and 0 <= temperature <= 2):
        raise KitaruUsageError(
            f"temperature={temperature!r} can't be; expected a number from 0 to 2.", fix="llm(..., temperature=0.5)"
        )
    if max_tokens is not None and (type(max_tokens) is not int or max_tokens < 1):
        raise KitaruUsageError(
            f"max_tokens={max_tokens!r} can't be; expected a number above 0.", fix="llm(..., max_tokens=500)"
        )
    settings = {"temperature": temperature, "max_tokens": max_tokens}
    _check_key(provider)
    return Asked(provider, name, messages, {key: value for key, value in settings.items() if value is not None})


def resolve(model: str | None) -> tuple[str, str]:
    """(provider, model name) of what somebody wrote as a model, or of the alias ``default``.

    Raises:
        KitaruUsageError: no model was named and there is no default.
    """
    tables = load_tables()
    known = tables.models.get(model or DEFAULT_ALIAS)
    if model is None and known is None:
        raise KitaruUsageError(
            f"No model was named, and {tables.path} has no alias {DEFAULT_ALIAS!r}.",
            fix=f"llm(..., model='openai:gpt-4o-mini'), or once: kitaru model register {DEFAULT_ALIAS} "
            "openai:gpt-4o-mini",
        )
    text = (known or model or "").strip()
    for mark in (":", "/"):
        provider, found, name = text.partition(mark)
        if found and provider in PROVIDERS and name:
            return provider, name
    if not text or text in PROVIDERS or text.rstrip(":/") in PROVIDERS:
        raise KitaruUsageError(
            f"model={model!r} names no model; expected 'provider:name' with one of {', '.join(PROVIDERS)}, a model's "
            f"name, or an alias ({', '.join(sorted(tables.models)) or 'there is none yet'}).",
            fix="llm(..., model='openai:gpt-4o-mini')",
        )
    return ("anthropic" if text.startswith("claude") else "openai"), text


def _messages(prompt: Any) -> list[Mapping[str, Any]]:
    if isinstance(prompt, str):
        if not prompt.strip():
            raise KitaruUsageError("The prompt is empty; expected a text, or messages.", fix="llm('Say hello')")
        return [{"role": "user", "content": prompt}]
    messages = list(prompt) if isinstance(prompt, Sequence) else []
    right = [isinstance(m, Mapping) and m.get("role") in _ROLES and "content" in m for m in messages]
    if not messages or not all(right):
        wrong = messages[right.index(False)] if messages else prompt
        raise KitaruUsageError(
            f"{wrong!r} is no message; expected a mapping with role ({', '.join(_ROLES)}) and content.",
            fix="llm([{'role': 'user', 'content': 'Say hello'}])",
        )
    return [dict(message) for message in messages]


def _check_key(provider: str) -> None:
    name = f"{provider.upper()}_API_KEY"
    # A server of one's own seldom wants a key; the provider's always does.
    if not os.environ.get(name) and not os.environ.get(f"{provider.upper()}_BASE_URL"):
        raise KitaruUsageError(f"There is no key for {provider}: {name} is not set.", fix=f"export {name}=...")


def _printer(stream: bool | None) -> Show | None:
    """Where pieces of text go as they come, or None to ask for the answer as a whole."""
    if not (_in_notebook() if stream is None else stream):
        return None
    return lambda piece: print(piece, end="", flush=True)


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class Request:
    """One call of `llm`: a request that was checked, and how it is asked and kept."""

    def __init__(self, asked: Asked, name: str | None, stream: bool | None) -> None:
        self.asked = asked
        self._name = name or "llm"
        self._show = _printer(stream)
        self._began = time.monotonic()

    async def answer(self) -> str:
        """The model's text; inside a flow from the record, when it was asked before."""
        asked = self.asked
        inputs = {"model": f"{asked.provider}:{asked.model}", "messages": list(asked.messages)}
        operation = Operation(
            self._name,
            "model_call",
            inputs | {"settings": asked.settings},
            encode=lambda completion: _encode(self.asked, completion, time.monotonic() - self._began),
            decode=lambda text: Completion(str(text)),
            take=self._take,
            takes=("model", "messages", "settings"),
        )
        return (await perform_async(operation, self._ask)).text

    async def _ask(self) -> Completion:
        ask = _ask_anthropic if self.asked.provider == "anthropic" else _ask_openai
        return await ask(self.asked, self._show)

    def _take(self, values: Mapping[str, Any]) -> None:
        """A replay wants another request."""
        asked = self.asked
        settings = values.get("settings", asked.settings)
        if not isinstance(settings, Mapping) or (unknown := sorted(set(settings) - set(_SETTINGS))):
            found = repr(settings) if not isinstance(settings, Mapping) else f"no {unknown[0]!r}"
            raise KitaruUsageError(
                f"The settings of {self._name!r} can't be: {found}; expected {' and '.join(_SETTINGS)}.",
                fix=f"overrides={{'arguments.{self._name}': {{'settings': {{'temperature': 0}}}}}}",
            )
        model = values.get("model", f"{asked.provider}:{asked.model}")
        given = {"system": None, "temperature": None, "max_tokens": None, **settings}
        self.asked = check(values.get("messages", asked.messages), model, **given)


def _encode(asked: Asked, completion: Completion, seconds: float) -> Recorded:
    metadata = metered(
        completion.model or asked.model,
        input_tokens=completion.input_tokens,
        output_tokens=completion.output_tokens,
        cached_tokens=completion.cached_tokens,
        cache_write_tokens=completion.cache_write_tokens,
        provider=asked.provider,
    )
    metadata |= {
        "provider": asked.provider,
        "latency": round(seconds, 3),
        "first_text": None if completion.first_text is None else round(completion.first_text, 3),
        "stop_reason": completion.stop_reason,
        "request_id": completion.request_id,
    }
    prompt = {"messages": list(asked.messages), **asked.settings}
    parts = (Part("response", completion.text, "response"), Part("prompt", prompt, "prompt"))
    return Recorded(parts, {key: value for key, value in metadata.items() if value is not None})


async def _ask_openai(asked: Asked, show: Show | None) -> Completion:
    openai = _package("openai")
    settings: dict[str, Any] = dict(asked.settings)
    if "max_tokens" in settings and not os.environ.get("OPENAI_BASE_URL"):
        # OpenAI's newer models know only this name; other servers mostly know only the older one.
        settings["max_completion_tokens"] = settings.pop("max_tokens")
    async with openai.AsyncOpenAI(api_key=os.environ.get("OPENAI_API_KEY") or "none") as client:
        if show is not None:
            return await _stream_openai(client, asked, settings, show)
        answer = await client.chat.completions.create(model=asked.model, messages=asked.messages, **settings)
    if not answer.choices:
        raise KitaruRuntimeError(f"{asked.model} gave no answer: its response has no choices.")
    choice = answer.choices[0]
    return Completion(
        choice.message.content or "",
        answer.model or "",
        stop_reason=choice.finish_reason,
        request_id=answer._request_id,
        **_openai_tokens(answer.usage),
    )


async def _stream_openai(client: Any, asked: Asked, settings: Mapping[str, Any], show: Show) -> Completion:
    began, first, pieces = time.monotonic(), None, []
    model, usage, stop = "", None, None
    stream = await client.chat.completions.create(
        model=asked.model, messages=asked.messages, stream=True, stream_options={"include_usage": True}, **settings
    )
    async with stream:
        async for chunk in stream:
            model, usage = chunk.model or model, chunk.usage or usage
            for choice in chunk.choices[:1]:
                stop = choice.finish_reason or stop
                if piece := choice.delta.content:
                    first = first or time.monotonic() - began
                    pieces.append(piece)
                    show(piece)
    show("\n")
    if stop is None:
        raise KitaruRuntimeError(f"The answer of {asked.model} broke off: its stream ended without a reason to stop.")
    text = "".join(pieces)
    return Completion(text, model, stop_reason=stop, first_text=first, **_openai_tokens(usage))


def _openai_tokens(usage: Any) -> dict[str, Any]:
    if usage is None:
        return {}
    details = usage.prompt_tokens_details
    cached = (details.cached_tokens if details is not None else 0) or 0
    return {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "cached_tokens": cached,
    }


async def _ask_anthropic(asked: Asked, show: Show | None) -> Completion:
    anthropic = _package("anthropic")
    told = [m["content"] for m in asked.messages if m["role"] in ("system", "developer")]
    settings = {"max_tokens": DEFAULT_MAX_TOKENS, **asked.settings}
    options: dict[str, Any] = {"max_tokens": settings.pop("max_tokens")}
    if settings:
        options["extra_body"] = settings  # newer versions of the SDK have no parameter for a temperature
    options["messages"] = [m for m in asked.messages if m["role"] not in ("system", "developer")]
    if told:
        options["system"] = "\n\n".join(told)
    first = None
    async with anthropic.AsyncAnthropic(api_key=os.environ.get("ANTHROPIC_API_KEY") or "none") as client:
        if show is None:
            message = await client.messages.create(model=asked.model, **options)
            request_id = message._request_id
        else:
            began = time.monotonic()
            async with client.messages.stream(model=asked.model, **options) as stream:
                async for piece in stream.text_stream:
                    first = first or time.monotonic() - began
                    show(piece)
                message = await stream.get_final_message()
                request_id = stream.response.headers.get("request-id")
            show("\n")
    usage = message.usage
    read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    return Completion(
        "".join(block.text for block in message.content if block.type == "text"),
        message.model,
        input_tokens=usage.input_tokens + read + written,
        output_tokens=usage.output_tokens,
        cached_tokens=read,
        cache_write_tokens=written,
        stop_reason=message.stop_reason,
        request_id=request_id,
        first_text=first,
    )


def _package(name: str) -> Any:
    """An SDK, loaded when it is first needed."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        extra = {"openai": "kitaru-nb", "anthropic": "'kitaru-nb[anthropic]'"}[name]
        raise KitaruFeatureNotAvailableError(
            f"The package {name} is not installed.", fix=f"pip install {extra}"
        ) from error
