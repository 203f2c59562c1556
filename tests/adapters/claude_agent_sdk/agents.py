"""Flows with Claude's Agent SDK, in a module of their own so that other processes can go on with them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from claude_agent_sdk import ClaudeAgentOptions, HookMatcher, create_sdk_mcp_server, tool

from kitaru_nb import flow
from kitaru_nb.surfaces.adapters.claude_agent_sdk import ClaudeRunRequest, KitaruClaudeRunner
from kitaru_nb.testing.adapter import tools

PAY = "mcp__bank__pay"


def note(word: str) -> None:
    """Remember that something really ran."""
    with Path(os.environ["KITARU_TEST_SIDE"]).open("a") as side:
        side.write(word + "\n")


def until(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def said(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}]}


@tool("charge", "Charge an amount", {"amount": int})
async def charge(args: dict[str, Any]) -> dict[str, Any]:
    note(f"charge-{args['amount']}")
    return said(tools.charge(args["amount"]))


@tool("pay", "Pay an amount", {"amount": int})
async def pay(args: dict[str, Any]) -> dict[str, Any]:
    note(f"pay-{args['amount']}")
    return said(f"paid {args['amount']}")


@tool("breaks", "Always fails", {})
async def breaks(args: dict[str, Any]) -> dict[str, Any]:
    note("breaks")
    raise ValueError("no such table")


def options(**changes: Any) -> ClaudeAgentOptions:
    """An agent that has nothing but our tools, and keeps what it writes on disk to itself."""
    folder = os.environ["KITARU_TEST_CLAUDE"]
    given: dict[str, Any] = {
        "model": "claude-test",
        "system_prompt": "Use your tools.",
        "tools": [],
        "setting_sources": [],
        "mcp_servers": {"bank": create_sdk_mcp_server("bank", tools=[charge, pay, breaks])},
        "allowed_tools": ["mcp__bank__charge", PAY, "mcp__bank__breaks"],
        "cwd": folder,
        "env": {
            "CLAUDE_CONFIG_DIR": f"{folder}/config-{os.getpid()}",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_TELEMETRY": "1",
        },
    }
    return ClaudeAgentOptions(**given | changes)


def runner(**changes: Any) -> KitaruClaudeRunner:
    return KitaruClaudeRunner(options(**changes.pop("options", {})), name="teller", approve=[PAY], **changes)


@flow
async def ask(prompt: str) -> str:
    return (await runner().run(prompt)).text


@flow
async def ask_with_bash(prompt: str) -> str:
    mine = {"tools": ["Bash"], "allowed_tools": ["mcp__bank__charge", "Bash"]}
    return (await runner(options=mine).run(prompt)).text


@flow
def ask_twice(first: str, second: str) -> list[str]:
    teller = runner()
    one = teller.run_sync(first)
    two = teller.run_sync(ClaudeRunRequest.start(second, session=one))
    return [one.text, two.text]


@flow
def approved(prompt: str) -> str:
    teller = runner()
    result = teller.run_sync(prompt)
    while result.status == "interrupted":
        result = teller.run_sync(teller.wait_for_approval(result, timeout=0))
    return result.text


async def careful(data: Any, tool_call: str | None, context: Any) -> Any:
    """A hook of the user's that defers by itself."""
    note("hook")
    if data["tool_name"] == "mcp__bank__charge":
        return {"hookSpecificOutput": {"hookEventName": "PreToolUse", "permissionDecision": "defer"}}
    return {}


@flow
def hooked(prompt: str) -> str:
    teller = KitaruClaudeRunner(options(hooks={"PreToolUse": [HookMatcher(hooks=[careful])]}), name="teller")
    result = teller.run_sync(prompt)
    while result.status == "interrupted":
        result = teller.run_sync(teller.wait_for_approval(result, timeout=0))
    return result.text
