"""What the log keeps of growing lines, and that listening to loggers changes nothing for who configures them."""

from __future__ import annotations

import subprocess
import sys
import time

from kitaru_nb.core.logs import LogBuffer


def lines(buffer: LogBuffer) -> list[str]:
    return [line[3] for line in buffer.take("c")]


def test_a_line_that_is_written_in_many_pieces_is_put_together_once() -> None:
    buffer = LogBuffer()
    began = time.thread_time()  # how long it waits for a core is the machine's affair
    for _ in range(300_000):
        buffer.add("c", "stdout", "INFO", "x" * 10)
    buffer.add("c", "stdout", "INFO", "\n")
    assert lines(buffer) == ["x" * 3_000_000]
    assert time.thread_time() - began < 10


def test_of_a_progress_bar_the_last_state_is_kept() -> None:
    buffer = LogBuffer()
    for percent in range(101):
        buffer.add("c", "stderr", "ERROR", f"\r{percent}%")
    buffer.add("c", "stderr", "ERROR", "\nnext")
    assert lines(buffer) == ["100%", "next"]
    for percent in range(101):
        buffer.add("c", "stdout", "INFO", f"{percent}%\r")
    assert lines(buffer) == ["100%"]
    buffer.add("c", "stdout", "INFO", "a line of Windows\r\nanother\r\n")
    assert lines(buffer) == ["a line of Windows", "another"]


SCRIPT = """
import logging
from kitaru_nb import KitaruClient, checkpoint, flow

mine = logging.getLogger("mine")

@checkpoint
def careful():
    mine.warning("careful %s", 1)

@checkpoint
def configured():
    logging.basicConfig(level=logging.INFO, format="shown: %(message)s")
    mine.info("info")

@flow
def working():
    careful()
    configured()

handle = working.run()
handle.wait()
mine.info("after")
for entry in KitaruClient().executions.logs(handle.exec_id):
    print(entry.source, entry.level, entry.message)
"""


def test_loggers_do_what_they_do_without_a_flow() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        env={"KITARU_JOURNAL": "memory://logging", "PATH": ""},
        check=True,
    )
    assert done.stderr.split("\n") == ["careful 1", "shown: info", "shown: after", ""]
    assert done.stdout.split("\n") == ["logging WARNING careful 1", "logging INFO info", ""]
