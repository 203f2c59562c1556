"""``kitaru init``, ``status``, ``info`` and ``doctor``: where things are kept, and whether all is well there."""

from __future__ import annotations

import platform
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from kitaru_nb import __version__
from kitaru_nb.config import DEFAULT_INLINE_MAX_BYTES, HOME_FOLDER, load_settings, shown
from kitaru_nb.errors import KitaruBackendError
from kitaru_nb.journal.open import open_journal
from kitaru_nb.model import ExecutionStatus, to_json
from kitaru_nb.surfaces.commands.executions import settings_in_use
from kitaru_nb.surfaces.console import Answer, command
from kitaru_nb.surfaces.render import Block, Line, Span, command_line, line, overview_blocks, status_span, utc_now

app = typer.Typer(rich_markup_mode=None)

_CONFIG = f"""\
# Settings of this project. An environment variable KITARU_NAME (in capitals) comes before the setting NAME here.

# Default: journal.db beside this file.
# journal = "sqlite:///absolute/path/journal.db"

# Where values go: a folder or a URL such as s3://bucket/folder. Default: the folder artifacts beside this file.
# store = "/absolute/path/artifacts"

# Values up to this many bytes travel inside the journal.
# inline_max_bytes = {DEFAULT_INLINE_MAX_BYTES}

# What a completed checkpoint survives: "power" loss, or only the death of the "process", which is faster.
# durability = "power"

# Whether pickled values may be loaded.
# trust_pickle = true

# How long a silent worker on another host keeps its execution.
# lease_seconds = 30

# Where flows run, and what commands look at: a stack of kitaru stack list.
# stack = "local"

# Where submitted checkpoints run: "threads", "dask" (processes of this machine), "dask://HOST:PORT".
# executor = "threads"
"""
_IGNORE = (
    "# Executions and their values stay out of version control; the settings don't.\n*\n!.gitignore\n!config.toml\n"
)

#: How many executions of a status are counted one by one.
_COUNTED = 1000


@command(app, "init")
def init(path: Annotated[Path, typer.Argument(metavar="PATH", help="The project's folder.")] = Path()) -> Answer:
    """Make a home for a project's executions.

    That is a folder .kitaru/ with a config.toml of commented defaults."""
    home = path.absolute() / HOME_FOLDER
    made = []
    try:
        home.mkdir(parents=True, exist_ok=True)
        for name, text in (("config.toml", _CONFIG), (".gitignore", _IGNORE)):
            target = home / name
            if not target.exists():
                target.write_text(text, encoding="utf-8")
                made.append(target)
    except OSError as error:
        raise KitaruBackendError(
            f"{home} can't be made: {error.strerror or error}.", fix="kitaru init /a/writable/folder"
        ) from error
    item = {"home": str(home), "made": [str(target) for target in made]}
    if not made:
        return Answer([line(f"{home} exists already; nothing was changed.")], item=item)
    blocks: list[Block] = [
        line(f"Executions of {home.parent} are kept in {home}"),
        *(line(f"made {target.name}", "dim", indent=2) for target in made),
        command_line("next", "kitaru doctor"),
    ]
    return Answer(blocks, item=item)


@command(app, "status")
def status() -> Answer:
    """Show what runs and what waits."""
    settings = settings_in_use()
    with closing(open_journal(settings.journal_url, durability=settings.durability)) as journal:
        counts = {s: len(journal.executions(status=s, limit=_COUNTED)) for s in ExecutionStatus}
        waits = journal.waits(limit=10)
    item = {
        "home": str(settings.home),
        "stack": settings.stack,
        "journal": shown(settings.journal_url),
        "executions": {s.value: number for s, number in counts.items()},
        "pending_waits": [to_json(wait) for wait in waits],
    }
    blocks = [
        line(str(settings.home) if settings.stack == "local" else f"stack {settings.stack}", "dim"),
        *overview_blocks(((s.value, n) for s, n in counts.items()), waits, utc_now()),
    ]
    return Answer(blocks, item=item)


@command(app, "info")
def info() -> Answer:
    """Show versions and settings."""
    settings = settings_in_use()
    item = {
        "version": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "home": str(settings.home),
        "stack": settings.stack,
        "journal": shown(settings.journal_url),
        "store": shown(settings.store_url),
        "inline_max_bytes": settings.inline_max_bytes,
        "durability": settings.durability,
        "trust_pickle": settings.trust_pickle,
        "lease_seconds": settings.lease_seconds,
        "executor": settings.executor,
    }
    return Answer([Line((Span(f"{name:<17}", "dim"), Span(str(value)))) for name, value in item.items()], item=item)


@command(app, "doctor")
def doctor() -> Answer:
    """Check that all is well.

    Exit code 1 if something fails."""
    from kitaru_nb.surfaces.checkup import all_checks

    checks = all_checks(load_settings())
    blocks: list[Block] = []
    for check in checks:
        blocks.append(
            Line(
                (
                    status_span(check.status),
                    Span(f"{'':<{6 - len(check.status)}}"),
                    Span(f"{check.name:<12}", "bold"),
                    Span(check.found),
                )
            )
        )
        if check.fix:
            blocks.append(command_line("fix", check.fix))
    failed = [check for check in checks if check.status == "fail"]
    return Answer(blocks, items=[to_json(check) for check in checks], code=1 if failed else 0)
