"""A real language model over HTTP: a question that was answered before the process was killed isn't asked again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.llm.program import ask
from kitaru_nb import KitaruClient
from kitaru_nb.core.create import create_execution
from kitaru_nb.testing.offline_model import OfflineModel


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_real_model_is_asked_each_question_once(
    provider: str, offline_model: OfflineModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_BASE_URL", offline_model.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "offline")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", offline_model.base_url.removesuffix("/v1"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "offline")
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    client, before = KitaruClient(), offline_model.calls
    bound = ask.bind((str(tmp_path / "killed"), f"{provider}:small"), {})
    exec_id = create_execution(client.runtime, ask, bound).exec_id
    command = [sys.executable, "-m", "kitaru_nb.worker", exec_id]
    for code, asked in ((-signal.SIGKILL, 1), (0, 2)):
        ended = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=200, check=False)
        assert ended.returncode == code, ended.stdout + ended.stderr
        assert offline_model.calls - before == asked
    execution = client.executions.get(exec_id)
    assert execution.result is not None
    assert all(client.artifacts.ref(execution.result).load())
    calls = [call for call in execution.checkpoints if call.checkpoint_type == "model_call"]
    assert [call.metadata["model"] for call in calls] == ["small", "small"]
    assert all(call.metadata["output_tokens"] > 0 for call in calls)
