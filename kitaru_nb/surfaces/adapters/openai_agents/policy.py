"""What is kept of each call, and how calls are tried again: the settings of a runner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kitaru_nb.core.retry import Retry, as_retry
from kitaru_nb.errors import KitaruUsageError

Kind = Literal["prompt", "response", "arguments", "result"]

_KEYS = ("checkpoint", "retries", "timeout")


@dataclass(frozen=True)
class OpenAICapturePolicy:
    """What people see of the calls, in artifacts, previews and lists.

    Attributes:
        prompts: keep each model call's instructions and input as an artifact.
        arguments: keep each tool call's arguments as an artifact.
        redact: (kind, value) → the value to show. ``kind`` is ``prompt response arguments result``. With it, the
            exact response or result, which a resume needs, is kept beside in an artifact ``record`` without a preview.
    """

    prompts: bool = True
    arguments: bool = True
    redact: Callable[[Kind, Any], Any] | None = None

    def __post_init__(self) -> None:
        check_function(self.redact, "redact", "lambda kind, value: '…'")

    def shown(self, kind: Kind, value: Any) -> Any:
        """The value as people may see it."""
        return value if self.redact is None else self.redact(kind, value)


def check_function(given: object, name: str, example: str) -> None:
    """Raise `KitaruUsageError` where something else than a function, or nothing, was given."""
    if given is not None and not callable(given):
        raise KitaruUsageError(f"{name}={given!r} can't be called; expected a function.", fix=f"{name}={example}")


@dataclass(frozen=True)
class CallConfig:
    """How calls of one kind are kept: whether each is a checkpoint, its retries, and seconds that it may take."""

    checkpoint: bool = True
    retry: Retry = field(default_factory=Retry)
    timeout: float | None = None


def call_config(given: Mapping[str, Any] | bool | None, where: str, base: CallConfig | None = None) -> CallConfig:
    """A `CallConfig` from ``{"checkpoint": …, "retries": …, "timeout": …}``, or false for no checkpoint.

    Raises:
        KitaruUsageError: another key, or a value that can't be.
    """
    base = base or CallConfig()
    if given is None:
        return base
    if isinstance(given, bool):
        return CallConfig(given, base.retry, base.timeout)
    if not isinstance(given, Mapping):
        raise KitaruUsageError(
            f"{where} is a {type(given).__name__}; expected a mapping with {', '.join(_KEYS)}, or False.",
            fix=f"{where}={{'retries': 2, 'timeout': 30}}",
        )
    if unknown := sorted(set(given) - set(_KEYS)):
        raise KitaruUsageError(
            f"{where} has no option {unknown[0]!r}. Options are: {', '.join(_KEYS)}.",
            fix=f"{where}={{'retries': 2, 'timeout': 30}}",
        )
    timeout = given.get("timeout", base.timeout)
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0):
        raise KitaruUsageError(f"{where}: timeout={timeout!r} can't be: expected seconds > 0.", fix="timeout=30")
    checkpoint = given.get("checkpoint", base.checkpoint)
    if not isinstance(checkpoint, bool):
        raise KitaruUsageError(
            f"{where}: checkpoint={checkpoint!r} can't be: expected True or False.",
            fix=f"{where}={{'checkpoint': False}}",
        )
    try:
        retry = as_retry(given["retries"]) if "retries" in given else base.retry
    except KitaruUsageError as error:
        raise KitaruUsageError(f"{where}: {error.message}", fix=f"{where}={{'retries': 2}}") from error
    return CallConfig(checkpoint, retry, timeout)


@dataclass(frozen=True)
class Policy:
    """The settings of one runner.

    Attributes:
        records: whether model and tool calls are checkpoints of their own.
        cost: (model, usage of one answer as the SDK counts it) → USD, or None to use the price table.
    """

    records: bool = True
    capture: OpenAICapturePolicy = field(default_factory=OpenAICapturePolicy)
    model: CallConfig = field(default_factory=CallConfig)
    tool: CallConfig = field(default_factory=CallConfig)
    mcp: CallConfig = field(default_factory=CallConfig)
    tools: Mapping[str, CallConfig] = field(default_factory=dict)
    cost: Callable[[str, Any], float | None] | None = None

    def of_tool(self, name: str, *, mcp: bool) -> CallConfig:
        """The settings of one tool."""
        return self.tools.get(name) or (self.mcp if mcp else self.tool)


#: Of runs that no `KitaruRunner` started.
PLAIN = Policy()
