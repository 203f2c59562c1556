"""The main job, on the real notebook with a real model: it waits with its process gone, goes on, and is replayed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.headless import run_notebook
from kitaru_nb.model import ExecutionStatus
from kitaru_nb.testing.offline_model import OfflineModel

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[OfflineModel]:
    with OfflineModel() as offline:
        monkeypatch.setenv("OPENAI_BASE_URL", offline.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "offline")
        yield offline


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    shutil.copytree(NOTEBOOKS / "documents", tmp_path / "documents")
    return Path(shutil.copy(NOTEBOOKS / "quickstart.ipynb", tmp_path))


def kitaru(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kitaru_nb", *words]
    return subprocess.run(command, env=os.environ | {"KITARU_HOME": str(home)}, capture_output=True, text=True)


def ended(client: KitaruClient, exec_id: str, worker_log: Path) -> ExecutionStatus:
    deadline = time.monotonic() + 120
    going = (ExecutionStatus.WAITING, ExecutionStatus.RUNNING, ExecutionStatus.PENDING)
    while (status := client.executions.get(exec_id).status) in going:
        assert time.monotonic() < deadline, worker_log.read_text() if worker_log.exists() else "no worker was started"
        time.sleep(0.1)
    return status


def test_the_quickstart_waits_goes_on_in_a_fresh_process_and_replays_paying_no_call_twice(
    model: OfflineModel, notebook: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    runtime = Runtime(Settings(home))
    client = KitaruClient(runtime)

    outcome = run_notebook(runtime, notebook, {})
    exec_id = outcome.exec_id
    paid = model.calls
    assert outcome.status is ExecutionStatus.WAITING
    assert paid >= 2  # the researcher's turns and the writer's
    assert runtime.journal.execution(exec_id).lease is None
    assert not (tmp_path / "published.md").exists()

    answered = kitaru(home, "executions", "input", exec_id, "--wait", "approve", "--value", "true", "--by", "ana")
    assert answered.returncode == 0, answered.stderr
    assert ended(client, exec_id, home / "workers" / f"{exec_id}.log") is ExecutionStatus.COMPLETED
    assert model.calls == paid
    first = client.executions.get(exec_id)
    draft = next(c for c in first.checkpoints if c.name == "draft")
    assert first.waits[0].resolved_by == "ana"
    assert client.artifacts.get(f"{exec_id}/draft").load() in (tmp_path / "published.md").read_text()
    assert next(c for c in first.checkpoints if c.name == "research").call_id in draft.parent_call_ids

    replayed = kitaru(home, "executions", "replay", exec_id, "--from", "draft", "--override", "wait.approve=false")
    assert replayed.returncode == 0, replayed.stderr
    second = client.executions.latest()
    assert second.original_exec_id == exec_id
    assert {c.name: c.status for c in second.checkpoints if c.parent is None} == {
        "research": "reused",
        "draft": "completed",
        "publish": "completed",
    }
    assert model.calls == paid + 1
    assert "rejected" in client.artifacts.get(f"{second.exec_id}/published").load()
