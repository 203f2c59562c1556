"""``kitaru server token``: who may come in."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from kitaru_nb.surfaces.console import Answer, QuickGroup, command, record
from kitaru_nb.surfaces.render import Block, Column, Line, Span, Table, command_line, line

app = typer.Typer(
    cls=QuickGroup, name="token", help="Tokens of the server.", no_args_is_help=True, rich_markup_mode=None
)

RoleName = Literal["view", "operate", "work", "admin"]
TokenName = Annotated[str, typer.Argument(metavar="NAME", help="Whose it is; the record says it was them.")]


@command(app, "server.token.create")
def create(
    name: TokenName,
    role: Annotated[
        RoleName, typer.Option(help="view reads; operate also answers and acts; work also starts code; admin: all.")
    ] = "view",
) -> Answer:
    """Make a token. It is shown once; only its hash is kept."""
    from kitaru_nb.core.runtime import default_runtime
    from kitaru_nb.surfaces.http.tokens import Tokens
    from kitaru_nb.surfaces.operations.base import parse_role

    secret = Tokens(default_runtime().journal).create(name, parse_role(role))
    blocks: list[Block] = [
        Line((Span(secret, "bold"),)),
        line(f"This is the token of {name} ({role}). Keep it now: it isn't shown again.", "dim"),
        command_line("use", "curl -H 'Authorization: Bearer TOKEN' http://127.0.0.1:8765/api/executions"),
    ]
    return Answer(blocks, item={"name": name, "role": role, "token": secret})


@command(app, "server.token.list")
def list_() -> Answer:
    """List the tokens: names and roles, never the tokens themselves."""
    from kitaru_nb.core.runtime import default_runtime
    from kitaru_nb.surfaces.http.tokens import Tokens

    found = Tokens(default_runtime().journal).list()
    if not found:
        hint = command_line("make", "kitaru server token create NAME --role view")
        return Answer([line("There are no tokens.", "dim"), hint], items=[])
    columns = (Column("NAME", flexible=True), Column("ROLE"), Column("MADE"), Column("BY", flexible=True))
    rows = [
        (
            Span(t.name, "bold"),
            Span(t.role),
            Span(t.created_at.astimezone().strftime("%Y-%m-%d %H:%M")),
            Span(t.created_by),
        )
        for t in found
    ]
    return Answer([Table(columns, rows)], items=[record(token) for token in found])


@command(app, "server.token.revoke")
def revoke(name: TokenName) -> Answer:
    """End a token at once, also where it is in use."""
    from kitaru_nb.core.runtime import default_runtime
    from kitaru_nb.surfaces.http.tokens import Tokens

    Tokens(default_runtime().journal).revoke(name)
    return Answer([line(f"The token of {name} has ended.")], item={"name": name})
