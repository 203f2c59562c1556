"""A version of the SDK that is too old is refused with the line that mends it."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from kitaru_nb import KitaruFeatureNotAvailableError
from kitaru_nb.surfaces.adapters import pydantic_ai as adapter


def test_an_sdk_without_the_whole_durability_interface_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic_ai.durable_exec", ModuleType("durable_exec"))
    spec = importlib.util.spec_from_file_location("loaded_with_an_old_sdk", adapter.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(KitaruFeatureNotAvailableError, match=r"2\.68 or newer") as refused:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert refused.value.fix == 'pip install --upgrade "kitaru-nb[pydantic-ai]"'
