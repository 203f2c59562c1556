"""What model calls cost, in US dollars: your own prices first, then those of the library genai-prices if it is there.

    register_price("my-model", input=0.5, output=2.0)           # US dollars per million tokens

or in ``config.toml``::

    [prices]
    my-model = { input = 0.5, output = 2.0, cached = 0.05 }

A model that nobody knows has no price (None), never a guessed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from kitaru_nb.config import load_tables
from kitaru_nb.errors import KitaruUsageError


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens. ``cached`` and ``cache_write``: of input tokens read from and written to a cache;
    None: as other input."""

    input: float
    output: float
    cached: float | None = None
    cache_write: float | None = None

    def of(self, *, input_tokens: int, output_tokens: int, cached_tokens: int, cache_write_tokens: int) -> float:
        """What so many tokens cost. ``input_tokens`` counts the cached ones too."""
        plain = input_tokens - cached_tokens - cache_write_tokens
        parts = (
            (plain, self.input),
            (cached_tokens, self.input if self.cached is None else self.cached),
            (cache_write_tokens, self.input if self.cache_write is None else self.cache_write),
            (output_tokens, self.output),
        )
        return float(sum(tokens * Decimal(str(price)) for tokens, price in parts) / 1_000_000)


_registered: dict[str, Price] = {}


def register_price(
    model: str, *, input: float, output: float, cached: float | None = None, cache_write: float | None = None
) -> None:
    """Set what a model costs in this process, in US dollars per million tokens.

    Args:
        cached: of input tokens that the provider had in its cache; None: as other input.
        cache_write: of input tokens that the provider puts into its cache; None: as other input.

    Raises:
        KitaruUsageError: a price that can't be.
    """
    found = {"input": input, "output": output, "cached": cached, "cache_write": cache_write}
    _registered[model] = _price(model, {name: value for name, value in found.items() if value is not None}, "")


def cost_of(
    model: str,
    *,
    input_tokens: int,
    output_tokens: int,
    cached_tokens: int = 0,
    cache_write_tokens: int = 0,
    provider: str | None = None,
) -> float | None:
    """What a model call cost, in US dollars; None where the model's price isn't known.

    Args:
        model: as the provider names it.
        input_tokens: all of them, cached ones included.
        provider: whose model it is, e.g. ``openai``; None: whoever has a model of this name.

    Raises:
        KitaruUsageError: ``config.toml`` has a price that can't be.
    """
    tokens = {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cached_tokens": cached_tokens,
        "cache_write_tokens": cache_write_tokens,
    }
    own = _registered.get(model) or _configured(model)
    if own is not None:
        return own.of(**tokens)
    return _from_library(model, provider, **tokens)


def _configured(model: str) -> Price | None:
    tables = load_tables()
    found = tables.prices.get(model)
    return None if found is None else _price(model, found, f" ({tables.path})")


def _price(model: str, values: Any, where: str) -> Price:
    expected = "numbers input and output, and optionally cached and cache_write: US dollars per million tokens"
    known = set(Price.__slots__)
    right = isinstance(values, Mapping) and {"input", "output"} <= set(values) <= known
    if not right or any(isinstance(v, bool) or not isinstance(v, int | float) or not v >= 0 for v in values.values()):
        raise KitaruUsageError(
            f"The price of {model!r} is {values!r}{where}; expected {expected}.",
            fix=f"register_price({model!r}, input=0.15, output=0.6)",
        )
    return Price(**values)


@lru_cache(maxsize=1)
def _library() -> Any:
    """The module genai_prices, or None where it isn't installed. It takes a while to load, so only on first use."""
    if find_spec("genai_prices") is None:
        return None
    import genai_prices

    return genai_prices


def _from_library(
    model: str,
    provider: str | None,
    *,
    input_tokens: int,
    output_tokens: int,
    cached_tokens: int,
    cache_write_tokens: int,
) -> float | None:
    library = _library()
    if library is None:
        return None
    usage = library.Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=cached_tokens or None,
        cache_write_tokens=cache_write_tokens or None,
    )
    try:
        return float(library.calc_price(usage, model_ref=model, provider_id=provider).total_price)
    except LookupError:
        return None  # it knows no such model


def metered(
    model: str | None,
    *,
    input_tokens: int | None,
    output_tokens: int | None,
    cached_tokens: int | None = 0,
    cache_write_tokens: int | None = 0,
    provider: str | None = None,
) -> dict[str, Any]:
    """Metadata of a model call: model, tokens and cost; what isn't known is left out."""
    found: dict[str, Any] = {"model": model, "input_tokens": input_tokens, "output_tokens": output_tokens}
    found["cached_tokens"] = cached_tokens or None
    if model and input_tokens is not None and output_tokens is not None:
        found["cost"] = cost_of(
            model,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cached_tokens=cached_tokens or 0,
            cache_write_tokens=cache_write_tokens or 0,
            provider=provider,
        )
    return {name: value for name, value in found.items() if value is not None}
