"""Sessions of the Claude Agent SDK in the journal: what was said and done, line by line, while it happens.

The SDK mirrors the transcript of its subprocess to a store; this one saves each batch as an artifact of the checkpoint
that runs the agent. So a later run goes on with the session from any process or machine, and a run that was cut off
goes on where it was: calls that have ended are not made again.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kitaru_nb.core.records import save
from kitaru_nb.core.run import Run
from kitaru_nb.journal.fold import unpack_artifact

#: Name of the artifacts, one for each batch of lines.
TRANSCRIPT = "transcript"

#: A place where a session was recorded: (execution, call).
Place = tuple[str, str]
Entry = Mapping[str, Any]

_COPIED = ("isSidechain", "timestamp", "userType", "entrypoint", "cwd", "sessionId", "version", "gitBranch")


class JournalSessions:
    """A session store of the SDK (its `SessionStore` protocol) for one run.

    Attributes:
        interrupted: whether an earlier attempt at this very run was cut off, after the agent was told what to do.
        pending: whether the agent begins with a tool call when it goes on, so that nothing has to be said to it.
    """

    def __init__(self, run: Run, call_id: str, before: Sequence[Place], outcomes: Mapping[str, Any]) -> None:
        """``outcomes``: tool call id → the result that its checkpoint has, of calls made by an earlier attempt."""
        self._entries: dict[tuple[str, str], list[Entry]] = {}
        self._seen: set[str] = set()
        run.commit([])  # what an earlier attempt in this process has saved may still be held
        for place in before:
            self._take(_recorded(run, place))
        own = _recorded(run, (run.exec_id, call_id))
        self._batches = len(own)
        self._take(own)
        self.interrupted = any(entry["type"] == "user" for batch in own for entry in batch["entries"])
        self.pending = False
        if self.interrupted and (session := self.session_id) is not None:
            self._entries[session, ""], self.pending = mended(self._entries[session, ""], outcomes)

    @property
    def session_id(self) -> str | None:
        """The newest session, or None where nothing was recorded."""
        return next((session for session, subpath in reversed(self._entries) if not subpath), None)

    # the SDK's protocol

    async def append(self, key: Mapping[str, Any], entries: Sequence[Entry]) -> None:
        """Save a batch. The batch before is never changed, and the same batch comes twice only as a new one."""
        batch = {"n": self._batches, "session": key["session_id"], "subpath": key.get("subpath", "")}
        self._batches += 1
        save(TRANSCRIPT, {**batch, "entries": list(entries)}, type="blob")

    async def load(self, key: Mapping[str, Any]) -> list[Entry] | None:
        """The whole transcript; after an interruption with what is known of calls that were in flight."""
        return self._entries.get((key["session_id"], key.get("subpath", "")))

    async def list_subkeys(self, key: Mapping[str, Any]) -> list[str]:
        """Transcripts of subagents."""
        return [subpath for session, subpath in self._entries if subpath and session == key["session_id"]]

    def _take(self, batches: Iterable[Mapping[str, Any]]) -> None:
        for batch in batches:
            entries = self._entries.setdefault((batch["session"], batch["subpath"]), [])
            for entry in batch["entries"]:
                name = entry.get("uuid")
                if name is None or name not in self._seen:
                    entries.append(entry)
                if name is not None:
                    self._seen.add(name)


def _recorded(run: Run, place: Place) -> list[Mapping[str, Any]]:
    """The batches that a call saved, in order."""
    exec_id, call_id = place
    found = [
        run.store.read(unpack_artifact(event.body["artifact"], event.blob, exec_id))
        for event in run.journal.history(exec_id)
        if event.kind == "artifact.saved" and event.key == TRANSCRIPT and event.body.get("call") == call_id
    ]
    return sorted(found, key=lambda batch: batch["n"])


def mended(entries: Sequence[Entry], outcomes: Mapping[str, Any]) -> tuple[list[Entry], bool]:
    """(a transcript that was cut off, made such that nothing is done again; whether a tool call comes first).

    A tool call without a result gets the one that its checkpoint recorded. If exactly one is left without, it is marked
    as deferred, which makes the agent perform this very call first. Of several the agent is told that their outcome is
    unknown.
    """
    open_calls = _without_result(entries)
    found = list(entries)
    last = next((e["uuid"] for e in reversed(entries) if e.get("uuid")), None)
    for call_id in [c for c in open_calls if c in outcomes]:
        entry, _ = open_calls.pop(call_id)
        result = {"type": "tool_result", "tool_use_id": call_id, **outcomes[call_id]}
        said = {"type": "user", "message": {"role": "user", "content": [result]}}
        found.append(_after(entry, last) | said | {"sourceToolAssistantUUID": entry["uuid"]})
        last = found[-1]["uuid"]
    deferred = {e["attachment"].get("toolUseID") for e in entries if _is_deferral(e)}
    if len(open_calls) == 1 and not deferred & set(open_calls):
        [(entry, block)] = open_calls.values()
        mark = {"type": "hook_deferred_tool", "toolUseID": block["id"], "toolName": block["name"]}
        mark |= {"toolInput": block["input"], "hookName": "settings", "hookEvent": "PreToolUse"}
        found.append(_after(entry, last) | {"type": "attachment", "attachment": mark | {"permissionMode": "default"}})
    return found, len(open_calls) == 1


def _without_result(entries: Iterable[Entry]) -> dict[str, tuple[Entry, Mapping[str, Any]]]:
    calls: dict[str, tuple[Entry, Mapping[str, Any]]] = {}
    for entry in entries:
        message = entry.get("message")
        content = message.get("content") if isinstance(message, Mapping) else None
        for block in content if isinstance(content, list) else ():
            if block.get("type") == "tool_use":
                calls[block["id"]] = (entry, block)
            elif block.get("type") == "tool_result":
                calls.pop(block.get("tool_use_id"), None)
    return calls


def _is_deferral(entry: Entry) -> bool:
    return isinstance(entry.get("attachment"), Mapping) and entry["attachment"].get("type") == "hook_deferred_tool"


def _after(entry: Entry, parent: str | None) -> dict[str, Any]:
    """A new line of the transcript like ``entry``, below the line ``parent``."""
    return {name: entry[name] for name in _COPIED if name in entry} | {"uuid": str(uuid.uuid4()), "parentUuid": parent}
