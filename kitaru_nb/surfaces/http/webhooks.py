"""Webhooks: a signed URL that answers exactly one wait, once, without any other right.

The token names the wait and when it ends, and is signed with a key that only the home has. That it counts once is the
journal's doing: a wait is resolved once, whoever comes first.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kitaru_nb.client import KitaruClient
from kitaru_nb.core.control import Started, find_wait
from kitaru_nb.core.runtime import Runtime, whoami
from kitaru_nb.errors import KitaruBackendError, KitaruConflictError, KitaruStateError, KitaruUsageError
from kitaru_nb.model import Wait, utc

DAY = 86_400.0
#: A webhook may live this long at most.
LONGEST = 366 * DAY
_KEY_FILE = "webhook.key"
_KEY_BYTES = 32
_MAC_BYTES = 32


class WebhookError(KitaruStateError):
    """The webhook's token isn't one of this home, has ended, or was used."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook that was made. ``token`` is the last part of its URL."""

    exec_id: str
    wait_id: str
    wait: str
    expires_at: datetime
    token: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What a webhook answers."""

    exec_id: str
    name: str
    question: str | None
    schema: Any
    expires_at: datetime


def make(
    runtime: Runtime, exec_id: str, wait: str | None = None, *, seconds: float = 7 * DAY, by: str | None = None
) -> Webhook:
    """A webhook for a pending wait (its name or id; may be left out while only one is pending).

    Args:
        by: who will answer, for the record; default: you.

    Raises:
        KitaruNotFoundError, KitaruUsageError, KitaruConflictError: as `kitaru_nb.core.control.answer`.
    """
    if not 1 <= seconds <= LONGEST:
        raise KitaruUsageError(
            f"A webhook can't live for {seconds:g} s; expected 1 s to {LONGEST / DAY:.0f} days.",
            fix=f"kitaru executions webhook {exec_id} --hours 24",
        )
    found = find_wait(runtime, exec_id, wait)
    ends = int(time.time() + seconds)
    claims = [exec_id, found.wait_id, ends, secrets.token_urlsafe(9), by or whoami()]
    body = json.dumps(claims, separators=(",", ":")).encode()
    token = _text(_sign(key(runtime.home), body) + body)
    return Webhook(exec_id, found.wait_id, found.name, utc(ends), token)


def look(client: KitaruClient, token: str) -> Asked:
    """What the webhook asks. Raises `WebhookError`."""
    exec_id, wait_id, ends, _ = _opened(client.runtime.home, token)
    wait = _pending(client, exec_id, wait_id)
    return Asked(exec_id, wait.name, wait.question, wait.schema, utc(ends))


def answer(client: KitaruClient, token: str, value: Any) -> Started:
    """Answer the webhook's wait.

    Raises:
        WebhookError: the token isn't valid, has ended, or its wait is closed.
        KitaruWaitValidationError: the value doesn't fit; the wait and the webhook stay open.
    """
    exec_id, wait_id, _, by = _opened(client.runtime.home, token)
    _pending(client, exec_id, wait_id)
    try:
        return client.executions.input(exec_id, value=value, wait=wait_id, by=by, via="webhook")
    except KitaruConflictError as error:
        raise _closed() from error


def _pending(client: KitaruClient, exec_id: str, wait_id: str) -> Wait:
    for wait in client.executions.pending_waits(exec_id):
        if wait.wait_id == wait_id:
            return wait
    raise _closed()


def _closed() -> WebhookError:
    # Whoever holds a webhook may answer, not read: who was faster, and what they said, isn't told.
    return WebhookError("This webhook's wait is closed: it was answered, or its execution ended.")


def _opened(home: Path, token: str) -> tuple[str, str, int, str]:
    """(execution, wait, when it ends, who) of a valid token."""
    data = _bytes(token)
    mac, body = data[:_MAC_BYTES], data[_MAC_BYTES:]
    if not body or not hmac.compare_digest(mac, _sign(key(home), body)):
        raise WebhookError("This webhook isn't valid here.")
    exec_id, wait_id, ends, _, by = json.loads(body)
    if time.time() > ends:
        raise WebhookError("This webhook has ended.", fix=f"kitaru executions webhook {exec_id}")
    return exec_id, wait_id, ends, by


def _sign(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, b"kitaru webhook\0" + body, "sha256")


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    if len(text) > 4_000:
        return b""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""


def key(home: Path) -> bytes:
    """The home's signing key, made on first use; only its owner can read the file. Raises `KitaruBackendError`."""
    path = home / _KEY_FILE
    try:
        return _checked(path) if path.exists() else _made(path)
    except OSError as error:
        raise KitaruBackendError(f"The webhooks' key {path} can't be read or made: {error}") from error


def _made(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was faster: its key counts
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return _checked(path)


def _checked(path: Path) -> bytes:
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise KitaruBackendError(
            f"Others than its owner can read {path}, the webhooks' key.", fix=f"chmod 600 '{path}'"
        )
    found = path.read_bytes()
    if len(found) != _KEY_BYTES:
        raise KitaruBackendError(
            f"{path} is {len(found)} bytes long; expected a key of {_KEY_BYTES}.", fix=f"rm '{path}'"
        )
    return found
