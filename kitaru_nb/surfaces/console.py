"""Blocks, JSON, errors and exit codes, on a terminal or in a pipe: all that ``kitaru`` prints goes through here.

A terminal gets colours and frames from rich; a pipe gets the same blocks as plain text, without loading rich.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from kitaru_nb.errors import KitaruError
from kitaru_nb.model import ExecutionStatus, to_json
from kitaru_nb.surfaces.render import Block, Line, Panel, Table, cut, escaped, width_of

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_WAITING = 75  # EX_TEMPFAIL of sysexits.h: try again later
EXIT_INTERRUPTED = 130

_JSON = (str, int, float, dict, list)

#: A flexible column is never cut below this many columns of the terminal.
NARROWEST = 8

#: The console on which a spinner or bar moves; what is printed meanwhile must go above it.
_live: ContextVar[Console | None] = ContextVar("kitaru_cli_live", default=None)
_machine: ContextVar[bool] = ContextVar("kitaru_cli_machine", default=False)


class Format(str, Enum):
    """How an answer is written."""

    TEXT = "text"
    JSON = "json"


AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
OutputFormat = Annotated[Format, typer.Option("--output", "-o", help="json is the same as --json.")]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command answers: blocks for people, ``item`` or ``items`` for programs, and the exit code."""

    blocks: Sequence[Block] = ()
    item: Any = None
    items: Sequence[Any] | None = None
    code: int = 0


class QuickCommand(TyperCommand):
    """A command that coerces only the parameters that need it."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters, ``--help`` included."""
        return _quick(super().get_params(ctx))


class QuickGroup(TyperGroup):
    """A group that coerces only the parameters that need it."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters, ``--help`` included."""
        return _quick(super().get_params(ctx))


def _quick(parameters: list[Any]) -> list[Any]:
    # Recent typers coerce every parameter by pydantic, a missing one and a plain text too, and pydantic takes longer to
    # load than a list to print.
    for parameter in parameters:
        if not parameter.multiple and parameter.nargs == 1 and "process_value" not in vars(parameter):
            parameter.process_value = _unless_plain(parameter)
    return parameters


def _unless_plain(parameter: Any) -> Callable[[Any, Any], Any]:
    coerce = parameter.process_value
    descriptor = getattr(parameter, "type_descriptor", None)
    takes_text = descriptor is not None and descriptor.annotation is str

    def process_value(context: Any, value: Any) -> Any:
        missing = not parameter.required and (value is None or value is parameter.default)
        if not missing and not (takes_text and isinstance(value, str)):
            return coerce(context, value)
        return value if parameter.callback is None else parameter.callback(context, parameter, value)

    return process_value


def command(app: typer.Typer, name: str, *, takes_path: bool = False) -> Callable[[Callable[..., Answer]], Any]:
    """Register a function as the command ``GROUP.NAME``: adds ``--json``, prints the answer, reports errors.

    Args:
        takes_path: the command has an ``--output`` of its own, which is a path.
    """

    def register(function: Callable[..., Answer]) -> Callable[..., Answer]:
        @functools.wraps(function)
        def call(**arguments: Any) -> None:
            as_json, output_format = arguments.pop("as_json"), arguments.pop("output_format", Format.TEXT)
            machine = as_json or output_format is Format.JSON
            raise typer.Exit(perform(name, machine, functools.partial(function, **arguments)))

        signature = inspect.signature(function, eval_str=True)
        keyword = inspect.Parameter.KEYWORD_ONLY
        extra = [inspect.Parameter("as_json", keyword, default=False, annotation=AsJson)]
        if not takes_path:
            extra.append(inspect.Parameter("output_format", keyword, default=Format.TEXT, annotation=OutputFormat))
        parameters = [p.replace(kind=keyword) for p in signature.parameters.values()]
        call.__signature__ = signature.replace(parameters=[*parameters, *extra])  # type: ignore[attr-defined]
        app.command(name.rpartition(".")[2], cls=QuickCommand)(call)
        return function

    return register


def perform(name: str, machine: bool, function: Callable[[], Answer]) -> int:
    """Run a command's function, print what it answers or raises; the exit code."""
    token = _machine.set(machine)
    try:
        answer = function()
        if machine:
            print_json(name, answer)
        else:
            show(answer.blocks)
        return answer.code
    except KitaruError as error:
        report(error)
        return EXIT_FAILED
    except KeyboardInterrupt:
        show([Line()], err=True)
        return EXIT_INTERRUPTED
    finally:
        _machine.reset(token)


def is_machine() -> bool:
    """Whether the running command was asked for JSON."""
    return _machine.get()


def exit_code(status: ExecutionStatus) -> int:
    """The exit code that tells how an execution stands: 0 completed, 1 failed or cancelled, 75 waiting or paused."""
    if status is ExecutionStatus.COMPLETED:
        return 0
    return EXIT_FAILED if status.ended else EXIT_WAITING


def record(value: Any) -> Any:
    """A value of the model as JSON values, without the clients that it and its parts came from."""
    return _json_only(to_json(value))


def _json_only(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _json_only(part) for name, part in value.items() if part is None or isinstance(part, _JSON)}
    return [_json_only(part) for part in value] if isinstance(value, list) else value


def print_json(name: str, answer: Answer) -> None:
    """``{"command", "items", "count"}``, or ``{"command", "item"}``. ASCII only, so that nothing needs escaping."""
    if answer.items is not None:
        body: Mapping[str, Any] = {"command": name, "items": list(answer.items), "count": len(answer.items)}
    else:
        body = {"command": name, "item": answer.item}
    print(json.dumps(body, indent=2))


def print_json_line(name: str, item: Any) -> None:
    """One item of a stream, on a line of its own."""
    print(json.dumps({"command": name, "item": item}), flush=True)


def report(error: KitaruError) -> None:
    """An error on stderr, with its fix."""
    if is_machine():
        body = {"type": type(error).__name__, "message": error.message, "fix": error.fix}
        print(json.dumps({"error": body}, indent=2), file=sys.stderr)
        return
    # Later lines of a message stand deeper than the fix, so that no text that a model wrote can pass for one.
    message = escaped(error.message, lines=True).replace("\n", "\n       ")
    print(f"error: {message}", file=sys.stderr)
    if error.fix:
        print(f"  fix: {escaped(error.fix, lines=True)}", file=sys.stderr)


def show(blocks: Sequence[Block], *, err: bool = False) -> None:
    """Print blocks: drawn where a person looks on, as plain text in a pipe."""
    if not blocks:
        return
    stream = sys.stderr if err else sys.stdout
    live = _live.get()
    if live is not None:
        draw(blocks, live)
    elif is_terminal(stream):
        draw(blocks, terminal(stream))
    else:
        print("\n".join(plain(blocks, columns())), file=stream, flush=True)


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks on (or ``FORCE_COLOR`` says so)."""
    return stream.isatty() or bool(os.environ.get("FORCE_COLOR"))


def columns() -> int:
    """Width of the terminal; 80 in a pipe."""
    return shutil.get_terminal_size((80, 24)).columns


# plain text


def plain(blocks: Sequence[Block], width: int) -> Iterator[str]:
    """The lines of blocks as plain text; tables are at most ``width`` wide if their fixed columns allow it."""
    for block in blocks:
        if isinstance(block, Table):
            yield from _plain_table(block, width)
        elif isinstance(block, Panel):
            yield escaped(block.title)
            for text in block.lines:
                for part in escaped(text, lines=True).split("\n"):
                    yield from textwrap.wrap(part, max(20, width - 4), initial_indent="  ", subsequent_indent="  ") or [
                        ""
                    ]
        else:
            text = "".join(escaped(span.text, lines=True) for span in block.spans)
            yield from ((" " * block.indent + part).rstrip() for part in text.split("\n"))


def _plain_table(table: Table, width: int) -> Iterator[str]:
    rows = [[escaped(span.text) for span in row] for row in table.rows]
    titles = [column.title for column in table.columns]
    widths = fit(table, rows, width - 2 * (len(titles) - 1))
    for row in (titles, *rows):
        cells = []
        for text, column, room in zip(row, table.columns, widths, strict=True):
            text = cut(text, room)
            padding = " " * (room - width_of(text))
            cells.append(padding + text if column.right else text + padding)
        yield "  ".join(cells).rstrip()


def fit(table: Table, rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Widths of the columns: as wide as their cells, the widest flexible ones narrowed until all fit ``width``."""
    widths = [
        max([width_of(column.title), *(width_of(row[i]) for row in rows)]) for i, column in enumerate(table.columns)
    ]
    flexible = [i for i, column in enumerate(table.columns) if column.flexible]
    while sum(widths) > width and any(widths[i] > NARROWEST for i in flexible):
        widths[max(flexible, key=widths.__getitem__)] -= 1
    return widths


# a terminal


def terminal(stream: TextIO) -> Console:
    """A rich console; it drops colours by itself where ``NO_COLOR`` is set."""
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, emoji=False)


def draw(blocks: Sequence[Block], console: Console) -> None:
    """Print blocks with colours and frames."""
    for block in blocks:
        console.print(drawable(block, console.width), soft_wrap=isinstance(block, Line))


def drawable(block: Block, width: int) -> RenderableType:
    """A block as something that rich draws."""
    from rich.padding import Padding
    from rich.text import Text

    if isinstance(block, Table):
        return _drawn_table(block, width)
    if isinstance(block, Line):
        text = Text(" " * block.indent)
        for span in block.spans:
            text.append(escaped(span.text, lines=True).replace("\n", "\n" + " " * block.indent), span.style)
        return text
    from rich.panel import Panel as Frame

    body = Text("\n".join(escaped(text, lines=True) for text in block.lines))
    return Padding(Frame(body, title=Text(escaped(block.title)), title_align="left", border_style=block.style), 0)


def _drawn_table(table: Table, width: int) -> RenderableType:
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    rows = [[escaped(span.text) for span in row] for row in table.rows]
    # Each column has one space on either side, and the frame of SIMPLE_HEAD one more at both ends.
    widths = fit(table, rows, width - 2 * len(table.columns) - 2)
    grid = Grid(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False, show_edge=False)
    for column, room in zip(table.columns, widths, strict=True):
        grid.add_column(Text(column.title), justify="right" if column.right else "left", width=room, no_wrap=True)
    for row, texts in zip(table.rows, rows, strict=True):
        cells = zip(texts, row, widths, strict=True)
        grid.add_row(*(Text(cut(text, room), span.style) for text, span, room in cells))
    return grid


@contextmanager
def spinner(text: str) -> Iterator[Callable[[str], None]]:
    """While it lasts a spinner turns beside ``text`` on a terminal; gives a function that changes the text.

    Nothing is shown in a pipe, or when JSON was asked for. What `show` prints meanwhile appears above it.
    """
    if is_machine() or not is_terminal(sys.stderr):
        yield lambda text: None
        return
    from rich.text import Text

    console = terminal(sys.stderr)
    with console.status(Text(escaped(text)), spinner="dots") as status:
        token = _live.set(console)
        try:
            yield lambda text: status.update(Text(escaped(text)))
        finally:
            _live.reset(token)
