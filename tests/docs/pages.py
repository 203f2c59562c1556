"""Pages of the documentation as their blocks: what is run, and the output that the page promises.

A block in ```` ```text ```` right after one that runs is its expected output: ids may differ, and ``…`` stands for
anything.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (?P<name>[\w/.-]+\.py)\n")
_ID = re.compile(r"kr-(?:…|[0-9a-z]{12})")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_EXIT = re.compile(r"exit code (\d+)")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. ``expected`` is the output that the page shows for it, or None where it shows none."""

    page: str
    line: int
    language: str
    text: str
    expected: str | None = None

    @property
    def file(self) -> str | None:
        """The file that a Python block is, when its first line names one: ``# brief.py``."""
        named = _FILE.match(self.text) if self.language == "python" else None
        return named["name"] if named else None

    @property
    def title(self) -> str:
        """Where it stands."""
        return f"{self.page}:{self.line}"


@dataclass(frozen=True, slots=True)
class Command:
    """One line of a shell block, and the exit code that its comment names (0 without one)."""

    text: str
    words: tuple[str, ...]
    exit_code: int


def name_of(page: Path) -> str:
    """The page's path from the root of the repository."""
    return page.relative_to(ROOT).as_posix()


def read_blocks(page: Path) -> list[Block]:
    """All blocks of a page that run, in order."""
    text = page.read_text(encoding="utf-8")
    blocks: list[Block] = []
    end = 0
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        if found["language"] == "text" and blocks and not text[end : found.start()].strip():
            blocks[-1] = Block(name_of(page), blocks[-1].line, blocks[-1].language, blocks[-1].text, found["text"])
        elif found["language"] in ("python", "ipython", "shell"):
            blocks.append(Block(name_of(page), line, found["language"], found["text"]))
        end = found.end()
    return blocks


def read_commands(block: Block) -> list[Command]:
    """The commands of a shell block; continued lines are joined, comments read off."""
    commands = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = tuple(shlex.split(line, comments=True))
        if words:
            code = _EXIT.search(line)
            commands.append(Command(line, words, int(code[1]) if code else 0))
    return commands


def fits(expected: str, actual: str) -> bool:
    """Whether an output is what a page shows: ids may differ, ``…`` stands for anything, also nothing."""
    pattern = ".*?".join(re.escape(part) for part in _normal(expected).split("…"))
    return re.fullmatch(pattern, _normal(actual), re.DOTALL) is not None


def _normal(text: str) -> str:
    lines = [line.rstrip() for line in _ID.sub("kr-ID", _COLOUR.sub("", text)).strip().splitlines()]
    return "\n".join(lines)
