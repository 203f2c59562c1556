"""What the pages show is what happens: their code runs, their output is the output, their commands exist."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import typer

from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.surfaces.cli import app
from tests.docs.pages import PAGES, ROOT, Block, Command, fits, name_of, read_blocks, read_commands

CODE_PAGES = [p for p in PAGES if any(b.language != "shell" and b.file is None for b in read_blocks(p))]
SHELL_PAGES = [p for p in PAGES if any(b.language == "shell" for b in read_blocks(p))]
RUN_PAGES = [ROOT / "README.md", ROOT / "docs" / "quickstart.md"]
#: Commands that are for the reader alone: they install, serve, or run the tests that run this.
NOT_RUN = {"pip", "jupyter", "make"}
SECONDS = 120


def environment(folder: Path) -> dict[str, str]:
    """A process environment whose home is ``folder``, without settings of the person who tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KITARU_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return kept | {
        "KITARU_HOME": str(folder / ".kitaru"),
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        # From Python 3.12 on a kernel of ipykernel asks for the loop of a thread that has none yet.
        "PYTHONWARNINGS": "error,ignore:There is no current event loop:DeprecationWarning",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "IPYTHONDIR": str(folder / ".ipython"),
    }


@pytest.mark.parametrize("page", CODE_PAGES, ids=name_of)
def test_code_blocks_run_and_print_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.docs.page_process", str(page)]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert ended.returncode == 0, ended.stderr
    answers = {answer["title"]: answer for answer in json.loads(ended.stdout)}
    for block in read_blocks(page):
        if block.title in answers:
            check(block, answers[block.title], ended.stderr)


def check(block: Block, answer: dict[str, str | None], stderr: str) -> None:
    """Compare one block's outcome with the page. An error must be the one that the page shows."""
    shown, error = answer["output"] or "", answer["error"]
    if error is not None:
        shown += "" if block.language == "ipython" else error
        assert block.expected is not None, f"{block.title} ended with {error}\n{stderr}"
        assert error.partition(":")[0].rpartition(".")[2].strip() in block.expected, f"{block.title}: {error}\n{stderr}"
    if block.expected is not None:
        assert fits(block.expected, shown), f"{block.title} printed:\n{shown}\nthe page shows:\n{block.expected}"


@pytest.mark.parametrize("page", RUN_PAGES, ids=name_of)
def test_shell_blocks_of_the_first_pages_run(page: Path, tmp_path: Path) -> None:
    blocks = read_blocks(page)
    for block in blocks:
        if block.file is not None:
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
    write_notebook(blocks, tmp_path / "first.ipynb")
    for block in blocks:
        if block.language == "shell":
            output = "".join(run(command, tmp_path) for command in read_commands(block))
            if block.expected is not None:
                assert fits(block.expected, output), f"{block.title} printed:\n{output}"


def write_notebook(blocks: list[Block], path: Path) -> None:
    """The notebook that a page's cells make, as its reader has it: without the questions to ``%kitaru``."""
    make: Any = nbformat.v4
    blocks = [block for block in blocks if not block.text.startswith("%kitaru ")]
    cells = [make.new_code_cell(block.text.rstrip("\n")) for block in blocks if block.language == "ipython"]
    path.write_text(make.writes(make.new_notebook(cells=cells)), encoding="utf-8")


def run(command: Command, folder: Path) -> str:
    """Run a command as the reader does; what it printed. Fails when its exit code isn't the one that is told."""
    if command.words[0] in NOT_RUN:
        return ""
    ended = subprocess.run(
        command.words, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert ended.returncode == command.exit_code, f"{command.text}\n{ended.stdout}\n{ended.stderr}"
    if "input" in command.words:
        until_ended(folder)
    return ended.stdout


def until_ended(folder: Path) -> None:
    """A reader types no faster than the worker of an answered execution ends it."""
    runtime = Runtime(Settings(folder / ".kitaru"))
    executions = KitaruClient(runtime).executions
    executions.handle(executions.latest().exec_id).wait(timeout=SECONDS)
    runtime.journal.close()


@pytest.mark.parametrize("page", SHELL_PAGES, ids=name_of)
def test_every_kitaru_command_of_a_page_exists_and_takes_its_options(page: Path) -> None:
    for block in read_blocks(page):
        for command in read_commands(block) if block.language == "shell" else []:
            if command.words[0] == "kitaru":
                parse(list(command.words[1:]), block)


def parse(words: list[str], block: Block) -> None:
    """Read a command line as the CLI does, without running it."""
    group = typer.main.get_command(app)
    name = "kitaru"
    while hasattr(group, "commands"):
        assert (words or [""])[0] in group.commands, f"{block.title}: {name} has no command {words[:1]}"
        group, name, words = group.commands[words[0]], words[0], words[1:]
    try:
        group.make_context(name, words)
    except Exception as error:
        pytest.fail(f"{block.title}: kitaru … {name} {' '.join(words)}: {error}")


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        ("kr-…", "kr-0n8e2h88xsc3", True),
        ("kr-…", "kr-short", False),
        ("took … ms", "took 12 ms", True),
        ("took … ms", "took 12 s", False),
        ("a\nb", "a  \nb\n\n", True),
        ("a", "a\nb", False),
    ],
)
def test_a_shown_output_is_held_against_the_real_one(expected: str, actual: str, same: bool) -> None:
    assert fits(expected, actual) is same
