"""Where the home's server is, so that other processes can name it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
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
        if path.exists() and path.read_text(encoding="utf-8") == text:
            path.unlink()


def address_of(home: Path) -> str:
    """The address of the home's server, or the one that it would have."""
    path = home / _FILE
    if path.exists():
        return str(json.loads(path.read_text(encoding="utf-8"))["url"])
    return f"http://127.0.0.1:{PORT}"
