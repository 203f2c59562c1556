"""The file that something is promoted from, and the Git commit that it belongs to."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kitaru_nb.core.flow import Flow


def file_of(target: str | Path | Flow[..., Any]) -> Path:
    """The file that a target is in; for one that is none, a path that doesn't exist."""
    if isinstance(target, Path):
        return target
    if isinstance(target, str):
        return Path(target.rpartition(":")[0] or target)
    return Path(target.func.__code__.co_filename)


def revision_of(path: Path) -> tuple[str | None, bool]:
    """(commit, whether the file differs from it); (None, False) outside of a repository."""
    git = shutil.which("git")
    if git is None or not path.exists():
        return None, False

    def ask(*arguments: str) -> str | None:
        ended = subprocess.run(
            [git, *arguments], cwd=path.absolute().parent, capture_output=True, text=True, check=False
        )
        return ended.stdout.strip() if ended.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    return commit, bool(commit and ask("status", "--porcelain", "--", path.name))
