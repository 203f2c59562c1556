"""The SDK's exceptions, made so that they survive a resume: `except MaxTurnsExceeded` works then as it did live."""

from __future__ import annotations

import copyreg
import pickle
from types import SimpleNamespace
from typing import Any

from agents import exceptions
from agents.exceptions import AgentsException

#: Attributes that hold a guardrail's result: its function can't be kept, its name and what it said can.
_VERDICTS = ("guardrail_result", "output")


def register() -> None:
    """Teach pickle the SDK's exceptions. They carry the whole run otherwise, which can't be pickled."""
    for kind in vars(exceptions).values():
        if isinstance(kind, type) and issubclass(kind, AgentsException):
            copyreg.pickle(kind, _reduce)


def _reduce(error: AgentsException) -> tuple[Any, ...]:
    kept = {name: _plain(name, value) for name, value in vars(error).items() if name != "run_data"}
    return _again, (type(error), error.args, {name: value for name, value in kept.items() if _survives(value)})


def _again(kind: type[AgentsException], args: tuple[Any, ...], attributes: dict[str, Any]) -> AgentsException:
    error = kind.__new__(kind)
    error.args = args
    error.run_data = None
    vars(error).update(attributes)
    return error


def _plain(name: str, value: Any) -> Any:
    """A guardrail's verdict without its function."""
    if name not in _VERDICTS or isinstance(value, str):
        return value
    guardrail = getattr(value, "guardrail", None)
    output = getattr(value, "output", value)
    verdict = SimpleNamespace(
        output_info=_kept(getattr(output, "output_info", None)),
        tripwire_triggered=bool(getattr(output, "tripwire_triggered", True)),
    )
    if guardrail is None:
        return verdict
    said = getattr(guardrail, "name", None) or getattr(getattr(guardrail, "guardrail_function", None), "__name__", "")
    return SimpleNamespace(guardrail=SimpleNamespace(name=said), output=verdict)


def _kept(value: Any) -> Any:
    return value if _survives(value) else str(value)


def _survives(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True
