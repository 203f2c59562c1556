"""The contract of adapters, with the OpenAI Agents SDK."""

from __future__ import annotations

from kitaru_nb.testing.adapter import AdapterContract, Desk, say, use
from kitaru_nb.worker import EXIT_WAITING


class TestOpenAIAgents(AdapterContract):
    program = "adapters.openai_agents.program"
    imports = ("openai.resources.responses", "openai.lib.streaming.responses", "genai_prices.data")

    def test_an_agent_used_as_a_tool_goes_on_in_another_process_after_its_approval(self, desk: Desk) -> None:
        """The approval of the inner agent's tool reaches the outer run; nothing of either agent is asked again."""
        desk.endpoint.script("settle it", use("cashier", input="pay the bill"), say("all settled"))
        desk.endpoint.script("pay the bill", use("pay", amount=5), say("paid it"))
        exec_id = desk.create("nested", "settle it")
        desk.work(exec_id, code=EXIT_WAITING)
        assert (desk.ended, desk.endpoint.paid) == ([], 2)
        (wait,) = desk.client.executions.pending_waits(exec_id)
        assert (wait.metadata["agent"], wait.metadata["tool"]) == ("helper", "pay")
        desk.client.executions.input(exec_id, value=True)
        desk.until_status(exec_id, "completed")
        assert desk.result(exec_id) == "all settled"
        assert desk.ended == [("pay", 5)]
        assert desk.endpoint.paid == 4
