"""``kitaru mcp``: the operations as tools of an agent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kitaru_nb.errors import KitaruFeatureNotAvailableError
from kitaru_nb.surfaces.commands.tokens import RoleName
from kitaru_nb.surfaces.console import Answer, command

app = typer.Typer(rich_markup_mode=None)


@command(app, "mcp")
def mcp(
    role: Annotated[
        RoleName, typer.Option(help="What the agent may do: view, operate (answer, replay), work (start code), admin.")
    ] = "operate",
    root: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Notebooks and flows that may be started are here.")
    ] = None,
) -> Answer:
    """Serve MCP on stdin and stdout, for an agent on this machine.

    Over the network, the server (kitaru server) offers the same tools at /mcp."""
    import asyncio

    from kitaru_nb.client import KitaruClient

    try:
        from kitaru_nb.surfaces import mcp as surface
    except ImportError as error:
        raise KitaruFeatureNotAvailableError(
            f"MCP needs a package that isn't installed: {error}.", fix="pip install 'kitaru-nb[mcp,server]'"
        ) from error
    from kitaru_nb.surfaces.operations.base import Desk, parse_role

    desk = Desk(KitaruClient(), "mcp", (root or Path()).absolute())
    asyncio.run(surface.serve_stdio(desk, parse_role(role)))
    return Answer()
