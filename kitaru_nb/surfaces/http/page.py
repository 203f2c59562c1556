"""The dashboard's files, as the wheel brings them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from starlette.responses import FileResponse, HTMLResponse, Response

from kitaru_nb.errors import KitaruFeatureNotAvailableError, KitaruNotFoundError
from kitaru_nb.surfaces.frontend import static_folder

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
_NOTE = """<!doctype html><html lang="en" class="kt-alone"><meta charset="utf-8"><title>kitaru</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<link rel="stylesheet" href="static/app.css">
<body class="kt-app"><main class="kt-page"><h1>{title}</h1><p>{text}</p><pre>{line}</pre></main></html>"""


def index(folder: Callable[[], Path] = static_folder) -> Response:
    """The dashboard, or how to build it."""
    try:
        return FileResponse(folder() / "index.html", headers={"cache-control": "no-cache"})
    except KitaruFeatureNotAvailableError as error:
        text = "This installation brings no dashboard. The API under /api/ works. In the source tree, build it with:"
        return note(503, "The dashboard isn't built", text, error.fix or "")


def asset(name: str, folder: Callable[[], Path] = static_folder) -> Response:
    """One of the dashboard's files. Raises `KitaruNotFoundError`."""
    static = folder().resolve()
    path = (static / name).resolve() if "\0" not in name else static
    kind = _TYPES.get(path.suffix)
    if kind is None or not path.is_relative_to(static) or not path.is_file():
        raise KitaruNotFoundError(f"The dashboard has no file {name[:100]!r}.")
    return FileResponse(path, headers={"content-type": kind, "cache-control": "no-cache"})


def note(status: int, title: str, text: str, line: str) -> Response:
    """A page that says one thing. The texts are this package's own."""
    return HTMLResponse(_NOTE.format(title=title, text=text, line=line), status)
