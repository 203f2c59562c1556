"""Fixtures of the crash tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crash.workshop import Workshop
from tests.journal.http_server import JournalServer, serving
from tests.journal.postgres_server import PostgresServer, running


@pytest.fixture(scope="session")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where child processes keep compiled modules, so that only the first of them compiles."""
    return tmp_path_factory.mktemp("bytecode")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JournalServer]:
    """A server that has journals."""
    with serving(tmp_path_factory.mktemp("served")) as server:
        yield server


_schemas = itertools.count()


@pytest.fixture
def journals(request: pytest.FixtureRequest) -> Callable[[str], str | None]:
    """The URL of a new, empty journal of a kind; None for the SQLite file in the home."""

    def make(kind: str) -> str | None:
        if kind == "postgresql":
            return f"{request.getfixturevalue('postgres').url('postgres')}?schema=crash{next(_schemas)}"
        return request.getfixturevalue("served").url() if kind == "http" else None

    return make


@pytest.fixture
def workshops(tmp_path: Path, bytecode: Path) -> Iterator[Callable[..., Workshop]]:
    """Makes workshops, in a home that is named or fresh; what is left of them is ended and closed."""
    numbers = itertools.count()
    made: list[Workshop] = []

    def make(home: Path | None = None, *, journal: str | None = None, **environment: str) -> Workshop:
        folder = tmp_path / f"workshop-{next(numbers)}"
        folder.mkdir()
        made.append(Workshop(home or folder / "home", folder / "ran", bytecode, journal=journal, **environment))
        return made[-1]

    yield make
    for workshop in made:
        workshop.close()
