"""A real Chromium for tests, and how long they wait for what it shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

#: Milliseconds for each thing that is waited for, and seconds for a test. A machine under load is slow, not wrong.
PATIENCE, WHOLE = 120_000, 900
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
#: An answer is in sight for six seconds. Here they are over when a test says so, and until then it may look.
_SIX_SECONDS = """{
    const { setTimeout: begin, clearTimeout: end } = window;
    const held = new Map();
    window.setTimeout = (call, ms, ...given) => {
        const timer = begin(call, ms === 6000 ? 2 ** 31 - 1 : ms, ...given);
        if (ms === 6000) held.set(timer, call);
        return timer;
    };
    window.clearTimeout = timer => {
        held.delete(timer);
        end(timer);
    };
    window.sixSecondsLater = () => {
        const due = [...held.values()];
        held.clear();
        due.forEach(call => call());
        return due.length;
    };
}"""
expect.set_options(timeout=PATIENCE)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser for as long as the context lasts."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", headless=True, args=FLAGS, timeout=PATIENCE
        )
        yield found
        found.close()


def new_context(browser: Browser, **options: Any) -> BrowserContext:
    """Pages with cookies of their own, on which answers stay in sight until `six_seconds_later`."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE)
    context.add_init_script(_SIX_SECONDS)
    return context


def six_seconds_later(page: Page) -> None:
    """Let what a page shows for six seconds be over."""
    page.wait_for_function("() => window.sixSecondsLater()")


def be_patient(items: Sequence[pytest.Item], folder: Path) -> None:
    """Give each test of a folder the time that it may need on a machine under load."""
    for item in items:
        if item.path.is_relative_to(folder):
            item.add_marker(pytest.mark.timeout(WHOLE))
