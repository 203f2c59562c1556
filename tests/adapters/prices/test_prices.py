"""Prices: one's own first, then the library's, never a guess."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kitaru_nb import KitaruUsageError, cost_of, register_price
from kitaru_nb.surfaces.adapters import prices

MILLION = 1_000_000


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("KITARU_HOME", str(tmp_path))
    monkeypatch.setattr(prices, "_registered", {})
    prices._library.cache_clear()
    yield
    prices._library.cache_clear()


def test_a_registered_price_counts_cached_tokens_apart() -> None:
    register_price("mine", input=2.0, output=8.0, cached=0.5)
    assert cost_of("mine", input_tokens=MILLION, output_tokens=MILLION) == 10.0
    assert cost_of("mine", input_tokens=MILLION, output_tokens=0, cached_tokens=MILLION // 2) == 1.25


def test_cached_tokens_cost_as_others_where_no_price_is_given() -> None:
    register_price("mine", input=2.0, output=8.0)
    assert cost_of("mine", input_tokens=MILLION, output_tokens=0, cached_tokens=MILLION // 2) == 2.0


def test_tokens_written_to_the_cache_have_a_price_of_their_own() -> None:
    register_price("mine", input=2.0, output=8.0, cached=0.5, cache_write=4.0)
    cost = cost_of(
        "mine", input_tokens=MILLION, output_tokens=0, cached_tokens=MILLION // 4, cache_write_tokens=MILLION // 4
    )
    assert cost == 2.0 / 2 + 0.5 / 4 + 4.0 / 4


def test_small_sums_are_exact() -> None:
    register_price("mine", input=0.1, output=0.2)
    assert cost_of("mine", input_tokens=3, output_tokens=0) == 3e-07


def test_prices_of_the_settings_come_before_those_of_the_library(tmp_path: Path) -> None:
    known = cost_of("gpt-4o-mini", input_tokens=MILLION, output_tokens=0, provider="openai")
    assert known == 0.15
    (tmp_path / "config.toml").write_text('[prices]\n"gpt-4o-mini" = { input = 1.0, output = 2 }\n')
    assert cost_of("gpt-4o-mini", input_tokens=MILLION, output_tokens=MILLION) == 3.0


def test_what_is_registered_comes_before_the_settings(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[prices]\nmine = { input = 1.0, output = 2.0 }\n")
    register_price("mine", input=5, output=0)
    assert cost_of("mine", input_tokens=MILLION, output_tokens=MILLION) == 5.0


def test_the_library_knows_models_with_a_date_and_prices_of_the_cache() -> None:
    plain = cost_of("claude-sonnet-4-5-20250929", input_tokens=1000, output_tokens=100, provider="anthropic")
    cached = cost_of(
        "claude-sonnet-4-5-20250929", input_tokens=1000, output_tokens=100, cached_tokens=1000, provider="anthropic"
    )
    assert plain is not None
    assert cached is not None
    assert cached < plain


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("a-model-of-mine", None),
        ("a-model-of-mine", "openai"),
        ("gpt-4o", "nobody"),
        ("", None),
        ("gpt-test", "openai"),
    ],
    ids=["unknown", "unknown of a provider", "unknown provider", "empty", "like a known one"],
)
def test_a_model_that_nobody_knows_has_no_price(model: str, provider: str | None) -> None:
    assert cost_of(model, input_tokens=1000, output_tokens=100, provider=provider) is None


def test_without_the_library_only_ones_own_prices_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        assert name != "genai_prices"
        return real(name, *args, **kwargs)

    monkeypatch.setattr(prices, "find_spec", lambda name: None)
    monkeypatch.setattr(builtins, "__import__", without)
    register_price("mine", input=1, output=1)
    assert cost_of("gpt-4o-mini", input_tokens=1000, output_tokens=100) is None
    assert cost_of("mine", input_tokens=MILLION, output_tokens=0) == 1.0


@pytest.mark.parametrize(
    "values",
    [{"input": -1, "output": 1}, {"input": float("nan"), "output": 1}, {"input": "1", "output": 1}],
    ids=["negative", "not a number", "text"],
)
def test_a_price_that_cant_be_is_refused_at_once(values: dict[str, Any]) -> None:
    with pytest.raises(KitaruUsageError, match=r"price of 'mine' is .*expected numbers input and output"):
        register_price("mine", **values)


@pytest.mark.parametrize(
    "line",
    ["mine = 3", "mine = { input = 1 }", "mine = { input = 1, output = 2, ouput = 3 }"],
    ids=["a number", "half", "a misspelt name"],
)
def test_a_wrong_price_in_the_settings_names_the_file(tmp_path: Path, line: str) -> None:
    (tmp_path / "config.toml").write_text(f"[prices]\n{line}\n")
    with pytest.raises(KitaruUsageError, match=r"price of 'mine' is .*config\.toml"):
        cost_of("mine", input_tokens=1, output_tokens=1)
