"""The command ``kitaru``. Hand-written and thin: parse, call the client, show what it answers.

Every command takes ``--json`` (``--output json`` where ``--output`` is no path). Exit codes: 0 done, 1 an error or a
failed execution, 2 wrong usage, 75 the execution waits or was paused, 130 interrupted.
"""

from __future__ import annotations

import importlib
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kitaru_nb import __version__
from kitaru_nb.surfaces.console import QuickGroup

if TYPE_CHECKING:
    app: typer.Typer

#: First word of a command line → where, in `kitaru_nb.surfaces.commands`, its group or its command is.
COMMANDS = {
    "run": "run.app",
    "init": "setup.app",
    "status": "setup.app",
    "info": "setup.app",
    "doctor": "setup.app",
    "mcp": "mcp.app",
    "promote": "promote.app",
    "deploy": "promote.app",
    "invoke": "deployments.alone",
    "executions": "actions.app",
    "artifacts": "artifacts.app",
    "deployments": "schedules.app",
    "server": "server.app",
    "model": "models.app",
    "stack": "stack.app",
}


def application(word: str = "") -> typer.Typer:
    """The command with all that it can do; when ``word`` is in `COMMANDS`, with that alone: loading and describing all
    the others takes as long as listing executions."""
    # Help is plain text: rich would take longer to load than everything else that --help does.
    made = typer.Typer(
        name="kitaru",
        cls=QuickGroup,
        help="Durable executions for agents that live in notebooks.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(kitaru)
    for first in [word] if word in COMMANDS else COMMANDS:
        module, _, name = COMMANDS[first].partition(".")
        part: typer.Typer = getattr(importlib.import_module(f"kitaru_nb.surfaces.commands.{module}"), name)
        if part.info.name == first:
            made.add_typer(part)
        else:
            made.registered_commands += [c for c in part.registered_commands if c.name == first]
    return made


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["app"] = whole = application()
    return whole


def _version(asked: bool) -> None:
    if asked:
        print(f"kitaru {__version__}")
        raise typer.Exit


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
    application("".join(sys.argv[1:2]))(prog_name="kitaru")
