"""Ends the SDK's subprocess the moment its owner is gone: ``python -IS claude_watcher.py OWNER COMMAND``, two pids.

A program of its own, which `kitaru_nb.surfaces.adapters.claude_guard` starts. It imports nothing of ours, to be there
at once, and has a session of its own: who kills a whole group of processes doesn't kill it.
"""

import os
import select
import shutil
import signal
import sys
import time
from contextlib import suppress
from fnmatch import fnmatch

#: Names of the folders that the SDK makes for resumed sessions, with a copy of one's credentials.
RESUMED = "claude-resume-????????"

#: Seconds between two looks where nobody tells of an end.
LOOK = 0.05


def first_to_end(*pids: int) -> int:
    """The process that has ended first."""
    try:
        return _told(pids)
    except (OSError, AttributeError):  # one has ended already, or the kernel or this Python is too old to tell
        while all(map(is_alive, pids)):
            time.sleep(LOOK)
        return next(pid for pid in pids if not is_alive(pid))


def _told(pids: tuple[int, ...]) -> int:
    if sys.platform == "linux":
        descriptors = {os.pidfd_open(pid): pid for pid in pids}
        return descriptors[select.select(descriptors, [], [])[0][0]]
    ended = [select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT) for pid in pids]
    return int(select.kqueue().control(ended, 1)[0].ident)


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie doesn't."""
    with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] != b"Z"
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def watch(owner: int, command: int, folder: str) -> None:
    """Until one of them ends; then the other one's traces are removed.

    Args:
        folder: that the command works in; the owner removes it by itself if it lives.
    """
    if first_to_end(owner, command) == owner:
        with suppress(ProcessLookupError):
            os.kill(command, signal.SIGKILL)
    if fnmatch(os.path.basename(folder), RESUMED):
        while is_alive(owner) and os.path.isdir(folder):
            time.sleep(0.5)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    os.setsid()
    watch(int(sys.argv[1]), int(sys.argv[2]), os.environ.get("CLAUDE_CONFIG_DIR", ""))
