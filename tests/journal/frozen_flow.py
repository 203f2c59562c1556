"""The flow whose history is frozen in ``data/v2.sql``. It never changes: what was recorded of it must stay resumable.

`record` writes what this version makes of it: the next frozen file, when there is a version 3.
"""

from __future__ import annotations

import dataclasses
import sqlite3
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from kitaru_nb import Retry, checkpoint, flow, log, save, wait
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.journal.base import this_host
from kitaru_nb.model import Event

#: Names of the bodies that ran in this process.
ran: list[str] = []


@dataclasses.dataclass(frozen=True)
class Notes:
    """A value with a type of the user's own."""

    topic: str
    lines: tuple[str, ...]
    score: float


@checkpoint
def look_up(topic: str, number: int) -> str:
    """The innermost work."""
    ran.append("look_up")
    return f"{topic} {number}: ünïcödé"


@checkpoint
def research(topic: str) -> Notes:
    """Work with work inside."""
    ran.append("research")
    log(cost=0.25, model="none")
    print("looking around")
    lines = tuple(look_up.map([topic] * 3, range(3)).results())
    save("lines", list(lines))
    return Notes(topic, lines, 2**70 / 3)


@checkpoint(retries=Retry(attempts=2, delay=0))
def shaky(notes: Notes) -> dict[str, object]:
    """Fails the first time that it runs."""
    ran.append("shaky")
    if ran.count("shaky") % 2:
        raise ConnectionError("the first attempt fails")
    return {"score": notes.score, "count": len(notes.lines), "none": None}


@checkpoint
def publish(notes: Notes, found: dict[str, object], note: str) -> str:
    """The last work."""
    ran.append("publish")
    return f"{notes.topic}: {found['count']} lines, {note}"


@flow
def frozen(topic: str, length: int = 3) -> str:
    """Nested and parallel work, a retry, a saved value and a wait."""
    notes = research(topic)
    found = shaky(notes)
    if not wait("approve", question=f"Publish {length} lines?", timeout=0):
        return "rejected"
    return publish(notes, found, wait("note", schema=str, timeout=0))


def record(path: Path) -> None:
    """Write a history of three executions as SQL: one completed, one answered and not resumed, one that waits."""
    with TemporaryDirectory() as folder:
        runtime = Runtime(Settings(Path(folder)))
        journal = runtime.journal
        for topic, answers in [("snow", [True, "good"]), ("rain", [True]), ("wind", [])]:
            exec_id = create_execution(runtime, frozen, {"topic": topic}).exec_id
            advance(runtime, exec_id, frozen, poll_seconds=0)
            for n, answer in enumerate(answers):
                (asked,) = journal.waits(exec_id=exec_id)
                body = {"value": answer, "by": "ann", "via": "cli"}
                journal.append(exec_id, [Event(exec_id, "wait.resolved", asked.wait_id, time.time(), body)])
                if (topic, n) != ("rain", 0):
                    advance(runtime, exec_id, frozen, poll_seconds=0)
        journal.set_reference("tag/brief/prod", "v1", expected=None, by="ann")
        journal.set_reference("tag/brief/prod", "v2", expected="v1", by="bob")
        journal.close()
        with sqlite3.connect(Path(folder) / "journal.db") as database:
            (version,) = database.execute("pragma user_version").fetchone()
            (application,) = database.execute("pragma application_id").fetchone()
            dump = "\n".join(database.iterdump())
        database.close()
    dump = dump.replace(str(Path(__file__).parents[2]), "/frozen").replace(this_host(), "frozen-host")
    path.write_text(f"PRAGMA application_id={application};\nPRAGMA user_version={version};\n{dump}\n")
