"""``kitaru run``: real notebooks in real kernels."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from cli.conftest import Kitaru


def notebook(path: Path, *cells: str) -> str:
    """Write a notebook whose first cell holds its parameters; its path."""
    document = nbformat.v4.new_notebook()
    document.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    document.cells = [nbformat.v4.new_code_cell(source) for source in cells]
    document.cells[0].metadata.tags = ["parameters"]
    nbformat.write(document, path)
    return str(path)


def test_a_notebook_runs_to_its_end_with_parameters_and_progress(kitaru: Kitaru, tmp_path: Path) -> None:
    path = notebook(
        tmp_path / "n.ipynb", "topic = 'cats'", "#| checkpoint: notes\nnotes = topic.upper()", "print(notes)"
    )
    result = kitaru("run", path, "-p", "topic=owls", "--output", str(tmp_path / "out.ipynb"))
    assert result.code == 0, result.err
    assert "✓ completed" in result.out
    assert str(tmp_path / "out.ipynb") in result.out
    assert "✓ topic = 'cats'" in result.err
    assert "OWLS" in (tmp_path / "out.ipynb").read_text()
    details = kitaru("executions", "get", "latest").out
    assert "notes" in details
    assert "OWLS" in details


def test_a_notebook_that_waits_exits_75_with_the_line_that_answers(kitaru: Kitaru, tmp_path: Path) -> None:
    path = notebook(
        tmp_path / "n.ipynb", "x = 1", "from kitaru_nb import wait\nok = wait('approve', question='Go on?')"
    )
    result = kitaru("run", path, "--quiet")
    assert result.code == 75, result.err
    assert "Go on?" in result.out
    assert " --wait approve --value true" in result.out
    assert "x = 1" not in result.err


def test_a_notebook_that_fails_exits_1(kitaru: Kitaru, tmp_path: Path) -> None:
    path = notebook(tmp_path / "n.ipynb", "x = 1", "#| checkpoint: bad\ny = x / 0")
    result = kitaru("run", path, "--json")
    assert result.code == 1, result.err
    assert result.json["item"]["status"] == "failed"
    assert "ZeroDivisionError" in result.json["item"]["reason"]
    assert set(result.json["item"]) == {"exec_id", "status", "output", "reason"}


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [(["-p", "subject=x"], 1, "Parameters are: topic"), (["-p", "topic"], 2, "-p NAME=VALUE")],
)
def test_wrong_parameters_are_told_before_anything_runs(
    kitaru: Kitaru, tmp_path: Path, options: list[str], code: int, words: str
) -> None:
    result = kitaru("run", notebook(tmp_path / "n.ipynb", "topic = 'cats'"), *options)
    assert result.code == code
    assert words in result.err
    assert kitaru("executions", "list", "--json").json["count"] == 0
