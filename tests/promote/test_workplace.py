"""The folder in which an execution of a deployment works: there while it is needed, and cleared afterwards."""

from __future__ import annotations

import os
import textwrap
from typing import Any

import pytest

from kitaru_nb.core.runtime import default_runtime
from kitaru_nb.errors import KitaruUserCodeError
from kitaru_nb.model import Execution, ExecutionStatus, new_exec_id, utc
from kitaru_nb.promote.manifest import Manifest
from kitaru_nb.promote.snapshot import make_snapshot
from kitaru_nb.promote.workplace import _locked_folder, _unpacked, leave, work_folder
from tests.promote.conftest import SECONDS, Desk

FLOWS = """
    from kitaru_nb import checkpoint, flow, wait
    from helper import shout

    @checkpoint
    def look(name: str) -> str:
        return shout(name)

    @flow
    def greet(name: str) -> str:
        if name == "nobody":
            raise ValueError("whom?")
        return look(name) if name != "ask" or wait("go", timeout=0) else ""
"""


def test_executions_that_have_ended_leave_no_folder(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    desk.file("helper.py", "def shout(name): return name.upper()\n")
    desk.file("flows.py", textwrap.dedent(FLOWS))
    desk.client.deployments.create("flows.py:greet")
    work = default_runtime().home / "work"
    done, failed, asking = (
        desk.client.deployments.invoke("greet", inputs={"name": name}) for name in ("sea", "nobody", "ask")
    )
    assert desk.done(done) == "SEA"
    with pytest.raises(KitaruUserCodeError, match="whom"):
        failed.wait(SECONDS)
    desk.until(asking, "waiting")
    desk.until_true(lambda: [path.name for path in work.iterdir()] == [asking.exec_id])
    desk.client.executions.cancel(asking.exec_id)
    desk.until_true(lambda: list(work.iterdir()) == [])
    # What was cleared comes back when it is needed again.
    desk.client.executions.retry(failed.exec_id)
    desk.until_true(lambda: desk.client.executions.get(failed.exec_id).epoch == 2)
    desk.until(failed, "failed")
    desk.until_true(lambda: list(work.iterdir()) == [])


@pytest.fixture
def worked(desk: Desk) -> str:
    """An execution with a work folder that this process has left."""
    now = utc(0.0)
    execution = Execution(new_exec_id(), "brief", ExecutionStatus.FAILED, now, now)
    exec_id = default_runtime().journal.create(execution, []).exec_id
    files = {"flow.py": b"a = 1", "package/x.py": b"", "data/table.txt": b"1", "wheels/x-1-py3-none-any.whl": b"PK"}
    manifest = Manifest("brief", "function", {}, {}, "3.11.7", "linux")
    folder = _unpacked(default_runtime(), exec_id, make_snapshot(manifest, files))
    (folder / "package" / "__pycache__").mkdir()
    (folder / "package" / "__pycache__" / "x.cpython-311.pyc").write_bytes(b"")
    return exec_id


def test_wheels_are_not_unpacked_and_what_was_written_or_changed_stays(worked: str) -> None:
    folder = work_folder(default_runtime(), worked)
    assert not (folder / "wheels").exists()
    (folder / "out.txt").write_text("mine")
    (folder / "data" / "table.txt").write_text("2")
    leave(default_runtime(), worked)
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) == ["data", "data/table.txt", "out.txt"]


def test_a_folder_in_which_another_process_works_is_not_cleared(worked: str) -> None:
    folder = work_folder(default_runtime(), worked)
    before = sorted(folder.rglob("*"))
    other = _locked_folder(folder, alone=False)
    leave(default_runtime(), worked)
    assert sorted(folder.rglob("*")) == before
    os.close(other)
    leave(default_runtime(), worked)
    assert not folder.exists()
