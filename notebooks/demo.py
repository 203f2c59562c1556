"""The main job, step by step, each step a process of its own: an agent stops for a person, goes on, and is replayed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from offline import model

HERE = Path(__file__).parent
HOME = HERE.parent / ".kitaru"
WAITING = 75


class Demo:
    """Runs ``kitaru`` commands as a person would, and shows them."""

    def __init__(self, environment: Mapping[str, str], calls: Callable[[], int] | None) -> None:
        self.environment = dict(environment) | {"KITARU_HOME": str(HOME)}
        self.calls = calls
        self.last_pid = 0

    def say(self, text: str) -> None:
        """A line between commands."""
        print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)

    def kitaru(self, *words: str, expect: int = 0) -> None:
        """Run a command, its output on the screen. Ends the demo when its exit code isn't ``expect``."""
        print(f"$ kitaru {shlex.join(words)}", flush=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "kitaru_nb", *words], env=self.environment, cwd=HERE, start_new_session=True
        )
        self.last_pid = process.pid
        code = process.wait()
        if code != expect:
            sys.exit(f"demo: that command ended with {code}, expected {expect}")

    def asked(self, *words: str) -> Any:
        """What a command answers with ``--json``."""
        command = [sys.executable, "-m", "kitaru_nb", *words, "--json"]
        output = subprocess.run(command, env=self.environment, cwd=HERE, stdout=subprocess.PIPE, check=True).stdout
        return json.loads(output)

    def status(self, exec_id: str) -> str:
        """Status of an execution."""
        return str(self.asked("executions", "get", exec_id)["item"]["status"])

    def count(self) -> int:
        """Model calls so far; 0 with an endpoint of the user's own, which isn't counted."""
        return self.calls() if self.calls else 0

    def until_ended(self, exec_id: str) -> None:
        """Wait for the worker that an answer started."""
        deadline = time.monotonic() + 300
        while (status := self.status(exec_id)) in ("waiting", "running", "pending"):
            if time.monotonic() > deadline:
                sys.exit(f"demo: {exec_id} is still {status}")
            time.sleep(0.5)
        if status != "completed":
            sys.exit(f"demo: {exec_id} is {status}; see kitaru executions get {exec_id}")


def processes_of_session(session: int) -> int:
    """How many processes of a session are left (Linux; elsewhere 0 is assumed)."""
    left = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        left += int(fields[3]) == session and fields[0] != "Z"
    return left


def main() -> None:
    """The story."""
    HOME.mkdir(exist_ok=True)
    began = time.monotonic()
    with model() as (environment, calls):
        demo = Demo(environment, calls)
        demo.say("1. A notebook with two agents runs headless, until it needs a person.")
        demo.kitaru("run", "quickstart.ipynb", expect=WAITING)
        exec_id = demo.asked("executions", "list", "--limit", "1")["items"][0]["exec_id"]
        paid = demo.count()
        left = processes_of_session(demo.last_pid)
        print(f"→ {exec_id} is {demo.status(exec_id)}; processes of that run still alive: {left}; model calls: {paid}")

        demo.say("2. Somebody approves, from another process. A fresh worker goes on by itself.")
        demo.kitaru("executions", "input", exec_id, "--wait", "approve", "--value", "true", "--by", "ana")
        demo.until_ended(exec_id)
        again = demo.count() - paid
        demo.kitaru("executions", "get", exec_id)
        print(f"→ model calls paid twice by the resumed run: {again}")

        demo.say("3. Replay from the draft: research is reused, the draft and what depends on it run again.")
        demo.kitaru("executions", "replay", exec_id, "--from", "draft", "--dry-run")
        before = demo.count()
        demo.kitaru("executions", "replay", exec_id, "--from", "draft", "--override", "wait.approve=true")
        replayed = demo.asked("executions", "list", "--limit", "1")["items"][0]["exec_id"]
        print(f"→ model calls of the replay: {demo.count() - before} (the first run: {paid})")
        demo.kitaru("executions", "diff", exec_id, replayed)
    if calls and (again or left):
        sys.exit("demo: a model call was paid twice, or a process was left behind")
    print(f"\nDone in {time.monotonic() - began:.0f} s.")
    print(f"State: {os.path.relpath(HOME)}. The post: notebooks/published.md")
    print("Open the same notebook in JupyterLab:  make lab")


if __name__ == "__main__":
    main()
