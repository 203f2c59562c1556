"""``kitaru model``: names of your own for models, which ``llm(model=...)`` takes."""

from __future__ import annotations

import json
import os
import re
import tomllib
from typing import Annotated

import typer

from kitaru_nb.config import load_tables
from kitaru_nb.errors import KitaruBackendError, KitaruUsageError
from kitaru_nb.surfaces.console import Answer, QuickGroup, command
from kitaru_nb.surfaces.render import Column, Span, Table, command_line, line

app = typer.Typer(
    cls=QuickGroup, name="model", help="Names of your own for models.", no_args_is_help=True, rich_markup_mode=None
)

_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@command(app, "model.register")
def register(
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="The name; 'default' is used where none is given.")],
    model: Annotated[str, typer.Argument(metavar="MODEL", help="openai:NAME, anthropic:NAME, or a name alone.")],
) -> Answer:
    """Name a model, in config.toml."""
    if not _ALIAS.fullmatch(alias):
        raise KitaruUsageError(
            f"{alias!r} can't be an alias; expected letters, digits, '_', '.' and '-'.",
            fix="kitaru model register fast openai:gpt-4o-mini",
        )
    if not model.strip():
        raise KitaruUsageError("The model is empty.", fix=f"kitaru model register {alias} openai:gpt-4o-mini")
    path = load_tables().path
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    after = with_entry(before, "models", alias, model.strip())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The old file stays whole until the new one is.
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_text(after, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise KitaruBackendError(f"{path} can't be written: {error.strerror or error}.", fix=f"edit {path}") from error
    item = {"alias": alias, "model": model.strip(), "path": str(path)}
    return Answer([line(f"{alias} is {model.strip()} (in {path})")], item=item)


@command(app, "model.list")
def list_() -> Answer:
    """List the names, and what they stand for."""
    models = load_tables().models
    items = [{"alias": alias, "model": model} for alias, model in sorted(models.items())]
    if not items:
        fix = command_line("fix", "kitaru model register default openai:gpt-4o-mini")
        return Answer([line("No model has a name of yours yet."), fix], items=items)
    rows = tuple((Span(entry["alias"], "bold"), Span(entry["model"])) for entry in items)
    return Answer([Table((Column("ALIAS"), Column("MODEL", flexible=True)), rows)], items=items)


def with_entry(text: str, table: str, key: str, value: str) -> str:
    """TOML with ``key = value`` in ``[table]``; all else, comments too, stays as it is."""
    entry = f"{json.dumps(key) if '.' in key else key} = {json.dumps(value, ensure_ascii=False)}"
    lines = text.splitlines()
    header = next((n for n, found in enumerate(lines) if _header(found) == table), None)
    if header is None:
        lines += [*([""] if lines and lines[-1].strip() else []), f"[{table}]", entry]
    else:
        end = next((n for n in range(header + 1, len(lines)) if _header(lines[n]) is not None), len(lines))
        mine = [n for n in range(header + 1, end) if _key(lines[n]) == key]
        if mine:
            lines[mine[0]] = entry
        else:
            lines.insert(header + 1, entry)
    return "\n".join(lines) + "\n"


def _header(text: str) -> str | None:
    found = re.match(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(#.*)?$", text)
    return found[1] if found else None


def _key(text: str) -> str | None:
    """The key that a line sets, or None."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
    key = next(iter(found), None)
    # A dotted key without quotes is a table inside a table, which an alias never is.
    return key if key is None or not isinstance(found[key], dict) else None
