"""The SQLite journal against the floor: bare sqlite3 in the same run, interleaved, medians.

Run it with ``python benchmarks/journal.py [FOLDER]``; FOLDER (default: the system's temporary folder) decides the disk.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from kitaru_nb.journal.base import this_process
from kitaru_nb.journal.rules import COLUMNS, ExecutionRow
from kitaru_nb.journal.sqlite import SqliteJournal
from kitaru_nb.model import Event, Execution, ExecutionStatus, new_exec_id, utc

DIGEST = "0123456789abcdef" * 4
BODY = {
    "name": "research",
    "type": "cell",
    "inputs": [["topic", f"json:{DIGEST}", "durable agents", ["input:topic"]]],
    "attempt": 1,
    "started_at": 1_760_000_000.0,
    "duration": 0.25,
    "outputs": [
        {
            "name": "notes",
            "kind": "output",
            "serializer": "json",
            "python_type": "builtins.str",
            "media_type": "application/json",
            "digest": DIGEST,
            "size": 300,
            "token": True,
            "preview": {"text": "n" * 40},
            "inline": [0, 300],
        }
    ],
}
BLOB = b"n" * 300


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        for durability in ("power", "process"):
            report_append(Path(folder), durability)
            report_threads(Path(folder), durability)
        report_history(Path(folder))
        report_lists(Path(folder))


def new_execution(journal: SqliteJournal) -> str:
    now = utc(time.time())
    return journal.create(Execution(new_exec_id(), "brief", ExecutionStatus.PENDING, now, now), []).exec_id


def bare(path: Path, durability: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute(f"pragma synchronous={'full' if durability == 'power' else 'normal'}")
    connection.execute("create table journal (seq integer primary key, exec_id, kind, key, at, body, blob, cache_key)")
    return connection


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def report_append(folder: Path, durability: Literal["power", "process"], rounds: int = 2000) -> None:
    floor = bare(folder / f"bare-{durability}.db", durability)
    journal = SqliteJournal(f"sqlite://{folder}/append-{durability}.db", durability=durability)
    exec_id = new_execution(journal)
    lease = journal.claim(exec_id, this_process())
    body = json.dumps(BODY, separators=(",", ":"))
    insert = "insert into journal (exec_id, kind, key, at, body, blob, cache_key) values (?, ?, ?, ?, ?, ?, ?)"

    def one(number: int) -> tuple[float, float]:
        row = (exec_id, "checkpoint.completed", f"research-{number:08}", time.time(), body, BLOB, None)
        event = Event(*row[:4], BODY, BLOB)
        return (
            seconds(lambda: floor.execute(insert, row)),
            seconds(lambda: journal.append(exec_id, [event], lease=lease)),
        )

    lowest, ours = (statistics.median(column) for column in zip(*map(one, range(rounds)), strict=True))
    print(f"append, {durability:7}: {ours * 1e6:7.1f} µs, floor {lowest * 1e6:7.1f} µs, ratio {ours / lowest:.2f}")
    floor.close()
    journal.close()


def report_threads(folder: Path, durability: Literal["power", "process"], each: int = 250) -> None:
    journal = SqliteJournal(f"sqlite://{folder}/threads-{durability}.db", durability=durability)
    exec_id = new_execution(journal)

    def work(name: int) -> None:
        for number in range(each):
            journal.append(exec_id, [Event(exec_id, "checkpoint.completed", f"{name}-{number}", 1.0, BODY, BLOB)])

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]

    def run() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    print(f"8 threads, {durability:7}: {seconds(run) / (8 * each) * 1e6:7.1f} µs per append")
    journal.close()


def report_history(folder: Path, events: int = 10_000) -> None:
    journal = SqliteJournal(f"sqlite://{folder}/history.db", durability="process")
    exec_id = new_execution(journal)
    journal.append(exec_id, [Event(exec_id, "checkpoint.completed", f"{n}", 1.0, BODY, BLOB) for n in range(events)])
    taken = statistics.median(seconds(lambda: journal.history(exec_id)) for _ in range(7))
    bodies = [json.dumps(BODY, separators=(",", ":"))] * events
    floor = statistics.median(seconds(lambda: [json.loads(body) for body in bodies]) for _ in range(7))
    print(
        f"history of {events:,} events: {taken / events * 1e6:.1f} µs each, json.loads alone {floor / events * 1e6:.1f}"
    )
    journal.close()


def report_lists(folder: Path, count: int = 100_000) -> None:
    path = folder / "lists.db"
    journal = SqliteJournal(f"sqlite://{path}", durability="process")
    fill(path, count)
    lists: dict[str, Callable[[], object]] = {
        "first page": journal.executions,
        "first page of a flow": lambda: journal.executions(flow="brief"),
        "first page of a status": lambda: journal.executions(status=ExecutionStatus.WAITING),
        "first page of a flow and status": lambda: journal.executions(flow="brief", status=ExecutionStatus.WAITING),
        "running": lambda: journal.executions(status=ExecutionStatus.RUNNING),
        "interrupted": lambda: journal.executions(status=ExecutionStatus.INTERRUPTED),
        "1,000 pending waits": journal.waits,
        "due waits": lambda: journal.waits(due_before=time.time()),
    }
    for name, work in lists.items():
        taken = statistics.median(seconds(work) for _ in range(7))
        print(f"{name} of {count:,} executions: {taken * 1e3:.1f} ms")
    journal.close()


def fill(path: Path, count: int) -> None:
    """Executions of ten flows, each with a wait: 1 % open, the others answered. By plain SQL, to be quick."""
    connection = sqlite3.connect(path)
    statuses = itertools.cycle(["waiting", "running", *["completed"] * 98])
    marks = ", ".join("?" * len(COLUMNS))
    insert = "insert into journal (exec_id, kind, key, at, body) values (?, ?, 'approve', ?, ?)"
    for number, status in zip(range(count), statuses, strict=False):
        row = ExecutionRow(new_exec_id(), "brief" if number % 10 else "other", status, 1.0, 1.0)
        connection.execute(f"insert into executions values ({marks})", row.columns())
        connection.execute(insert, (row.id, "wait.created", 1.0, '{"name":"approve","until":null}'))
        if status != "waiting":
            connection.execute(insert, (row.id, "wait.resolved", 2.0, '{"value":true}'))
    connection.commit()
    connection.close()


if __name__ == "__main__":
    main()
