"""The command ``kitaru``. Hand-written and thin: parse, call the client, show what it answers.

Every command takes ``--json`` (``--output json`` where ``--output`` is no path). Exit codes: 0 done, 1 an error or a
failed execution, 2 wrong usage, 75 the execution waits or was paused, 130 interrupted.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from kitaru_nb import __version__
from kitaru_nb.surfaces.commands import (
    actions,
    artifacts,
    deployments,
    executions,
    mcp,
    models,
    promote,
    run,
    schedules,
    server,
    setup,
    stack,
)
from kitaru_nb.surfaces.console import QuickGroup

__all__ = ["actions", "app", "main", "schedules"]

# Help is plain text: rich would take longer to load than everything else that --help does.
app = typer.Typer(
    name="kitaru",
    cls=QuickGroup,
    help="Durable executions for agents that live in notebooks.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(executions.app)
app.add_typer(artifacts.app)
app.add_typer(deployments.app)
app.add_typer(server.app)
app.add_typer(models.app)
app.add_typer(stack.app)
for group in (run.app, setup.app, mcp.app, promote.app, deployments.alone):
    app.registered_commands += group.registered_commands


def _version(asked: bool) -> None:
    if asked:
        print(f"kitaru {__version__}")
        raise typer.Exit


@app.callback()
def kitaru(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Durable executions for agents that live in notebooks."""


def main() -> None:
    """The entry point: run the command that the arguments name, and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Where the encoding has no ✓, an escape is better than an error.
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="kitaru")
