"""A real JupyterLab on loopback, driven in a real Chromium."""

from __future__ import annotations

import json
import os
import shutil
import socket
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

from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
TOKEN = "test-token"
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
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


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
    server = {"kitaru_nb": extended}
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
            process.terminate()
            process.wait(30)


def _built_extension(private: Path) -> Path:
    """A folder of JupyterLab extensions that holds this tree's; what is stale is built."""
    subprocess.run([sys.executable, "labextension/hatch_build.py"], cwd=ROOT, check=True)
    folder = private / "labextensions"
    shutil.copytree(ROOT / "kitaru_nb" / "labextension", folder / "kitaru-nb")
    return folder


def _until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
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


class NotebookPage:
    """One notebook, open in a page."""

    def __init__(self, browser: Browser, lab: Lab, name: str, *, dark: bool = False) -> None:
        self.page: Page = browser.new_page(viewport={"width": 1280, "height": 1500})
        # A workspace of its own, else JupyterLab opens what the page before had open.
        self.page.goto(f"{lab.url}/lab/workspaces/{Path(name).stem}/tree/{name}?token={TOKEN}")
        self.page.wait_for_function(
            "name => { const w = window.jupyterapp?.shell?.currentWidget;"
            " return w?.sessionContext?.isReady && w.sessionContext.path === name"
            " && w.sessionContext.session?.kernel?.connectionStatus === 'connected'"
            " && w.sessionContext.session.kernel.status === 'idle' }",
            arg=name,
            timeout=120_000,
        )
        # Commands that come before the workspace is restored are undone by it.
        self.page.evaluate("() => window.jupyterapp.restored.then(() => true)")
        self.page.wait_for_selector("body[data-jp-theme-name]", state="attached")
        self.command("apputils:change-theme", {"theme": f"JupyterLab {'Dark' if dark else 'Light'}"})
        light = "false" if dark else "true"
        self.page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")
        self.command("application:toggle-left-area")

    def command(self, name: str, arguments: dict[str, Any] | None = None) -> Any:
        """Execute a JupyterLab command and wait for it."""
        return self.page.evaluate(
            "([name, args]) => window.jupyterapp.commands.execute(name, args).then(() => true, e => String(e))",
            [name, arguments or {}],
        )

    def run_all(self) -> None:
        """Run all cells, until the last one or the first that stops."""
        answer = self.command("notebook:run-all-cells")
        assert answer is True, answer
        self.idle()

    def run_cell(self, index: int) -> None:
        """Run one cell."""
        self.page.evaluate("i => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = i }", index)
        self.command("notebook:run-cell")
        self.idle()

    def idle(self) -> None:
        """Wait until the kernel has nothing to do."""
        self.page.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'",
            timeout=240_000,
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
        """Close the page; its kernel lives on."""
        self.page.close()

    def open_side_panel(self, command: str) -> Any:
        """The extension's side panel after this command, for locators."""
        assert self.command(command) is True
        return self.page.locator("#kitaru-panel")

    def badges(self) -> list[str]:
        """What the extension says of each cell, or nothing."""
        found: list[str] = self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.content.widgets.map(c => c.node.dataset.kitaru || '')"
        )
        return found

    def picture(self, path: Path) -> None:
        """A screenshot."""
        self.page.screenshot(path=str(path))
