"""Anthropic's client does what every adapter must."""

from __future__ import annotations

from kitaru_nb.testing.adapter import AdapterContract


class TestAnthropic(AdapterContract):
    program = "adapters.anthropic.program"
    imports = ("anthropic.lib.streaming", "genai_prices.data")
