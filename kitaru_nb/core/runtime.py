"""What a process works with: settings, and the journal and artifact store that they name."""

from __future__ import annotations

import getpass
import importlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

from kitaru_nb.artifacts.preview import preview
from kitaru_nb.artifacts.store import ArtifactStore
from kitaru_nb.config import Settings, load_settings
from kitaru_nb.errors import KitaruConflictError
from kitaru_nb.journal.base import Journal
from kitaru_nb.journal.open import open_journal
from kitaru_nb.model import Event


class Runtime:
    """Settings with the journal and the artifact store that they name, opened on first use. Thread-safe.

    Attributes:
        preview: makes the short, safe picture of a value that the journal keeps.
        addresses: URLs by which others have this very journal, through a server in this process.
    """

    preview = staticmethod(preview)
    addresses: frozenset[str] = frozenset()

    def __init__(
        self, settings: Settings, *, journal: Journal | None = None, store: ArtifactStore | None = None
    ) -> None:
        self.settings = settings
        self._journal = journal
        self._store = store
        self._lock = threading.Lock()

    @property
    def home(self) -> Path:
        """Folder of the journal, artifacts and worker logs."""
        return self.settings.home

    @property
    def journal(self) -> Journal:
        """The journal. Raises `KitaruBackendError` when it can't be opened."""
        if self._journal is None:
            with self._lock:
                if self._journal is None:
                    self._journal = open_journal(self.settings.journal_url, durability=self.settings.durability)
        return self._journal

    @property
    def store(self) -> ArtifactStore:
        """The artifact store."""
        if self._store is None:
            with self._lock:
                if self._store is None:
                    self._store = ArtifactStore(
                        self.settings.store_url,
                        inline_max_bytes=self.settings.inline_max_bytes,
                        trust_pickle=self.settings.trust_pickle,
                        durability=self.settings.durability,
                    )
        return self._store

    def ring(self, exec_id: str, wait_id: str) -> Mapping[str, Any]:
        """Let the clock resolve a wait whose ``until`` has come; the recorded answer, whoever gave it first."""
        body = {"value": None, "by": "clock", "via": "clock"}
        try:
            self.journal.append(exec_id, [Event(exec_id, "wait.resolved", wait_id, time.time(), body)])
        except KitaruConflictError as conflict:
            return dict(conflict.existing.body)
        return body


@lru_cache(maxsize=16)
def _runtime_of(settings: Settings, _pid: int) -> Runtime:
    return Runtime(settings)


def default_runtime() -> Runtime:
    """The runtime that environment, ``config.toml`` and working directory name now."""
    return runtime_of(None)


def runtime_of(stack: str | None) -> Runtime:
    """The runtime of a stack (None: of the one in use): its journal and its artifact store.

    Raises:
        KitaruFeatureNotAvailableError: there is no such stack.
        KitaruUsageError: its definition isn't right, or needs a variable that isn't set.
    """
    return _runtime_of(settings_in_use(stack), os.getpid())


def settings_in_use(stack: str | None = None, start: Path | None = None) -> Settings:
    """The settings of `runtime_of`, with the home that is found from ``start`` (default: the working directory) on."""
    settings = load_settings(start=start)
    return settings_on(stack or settings.stack, settings)


def settings_on(stack: str, base: Settings) -> Settings:
    """``base`` with the journal and the store of a stack, where that has its own. Raises as `runtime_of`."""
    if stack in ("local", "process"):
        return base
    # A room above, so by name: what a stack is, only `kitaru_nb.stacks` knows.
    found: Settings = importlib.import_module("kitaru_nb.stacks.definition").settings_of(stack, base)
    return found


_actor: ContextVar[str | None] = ContextVar("actor", default=None)


@contextmanager
def acting_as(name: str) -> Iterator[None]:
    """What is done inside is recorded as done by ``name``: a server acts for those who ask it."""
    token = _actor.set(name)
    try:
        yield
    finally:
        _actor.reset(token)


def whoami() -> str:
    """Who acts, for the record: the one that a server acts for, else ``KITARU_USER``, else the login name."""
    if name := _actor.get():
        return name
    if named := os.environ.get("KITARU_USER"):
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
