"""The dashboard of a real ``kitaru server``: list, execution, inbox, two people at once, a server that comes back."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from labkit import ROOT
from playwright.sync_api import Browser, BrowserContext, Page, expect

from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.surfaces.http.tokens import Tokens
from kitaru_nb.surfaces.operations.base import Role
from tests.browsers import new_context
from tests.http import flows
from tests.ports import free_port

SECONDS = 300


class Server:
    """A ``kitaru server`` that can be ended and started again at the same address."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.runtime = Runtime(Settings(home))
        self.client = KitaruClient(self.runtime)
        self._port = free_port()
        self._process: subprocess.Popen[str] | None = None
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("KITARU_")}
        self.environment |= {"KITARU_HOME": str(home), "KITARU_USER": "ana", "KITARU_SERVER_TOKEN": "a-token-for-tests"}
        self.environment |= {"PYTHONPATH": str(ROOT)}

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start, and wait until it says that it listens."""
        command = [sys.executable, "-m", "kitaru_nb", "server", "start", "--port", str(self._port)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert self.url in said, said

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(SECONDS)
        self._process.stdout.close()

    def ask(self, topic: str) -> str:
        """An execution that waits for an approval; its id."""
        exec_id = create_execution(self.runtime, flows.brief, {"topic": topic}).exec_id
        advance(self.runtime, exec_id, flows.brief, poll_seconds=0.0)
        return exec_id


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    subprocess.run([sys.executable, "labextension/hatch_build.py"], cwd=ROOT, check=True)
    found = Server(tmp_path_factory.mktemp("home"))
    found.start()
    yield found
    found.stop()
    found.runtime.journal.close()


Opener = Callable[..., Page]


@pytest.fixture
def open_page(server: Server, browser: Browser) -> Iterator[Opener]:
    """Open the dashboard in a browser of its own, with its own cookies. At the end: no page has thrown."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def open_at(place: str, *, token: str = "a-token-for-tests") -> Page:
        context = new_context(browser, viewport={"width": 1280, "height": 900}, color_scheme="light")
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"{server.url}/?token={token}")
        page.goto(f"{server.url}/#/{place}")
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert faults == []


def expect_scheme(page: Page, dark: bool) -> None:
    """Wait until the page's heading is light on dark, or dark on light."""
    page.wait_for_function(
        """dark => {
            const colour = getComputedStyle(document.querySelector('.kt-head h2')).color.match(/\\d+/g).map(Number);
            return (colour[0] + colour[1] + colour[2] > 3 * 128) === dark;
        }""",
        arg=dark,
    )


def test_from_the_list_to_an_execution_and_its_answer(server: Server, open_page: Opener, pictures: Path) -> None:
    exec_id = server.ask("knots in the log line")
    page = open_page("executions")
    row = page.get_by_role("row").filter(has_text=exec_id[-8:])
    expect(row).to_be_visible()
    page.screenshot(path=str(pictures / "dashboard-list.png"))
    row.get_by_role("link", name="brief").click()
    expect(page.get_by_role("treeitem", name=re.compile("^research, "))).to_be_visible()
    expect(page.locator(".kt-head-status")).to_have_text("waiting")
    expect_scheme(page, dark=False)
    page.screenshot(path=str(pictures / "dashboard-execution-light.png"))
    page.emulate_media(color_scheme="dark")
    expect_scheme(page, dark=True)
    page.screenshot(path=str(pictures / "dashboard-execution-dark.png"))
    page.get_by_role("link", name=re.compile("^Inbox")).click()
    form = page.get_by_role("region", name="Question: approve")
    expect(form).to_contain_text("notes on knots in the log line")
    page.screenshot(path=str(pictures / "dashboard-inbox.png"))
    form.get_by_role("button", name="Approve").click()
    expect(form.get_by_text("Answered: true")).to_be_visible()
    # The worker that goes on is a process of its own; the page hears of it.
    page.goto(f"{server.url}/#/executions/{exec_id}")
    expect(page.locator(".kt-head-status")).to_have_text("completed")
    expect(page.get_by_role("treeitem", name=re.compile("^publish, "))).to_be_visible()


def test_of_two_answers_at_once_one_wins_and_the_other_is_told_who(
    server: Server, open_page: Opener, pictures: Path
) -> None:
    exec_id = server.ask("two people")
    tokens = Tokens(server.runtime.journal)
    pages = [open_page(f"executions/{exec_id}", token=tokens.create(name, Role.OPERATE)) for name in ("bo", "cy")]
    buttons = [page.get_by_role("button", name=name) for page, name in zip(pages, ("Approve", "Reject"), strict=True)]
    for button in buttons:
        expect(button).to_be_visible()
    # Each page's request is held until both were clicked, so that neither page has heard of the other's answer.
    for page in pages:
        page.evaluate(
            "() => { const send = window.fetch; const gate = new Promise(open => { window.letGo = open });"
            " window.fetch = async (url, init) => { if (init?.method === 'POST') await gate; return send(url, init) } }"
        )
    for button in buttons:
        button.click()
    for page in pages:
        page.evaluate("() => window.letGo()")
    expect(pages[0].get_by_text("The execution goes on.").or_(pages[0].get_by_role("alert"))).to_be_visible()
    (wait,) = server.client.executions.get(exec_id).waits
    winner, loser = pages if wait.resolved_by == "bo" else pages[::-1]
    expect(winner.get_by_text("The execution goes on.")).to_be_visible()
    expect(loser.get_by_role("alert")).to_contain_text(str(wait.resolved_by))
    expect(loser.get_by_role("button", name=re.compile("Approve|Reject"))).to_have_count(0)
    loser.screenshot(path=str(pictures / "dashboard-second-answer.png"))
    assert {"bo": True, "cy": False}[str(wait.resolved_by)] is wait.value


def test_a_page_takes_up_again_with_a_server_that_was_away(server: Server, open_page: Opener, pictures: Path) -> None:
    page = open_page("inbox")
    server.ask("before the restart")
    expect(page.get_by_text("before the restart").first).to_be_visible()
    server.stop()
    expect(page.get_by_text("Connection lost, trying again…")).to_be_visible()
    page.screenshot(path=str(pictures / "dashboard-connection-lost.png"))
    server.ask("while it was away")
    server.start()
    expect(page.get_by_text("while it was away").first).to_be_visible()
    expect(page.get_by_text("Connection lost, trying again…")).to_have_count(0)
    server.ask("after the restart")
    expect(page.get_by_text("after the restart").first).to_be_visible()
