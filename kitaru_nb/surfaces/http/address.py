"""Where the home's server is, so that other processes can name it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kitaru_nb.errors import KitaruBackendError

PORT = 8765
_FILE = "server.json"


@contextmanager
def announced(home: Path, url: str) -> Iterator[None]:
    """While it lasts, the home says where its server is, without a token. Raises `KitaruBackendError`."""
    path = home / _FILE
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    text = json.dumps({"url": url, "pid": os.getpid()})
    try:
        home.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise KitaruBackendError(f"{path} can't be written: {error}", fix=f"make {home} writable") from error
    try:
        yield
    finally:
        with suppress(OSError, ValueError):  # gone, or another's: then it isn't this one's to remove
            if path.read_text(encoding="utf-8") == text:
                path.unlink()


def address_of(home: Path) -> str:
    """The address of the home's server, or the one that it would have."""
    try:
        return str(json.loads((home / _FILE).read_text(encoding="utf-8"))["url"])
    except (OSError, ValueError, LookupError, TypeError):  # there is none, or it is no file of a server
        return f"http://127.0.0.1:{PORT}"
