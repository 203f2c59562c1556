"""What tests of stacks share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kitaru_nb.config import Settings
from kitaru_nb.core.runtime import Runtime
from tests.stacks.cloud_contract import MADE


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(Settings(home=tmp_path / "home"))


@pytest.fixture(autouse=True)
def _runners_are_closed() -> Iterator[None]:
    yield
    while MADE:
        MADE.pop().close()
