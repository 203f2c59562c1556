"""All figures: ``python -m benchmarks [NAME ...]``. Names are those of the modules beside this one."""

from __future__ import annotations

import importlib
import os
import platform
import sqlite3
import sys

from benchmarks.timing import disturbance

ALL = (
    "checkpoint",
    "resume",
    "startup",
    "scale",
    "journal",
    "postgres",
    "artifacts",
    "promote",
    "deployments",
    "adapters",
    "api",
    "fanout",
    "screen",
)


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all."""
    if unknown := set(names) - set(ALL):
        sys.exit(f"There is no benchmark {unknown.pop()!r}; there are {', '.join(ALL)}.")
    sys.argv[1:] = []  # each takes a folder there when it is run by itself
    print(f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}, ", end="")
    print(f"SQLite {sqlite3.sqlite_version}. {disturbance()}")
    for name in names or ALL:
        print(f"== {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main(sys.argv[1:])
