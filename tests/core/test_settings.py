"""Settings that can't be: what was found, where, and the line to type."""

from __future__ import annotations

from pathlib import Path

import pytest

from kitaru_nb.config import load_settings
from kitaru_nb.errors import KitaruUsageError


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("LEASE_SECONDS", "nan", "KITARU_LEASE_SECONDS=30"),
        ("LEASE_SECONDS", "0", "KITARU_LEASE_SECONDS=30"),
        ("LEASE_SECONDS", "soon", "KITARU_LEASE_SECONDS=30"),
        ("INLINE_MAX_BYTES", "-1", "KITARU_INLINE_MAX_BYTES=16384"),
        ("DURABILITY", "high", "KITARU_DURABILITY=power"),
        ("TRUST_PICKLE", "maybe", "KITARU_TRUST_PICKLE=true"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_one_that_can(tmp_path: Path, name: str, value: str, fix: str) -> None:
    environment = {"KITARU_HOME": str(tmp_path), f"KITARU_{name}": value}
    with pytest.raises(KitaruUsageError, match=f"environment variable KITARU_{name}") as caught:
        load_settings(environment)
    assert caught.value.fix == fix
    load_settings(environment | dict([fix.split("=")]))
