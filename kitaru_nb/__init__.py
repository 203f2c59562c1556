"""kitaru_nb: a durable runtime for AI agents that lives in the notebook.

Importing it loads nothing and has no effect: names are resolved on first use (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Public name → the module that defines it.
_PUBLIC = {
    "checkpoint": "kitaru_nb.core.checkpoint",
    "flow": "kitaru_nb.core.flow",
    "wait": "kitaru_nb.core.wait",
    "wait_async": "kitaru_nb.core.wait",
    "save": "kitaru_nb.core.records",
    "load": "kitaru_nb.core.records",
    "log": "kitaru_nb.core.records",
    "replay": "kitaru_nb.client",
    "Retry": "kitaru_nb.core.retry",
    "FlowHandle": "kitaru_nb.core.handle",
    "KitaruClient": "kitaru_nb.client",
    "current_execution_id": "kitaru_nb.core.context",
    "idempotency_key": "kitaru_nb.core.context",
    "register_serializer": "kitaru_nb.artifacts.serializers",
    "Execution": "kitaru_nb.model",
    "ExecutionStatus": "kitaru_nb.model",
    "CheckpointCall": "kitaru_nb.model",
    "CheckpointAttempt": "kitaru_nb.model",
    "Artifact": "kitaru_nb.model",
    "Wait": "kitaru_nb.model",
    "FailureInfo": "kitaru_nb.model",
    "LogEntry": "kitaru_nb.model",
    "load_ipython_extension": "kitaru_nb.surfaces.notebook.extension",
    "unload_ipython_extension": "kitaru_nb.surfaces.notebook.extension",
}
_ERRORS = (
    "KitaruError",
    "KitaruUsageError",
    "KitaruNotFoundError",
    "KitaruContextError",
    "KitaruStateError",
    "KitaruLeaseError",
    "KitaruFencedError",
    "KitaruConflictError",
    "KitaruWaitingError",
    "KitaruRuntimeError",
    "KitaruExecutionError",
    "KitaruUserCodeError",
    "KitaruTimeoutError",
    "KitaruAmbiguousFlowResultError",
    "KitaruBackendError",
    "KitaruLogRetrievalError",
    "KitaruArtifactError",
    "KitaruSerializationError",
    "KitaruDivergenceError",
    "KitaruWaitValidationError",
    "KitaruFeatureNotAvailableError",
    "Paused",
)
_PUBLIC |= dict.fromkeys(_ERRORS, "kitaru_nb.errors")

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from kitaru_nb.artifacts.serializers import register_serializer as register_serializer
    from kitaru_nb.client import KitaruClient as KitaruClient
    from kitaru_nb.client import replay as replay
    from kitaru_nb.core.checkpoint import checkpoint as checkpoint
    from kitaru_nb.core.context import current_execution_id as current_execution_id
    from kitaru_nb.core.context import idempotency_key as idempotency_key
    from kitaru_nb.core.flow import flow as flow
    from kitaru_nb.core.handle import FlowHandle as FlowHandle
    from kitaru_nb.core.records import load as load
    from kitaru_nb.core.records import log as log
    from kitaru_nb.core.records import save as save
    from kitaru_nb.core.retry import Retry as Retry
    from kitaru_nb.core.wait import wait as wait
    from kitaru_nb.core.wait import wait_async as wait_async
    from kitaru_nb.errors import *  # noqa: F403
    from kitaru_nb.model import Artifact as Artifact
    from kitaru_nb.model import CheckpointAttempt as CheckpointAttempt
    from kitaru_nb.model import CheckpointCall as CheckpointCall
    from kitaru_nb.model import Execution as Execution
    from kitaru_nb.model import ExecutionStatus as ExecutionStatus
    from kitaru_nb.model import FailureInfo as FailureInfo
    from kitaru_nb.model import LogEntry as LogEntry
    from kitaru_nb.model import Wait as Wait


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
