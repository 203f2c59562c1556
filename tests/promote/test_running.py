"""Deployments that run: notebooks and functions, in processes of their own, on the version that they began with."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any

import pytest

from kitaru_nb import KitaruClient
from kitaru_nb.core.create import created_event
from kitaru_nb.core.runtime import default_runtime
from kitaru_nb.errors import KitaruUserCodeError
from kitaru_nb.headless import run_notebook
from kitaru_nb.model import CheckpointCall
from kitaru_nb.promote.checks import Refused
from kitaru_nb.promote.functions import find_flow
from kitaru_nb.promote.workplace import work_folder
from tests.promote.conftest import Desk, code

LOAD = "%load_ext kitaru_nb"
PARAMETERS = code("topic: str = 'sea'\nn: int = 2", "parameters")
HELPER = "def shout(text):\n    return text.upper()\n"
BRIEF = [
    LOAD,
    PARAMETERS,
    "from helper import shout\nTIMES = 1",
    "def repeat(text):\n    return [shout(text)] * n * TIMES",
    "%%checkpoint research\nnotes = repeat(topic)\nprint('looked up', topic)",
    'answer = %wait approve --question "Publish {notes}?"',
    "%%checkpoint publish\nresult = f'{notes} {answer}'\nopen('out.txt', 'w').write(result)",
]


def evidence(calls: tuple[CheckpointCall, ...]) -> list[tuple[str, str, dict[str, str]]]:
    """Name, key and digests of what was made."""
    return [(c.name, c.call_id, {a.name: a.digest for a in c.artifacts if a.names}) for c in calls]


def test_a_deployed_notebook_waits_lets_go_and_goes_on(desk: Desk) -> None:
    desk.file("helper.py", HELPER)
    deployment = desk.promote(*BRIEF, tags="prod")
    handle = desk.client.deployments.invoke("brief@prod", inputs={"topic": "moon"})
    desk.until(handle, "waiting", "failed", "interrupted")
    execution = desk.client.executions.get(handle.exec_id)
    assert (execution.flow_name, execution.deployment, execution.stack) == ("brief", "brief@v1", "local")
    assert execution.pending_wait is not None, desk.said(handle)
    assert execution.pending_wait.question == "Publish ['MOON', 'MOON']?"
    # The file that it was promoted from, and its modules, are gone.
    desk.path.unlink()
    (desk.folder / "helper.py").unlink()
    desk.client.executions.input(handle.exec_id, value=True)
    desk.done(handle)
    assert desk.value(handle, "result") == "['MOON', 'MOON'] True"
    folder = work_folder(default_runtime(), handle.exec_id)
    assert (folder / "out.txt").read_text() == "['MOON', 'MOON'] True"
    # What it wrote stays, what came with its version goes.
    desk.until_true(lambda: {p.name for p in folder.iterdir()} == {"out.txt", "brief.executed.ipynb"})
    assert created_event(default_runtime(), handle.exec_id).body["ref"]["digest"] == deployment.digest


def test_kernel_headless_run_and_snapshot_give_the_same_keys_and_digests(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    desk.file("helper.py", HELPER)
    cells = [*BRIEF[:5], "%%checkpoint publish\nresult = (notes, {'n': n})"]
    path = desk.write(*cells)
    here = run_notebook(default_runtime(), path, {})
    desk.client.deployments.create(path)
    there = desk.client.deployments.invoke("brief")
    desk.done(there)
    executions = desk.client.executions
    deployed = evidence(executions.get(there.exec_id).checkpoints)
    assert deployed == evidence(executions.get(here.exec_id).checkpoints)
    assert [name for name, _, _ in deployed] == ["research", "publish"]
    assert deployed == evidence(executions.get(in_a_kernel(desk, path, cells)).checkpoints)


def in_a_kernel(desk: Desk, path: Path, cells: list[Any]) -> str:
    """Run cells in an IPython shell of this process, as a person does; the execution."""
    import sys

    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    os.environ["KITARU_NOTEBOOK"] = str(path)
    sys.path.insert(0, str(desk.folder))
    shell = InteractiveShell.instance(config=config)
    try:
        for cell in cells:
            result = shell.run_cell(getattr(cell, "source", cell), store_history=True)
            result.raise_error()
        return str(shell.kitaru_session.current())
    finally:
        shell.extension_manager.unload_extension("kitaru_nb")
        InteractiveShell.clear_instance()
        del os.environ["KITARU_NOTEBOOK"]
        sys.modules.pop("helper", None)


def test_running_executions_stay_on_their_version(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    cells = [LOAD, "answer = %wait approve", "%%checkpoint publish\nresult = ('one', answer)"]
    desk.promote(*cells, tags="prod")
    old = desk.client.deployments.invoke("brief", tag="prod")
    desk.until(old, "waiting", "failed", "interrupted")
    desk.promote(*cells[:2], cells[2].replace("one", "two"), tags="prod")
    new = desk.client.deployments.invoke("brief", tag="prod")
    desk.until(new, "waiting", "failed", "interrupted")
    for handle in (old, new):
        desk.client.executions.input(handle.exec_id, value=True)
        desk.done(handle)
    assert (desk.value(old, "result"), desk.value(new, "result")) == (("one", True), ("two", True))
    assert desk.client.deployments.rollback("brief", "prod").version == 1
    again = desk.client.deployments.invoke("brief", tag="prod", key="once")
    assert desk.client.deployments.invoke("brief", tag="prod", key="once").exec_id == again.exec_id
    desk.until(again, "waiting", "failed", "interrupted")
    assert desk.client.executions.get(again.exec_id).deployment == "brief@v1"


def test_a_replay_of_a_deployed_execution_stays_on_its_version(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    desk.promote(LOAD, PARAMETERS, "%%checkpoint one\na = [topic] * n", "%%checkpoint two\nb = a * 2")
    first = desk.client.deployments.invoke("brief")
    desk.done(first)
    desk.promote(LOAD, PARAMETERS, "%%checkpoint one\na = 'other'", "%%checkpoint two\nb = a")
    again = desk.client.executions.replay(first.exec_id, from_="two")
    desk.done(again)
    assert desk.value(again, "b") == ["sea"] * 4
    execution = desk.client.executions.get(again.exec_id)
    assert (execution.deployment, [c.status for c in execution.checkpoints]) == ("brief@v1", ["reused", "completed"])


# functions

FLOWS = '''
"""Flows."""

from dataclasses import dataclass
from datetime import date

import kitaru_nb as kitaru
from helper import shout


@dataclass
class Order:
    name: str
    number: int = 1


@kitaru.checkpoint
def look(order: Order) -> str:
    return shout(order.name) * order.number


@kitaru.flow
def brief(order: Order, day: date, mark: str = "!"):
    found = look(order)
    return f"{found}{mark} {type(day).__name__} {day.year}"


@kitaru.flow
async def outer(name: str):
    handle = brief.invoke(order={"name": name}, day="2026-01-02")
    first = await handle
    again = kitaru.KitaruClient().deployments.invoke("brief", inputs={"order": {"name": "x"}, "day": "2026-01-02"})
    return [first, await again]


if __name__ == "__main__":
    brief.run(Order("never"), date.today())
'''


def test_flows_of_a_script_deploy_and_call_each_other(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    desk.file("helper.py", HELPER)
    desk.file("flows.py", textwrap.dedent(FLOWS).lstrip())
    brief = find_flow(default_runtime(), "flows.py:brief")
    deployment = brief.deploy(tags={"prod": True}, mark="?")
    assert deployment.parameters["required"] == ["order", "day"]
    assert deployment.parameters["properties"]["mark"] == {"type": "string", "default": "?"}
    manifest = desk.client.deployments.snapshot("brief@prod").manifest
    assert [(c["name"], c["inputs"]) for c in manifest.checkpoints] == [("look", ["order"])]
    assert [d.version for d in brief.deployments()] == [1]
    assert brief.deployment(tag="prod") == deployment
    handle = brief.invoke(tag="prod", order={"name": "sea", "number": 2}, day="2026-01-02")
    assert desk.done(handle) == "SEASEA? date 2026"
    desk.client.deployments.create("flows.py:outer")
    outer = desk.client.deployments.invoke("outer", inputs={"name": "moon"})
    assert desk.done(outer) == ["MOON? date 2026", "X? date 2026"]
    assert len([e for e in desk.client.executions.list() if e.flow_name == "brief"]) == 3


def test_a_flow_of_a_package_deploys_with_the_whole_package(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    desk.file("shop/__init__.py", "")
    desk.file("shop/tax.py", "RATE = 2\n")
    desk.file("shop/table.txt", "7")
    source = """
        from pathlib import Path

        from kitaru_nb import checkpoint, flow
        from shop.tax import RATE

        @checkpoint
        def price(n: int) -> int:
            return n * RATE + int((Path(__file__).parent / "table.txt").read_text())

        @flow
        def order(n: int) -> int:
            return price(n)
    """
    desk.file("shop/orders.py", textwrap.dedent(source))
    deployment = desk.client.deployments.create("shop.orders:order", tags=["prod"])
    files = desk.client.deployments.snapshot(deployment.deployment_id).files
    assert {"shop/__init__.py", "shop/tax.py", "shop/orders.py", "shop/table.txt", "flow.py"} <= set(files)
    assert desk.done(desk.client.deployments.invoke("order", inputs={"n": 3})) == 13


# rehearsals


def recorded(desk: Desk, *cells: Any) -> Path:
    """A notebook that ran: its current execution is known."""
    path = desk.write(*cells)
    outcome = run_notebook(default_runtime(), path, {})
    default_runtime().journal.set_reference(f"notebook:{path}", outcome.exec_id, expected=None, by="ana")
    return path


def test_a_rehearsal_finds_every_checkpoint_again_and_runs_none(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    side = "open('side.txt', 'a').write('ran ')"
    cells = [LOAD, PARAMETERS, f"%%checkpoint one\na = [topic] * n\n{side}", f"%%checkpoint two\nb = a * 2\n{side}"]
    path = recorded(desk, *cells)
    made = desk.client.deployments.create(path, rehearse=True)
    certificate = desk.client.deployments.snapshot("brief").manifest.certificate
    assert certificate is not None
    assert [(c["name"], sorted(c["outputs"])) for c in certificate["checkpoints"]] == [
        ("one", ["a", "display"]),
        ("two", ["b", "display"]),
    ]
    assert (desk.folder / "side.txt").read_text() == "ran ran "
    assert not list((default_runtime().home / "work").glob("*/side.txt"))
    assert desk.client.deployments.create(path, rehearse=True).digest == made.digest


def test_a_rehearsal_refuses_what_was_never_recorded(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    path = recorded(desk, LOAD, "import time", "%%checkpoint one\na = 1", "%%checkpoint two\nb = a")
    desk.write(LOAD, "import time", "now = time.time()", "%%checkpoint one\na = 1", "%%checkpoint two\nb = (a, now)")
    with pytest.raises(
        Refused, match=r"Checkpoint 'two' would run here, though .* recorded no such call: its code changed"
    ):
        desk.client.deployments.create(path, rehearse=True)
    assert desk.client.deployments.list() == []


# what a worker refuses


def test_a_missing_secret_stops_an_execution_before_anything_runs(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    desk.promote(LOAD, "import os\ntoken = os.environ['SEARCH_TOKEN_OF_TEST']", "%%checkpoint one\na = 1")
    handle = desk.client.deployments.invoke("brief")
    desk.until(handle, "failed")
    with pytest.raises(KitaruUserCodeError, match="reads SEARCH_TOKEN_OF_TEST from its environment"):
        handle.get()
    assert KitaruClient().executions.get(handle.exec_id).checkpoints == ()


def test_a_damaged_snapshot_stops_an_execution(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    deployment = desk.promote("a = 1")
    place = Path(default_runtime().store.location(deployment.digest))
    place.chmod(0o644)
    place.write_bytes(place.read_bytes().replace(b"a = 1", b"a = 2"))
    handle = desk.client.deployments.invoke("brief")
    desk.until(handle, "failed")
    with pytest.raises(KitaruUserCodeError, match="damaged"):
        handle.get()
