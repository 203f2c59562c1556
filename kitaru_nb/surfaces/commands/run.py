"""``kitaru run notebook.ipynb``: a notebook without a front end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kitaru_nb.model import ExecutionStatus
from kitaru_nb.surfaces.console import Answer, command, exit_code, is_machine, is_terminal, show, terminal
from kitaru_nb.surfaces.render import GLYPHS, Line, Span, escaped, line, utc_now

if TYPE_CHECKING:
    from kitaru_nb.cells.notebook import Progress
    from kitaru_nb.client import KitaruClient
    from kitaru_nb.headless import NotebookOutcome

app = typer.Typer(rich_markup_mode=None)

_STATUS = {"done": "completed"}


@command(app, "run", takes_path=True)
def run(
    notebook: Annotated[Path, typer.Argument(metavar="NOTEBOOK.ipynb", help="The notebook.")],
    parameters: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="For the cell tagged parameters; repeatable."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT.ipynb", help="Where the executed copy goes.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="The same key is the same execution, never a second one.")] = None,
    by_line: Annotated[bool, typer.Option("--by-line", help="Progress as lines, on a terminal too.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> Answer:
    """Run a notebook as an execution. Exit codes: 0 done, 1 failed, 75 it waits for an answer."""
    import sys

    from kitaru_nb.client import KitaruClient
    from kitaru_nb.headless import run_notebook

    values = dict(_pair(text) for text in parameters or ())
    client = KitaruClient()
    silent = quiet or is_machine()
    with _silence() if silent else _lines() if by_line or not is_terminal(sys.stderr) else _bar() as on_progress:
        outcome = run_notebook(client.runtime, notebook, values, output=output, key=key, on_progress=on_progress)
    return _answer(client, outcome)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"-p {text!r} can't be: expected -p NAME=VALUE.")
    return name, value


def _answer(client: KitaruClient, outcome: NotebookOutcome) -> Answer:
    from kitaru_nb.surfaces.detail import outcome_blocks

    execution = client.executions.get(outcome.exec_id)
    blocks = outcome_blocks(execution, utc_now())
    if outcome.status is ExecutionStatus.FAILED and execution.failure is None and outcome.reason:
        blocks.insert(1, line(outcome.reason, "red", indent=2))
    blocks.append(line(f"executed copy: {outcome.output}", "dim", indent=2))
    item = {
        "exec_id": outcome.exec_id,
        "status": outcome.status.value,
        "output": str(outcome.output),
        "reason": outcome.reason,
    }
    return Answer(blocks, item=item, code=exit_code(outcome.status))


OnProgress = Callable[["Progress"], None]


@contextmanager
def _silence() -> Iterator[OnProgress]:
    yield lambda progress: None


@contextmanager
def _lines() -> Iterator[OnProgress]:
    """One line for each cell that has ended."""

    def tell(progress: Progress) -> None:
        if progress.status == "running":
            return
        glyph, style = GLYPHS[_STATUS.get(progress.status, progress.status)]
        counter = f"{progress.index:>{len(str(progress.total))}}/{progress.total} "
        show([Line((Span(counter, "dim"), Span(f"{glyph} ", style), Span(progress.name)))], err=True)

    yield tell


@contextmanager
def _bar() -> Iterator[OnProgress]:
    import sys

    from rich import progress as rich_progress

    columns = (
        rich_progress.BarColumn(20),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TextColumn("{task.description}", markup=False),
    )
    with rich_progress.Progress(*columns, console=terminal(sys.stderr), transient=True) as bar:
        task = bar.add_task("starts a kernel", total=None)

        def tell(progress: Progress) -> None:
            ended = progress.index - (progress.status == "running")
            bar.update(task, total=progress.total, completed=ended, description=escaped(progress.name))

        yield tell
