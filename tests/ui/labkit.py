"""A real JupyterLab on loopback, driven in a real Chromium. Its server serves Notebook 7, too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Frame, Page, expect

from tests.browsers import new_context
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
TOKEN = "test-token"
AXE = ROOT / "labextension" / "node_modules" / "axe-core" / "axe.min.js"
#: Seconds that a server may take to start, or to end.
_SECONDS = 300.0
_QUIET = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}


@dataclass(frozen=True)
class Lab:
    """A running server."""

    url: str
    root: Path
    environment: dict[str, str]

    def kernels(self) -> list[dict[str, Any]]:
        """The kernels that run now."""
        with urllib.request.urlopen(f"{self.url}/api/kernels?token={TOKEN}", timeout=10) as reply:
            found: list[dict[str, Any]] = json.load(reply)
            return found


def faults(page: Page | Frame, place: str) -> list[str]:
    """What axe-core finds wrong in a part of a page that has loaded all, each with the places."""
    expect(page.locator(f"{place} .kt-loading")).to_have_count(0)
    if not page.evaluate("'axe' in window"):
        page.evaluate(f"{AXE.read_text()};0")
    found = page.evaluate("place => axe.run(place, {resultTypes: ['violations']}).then(r => r.violations)", place)
    return [f"{v['id']}: {[n['html'][:200] + str(n.get('failureSummary')) for n in v['nodes'][:4]]}" for v in found]


@contextmanager
def jupyter_lab(root: Path, private: Path, environment: dict[str, str], *, extended: bool = False) -> Iterator[Lab]:
    """Start JupyterLab in ``root``; it ends with the block.

    ``extended`` is with the server's and the page's extension, as this source tree builds them; else it is without
    both, whatever is installed, as front ends are that know widgets and no more.
    """
    config = private / "config" / "labconfig"
    config.mkdir(parents=True)
    (config / "default_setting_overrides.json").write_text(json.dumps(_QUIET))
    (config / "page_config.json").write_text(json.dumps({"disabledExtensions": {"kitaru-nb": not extended}}))
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={root}"]
    command += ["--LabApp.extension_manager=readonly", "--LabApp.expose_app_in_browser=True"]
    command += ["--JupyterNotebookApp.expose_app_in_browser=True"]
    server = {"kitaru_nb": extended, "notebook": True}
    command += [f"--ServerApp.jpserver_extensions={server}"]
    if extended:
        command += [f"--LabServerApp.extra_labextensions_path={_built_extension(private)}"]
    folders = {f"JUPYTER_{n}_DIR": str(private / n.lower()) for n in ("CONFIG", "DATA", "RUNTIME")}
    with (private / "lab.log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | folders | environment, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            _until_up(url, process, private / "lab.log")
            yield Lab(url, root, environment)
        finally:
            if (page := _open.pop(url, None)) is not None and not page.is_closed():
                page.context.close()
            process.terminate()
            process.wait(_SECONDS)


def _built_extension(private: Path) -> Path:
    """A folder of JupyterLab extensions that holds this tree's; what is stale is built."""
    subprocess.run([sys.executable, "labextension/hatch_build.py"], cwd=ROOT, check=True)
    folder = private / "labextensions"
    shutil.copytree(ROOT / "kitaru_nb" / "labextension", folder / "kitaru-nb")
    return folder


def _until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"JupyterLab ended: {log.read_text()}")
        try:
            urllib.request.urlopen(f"{url}/api/status?token={TOKEN}", timeout=5).close()
        except (urllib.error.URLError, OSError):
            process.poll()
            time.sleep(0.2)  # the server says nothing until it listens
        else:
            return
    raise RuntimeError(f"JupyterLab did not come up: {log.read_text()}")


#: The page of each server, by its address: to load JupyterLab costs more than most of the tests.
_open: dict[str, Page] = {}


def lab_page(browser: Browser, lab: Lab) -> Page:
    """The page with JupyterLab, in which all notebooks of a server are opened."""
    if (known := _open.get(lab.url)) is not None and not known.is_closed():
        return known
    page = _open[lab.url] = new_context(browser, viewport={"width": 1280, "height": 1500}).new_page()
    page.goto(f"{lab.url}/lab?token={TOKEN}")
    # Commands that come before the workspace is restored are undone by it.
    page.wait_for_function("() => window.jupyterapp?.restored.then(() => true)")
    page.wait_for_selector("body[data-jp-theme-name]", state="attached")
    # JupyterLab says that a kernel died in a dialog over everything, sooner or later.
    died = page.locator(".jp-Dialog", has_text="appears to have died")
    page.add_locator_handler(died, lambda: died.locator(".jp-mod-accept").click())
    return page


#: The notebook of this path is open, its kernel is connected and has nothing to do.
_READY = """path => {
    const open = window.jupyterapp?.shell?.currentWidget;
    const kernel = open?.sessionContext?.session?.kernel;
    return open?.sessionContext?.isReady && open.sessionContext.path === path
        && kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""


class NotebookPage:
    """One notebook, open in the page of its JupyterLab."""

    def __init__(self, browser: Browser, lab: Lab, name: str, *, dark: bool = False) -> None:
        self.page: Page = lab_page(browser, lab)
        self.theme(dark)
        self.page.evaluate(
            "() => { const { shell } = window.jupyterapp; shell.collapseLeft();"
            " [...shell.widgets('main')].forEach(widget => widget.dispose()) }"
        )
        self.command("docmanager:open", {"path": name})
        self.page.wait_for_function(_READY, arg=name)

    def command(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        """Execute a JupyterLab command and wait for it."""
        answer = self.page.evaluate(
            "([name, args]) => window.jupyterapp.commands.execute(name, args).then(() => true, e => String(e))",
            [name, arguments or {}],
        )
        assert answer is True, answer

    def run_all(self) -> None:
        """Run all cells, until the last one or the first that stops."""
        self.command("notebook:run-all-cells")
        self.idle()

    def run_cell(self, index: int) -> None:
        """Run one cell."""
        self.page.evaluate("i => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = i }", index)
        self.command("notebook:run-cell")
        self.idle()

    def set_source(self, index: int, source: str) -> None:
        """Change a cell as typing does."""
        self.page.evaluate(
            "([i, text]) => window.jupyterapp.shell.currentWidget.content.widgets[i].model.sharedModel.setSource(text)",
            [index, source],
        )

    def idle(self) -> None:
        """Wait until the kernel has nothing to do, once it has been asked to do it."""
        self.page.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
        )

    def texts(self) -> list[str]:
        """Text of each cell's outputs, as a person sees it."""
        found: list[str] = self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.content.widgets.map("
            "c => c.outputArea ? c.outputArea.node.innerText : '')"
        )
        return found

    def outputs_of(self, index: int) -> Any:
        """The output area of a cell, for locators."""
        return self.page.locator(".jp-Cell").nth(index).locator(".jp-Cell-outputArea")

    def end_kernel(self) -> None:
        """Shut the kernel down."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")

    def start_kernel(self) -> None:
        """Start a fresh kernel for the notebook, and wait until it is ready."""
        self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.sessionContext.changeKernel({name: 'python3'})"
            ".then(kernel => kernel.info).then(() => true)"
        )
        self.idle()

    def close(self) -> None:
        """Close the notebook without saving it; its kernel lives on."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.dispose()")

    def open_side_panel(self, command: str) -> Any:
        """The extension's side panel after this command, for locators."""
        self.command(command)
        return self.page.locator("#kitaru-panel")

    def expect_badges(self, *states: str) -> None:
        """Wait until the extension says this of the cells, from the first on; '' is for one without a badge."""
        for index, state in enumerate(states):
            badge = self.page.locator(".jp-Cell").nth(index).locator(":scope > .kt-cell-badge")
            if state:
                expect(badge).to_have_attribute("data-state", state)
            else:
                expect(badge).to_have_count(0)

    def theme(self, dark: bool) -> None:
        """Change to JupyterLab's dark or light theme."""
        self.command("apputils:change-theme", {"theme": f"JupyterLab {'Dark' if dark else 'Light'}"})
        light = "false" if dark else "true"
        self.page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")

    def tool(self, name: str) -> Any:
        """A button of the notebook's toolbar, for locators."""
        return self.page.locator(f'.jp-NotebookPanel-toolbar [data-jp-item-name="{name}"] jp-button')

    def begin_cell(self, index: int) -> None:
        """Run one cell and don't wait for it."""
        self.page.evaluate(
            "i => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = i;"
            " window.jupyterapp.commands.execute('notebook:run-cell') }",
            index,
        )

    def picture(self, path: Path) -> None:
        """A screenshot."""
        self.page.screenshot(path=str(path))

    def picture_in_both_themes(self, path: Path) -> None:
        """A screenshot in the light theme, and one in the dark theme."""
        self.picture(path.with_stem(f"{path.stem}-light"))
        self.theme(dark=True)
        self.picture(path.with_stem(f"{path.stem}-dark"))
        self.theme(dark=False)


class Notebook7Page(NotebookPage):
    """One notebook, open in Notebook 7 of the same server, on a page of its own."""

    def __init__(self, browser: Browser, lab: Lab, name: str) -> None:
        self.page = new_context(browser, viewport={"width": 1280, "height": 1500}).new_page()
        self.page.goto(f"{lab.url}/notebooks/{name}?token={TOKEN}")
        self.page.wait_for_function(_READY, arg=name)

    def close(self) -> None:
        """Close the page; the kernel lives on."""
        self.page.context.close()
