"""Claude's Agent SDK: each run of the agent is a checkpoint, and so is each call of a tool of your own inside it.

    runner = KitaruClaudeRunner(ClaudeAgentOptions(...), name="support", approve=["mcp__bank__pay"])

    @flow
    def handle(case: str) -> str:
        result = runner.run_sync(case)
        while result.status == "interrupted":
            result = runner.run_sync(runner.wait_for_approval(result))
        return result.text

The agent's loop runs in the SDK's own subprocess, so a model call can't be a checkpoint of its own. But the session is
in the journal while it happens (`kitaru_nb.surfaces.adapters.claude_sessions`), and an interrupted run goes on in it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from kitaru_nb.core.context import Frame, current
from kitaru_nb.core.engine import digest
from kitaru_nb.core.retry import Retry, as_retry
from kitaru_nb.errors import KitaruBackendError, KitaruFeatureNotAvailableError, KitaruUsageError, Paused
from kitaru_nb.journal.fold import Outputs
from kitaru_nb.model import Event
from kitaru_nb.surfaces.adapters.approvals import Answer, Question, ask, ask_async
from kitaru_nb.surfaces.adapters.base import Operation, Part, Recorded, block_on, perform_async
from kitaru_nb.surfaces.adapters.claude_requests import (
    ClaudeDecision,
    ClaudeInterruption,
    ClaudeRunRequest,
    ClaudeRunResult,
    ClaudeUsage,
    checked,
)
from kitaru_nb.surfaces.adapters.claude_sessions import JournalSessions, Known, Place

try:
    import claude_agent_sdk as sdk
except ImportError as error:
    raise KitaruFeatureNotAvailableError(
        "Claude's Agent SDK is not installed.", fix="pip install 'kitaru-nb[claude-agent]'"
    ) from error

from kitaru_nb.surfaces.adapters.claude_guard import guarded
from kitaru_nb.surfaces.adapters.claude_tools import TOOL_USE, Tools, in_process

#: What an agent is told that was cut off between two calls.
_GO_ON = "Continue from where you left off."
#: Options that the runner sets itself.
_OWN = ("resume", "continue_conversation", "session_id", "fork_session", "resume_session_at", "session_store")
#: Options that make another agent: a replay runs it again when one of them has changed.
_AGENT = [
    "system_prompt",
    "model",
    "fallback_model",
    "tools",
    "allowed_tools",
    "disallowed_tools",
    "permission_mode",
    "max_turns",
    "max_budget_usd",
    "agents",
    "skills",
    "betas",
    "output_format",
    "thinking",
    "effort",
    "setting_sources",
]


class KitaruClaudeRunner:
    """Runs one agent. Inside a flow or a checkpoint cell each run is a checkpoint; outside it simply runs.

    Args:
        options: of the SDK. They are never modified.
        name: of the checkpoint.
        approve: names of tools, as the agent calls them (``Bash``, ``mcp__bank__pay``), that need a person's approval.
        retries, timeout: as of `kitaru_nb.checkpoint`. A further attempt goes on with the session of the one before.
        tool_retries: for calls of tools of in-process MCP servers.

    Raises:
        KitaruUsageError: options that can't be.
    """

    def __init__(
        self,
        options: sdk.ClaudeAgentOptions | None = None,
        *,
        name: str = "claude",
        approve: Sequence[str] = (),
        retries: int | Retry = 0,
        timeout: float | None = None,
        tool_retries: int | Retry = 0,
    ) -> None:
        _check(options, name, approve)
        self.options = options or sdk.ClaudeAgentOptions()
        self.name = name
        self.approve = frozenset(approve)
        self._retry = as_retry(retries)
        self._timeout = timeout
        self.tool_retry = as_retry(tool_retries)

    def __repr__(self) -> str:
        return f"<KitaruClaudeRunner {self.name}>"

    async def run(self, request: ClaudeRunRequest | str) -> ClaudeRunResult:
        """Run the agent with a prompt, or go on with an interrupted run.

        Raises:
            ClaudeRunError: the agent ended with an error.
            KitaruDivergenceError: a resumed flow asks for another run at this place.
        """
        request = request if isinstance(request, ClaudeRunRequest) else ClaudeRunRequest.start(request)
        segment = _Segment(self, request)
        return await perform_async(self._operation(segment), segment.run)

    def run_sync(self, request: ClaudeRunRequest | str) -> ClaudeRunResult:
        """`run` for synchronous code, also where a loop runs in this thread (notebooks, servers)."""
        return block_on(lambda: self.run(request), instead="result = await runner.run(request)")

    def wait_for_approval(
        self, result: ClaudeRunResult, *, name: str | None = None, timeout: float | None = None
    ) -> ClaudeRunRequest:
        """Wait, in the body of a flow, until somebody decides about the tool call; the request that goes on.

        Args:
            name: of the wait; default: the runner's name and the tool call's id.
            timeout: for how many seconds the worker polls before it lets go, as in `kitaru_nb.wait`.

        Raises:
            KitaruUsageError: the run isn't interrupted.
        """
        return _decided(result, ask(self._questions(result, name), timeout=timeout))

    async def wait_for_approval_async(
        self,
        result: ClaudeRunResult,
        *,
        name: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 (it ends the worker's polling, not this call)
    ) -> ClaudeRunRequest:
        """`wait_for_approval` for asynchronous flows."""
        return _decided(result, await ask_async(self._questions(result, name), timeout=timeout))

    def _questions(self, result: ClaudeRunResult, name: str | None) -> list[Question]:
        if checked(result).status != "interrupted":
            raise KitaruUsageError("This run has completed; there is nothing to approve.", fix="result.text")
        questions = []
        for item in result.interruptions:
            arguments = json.dumps(item.arguments, ensure_ascii=False)
            metadata = {"agent": self.name, "tool": item.tool, "call_id": item.call_id, "arguments": item.arguments}
            text = f"{self.name} wants to call {item.tool} with {arguments}"
            questions.append(Question(name or f"{self.name}:{item.call_id}", text, metadata))
        return questions

    def _operation(self, segment: _Segment) -> Operation[ClaudeRunResult]:
        request = segment.request
        inputs: dict[str, Any] = {"prompt": request.prompt} if request.session is None else {}
        reads: dict[str, list[str]] = {}
        if (session := request.session) is not None:
            inputs = {"session": session} | ({"prompt": request.prompt} if request.prompt else {})
            reads["session"] = [call_id for _, call_id in session.places[-1:]]
        if request.decisions:
            inputs["decisions"] = [[d.call_id, d.approve, d.message] for d in request.decisions]
            reads["decisions"] = [d.source for d in request.decisions if d.source is not None]
        return Operation(
            self.name,
            "agent_run",
            inputs,
            encode=lambda result: _kept(segment.request, result),
            decode=self._decoded,
            take=segment.take,
            takes=("prompt",) if "prompt" in inputs else (),
            code=digest(json.dumps({n: getattr(self.options, n, None) for n in _AGENT}, default=repr, sort_keys=True)),
            shown={"session": session.session_id} if session is not None else {},
            reads=reads,
            retry=self._retry,
            timeout=self._timeout,
        )

    def _decoded(self, value: Any) -> ClaudeRunResult:
        """A recorded result; any other value, given as an override, as the answer of a run that had no session."""
        if isinstance(value, ClaudeRunResult):
            return value
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        structured = None if isinstance(value, str) else value
        return ClaudeRunResult("completed", self.name, text, "", structured)


class _Segment:
    """One run of the agent: up to its end, or up to a tool call that needs approval."""

    def __init__(self, runner: KitaruClaudeRunner, request: ClaudeRunRequest) -> None:
        self.runner = runner
        self.request = request
        self.decisions = {decision.call_id: decision for decision in request.decisions}
        self.sessions: JournalSessions | None = None

    def take(self, values: Mapping[str, Any]) -> None:
        """A replay wants another prompt."""
        self.request = ClaudeRunRequest.start(values["prompt"], session=self.request.session)

    async def run(self) -> ClaudeRunResult:
        """Run it; in a flow, on the session that the journal has."""
        frame = current.get()
        self.sessions = sessions = None if frame is None else _sessions(self.runner, frame, self.request)
        options = self._options(frame, sessions)
        over = asyncio.Event()
        ended: sdk.ResultMessage | None = None
        messages = sdk.query(prompt=self._prompt(sessions, over), options=options)
        try:
            async for message in messages:
                if isinstance(message, sdk.ResultMessage):
                    ended = message
                    over.set()
                    if message.is_error:
                        break
        finally:
            over.set()
            await messages.aclose()  # type: ignore[attr-defined]
        if ended is None:
            raise ClaudeRunError(f"{self.runner.name} ended without a result.")
        return self._result(ended, frame, sessions)

    def _prompt(self, sessions: JournalSessions | None, over: asyncio.Event) -> str | AsyncIterator[dict[str, Any]]:
        if sessions is not None and sessions.resumes:
            return _silence(over) if sessions.pending else _GO_ON
        return _silence(over) if self.request.prompt is None else self.request.prompt

    def _options(self, frame: Frame | None, sessions: JournalSessions | None) -> sdk.ClaudeAgentOptions:
        given, request = self.runner.options, self.request
        changes: dict[str, Any] = {"hooks": self._hooks()}
        if request.session is not None and request.session.session_id:
            changes["resume"] = request.session.session_id
        if frame is not None and sessions is not None:
            changes |= {"session_store": sessions, "session_store_flush": "eager"}
            changes |= guarded(given, frame.run.runtime.home)
            if sessions.resumes:
                changes["resume"] = sessions.session_id
            if isinstance(given.mcp_servers, Mapping):
                runner = self.runner
                tools = Tools(frame, runner.tool_retry, runner.approve, frozenset(self.decisions))
                servers = given.mcp_servers.items()
                changes["mcp_servers"] = {name: tools.durable(name, server) for name, server in servers}
        return dataclasses.replace(given, **changes)

    # approvals

    def _hooks(self) -> dict[Any, list[sdk.HookMatcher]]:
        """The user's hooks, and one that every tool waits for; a decision goes before what they say."""
        hooks = {event: list(matchers) for event, matchers in (self.runner.options.hooks or {}).items()}
        before = [
            dataclasses.replace(matcher, hooks=[self._decided_first(hook) for hook in matcher.hooks])
            for matcher in hooks.get("PreToolUse", ())
        ]
        return hooks | {"PreToolUse": [*before, sdk.HookMatcher(hooks=[self._gate])]}

    def _decided_first(self, hook: Any) -> Any:
        async def decided_first(data: Any, tool_call: str | None, context: Any) -> Any:
            said = await hook(data, tool_call, context)
            wants = said.get("hookSpecificOutput", {}).get("permissionDecision")
            return self._decision(tool_call) if wants == "defer" and tool_call in self.decisions else said

        return decided_first

    async def _gate(self, data: Any, tool_call: str | None, context: Any) -> Any:
        """No tool begins, wherever it runs, before the message that asked for it is in the journal."""
        if self.sessions is not None and tool_call is not None:
            try:
                await self.sessions.mirrored(tool_call)
            except KitaruBackendError as error:
                return _permission("deny", str(error))
            except Paused:
                await asyncio.Event().wait()  # the run lets go: nothing more may begin
        if tool_call in self.decisions:
            return self._decision(tool_call)
        if data["tool_name"] in self.runner.approve:
            return _permission("defer", "A person decides about this call.")
        return {}

    def _decision(self, tool_call: str | None) -> dict[str, Any]:
        decision = self.decisions[str(tool_call)]
        if decision.approve:
            return _permission("allow", decision.message or "A person approved this call.")
        return _permission("deny", decision.message or "A person rejected this call.")

    # outcome

    def _result(
        self, ended: sdk.ResultMessage, frame: Frame | None, sessions: JournalSessions | None
    ) -> ClaudeRunResult:
        runner, session = self.runner, self.request.session
        if ended.is_error:
            why = "; ".join(ended.errors or ()) or ended.result or ended.stop_reason or ended.subtype
            raise ClaudeRunError(f"{runner.name} ended with an error ({ended.subtype}): {why}. {_remedy(ended)}")
        used = ended.usage or {}
        total = ended.total_cost_usd
        before = session.cost_total_usd or 0.0 if session is not None else 0.0
        deferred = ended.deferred_tool_use
        places: tuple[Place, ...] = () if session is None else session.places
        if frame is not None and sessions is not None:
            places = (*sessions.places, (frame.run.exec_id, frame.call_id))
        return ClaudeRunResult(
            status="completed" if deferred is None else "interrupted",
            runner=runner.name,
            text=ended.result or "",
            session_id=ended.session_id,
            structured_output=ended.structured_output,
            interruptions=()
            if deferred is None
            else (ClaudeInterruption(deferred.id, deferred.name, dict(deferred.input)),),
            usage=ClaudeUsage(**{f.name: int(used.get(f.name) or 0) for f in dataclasses.fields(ClaudeUsage)}),
            cost_usd=None
            if total is None
            else round(max(0.0, total - before), 8),  # the SDK tells that of the whole session
            cost_total_usd=total,
            turns=ended.num_turns,
            stop_reason=ended.stop_reason,
            resumed=sessions is not None and sessions.interrupted,
            places=places,
        )


class ClaudeRunError(RuntimeError):
    """The agent ended with an error, after the attempts that the SDK makes by itself."""


def _sessions(runner: KitaruClaudeRunner, frame: Frame, request: ClaudeRunRequest) -> JournalSessions:
    """The session store of the run whose checkpoint is ``frame``."""
    run, plan = frame.run, frame.run.engine.plan
    servers = runner.options.mcp_servers if isinstance(runner.options.mcp_servers, Mapping) else {}
    ours = tuple(f"mcp__{name}__" for name, server in servers.items() if in_process(server))
    outcomes = {
        tool_use: {"content": run.store.read(Outputs(event)[0]).get("content", [])}
        for tool_use, event in _tool_calls(list(run.engine.completed.values()), frame.call_id)
    }
    places = () if request.session is None else request.session.places
    donor = plan.donors.get(frame.call_id) if plan is not None and frame.call_id in plan.entered else None
    chosen: set[str] = set()
    if plan is not None and donor is not None:
        # A replay begins with tool calls inside this run: it goes on in the session as it was then.
        places = run.store.read(Outputs(donor)[0]).places
        made = [(tool_use, event.key) for tool_use, event in _tool_calls(plan.donors.values(), frame.call_id)]
        chosen = {tool_use for tool_use, call_id in made if call_id in plan.rerun}
        if given := {tool_use for tool_use, call_id in made if call_id in (*plan.overrides, *plan.arguments)}:
            chosen = given
        if len(given) > 1:
            raise KitaruUsageError(
                f"{len(given)} calls inside one run of {runner.name!r} were given another outcome or other arguments; "
                "expected one: after it the agent decides anew what it calls.",
                fix="replay with the first, then replay the new execution with the next",
            )
    known = Known(outcomes, lambda tool: tool.startswith(ours), frozenset(chosen))
    return JournalSessions(run, frame.call_id, places, known)


def _tool_calls(events: Iterable[Event], parent: str) -> Iterator[tuple[str, Event]]:
    """(the SDK's id, event) of the tool calls that were made inside a call."""
    for event in events:
        tool_use = event.body.get("metadata", {}).get(TOOL_USE)
        if tool_use and event.body.get("parent") == parent:
            yield tool_use, event


async def _silence(over: asyncio.Event) -> AsyncIterator[dict[str, Any]]:
    """No prompt: the subprocess goes on with what it has, as long as its input stays open."""
    await over.wait()
    return
    yield {}


def _permission(decision: str, reason: str) -> dict[str, Any]:
    said = {"hookEventName": "PreToolUse", "permissionDecision": decision, "permissionDecisionReason": reason}
    return {"hookSpecificOutput": said}


def _kept(request: ClaudeRunRequest, result: ClaudeRunResult) -> Recorded:
    used = result.usage
    waiting = ", ".join(f"{item.tool}({json.dumps(item.arguments)})" for item in result.interruptions)
    preview = f"needs approval: {waiting}" if waiting else result.text
    parts = [Part("result", result, preview=" ".join(preview.split())[:200])]
    if request.prompt is not None:
        parts.append(Part("prompt", request.prompt, "prompt"))
    parts.append(Part("response", result.final_output, "response"))
    metadata: dict[str, Any] = {"session": result.session_id, "status": result.status, "turns": result.turns}
    sent = used.input_tokens + used.cache_read_input_tokens + used.cache_creation_input_tokens
    metadata |= {"input_tokens": sent, "output_tokens": used.output_tokens}
    if result.cost_usd is not None:
        metadata["cost"] = result.cost_usd
    return Recorded(parts, metadata)


def _decided(result: ClaudeRunResult, answers: Sequence[Answer]) -> ClaudeRunRequest:
    decisions = [
        ClaudeDecision(item.call_id, answer.approve, answer.message, answer.source)
        for item, answer in zip(result.interruptions, answers, strict=True)
    ]
    return ClaudeRunRequest.resume(result, *decisions)


def _remedy(ended: sdk.ResultMessage) -> str:
    if ended.stop_reason == "tool_deferred_unavailable":
        return "Give the agent the tool again that was waiting for approval."
    if ended.subtype == "error_max_turns":
        return "Allow it more turns: ClaudeAgentOptions(max_turns=...)."
    return "A further attempt goes on with its session."


def _check(options: Any, name: str, approve: Sequence[str]) -> None:
    if options is not None and not isinstance(options, sdk.ClaudeAgentOptions):
        raise KitaruUsageError(
            f"KitaruClaudeRunner was given a {type(options).__name__}; expected options of the Claude Agent SDK.",
            fix="KitaruClaudeRunner(ClaudeAgentOptions(system_prompt='…'), name='support')",
        )
    if not isinstance(name, str) or not name.strip():
        raise KitaruUsageError(f"name={name!r} can't be; the checkpoints of the agent need one.", fix="name='support'")
    if isinstance(approve, str) or not all(isinstance(tool, str) and tool for tool in approve):
        raise KitaruUsageError(
            f"approve={approve!r} can't be; expected names of tools.", fix="approve=['Bash', 'mcp__bank__pay']"
        )
    for own in _OWN if options is not None else ():
        if getattr(options, own, None):
            raise KitaruUsageError(
                f"ClaudeAgentOptions has {own}, which the runner sets itself.",
                fix="ClaudeRunRequest.start(prompt, session=earlier_result)",
            )
