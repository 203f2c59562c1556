"""The SDK's subprocess ends when this process does, however that ends.

Left alone it would go on with its agent: ask the model, and call tools that nobody sees, while a resumed run does the
same work. And the folder in which the SDK has laid out a resumed session, with a copy of one's credentials, would stay
on the disk for ever.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import claude_agent_sdk as sdk

#: Environment: the command that the guard stands before, and the Python and the program that watch over it.
_COMMAND, _PYTHON, _WATCHER = "KITARU_CLAUDE_CLI", "KITARU_CLAUDE_PYTHON", "KITARU_CLAUDE_WATCHER"

_SCRIPT = f"""\
#!/bin/sh
# Becomes "${_COMMAND}", which is killed as soon as the process that started it is gone; then the folder that the SDK
# made for a resumed session is removed, too.
"${_PYTHON}" -IS "${_WATCHER}" "$PPID" "$$" </dev/null >/dev/null 2>&1 &
exec "${_COMMAND}" "$@"
"""


def guarded(options: sdk.ClaudeAgentOptions, home: Path) -> dict[str, Any]:
    """Changes of the options that put a guard before the SDK's command.

    None where it couldn't work: without such a shell or command, in a folder whose files can't be executed, and when
    the command runs as another user, who can't see this process.

    Args:
        home: where the guard, a small script, is kept.
    """
    bundled = Path(sdk.__file__).parent / "_bundled" / "claude"
    command = options.cli_path or (bundled if bundled.is_file() else shutil.which("claude"))
    if command is None or os.name != "posix" or options.user is not None:
        return {}
    guard = _script(home)
    watcher = str(Path(__file__).with_name("claude_watcher.py"))
    own = {_COMMAND: str(command), _PYTHON: sys.executable, _WATCHER: watcher}
    return {"cli_path": guard, "env": {**options.env, **own}} if os.access(guard, os.X_OK) else {}


def _script(home: Path) -> Path:
    path = home / "claude-guard.sh"
    if not path.is_file() or path.read_text() != _SCRIPT:
        home.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(_SCRIPT)
        new.chmod(0o755)
        new.replace(path)
    return path
