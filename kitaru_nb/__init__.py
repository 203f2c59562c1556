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
    "llm": "kitaru_nb.surfaces.adapters.llm",
    "llm_async": "kitaru_nb.surfaces.adapters.llm",
    "durable": "kitaru_nb.surfaces.adapters.anthropic",
    "register_price": "kitaru_nb.surfaces.adapters.prices",
    "cost_of": "kitaru_nb.surfaces.adapters.prices",
    "Execution": "kitaru_nb.model",
    "ExecutionStatus": "kitaru_nb.model",
    "CheckpointCall": "kitaru_nb.model",
    "CheckpointAttempt": "kitaru_nb.model",
    "Artifact": "kitaru_nb.model",
    "Wait": "kitaru_nb.model",
    "Deployment": "kitaru_nb.model",
    "FailureInfo": "kitaru_nb.model",
    "LogEntry": "kitaru_nb.model",
    "KitaruRunner": "kitaru_nb.surfaces.adapters.openai_agents.runner",
    "OpenAIRunRequest": "kitaru_nb.surfaces.adapters.openai_agents.requests",
    "OpenAIRunResult": "kitaru_nb.surfaces.adapters.openai_agents.requests",
    "OpenAIApprovalDecision": "kitaru_nb.surfaces.adapters.openai_agents.requests",
    "OpenAIInterruptionSummary": "kitaru_nb.surfaces.adapters.openai_agents.requests",
    "OpenAIRunStateEnvelope": "kitaru_nb.surfaces.adapters.openai_agents.requests",
    "OpenAIUsageSummary": "kitaru_nb.surfaces.adapters.openai_agents.requests",
    "OpenAICapturePolicy": "kitaru_nb.surfaces.adapters.openai_agents.policy",
    "wait_for_approval": "kitaru_nb.surfaces.adapters.openai_agents.approving",
    "wait_for_approvals": "kitaru_nb.surfaces.adapters.openai_agents.approving",
    "wait_for_approval_async": "kitaru_nb.surfaces.adapters.openai_agents.approving",
    "wait_for_approvals_async": "kitaru_nb.surfaces.adapters.openai_agents.approving",
    "build_resume_request": "kitaru_nb.surfaces.adapters.openai_agents.approving",
    "KitaruClaudeRunner": "kitaru_nb.surfaces.adapters.claude_agent_sdk",
    "ClaudeRunRequest": "kitaru_nb.surfaces.adapters.claude_requests",
    "ClaudeRunResult": "kitaru_nb.surfaces.adapters.claude_requests",
    "ClaudeDecision": "kitaru_nb.surfaces.adapters.claude_requests",
    "KitaruAgent": "kitaru_nb.surfaces.adapters.pydantic_ai",
    "KitaruDurability": "kitaru_nb.surfaces.adapters.pydantic_ai",
    "wait_for_deferred": "kitaru_nb.surfaces.adapters.pydantic_ai",
    "wait_for_deferred_async": "kitaru_nb.surfaces.adapters.pydantic_ai",
    "KitaruGraphRunner": "kitaru_nb.surfaces.adapters.langgraph",
    "LangGraphRunRequest": "kitaru_nb.surfaces.adapters.langgraph",
    "LangGraphRunResult": "kitaru_nb.surfaces.adapters.langgraph",
    "wait_for_interrupts": "kitaru_nb.surfaces.adapters.langgraph",
    "wait_for_interrupts_async": "kitaru_nb.surfaces.adapters.langgraph",
    "durable_chat_model": "kitaru_nb.surfaces.adapters.langchain_parts",
    "durable_tool": "kitaru_nb.surfaces.adapters.langchain_parts",
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
    "KitaruWorkerLostError",
    "KitaruAmbiguousFlowResultError",
    "KitaruBackendError",
    "KitaruStorageError",
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

#: What Jupyter looks for in a package, which isn't for its users.
_HOOKS = {
    "_jupyter_server_extension_points": ("kitaru_nb.surfaces.jupyter", "server_extension_points"),
    "_jupyter_labextension_paths": ("kitaru_nb.surfaces.frontend", "labextension_paths"),
}

#: Names of Kitaru that aren't here → what to use.
_INSTEAD = {
    "configure": "settings are in config.toml (kitaru init) and in variables KITARU_NAME",
    "connect": "export KITARU_JOURNAL=https://SERVER",
    **dict.fromkeys(
        ("create_stack", "delete_stack", "list_stacks", "current_stack", "use_stack"), "kitaru stack create, use, list"
    ),
    **dict.fromkeys(
        ("create_secret", "get_secret", "delete_secret"), "kitaru stack create NAME RUNNER --secret VARIABLE=REFERENCE"
    ),
    "adapters": "from kitaru_nb import KitaruRunner  (KitaruAgent, KitaruClaudeRunner, KitaruGraphRunner)",
    "ArtifactRef": "from kitaru_nb.client import ArtifactRef",
    "PendingWait": "from kitaru_nb import Wait",
}

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
    from kitaru_nb.model import Deployment as Deployment
    from kitaru_nb.model import Execution as Execution
    from kitaru_nb.model import ExecutionStatus as ExecutionStatus
    from kitaru_nb.model import FailureInfo as FailureInfo
    from kitaru_nb.model import LogEntry as LogEntry
    from kitaru_nb.model import Wait as Wait
    from kitaru_nb.surfaces.adapters.anthropic import durable as durable
    from kitaru_nb.surfaces.adapters.claude_agent_sdk import KitaruClaudeRunner as KitaruClaudeRunner
    from kitaru_nb.surfaces.adapters.claude_requests import ClaudeDecision as ClaudeDecision
    from kitaru_nb.surfaces.adapters.claude_requests import ClaudeRunRequest as ClaudeRunRequest
    from kitaru_nb.surfaces.adapters.claude_requests import ClaudeRunResult as ClaudeRunResult
    from kitaru_nb.surfaces.adapters.langchain_parts import durable_chat_model as durable_chat_model
    from kitaru_nb.surfaces.adapters.langchain_parts import durable_tool as durable_tool
    from kitaru_nb.surfaces.adapters.langgraph import KitaruGraphRunner as KitaruGraphRunner
    from kitaru_nb.surfaces.adapters.langgraph import LangGraphRunRequest as LangGraphRunRequest
    from kitaru_nb.surfaces.adapters.langgraph import LangGraphRunResult as LangGraphRunResult
    from kitaru_nb.surfaces.adapters.langgraph import wait_for_interrupts as wait_for_interrupts
    from kitaru_nb.surfaces.adapters.langgraph import wait_for_interrupts_async as wait_for_interrupts_async
    from kitaru_nb.surfaces.adapters.llm import llm as llm
    from kitaru_nb.surfaces.adapters.llm import llm_async as llm_async
    from kitaru_nb.surfaces.adapters.openai_agents.approving import build_resume_request as build_resume_request
    from kitaru_nb.surfaces.adapters.openai_agents.approving import wait_for_approval as wait_for_approval
    from kitaru_nb.surfaces.adapters.openai_agents.approving import wait_for_approval_async as wait_for_approval_async
    from kitaru_nb.surfaces.adapters.openai_agents.approving import wait_for_approvals as wait_for_approvals
    from kitaru_nb.surfaces.adapters.openai_agents.approving import wait_for_approvals_async as wait_for_approvals_async
    from kitaru_nb.surfaces.adapters.openai_agents.policy import OpenAICapturePolicy as OpenAICapturePolicy
    from kitaru_nb.surfaces.adapters.openai_agents.requests import OpenAIApprovalDecision as OpenAIApprovalDecision
    from kitaru_nb.surfaces.adapters.openai_agents.requests import (
        OpenAIInterruptionSummary as OpenAIInterruptionSummary,
    )
    from kitaru_nb.surfaces.adapters.openai_agents.requests import OpenAIRunRequest as OpenAIRunRequest
    from kitaru_nb.surfaces.adapters.openai_agents.requests import OpenAIRunResult as OpenAIRunResult
    from kitaru_nb.surfaces.adapters.openai_agents.requests import OpenAIRunStateEnvelope as OpenAIRunStateEnvelope
    from kitaru_nb.surfaces.adapters.openai_agents.requests import OpenAIUsageSummary as OpenAIUsageSummary
    from kitaru_nb.surfaces.adapters.openai_agents.runner import KitaruRunner as KitaruRunner
    from kitaru_nb.surfaces.adapters.prices import cost_of as cost_of
    from kitaru_nb.surfaces.adapters.prices import register_price as register_price
    from kitaru_nb.surfaces.adapters.pydantic_ai import KitaruAgent as KitaruAgent
    from kitaru_nb.surfaces.adapters.pydantic_ai import KitaruDurability as KitaruDurability
    from kitaru_nb.surfaces.adapters.pydantic_ai import wait_for_deferred as wait_for_deferred
    from kitaru_nb.surfaces.adapters.pydantic_ai import wait_for_deferred_async as wait_for_deferred_async


def __getattr__(name: str) -> Any:
    module, attribute = _HOOKS.get(name, (_PUBLIC.get(name), name))
    if module is None:
        instead = f"; instead: {_INSTEAD[name]}" if name in _INSTEAD else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{instead}")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
