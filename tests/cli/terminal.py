"""The command on a pseudo-terminal, where a person types."""

from __future__ import annotations

import os
import pty
import sys

_MAIN = "from kitaru_nb.surfaces.cli import main; main()"


def typed(arguments: list[str], *dialogue: tuple[str, str]) -> tuple[int, str]:
    """Call the command; whenever it has shown the next text of ``dialogue``, type the answer beside it.

    Returns the exit code and all that was shown. A command that ends early, or never shows the text, ends the dialogue.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", _MAIN, *arguments])
    shown, looked = "", 0
    waiting = list(dialogue)
    while True:
        try:
            piece = os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # the other end was closed: the command has ended
            break
        if not piece:
            break
        shown += piece
        while waiting and waiting[0][0] in shown[looked:]:
            text, answer = waiting.pop(0)
            looked = shown.index(text, looked) + len(text)
            os.write(terminal, answer.encode() + b"\n")
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown
