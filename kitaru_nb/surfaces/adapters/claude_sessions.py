"""Sessions of the Claude Agent SDK in the journal: what was said and done, line by line, while it happens.

The SDK mirrors the transcript of its subprocess to a store; this one saves each batch as an artifact of the checkpoint
that runs the agent. So a later run goes on with the session from any process or machine, and a run that was cut off
goes on where it was: calls that have ended are not made again. A replay goes on from a tool call in the same way.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kitaru_nb.core.records import save
from kitaru_nb.core.run import Run
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.journal.fold import unpack_artifact

#: Name of the artifacts, one for each batch of lines.
TRANSCRIPT = "transcript"

#: A place where a session was recorded: (execution, call).
Place = tuple[str, str]
Entry = Mapping[str, Any]

#: How many seconds a tool call waits at most until the session has the message that asked for it.
_MIRRORED_WITHIN = 5.0

_COPIED = ("isSidechain", "timestamp", "userType", "entrypoint", "cwd", "sessionId", "version", "gitBranch")


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the tool calls of a session.

    Attributes:
        outcomes: call → the result that its checkpoint has.
        repeats: tells by a tool's name whether a call that has ended can be asked for again and gives what it gave.
        chosen: calls that a replay begins with.
    """

    outcomes: Mapping[str, Any] = field(default_factory=dict)
    repeats: Callable[[str], bool] = lambda _: False
    chosen: Collection[str] = ()


class JournalSessions:
    """A session store of the SDK (its `SessionStore` protocol) for one run.

    Attributes:
        places: where the session was recorded before this run.
        interrupted: whether an earlier attempt at this very run was cut off.
        resumes: whether the run goes on inside what is recorded of itself, not after it.
        pending: whether it then begins with a tool call, so that nothing has to be said to the agent.
    """

    def __init__(self, run: Run, call_id: str, places: Sequence[Place], known: Known) -> None:
        self.places = tuple(places)
        self._run = run
        self._entries: dict[tuple[str, str], list[Entry]] = {}
        self._seen: set[str] = set()
        self._mirrored: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        run.commit([])  # what an earlier attempt in this process has saved may still be held
        for place in places:
            self._take(_recorded(run, place))
        before = {session: len(entries) for (session, subpath), entries in self._entries.items() if not subpath}
        own = _recorded(run, (run.exec_id, call_id))
        self._batches = len(own)
        self._take(own)
        said = [entry for batch in own if "keep" not in batch for entry in batch["entries"]]
        self.interrupted = any(entry["type"] == "user" for entry in said)
        came = any(entry["type"] == "assistant" or _results(entry) for entry in said)
        chosen = () if came else known.chosen
        self.resumes = self.pending = False
        if (session := self.session_id) is None:
            return
        if came or chosen:
            keep, more, self.pending = rewound(self._entries[session, ""], known, chosen)
            self.resumes = True
            self._rewrite(session, keep, more)
        elif self.interrupted:
            self._rewrite(session, before.get(session, 0), [])  # nothing came of it: the run begins again

    @property
    def session_id(self) -> str | None:
        """The newest session, or None where nothing was recorded."""
        found = reversed(self._entries.items())
        return next((session for (session, subpath), entries in found if entries and not subpath), None)

    async def mirrored(self, tool_call: str) -> None:
        """Wait until the message that asked for a tool call is in the journal, as it is a moment later: a run that is
        cut off in the call then knows that it was asked for. Raises as `Run.commit`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_MIRRORED_WITHIN):
                await self._mirrored[tool_call].wait()
        await asyncio.to_thread(self._run.commit, [])  # what is saved is held for a moment

    # the SDK's protocol

    async def append(self, key: Mapping[str, Any], entries: Sequence[Entry]) -> None:
        """Save a batch. The batch before is never changed, and the same batch comes twice only as a new one."""
        self._save({"session": key["session_id"], "subpath": key.get("subpath", ""), "entries": list(entries)})
        self._note(entries)

    async def load(self, key: Mapping[str, Any]) -> list[Entry] | None:
        """The whole transcript; after an interruption up to where it goes on."""
        return self._entries.get((key["session_id"], key.get("subpath", ""))) or None

    async def list_subkeys(self, key: Mapping[str, Any]) -> list[str]:
        """Transcripts of subagents."""
        return [subpath for session, subpath in self._entries if subpath and session == key["session_id"]]

    def _rewrite(self, session: str, keep: int, more: Sequence[Entry]) -> None:
        """Keep so many lines of a transcript and go on with ``more``; whoever reads the session later does the same."""
        batch = {"session": session, "subpath": "", "entries": list(more), "keep": keep}
        self._take([batch])
        self._save(batch)

    def _save(self, batch: Mapping[str, Any]) -> None:
        save(TRANSCRIPT, {"n": self._batches, **batch}, type="blob")
        self._batches += 1

    def _note(self, entries: Iterable[Entry]) -> None:
        for call_id, *_ in _uses(entries):
            self._mirrored[call_id].set()

    def _take(self, batches: Iterable[Mapping[str, Any]]) -> None:
        for batch in batches:
            self._note(batch["entries"])
            entries = self._entries.setdefault((batch["session"], batch["subpath"]), [])
            if (keep := batch.get("keep")) is not None:
                self._seen -= {name for entry in entries[keep:] if (name := entry.get("uuid")) is not None}
                del entries[keep:]
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


def rewound(entries: Sequence[Entry], known: Known, chosen: Collection[str]) -> tuple[int, list[Entry], bool]:
    """Where a session goes on such that nothing is done again: (how many lines stay, the lines after those, whether a
    tool call comes first).

    One tool call is marked as deferred, which makes the agent perform this very call first: the one that ``chosen``
    has; else the only one without a result; else the last one, when it repeats what it gave. The model is then asked
    what it was asked before. Without such a call all stays, and the agent has to be told to go on; of several calls
    without a result it is told that their outcome is unknown.

    Raises:
        KitaruUsageError: a chosen call isn't the agent's own, or was made side by side with another chosen one.
    """
    uses = {call_id: (number, entry, block) for call_id, number, entry, block in _uses(entries)}
    results = {call_id: entry for entry in entries for call_id in _results(entry)}
    pivot = _first(uses, results, known, chosen)
    if chosen and pivot is None:
        raise KitaruUsageError(
            "The call that the replay begins with was made by a subagent, in a session of its own.",
            fix="begin the replay with the whole run",
        )
    turn, keep = list(uses), len(entries)
    if pivot is not None:
        said = uses[pivot][1]["message"].get("id")
        turn = [c for c, (_, entry, _) in uses.items() if c == pivot or (said and entry["message"].get("id") == said)]
        keep = max(uses[call_id][0] for call_id in turn) + 1
    if len(both := [call_id for call_id in turn if call_id in chosen]) > 1:
        names = ", ".join(uses[call_id][2]["name"] for call_id in both)
        raise KitaruUsageError(
            f"The agent made these calls side by side, so they can't all be made again: {names}.",
            fix="begin the replay with one of them, or with the whole run",
        )
    more: list[Entry] = []
    last = next((e["uuid"] for e in reversed(entries[:keep]) if e.get("uuid")), None)
    for call_id in turn:
        _, entry, _ = uses[call_id]
        if call_id == pivot or (pivot is None and call_id in results):
            continue
        if call_id in results:
            more.append(results[call_id])
        elif call_id in known.outcomes:
            result = {"type": "tool_result", "tool_use_id": call_id, **known.outcomes[call_id]}
            said_back = {"type": "user", "message": {"role": "user", "content": [result]}}
            more.append(_after(entry, last) | said_back | {"sourceToolAssistantUUID": entry["uuid"]})
        last = more[-1].get("uuid", last) if more else last
    if pivot is not None:
        _, entry, block = uses[pivot]
        more.append(_deferral(entries, pivot) or _after(entry, last) | _deferred(block))
    return keep, more, pivot is not None


def _first(
    uses: dict[str, tuple[int, Entry, Mapping[str, Any]]],
    results: Collection[str],
    known: Known,
    chosen: Collection[str],
) -> str | None:
    """The tool call with which a session goes on."""
    if chosen:
        return next((call_id for call_id in uses if call_id in chosen), None)
    unfinished = [call_id for call_id in uses if call_id not in results and call_id not in known.outcomes]
    if unfinished:
        return unfinished[0] if len(unfinished) == 1 else None
    last = next(reversed(uses), None)
    return last if last is not None and known.repeats(uses[last][2]["name"]) else None


def _uses(entries: Iterable[Entry]) -> Iterable[tuple[str, int, Entry, Mapping[str, Any]]]:
    """(call, number of the line, line, block) of each tool call of the agent."""
    for number, entry in enumerate(entries):
        for block in _blocks(entry):
            if block.get("type") == "tool_use":
                yield block["id"], number, entry, block


def _results(entry: Entry) -> list[str]:
    """The calls whose results a line tells."""
    return [str(block.get("tool_use_id")) for block in _blocks(entry) if block.get("type") == "tool_result"]


def _blocks(entry: Entry) -> Sequence[Mapping[str, Any]]:
    message = entry.get("message")
    content = message.get("content") if isinstance(message, Mapping) else None
    return content if isinstance(content, list) else ()


def _deferral(entries: Iterable[Entry], call_id: str) -> Entry | None:
    """The line by which the agent itself has deferred a call."""
    for entry in entries:
        attached = entry.get("attachment")
        wanted = ("hook_deferred_tool", call_id)
        if isinstance(attached, Mapping) and (attached.get("type"), attached.get("toolUseID")) == wanted:
            return entry
    return None


def _deferred(block: Mapping[str, Any]) -> dict[str, Any]:
    mark = {"type": "hook_deferred_tool", "toolUseID": block["id"], "toolName": block["name"]}
    mark |= {
        "toolInput": block["input"],
        "hookName": "settings",
        "hookEvent": "PreToolUse",
        "permissionMode": "default",
    }
    return {"type": "attachment", "attachment": mark}


def _after(entry: Entry, parent: str | None) -> dict[str, Any]:
    """A new line of the transcript like ``entry``, below the line ``parent``."""
    return {name: entry[name] for name in _COPIED if name in entry} | {"uuid": str(uuid.uuid4()), "parentUuid": parent}
