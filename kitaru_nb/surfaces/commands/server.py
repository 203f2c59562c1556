"""``kitaru server``: API, dashboard, webhooks, timers and dispatcher in one process."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kitaru_nb.errors import KitaruFeatureNotAvailableError
from kitaru_nb.surfaces.commands import tokens
from kitaru_nb.surfaces.console import Answer, QuickGroup, command, is_machine, print_json_line, show
from kitaru_nb.surfaces.render import Line, Span, command_line, line

if TYPE_CHECKING:
    from kitaru_nb.surfaces.http.serving import Serving

_DEFAULT_PORT = 8765

Host = Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 is everywhere.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 is any free port.")]
AllowHost = Annotated[
    list[str] | None,
    typer.Option("--allow-host", metavar="NAME", help="A name by which browsers may call it; repeatable."),
]
Url = Annotated[str | None, typer.Option(metavar="URL", help="Its address from outside, for links and webhooks.")]
Root = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Notebooks and flows that may be started are here (default: .).")
]


class ServerGroup(QuickGroup):
    """``kitaru server`` alone is ``kitaru server start``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words of the command line, with the command that they leave out."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["start", *args]
        return list(super().parse_args(ctx, args))


app = typer.Typer(cls=ServerGroup, name="server", help="Run the server, and say who may use it.", rich_markup_mode=None)
app.add_typer(tokens.app)


@command(app, "server.start")
def start(
    host: Host = "127.0.0.1",
    port: Port = _DEFAULT_PORT,
    allow_host: AllowHost = None,
    url: Url = None,
    root: Root = None,
    dispatch: Annotated[
        bool, typer.Option("--dispatch/--no-dispatch", help="Ring timers, and take up what nobody advances.")
    ] = True,
) -> Answer:
    """Run the server until Ctrl-C.

    It asks for a token, and prints its address with one that ends with it (KITARU_SERVER_TOKEN sets another)."""
    chosen = os.environ.pop("KITARU_SERVER_TOKEN", None)  # the workers that it starts don't inherit it
    serving = _serving()(
        host=host,
        port=port,
        hosts=tuple(allow_host or ()),
        url=url,
        root=(root or Path()).absolute(),
        secret=chosen,
        dispatch=dispatch,
    )
    return run(serving, partial(_tell, chosen=bool(chosen)))


def run(serving: Serving, tell: Any) -> Answer:
    """Run a server until it ends; ``tell`` says where it is."""
    import logging

    from kitaru_nb.core.runtime import default_runtime
    from kitaru_nb.surfaces.http.serving import serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("mcp").setLevel(logging.WARNING)
    serve(default_runtime(), serving, ready=tell)
    return Answer([line("The server has ended.")])


def _serving() -> type[Serving]:
    try:
        from kitaru_nb.surfaces.http.serving import Serving
    except ImportError as error:
        raise KitaruFeatureNotAvailableError(
            f"The server needs a package that isn't installed: {error}.", fix="pip install 'kitaru-nb[server]'"
        ) from error
    return Serving


def _tell(url: str, secret: str, *, chosen: bool) -> None:
    """Say where the server is. A token that somebody chose outlives it, so a log of this shall not hold it."""
    if is_machine():
        print_json_line("server.start", {"url": url, "token": secret})
        return
    what = "TOKEN is the one that you set." if chosen else "The address holds a token for you; it ends with the server."
    show(
        [
            Line((Span("kitaru server  ", "bold"), Span(f"{url}/?token={'TOKEN' if chosen else secret}", "cyan"))),
            line(f"{what} Ctrl-C ends the server.", "dim"),
            command_line("others", "kitaru server token create NAME --role view"),
        ]
    )
    sys.stdout.flush()
