"""``%promote`` in a notebook: in shells of this process, and once in a real kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import nbformat
import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.manager import KernelManager
from traitlets.config import Config

from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.promote.checks import Refused
from tests.promote.conftest import Desk, code

LOAD = "%load_ext kitaru_nb"
CELLS = [LOAD, "a = 1", "%%checkpoint two\nb = a + 1", "%promote --tag prod"]


class Kernel:
    """A shell on the desk's notebook, which runs and saves cells as a person does."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        config = Config()
        config.HistoryManager.enabled = False
        self.shell: Any = InteractiveShell.instance(config=config, display_pub_class=CapturingDisplayPublisher)
        self.shell.display_pub.outputs = []
        self.cells: list[Any] = []

    def run(self, *sources: str, save: bool = True) -> str:
        """Add cells at the end, save, and run them; the text of what was displayed. Raises what the last one raised."""
        self.shell.display_pub.outputs.clear()
        for source in sources:
            self.cells.append(code(source, count=self.shell.execution_count))
            if save:
                self.desk.write(*self.cells)
            self.shell.run_cell(source, store_history=True).raise_error()
        return "\n".join(str(o["data"].get("text/plain", "")) for o in self.shell.display_pub.outputs)


@pytest.fixture
def kernel(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    monkeypatch.setenv("KITARU_NOTEBOOK", str(desk.path))
    found = Kernel(desk)
    yield found
    if "kitaru_nb" in found.shell.extension_manager.loaded:
        found.shell.extension_manager.unload_extension("kitaru_nb")
    InteractiveShell.clear_instance()


def test_promote_deploys_the_notebook_and_says_what_shipped(kernel: Kernel, desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    said = kernel.run(*CELLS)
    assert "brief v1 is deployed" in said
    assert "two" in said
    deployment = desk.client.deployments.get("brief@prod")
    assert deployment.tags == ("default", "prod")
    assert "promote" not in desk.client.deployments.snapshot("brief").files["notebook.ipynb"].decode()
    kernel.run("%promote letter --tag a --tag=b")
    assert desk.client.deployments.get("letter@b").tags == ("a", "b", "default")


def test_a_dry_run_shows_and_stores_nothing(kernel: Kernel, desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    said = kernel.run(*CELLS[:3], "%promote --dry-run")
    assert "brief: what would ship" in said
    assert "flow.py, notebook.ipynb, requirements.lock" in said
    assert desk.client.deployments.list() == []


def test_an_unsaved_notebook_is_refused(kernel: Kernel, desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    kernel.run(LOAD)
    with pytest.raises(
        KitaruUsageError, match=r"brief.ipynb is not saved: the file does not have the cell that runs now"
    ):
        kernel.run("%promote", save=False)
    desk.path.unlink()
    with pytest.raises(KitaruUsageError, match="This notebook is not saved: there is no"):
        kernel.run("%promote", save=False)


def test_a_notebook_without_a_file_is_refused(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KITARU_NOTEBOOK")
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    with pytest.raises(KitaruUsageError, match="has no file that this kernel knows"):
        kernel.run(LOAD, "%promote", save=False)


def test_what_the_kernel_knows_is_checked(kernel: Kernel, desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    kernel.run(LOAD, "a = 1", "b = a")
    kernel.cells[1].source = "a = 2"
    with pytest.raises(Refused) as refused:
        kernel.run("%promote")
    assert [(r.cell, r.message) for r in refused.value.refusals] == [
        (2, "it was edited since it ran, or is not saved.")
    ]
    del kernel.cells[1]
    with pytest.raises(Refused) as refused:
        kernel.run("%promote")
    assert refused.value.refusals[0].message.startswith("a comes from a cell that was deleted or changed")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%promote --tags prod", r"can't take '--tags'; expected %promote \[NAME\]"),
        ("%promote one two", "can't take 'two'"),
        ("%promote --tag", "--tag needs a value"),
        ("%promote --tag v1", "'v1' can't be a tag"),
    ],
    ids=["option", "names", "no value", "tag"],
)
def test_wrong_options_are_refused(kernel: Kernel, desk: Desk, tiny_lock: Any, line: str, message: str) -> None:
    tiny_lock()
    with pytest.raises(KitaruUsageError, match=message):
        kernel.run(LOAD, "a = 1", line)
    assert desk.client.deployments.list() == []


def test_a_runner_promotes_nothing(kernel: Kernel, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.run(LOAD)
    monkeypatch.setattr(kernel.shell.kitaru_session, "headless", True)
    assert "it is not promoted" in kernel.run("%promote")
    assert desk.client.deployments.list() == []


def test_a_flow_of_a_notebook_deploys_with_the_cells_that_it_needs(kernel: Kernel, desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    kernel.run(
        LOAD,
        "from kitaru_nb import flow, checkpoint",
        "unused = 1",
        "MARK = '!'",
        "def loud(text):\n    return text.upper() + MARK",
        "@checkpoint\ndef say(text: str) -> str:\n    return loud(text)",
        "@flow\ndef greet(name: str, times: int = 1) -> str:\n    return say(name) * times",
        "deployment = greet.deploy(tags='prod', times=2)",
    )
    deployment = desk.client.deployments.get("greet@prod")
    assert (deployment.kind, deployment.parameters["required"]) == ("function", ["name"])
    source = desk.client.deployments.snapshot("greet").files["flow.py"].decode()
    assert "unused" not in source
    assert "deploy" not in source
    handle = desk.client.deployments.invoke("greet", inputs={"name": "sea"})
    assert desk.done(handle) == "SEA!SEA!"


def test_a_notebook_is_promoted_and_rehearsed_in_a_real_kernel(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [
        code(source)
        for source in [*CELLS[:3], "answer = %wait approve", "c = (b, answer)", "%promote --rehearse --tag prod"]
    ]
    path = desk.write(*cells)
    monkeypatch.setenv("JPY_SESSION_NAME", str(path))
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(desk.folder), env=dict(os.environ))
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        for cell in cells[:4]:
            ran(client, cell.source)
        # It waits; somebody answers from elsewhere; the cell is run again.
        desk.client.executions.input(desk.client.executions.latest().exec_id, value=True)
        for cell in cells[3:]:
            reply, shown = ran(client, cell.source)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
    assert reply["status"] == "ok", reply
    assert "brief v1 is deployed" in shown
    certificate = desk.client.deployments.snapshot("brief@prod").manifest.certificate
    assert certificate is not None
    assert ([c["name"] for c in certificate["checkpoints"]], certificate["waits"]) == (["two"], ["approve"])


def ran(client: Any, source: str) -> tuple[dict[str, Any], str]:
    """Run a cell in a kernel; its reply, and the text of what it displayed."""
    shown: list[str] = []

    def see(message: dict[str, Any]) -> None:
        shown.append(str(message["content"].get("data", {}).get("text/plain", "")))

    reply = client.execute_interactive(source, timeout=150, output_hook=see, allow_stdin=False)
    return reply["content"], "\n".join(shown)


def test_the_notebook_format_is_not_changed_by_promoting(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    path = desk.write("a = 1")
    before = path.read_bytes()
    desk.client.deployments.create(path)
    assert path.read_bytes() == before
    nbformat.validate(nbformat.read(path, as_version=4))
