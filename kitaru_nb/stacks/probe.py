"""A flow that does next to nothing: a worker that brings it to its end proves that a stack works."""

from __future__ import annotations

import platform
import socket

from kitaru_nb.core.checkpoint import checkpoint
from kitaru_nb.core.flow import flow

_BYTES = 100_000  # too many to stay in the journal, so that the store is written too


@checkpoint
def write() -> bytes:
    """Something to keep."""
    return b"k" * _BYTES


@flow
def stack_check() -> str:
    """Where it ran."""
    kept = write()
    return f"{len(kept)} bytes written by Python {platform.python_version()} on {socket.gethostname()}"
