"""A notebook in the widget managers of VS Code and Colab, on a real kernel, with their outputs in a frame of its own.

The frames and the page around them are in ``hosts/``, bundled with what their makers publish of them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

from jupyter_core.paths import jupyter_path
from labkit import ROOT, TOKEN, Lab
from playwright.sync_api import Browser, Frame, FrameLocator, Page, Request

from tests.browsers import PATIENCE, new_context

HOSTS = Path(__file__).parent / "hosts"
PACKAGES = ROOT / "labextension" / "node_modules"
Name = Literal["vscode", "colab"]
#: What each front end tells its kernel at the start.
PRELUDES = {
    "vscode": "__vsc_ipynb_file__ = {path!r}",
    "colab": "import sys, types\n"
    "google, colab, output = (types.ModuleType(name) for name in ('google', 'google.colab', 'google.colab.output'))\n"
    "google.colab, colab.output, output.enable_custom_widget_manager = colab, output, lambda: None\n"
    "output._widgets = types.SimpleNamespace(_installed_url='https://ssl.gstatic.com/colaboratory/manager.js')\n"
    "sys.modules |= {module.__name__: module for module in (google, colab, output)}",
}
#: Colab's frames have an origin that nobody else has; those of VS Code one of their own.
SANDBOXES = {"vscode": "allow-scripts allow-forms allow-same-origin", "colab": "allow-scripts allow-forms"}
#: Where Colab's manager looks for the modules of widgets.
CDN = "https://cdn.jsdelivr.net/npm/anywidget@"


def widget_module() -> Path:
    """The module of anywidget that this environment has for front ends without JupyterLab's extensions."""
    found = (Path(folder) / "nbextensions" / "anywidget" / "index.js" for folder in jupyter_path())
    return next(path for path in found if path.is_file())


def bundled(folder: Path) -> Path:
    """The pages of all hosts, ready to be served."""
    command = [
        str(PACKAGES / ".bin" / "esbuild"),
        "--bundle",
        "--format=esm",
        f"--outdir={folder}",
        "--log-level=error",
    ]
    command += ["--define:process.env.NODE_ENV='production'", "--define:global=window"]
    command += [f"--loader:.{kind}=dataurl" for kind in ("svg", "woff", "woff2", "ttf", "eot", "gif")]
    sources = [str(HOSTS / f"{name}.js") for name in ("vscode", "colab", "notebook")]
    subprocess.run([*command, *sources], env=os.environ | {"NODE_PATH": str(PACKAGES)}, check=True)
    for page in HOSTS.glob("*.html"):
        shutil.copy(page, folder)
    shutil.copy(PACKAGES / "requirejs" / "require.js", folder)
    shutil.copytree(widget_module().parent, folder / "nbextensions" / "anywidget")
    return folder


class _Quiet(SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder at an address of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class HostPage:
    """A notebook without a file in one of the front ends.

    Attributes:
        faults: errors of the page, and addresses that it asked beside those of its own.
    """

    name: Name
    page: Page
    lab: Lab
    faults: list[str] = field(default_factory=list)

    @property
    def outputs(self) -> FrameLocator:
        """The frame with the outputs, for locators."""
        return self.page.frame_locator("iframe")

    @property
    def frame(self) -> Frame:
        """The same, to evaluate in."""
        return next(frame for frame in self.page.frames if frame.parent_frame is not None)

    def run(self, source: str) -> str:
        """Run a cell; how it ended: ``ok`` or ``error``."""
        ended: str = self.page.evaluate("source => run(source)", source)
        return ended

    def begin(self, source: str) -> None:
        """Run a cell and don't wait for it."""
        self.page.evaluate("source => { run(source) }", source)

    def theme(self, dark: bool) -> None:
        """Change to the dark or light theme."""
        self.page.evaluate("dark => theme(dark)", dark)


@contextmanager
def opened(browser: Browser, lab: Lab, pages: tuple[str, str], name: Name) -> Iterator[HostPage]:
    """A notebook with a fresh kernel of ``lab``; ``pages`` are the addresses of the page and of the frame."""
    kernel = _asked(lab, "POST", "kernels", {"name": "python3"})["id"]
    around, inside = pages
    page = new_context(browser, viewport={"width": 1000, "height": 1400}).new_page()
    host = HostPage(name, page, lab)
    allowed = {urlsplit(address).netloc for address in (*pages, lab.url)}

    def asks(request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme in ("http", "https", "ws") and url.netloc not in allowed and not request.url.startswith(CDN):
            host.faults.append(request.url)

    page.on("request", asks)
    page.on("pageerror", lambda error: host.faults.append(str(error)))
    page.on("console", lambda said: _takes(host.faults, said.type, said.text))
    page.route(
        f"{CDN}**", lambda route: route.fulfill(path=widget_module(), headers={"Access-Control-Allow-Origin": "*"})
    )
    socket = f"{lab.url.replace('http', 'ws', 1)}/api/kernels/{kernel}/channels?token={TOKEN}"
    asked = urlencode({"kernel": socket, "frame": f"{inside}/{name}.html", "sandbox": SANDBOXES[name]})
    try:
        page.goto(f"{around}/notebook.html?{asked}")
        page.wait_for_selector("body[data-ready]")
        path = str(lab.root / f"{name}.ipynb")
        page.evaluate("source => run(source, true)", PRELUDES[name].replace("{path!r}", repr(path)))
        yield host
    finally:
        page.context.close()
        _asked(lab, "DELETE", f"kernels/{kernel}")


def _takes(faults: list[str], kind: str, text: str) -> None:
    """VS Code's manager says as errors that it is being loaded."""
    if kind == "error" and "ipywidgets8" not in text:
        faults.append(text)


def _asked(lab: Lab, method: str, path: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"token {TOKEN}"}
    request = urllib.request.Request(f"{lab.url}/api/{path}", data, headers, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE / 1000) as reply:
        text = reply.read()
        return json.loads(text) if text else None
