"""What a person waits for: from a click, or an event, to the painted page, in Chromium and with a real server.

python -m benchmarks.screen [FOLDER]
"""

from __future__ import annotations

import gzip
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from playwright.sync_api import Page, sync_playwright

from benchmarks.api import WAITS, ask, serving
from benchmarks.journal import fill
from benchmarks.scale import CHECKPOINTS, EXECUTIONS, long_flow
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.model import Event, Execution, ExecutionStatus, new_exec_id, utc
from kitaru_nb.surfaces.frontend import labextension_folder, static_folder

NODES = 2_000
TURNS = 9
CHROMIUM = os.environ.get("KITARU_CHROMIUM", "/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
#: Milliseconds from leaving for a place until as many elements are painted there.
_OPEN = """async ([place, selector, count]) => {
    const painted = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    location.hash = '#/stacks';
    do await painted(); while (!document.querySelector('.kt-table') || document.querySelector(selector));
    const begun = performance.now();
    location.hash = place;
    do await painted(); while (document.querySelectorAll(selector).length < count);
    return performance.now() - begun;
}"""
#: From now on ``seen`` is when, in Unix milliseconds, something that holds a text was painted.
_WATCH = """text => {
    window.seen = null;
    const look = () => {
        if (document.querySelector('main').innerText.includes(text)) window.seen = Date.now();
        else requestAnimationFrame(look);
    };
    look();
}"""


def opened(page: Page, place: str, selector: str, count: int = 1) -> list[float]:
    """Milliseconds of each turn."""
    return [page.evaluate(_OPEN, [place, selector, count]) for _ in range(TURNS)]


def followed(page: Page, runtime: Runtime) -> list[float]:
    """Milliseconds from the commit of a new execution to its row in the list."""
    found = []
    page.evaluate("() => { location.hash = '#/executions' }")
    page.wait_for_selector(".kt-executions-table")
    for number in range(TURNS):
        exec_id, now, flow = new_exec_id(), time.time(), f"new-{number}"
        page.evaluate(_WATCH, flow)
        created = Event(exec_id, "execution.created", "", now, {"flow": flow, "ref": {"kind": "here"}, "inputs": {}})
        runtime.journal.create(Execution(exec_id, flow, ExecutionStatus.PENDING, utc(now), utc(now)), [created])
        begun = time.time()
        page.wait_for_function("() => window.seen !== null")
        found.append(page.evaluate("window.seen") - begun * 1e3)
        page.wait_for_timeout(300)
    return found


def sizes() -> dict[str, bytes]:
    """The scripts that a page loads, by host."""
    built, extension = static_folder(), labextension_folder() / "static"
    return {
        "dashboard": (built / "app.js").read_bytes(),
        "panel": (built / "widget.js").read_bytes(),
        "JupyterLab extension": b"".join(path.read_bytes() for path in sorted(extension.glob("*.js"))),
    }


def main(folder: str | None = None) -> None:
    """Print the tables."""
    print(f"{'kilobytes of script':62}{'plain':>8}{'gzip':>9}")
    for host, script in sizes().items():
        print(f"{host:62}{len(script) / 1e3:8.0f}{len(gzip.compress(script)) / 1e3:9.0f}")
    with tempfile.TemporaryDirectory(dir=folder) as home, sync_playwright() as playwright:
        runtime = Runtime(Settings(Path(home), durability="process"))
        graphs = {}
        for count in (NODES, CHECKPOINTS):
            graphs[count] = create_execution(runtime, long_flow, {"count": count}).exec_id
            advance(runtime, graphs[count], long_flow, poll_seconds=0)
        fill(Path(home) / "journal.db", EXECUTIONS)
        ask(runtime, WAITS)
        with serving(runtime) as client:
            server = str(client.base_url).removesuffix("/api/")
            browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
            page = browser.new_page()
            page.goto(f"{server}/?token={client.headers['authorization'].removeprefix('Bearer ')}")
            works = {
                f"first page of {EXECUTIONS:,} executions": ("#/executions", ".kt-executions-table tbody tr", 50),
                f"inbox with {WAITS:,} pending waits": ("#/inbox", ".kt-inbox-row", 100),
                **{f"graph of {n:,} checkpoints": (f"#/executions/{e}", ".kt-row", 5) for n, e in graphs.items()},
            }
            print(f"{'milliseconds':62}{'median':>8}{'quickest':>9}")
            for name, work in works.items():
                taken = opened(page, *work)
                print(f"{name:62}{median(taken):8.0f}{min(taken):9.0f}")
            taken = followed(page, runtime)
            print(
                f"{'a new execution, from its commit to its row in the list':62}{median(taken):8.0f}{min(taken):9.0f}"
            )
            browser.close()
        runtime.journal.close()


if __name__ == "__main__":
    main(*sys.argv[1:2])
