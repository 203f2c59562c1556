"""Fixtures of the crash tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crash.workshop import Workshop


@pytest.fixture(scope="session")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where child processes keep compiled modules, so that only the first of them compiles."""
    return tmp_path_factory.mktemp("bytecode")


@pytest.fixture
def workshops(tmp_path: Path, bytecode: Path) -> Iterator[Callable[..., Workshop]]:
    """Makes workshops, in a home that is named or fresh; what is left of them is ended and closed."""
    numbers = itertools.count()
    made: list[Workshop] = []

    def make(home: Path | None = None, **environment: str) -> Workshop:
        folder = tmp_path / f"workshop-{next(numbers)}"
        folder.mkdir()
        made.append(Workshop(home or folder / "home", folder / "ran", bytecode, **environment))
        return made[-1]

    yield make
    for workshop in made:
        workshop.close()
