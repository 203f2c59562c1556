"""Pages of one browser that tests take turns with: a fresh one costs more than most of the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Browser, Page

from tests.browsers import new_context


class Pages:
    """The pages of the browser, used again by each test at the address of a server of its own.

    At the end of a test: no error in the console, nothing blocked, no foreign address asked.
    """

    def __init__(self, browser: Browser) -> None:
        self._context = new_context(browser)
        self._free: list[Page] = []
        self._used: list[tuple[Page, dict[str, Callable[[Any], None]]]] = []
        self._faults: list[str] = []

    def open(self, url: str, address: str, *, width: int = 1280, height: int = 1000) -> Page:
        """A page at ``url``, which may ask ``address`` only."""
        page = self._free.pop() if self._free else self._context.new_page()
        told = {"pageerror": self._thrown, "console": self._said, "request": self._asking(address)}
        for event, hear in told.items():
            page.on(event, hear)  # type: ignore[call-overload]
        self._used.append((page, told))
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme="light")
        page.goto(url)
        return page

    def done(self) -> list[str]:
        """Leave all pages; what was wrong on them."""
        for page, told in self._used:
            for event, hear in told.items():
                page.remove_listener(event, hear)
            page.goto("about:blank")
        self._free += [page for page, _ in reversed(self._used)]
        self._used.clear()
        found, self._faults = self._faults, []
        return found

    def _thrown(self, error: Any) -> None:
        self._faults.append(str(error))

    def _said(self, message: Any) -> None:
        if message.type == "error" and "status of" not in message.text:
            self._faults.append(message.text)

    def _asking(self, address: str) -> Callable[[Any], None]:
        def hear(request: Any) -> None:
            if not request.url.startswith((address, "data:")):
                self._faults.append(request.url)

        return hear
