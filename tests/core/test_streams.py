"""Streams are listened to while executions run, and nobody who prints meanwhile notices."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, threading, time
from kitaru_nb.core.logs import captured

over = False

def runs_begin_and_end():
    while not over:
        with captured():
            pass

class Slow:
    def __str__(self):
        time.sleep(0)
        return "x"

thread = threading.Thread(target=runs_begin_and_end)
thread.start()
until = time.monotonic() + 1.5
while time.monotonic() < until:
    print(Slow(), Slow(), Slow())
over = True
thread.join()
assert type(sys.stdout).__name__ == "TextIOWrapper"
"""


def test_a_thread_that_prints_while_runs_begin_and_end_does_not_crash() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")
