"""Contract: a real language model over HTTP, instead of a script. No wording is asserted."""

from __future__ import annotations

import pytest

from kitaru_nb.testing.adapter.desk import AdapterSetup, Desk
from kitaru_nb.testing.adapter.tools import CHAT, HANGS
from kitaru_nb.testing.offline_model import OfflineModel

QUESTION = "Look up what is known about the lighthouse."


class SmokeContract(AdapterSetup):
    """The agent with the offline model (fixture ``offline_model`` is the subclass's)."""

    @pytest.fixture
    def asked_offline(self, desk: Desk, offline_model: OfflineModel, monkeypatch: pytest.MonkeyPatch) -> OfflineModel:
        """The SDKs are pointed to the offline model."""
        monkeypatch.setenv("OPENAI_BASE_URL", offline_model.base_url)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", offline_model.base_url.removesuffix("/v1"))
        monkeypatch.setenv(CHAT, "1")
        return offline_model

    def test_a_real_model_is_asked_nothing_twice_by_a_run_that_was_killed(
        self, desk: Desk, asked_offline: OfflineModel
    ) -> None:
        """It decides on the tool's argument and on the answer; the process is killed between them, inside the tool."""
        before = asked_offline.calls
        exec_id = desk.create("ask", QUESTION)
        worker = desk.worker(exec_id, environment={HANGS: "look_up:*"})
        desk.until(lambda: len(desk.ran) == 1, "the model has asked for the tool")
        worker.kill()
        assert asked_offline.calls - before == 1
        desk.work(exec_id)
        assert asked_offline.calls - before == 2
        self.check_model_calls(desk, exec_id, 2)
        assert desk.result(exec_id)
        assert [ran.state for ran in desk.ran] == ["began", "began", "ended"]
        assert len({ran.argument for ran in desk.ran}) == 1
        counted = [call.metadata for call in desk.get(exec_id).checkpoints if "input_tokens" in call.metadata]
        assert len(counted) == (2 if self.records_model_calls else 1)
        assert all(metadata["input_tokens"] > 0 and metadata["output_tokens"] > 0 for metadata in counted)
