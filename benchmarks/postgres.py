"""A trivial durable checkpoint in PostgreSQL against the floor: one bare insert of the same bytes, synchronous.

A throw-away server is started on this machine (``initdb`` must be installed); its disk flushes are real.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import psycopg

from benchmarks.checkpoint import nothing, one_by_one, run
from kitaru_nb.config import Settings
from kitaru_nb.core.runtime import Runtime
from tests.journal.postgres_server import running

ROUNDS = 1_000
FLOOR = (
    "create table floor (seq bigserial primary key, exec_id text, kind text, key text, at double precision, body text, "
    "blob bytea, cache_key text)"
)
COLUMNS = "exec_id, kind, key, at, body, blob, cache_key"


def main() -> None:
    """Print the table."""
    print(f"{'trivial checkpoint, PostgreSQL':36}{'µs':>8}{'floor':>8}{'ratio':>7}")
    with running() as server, tempfile.TemporaryDirectory() as home:
        url = server.create("kitaru")
        runtime = Runtime(Settings(Path(home), journal=url))
        run(runtime, one_by_one, 100, nothing)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(FLOOR)
            chosen = f"select {COLUMNS} from journal where kind = 'checkpoint.completed' limit 1 offset 50"
            row = connection.execute(chosen).fetchone()
            insert = f"insert into floor ({COLUMNS}) values (%s, %s, %s, %s, %s, %s, %s)"
            taken = run(runtime, one_by_one, ROUNDS, lambda: connection.execute(insert, row))
        lowest, ours = (statistics.median(column) for column in zip(*taken, strict=True))
        print(f"{'sequential':36}{ours * 1e6:8.0f}{lowest * 1e6:8.0f}{ours / lowest:7.2f}")
        runtime.journal.close()


if __name__ == "__main__":
    main()
