"""A notebook without a front end: cells in, what a person would see out."""

from __future__ import annotations

import atexit
import contextlib
import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from kitaru_nb.client import KitaruClient
from kitaru_nb.model import Execution
from kitaru_nb.surfaces.notebook.session import Session


class FrontEnd:
    """What a kernel tells of the request that it serves: a cell's tags, and its id where there is one."""

    def __init__(self) -> None:
        self.tags: list[str] = []
        self.cell: str | None = None

    def get_parent(self, channel: str) -> dict[str, Any]:
        metadata = {"tags": self.tags} | ({} if self.cell is None else {"cellId": self.cell})
        return {"header": {"msg_type": "execute_request"}, "metadata": metadata}


class Hook(DisplayHook):
    """Keeps the values that would be shown."""

    outputs: list[str]

    def __call__(self, result: Any = None) -> None:
        if result is not None and not self.quiet():
            self.outputs.append(str(self.shell.display_formatter.format(result)[0].get("text/plain")))


class Publisher(CapturingDisplayPublisher):
    """Clears nothing on a terminal, as there is none."""

    def clear_output(self, wait: bool = False) -> None:
        self.outputs.clear()


class Shell(InteractiveShell):
    """An IPython shell that keeps what it would show."""

    kernel: FrontEnd
    shown: list[str]

    def enable_gui(self, gui: Any = None) -> None:
        """There is no event loop to bring in."""

    def _showtraceback(self, etype: Any, evalue: Any, stb: Any) -> None:
        self.shown = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in stb]


@dataclass
class Ran:
    """One run of a cell.

    Attributes:
        bundles: mime bundles that were displayed, with metadata.
        results: values that were shown as the cell's result, as text.
        traceback: lines as IPython shows them, without colours.
    """

    error: BaseException | None
    stdout: str
    stderr: str
    bundles: list[dict[str, Any]]
    results: list[str]
    traceback: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Plain text of all that was displayed."""
        return "\n".join(str(b["data"].get("text/plain", "")) for b in self.bundles)

    @property
    def html(self) -> str:
        """HTML of all that was displayed."""
        return "\n".join(str(b["data"].get("text/html", "")) for b in self.bundles)

    @property
    def status(self) -> str | None:
        """``fresh``, ``cached`` or ``partial``, as the front end is told."""
        found = [b["metadata"]["kitaru"].get("status") for b in self.bundles if "kitaru" in (b["metadata"] or {})]
        return found[-1] if found else None


class Notebook:
    """A notebook and its kernel."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.side = folder / "side.txt"
        self._loaded: list[Shell] = []
        self.shell = self._start()

    def _start(self) -> Shell:
        InteractiveShell.clear_instance()
        Shell.clear_instance()
        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "nocolor"
        shell = Shell.instance(config=config, display_pub_class=Publisher, displayhook_class=Hook)
        shell.display_pub.outputs, shell.displayhook.outputs = [], []
        shell.kernel, shell.shown = FrontEnd(), []
        shell.extension_manager.load_extension("kitaru_nb")
        self._loaded.append(shell)
        return shell

    def second_kernel(self) -> Shell:
        """Another kernel on the same notebook; the first one lives on. `use` switches between them."""
        first = self.shell
        self.shell = self._start()
        return first

    def use(self, shell: Shell) -> None:
        """Run cells in this kernel from now on."""
        InteractiveShell.clear_instance()
        Shell.clear_instance()
        for cls in Shell._walk_mro():
            cls._instance = shell
        shell.init_sys_modules()
        self.shell = shell

    def restart(self) -> None:
        """A new kernel; the old one ended as a kernel ends."""
        self.session.close()
        self.shell = self._start()

    @property
    def session(self) -> Session:
        found: Session = self.shell.kitaru_session
        return found

    @property
    def ns(self) -> dict[str, Any]:
        """The variables."""
        found: dict[str, Any] = self.shell.user_ns
        return found

    @property
    def client(self) -> KitaruClient:
        return KitaruClient(self.session.runtime)

    @property
    def execution(self) -> Execution:
        """The notebook's current execution, read from the journal."""
        exec_id = self.session.current()
        assert exec_id is not None
        return self.client.executions.get(exec_id)

    def run(self, source: str, *tags: str) -> Ran:
        """Run a cell, whatever comes of it."""
        shell = self.shell
        shell.kernel.tags = list(tags)
        shell.shown = []
        shell.display_pub.outputs.clear()
        shell.displayhook.outputs.clear()
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            result = shell.run_cell(source, store_history=True)
        return Ran(
            result.error_before_exec or result.error_in_exec,
            out.getvalue(),
            err.getvalue(),
            list(shell.display_pub.outputs),
            list(shell.displayhook.outputs),
            "\n".join(shell.shown),
        )

    def ok(self, source: str, *tags: str) -> Ran:
        """Run a cell that must not fail."""
        ran = self.run(source, *tags)
        if ran.error is not None:
            raise AssertionError(f"{source}\n{ran.traceback}") from ran.error
        return ran

    def counting(self) -> None:
        """Define `count(word)` in the notebook: it notes that something really ran."""
        self.ok(f"def count(word):\n    with open({str(self.side)!r}, 'a') as side:\n        side.write(word + '\\n')")

    @property
    def counted(self) -> list[str]:
        """What `count` was told, in order, over all kernels."""
        return self.side.read_text().split() if self.side.exists() else []

    def shut_down(self) -> None:
        for shell in self._loaded:
            shell.extension_manager.unload_extension("kitaru_nb")
            atexit.unregister(shell.atexit_operations)
        InteractiveShell.clear_instance()
        Shell.clear_instance()
