"""A notebook in JupyterLab becomes a deployment: promoted, invoked, approved in a browser, replaced, rolled back."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from labkit import NotebookPage, jupyter_lab
from playwright.sync_api import Browser, Page, expect
from team import (
    DRAFT,
    PAUSE,
    PROMOTE,
    STACK,
    STEPS,
    TOKEN,
    WAIT,
    Server,
    Team,
    evidence,
    held,
    is_gone,
    team,
    until,
    write_notebook,
    write_steps,
)

from tests.browsers import new_context

EXECUTIONS = 4
SEED = 20261123


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with team(tmp_path_factory.mktemp("team")) as found:
        found.kitaru("stack", "create", STACK, "process", "--journal", found.journal, "--store", found.store)
        found.kitaru("stack", "use", STACK)
        yield found


@pytest.fixture(scope="module")
def desk(place: Team, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookPage]:
    """The notebook, open in a JupyterLab that works with the team's stack."""
    root, private = tmp_path_factory.mktemp("desk"), tmp_path_factory.mktemp("private")
    write_notebook(root / "brief.ipynb")
    with jupyter_lab(root, private, place.environment, extended=True) as lab:
        page = NotebookPage(browser, lab, "brief.ipynb")
        yield page
        page.close()


@pytest.fixture(scope="module")
def dashboard(place: Team, browser: Browser) -> Iterator[Page]:
    with Server(place).running() as server:
        context = new_context(browser, viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.goto(f"{server.url}/?token={TOKEN}")
        yield page
        context.close()


def waits_without_a_process(place: Team, path: Path) -> None:
    """One turn has run, up to the wait; then its worker and its kernel ended."""
    first, second = evidence(path)
    assert (first.what, second.what) == ("turn", "draft")
    assert (first.kernel, first.worker) == (second.kernel, second.worker)
    until("the worker has ended", lambda: is_gone(first.worker) and is_gone(first.kernel))


def test_two_editions_of_a_notebook_serve_the_team(
    place: Team, desk: NotebookPage, dashboard: Page, pictures: Path, tmp_path: Path
) -> None:
    # The desk: the notebook waits, is approved in the inbox of the side panel, goes on by itself and promotes itself.
    desk.run_all()
    side = desk.open_side_panel("kitaru:inbox")
    side.get_by_role("button", name="Publish the first edition, tides?").click()
    side.get_by_role("button", name="Approve", exact=True).click()
    expect(desk.outputs_of(PROMOTE)).to_contain_text("brief v1 is deployed")
    desk.picture(pictures / "end-to-end-1-promoted.png")

    # From a shell and from Python, by tag. Each waits, and no process is left of it.
    invoked = place.kitaru("invoke", "brief@prod", "-i", "topic=dunes", "-i", f"evidence={tmp_path / 'dunes'}", code=75)
    dunes = invoked["item"]["exec_id"]
    waits_without_a_process(place, tmp_path / "dunes")
    given = {"topic": "reefs", "evidence": str(tmp_path / "reefs")}
    reefs = place.python(
        "from kitaru_nb import KitaruClient\n"
        f"print(KitaruClient().deployments.invoke('brief', tag='prod', inputs={given!r}).exec_id)"
    )
    until("it waits", lambda: place.client.executions.get(reefs).status == "waiting")
    waits_without_a_process(place, tmp_path / "reefs")
    assert {place.client.executions.get(e).deployment for e in (dunes, reefs)} == {"brief@v1"}

    # The next edition: another text, another Run All, approved in the cell's own form.
    desk.set_source(DRAFT, '%%checkpoint draft\nnote("draft")\ntext = f"second edition, {topic}"\ntext')
    desk.command("docmanager:save")
    desk.run_all()
    desk.outputs_of(WAIT).get_by_role("button", name="Approve").click()
    expect(desk.outputs_of(PROMOTE)).to_contain_text("brief v2 is deployed")
    newer = place.kitaru("invoke", "brief@prod", "-i", "topic=fjords", code=75)["item"]["exec_id"]
    place.kitaru("deployments", "rollback", "brief", "--tag", "prod")
    older = place.kitaru("invoke", "brief@prod", "-i", "topic=atolls", code=75)["item"]["exec_id"]
    assert place.client.executions.get(newer).deployment == "brief@v2"
    assert place.client.executions.get(older).deployment == "brief@v1"

    # The browser's inbox has all four. Two are approved here, two in JupyterLab, whose panel is on the same stack.
    dashboard.get_by_role("link", name=re.compile("^Inbox")).click()
    for edition, topic in (("first", "dunes"), ("second", "fjords")):
        dashboard.get_by_role("button", name=re.compile(f"Publish the {edition} edition, {topic}")).click()
        form = dashboard.get_by_role("region", name="Question: approve")
        expect(form).to_contain_text(f"{edition} edition, {topic}")
        dashboard.screenshot(path=str(pictures / f"end-to-end-2-inbox-{topic}.png"))
        form.get_by_role("button", name="Approve", exact=True).click()
        expect(form.get_by_text("Answered: true")).to_be_visible()
    side = desk.open_side_panel("kitaru:inbox")
    for topic, answer in (("reefs", "Approve"), ("atolls", "Reject")):
        side.get_by_role("button", name=f"Publish the first edition, {topic}?").click()
        side.get_by_role("button", name=answer, exact=True).click()
        expect(side.get_by_text("The execution goes on.")).to_be_visible()
    for exec_id in (dunes, reefs, newer, older):
        until(f"{exec_id} ends", lambda exec_id=exec_id: place.client.executions.get(exec_id).status == "completed")
    assert [place.result(e) for e in (dunes, reefs, newer, older)] == [
        "FIRST EDITION, DUNES",
        "FIRST EDITION, REEFS",
        "SECOND EDITION, FJORDS",
        "withdrawn",
    ]


def kill(victim: str, path: Path, step: int, after: float) -> None:
    """Kill the worker or the kernel of an execution at a moment after a step began; it doesn't end before."""
    until(f"{path.name} comes to step {step}", lambda: len(evidence(path)) >= step)
    process = getattr(evidence(path)[step - 1], victim)
    time.sleep(after)
    os.kill(process, signal.SIGKILL)
    held(path).unlink()


def test_workers_kernels_and_the_server_are_killed_and_nothing_is_lost_or_done_twice(
    place: Team, tmp_path: Path
) -> None:
    write_steps(tmp_path / "steps.ipynb")
    place.kitaru("promote", str(tmp_path / "steps.ipynb"))
    chance = random.Random(SEED)
    ran: dict[str, Path] = {}
    with Server(place).running() as server, ThreadPoolExecutor() as killers:
        kills = []
        for number in range(EXECUTIONS):
            path = tmp_path / f"ran-{number}"
            held(path).touch()
            started = server.ask("POST", "deployments/steps/invoke", {"inputs": {"evidence": str(path)}})
            ran[started["exec_id"]] = path
            victim = "worker" if number % 2 else "kernel"
            kills.append(killers.submit(kill, victim, path, chance.randrange(1, STEPS), chance.uniform(0, PAUSE)))
        kills[0].result()
        server.kill()
        server.start()
        for killed in kills:
            killed.result()
        for exec_id in ran:
            until(f"{exec_id} ends", lambda exec_id=exec_id: place.client.executions.get(exec_id).status == "completed")
    for exec_id, path in ran.items():
        done = [e for e in place.client.runtime.journal.history(exec_id) if e.kind == "checkpoint.completed"]
        assert [event.body["name"] for event in done] == [f"step{n}" for n in range(STEPS)]
        assert place.client.artifacts.get(f"{exec_id}/total").load() == sum(range(STEPS))
        # What was recorded as done never began again; what a kill cut off began once more with the same key.
        ended = {event.body["name"]: event.at for event in done}
        begun = [found.what.split("|") for found in evidence(path)]
        assert all(float(at) <= ended[name] for name, _, at in begun)
        assert len({key for _, key, _ in begun}) == STEPS
        assert len(begun) <= STEPS + 1
