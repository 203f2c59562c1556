"""The Git commit that a file belongs to."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


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
