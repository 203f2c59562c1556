"""Contract: processes that are killed, and what the model is shown afterwards."""

from __future__ import annotations

from kitaru_nb.testing.adapter.desk import AdapterSetup, Desk
from kitaru_nb.testing.adapter.script import Request, say, side_by_side, use
from kitaru_nb.testing.adapter.tools import HANGS, TRAPS


class CrashContract(AdapterSetup):
    """SIGKILL at any call: a fresh process pays for no answer twice and repeats no tool that had ended."""

    def test_a_run_that_is_killed_at_every_request_pays_for_each_answer_once(self, desk: Desk) -> None:
        """The endpoint keeps one request after the other waiting, and its sender is killed; each is sent again as it
        was."""
        turns = [*(use("look_up", key=key) for key in "abc"), say("done")]
        desk.endpoint.script("chain", *turns)
        exec_id = desk.create("ask", "chain")
        held: list[Request] = []
        for number in range(len(turns)):
            desk.endpoint.hold(after=min(number, 1))
            worker = desk.worker(exec_id)
            held += desk.endpoint.wait_held()
            worker.kill()
            desk.endpoint.let_go()
        desk.work(exec_id)
        assert desk.result(exec_id) == "done"
        assert desk.endpoint.paid == len(turns)
        assert [request.seen for request in desk.endpoint.requests() if request.paid] == [r.seen for r in held]
        assert desk.ended == [("look_up", key) for key in "abc"]

    def test_an_agent_with_eighteen_calls_that_is_killed_at_the_fifteenth_goes_on_there(self, desk: Desk) -> None:
        """Fourteen answers are paid before, four after."""
        keys = [f"key {n}" for n in range(17)]
        desk.endpoint.script("long", *(use("look_up", key=key) for key in keys), say("done"))
        exec_id = desk.create("ask", "long")
        desk.endpoint.hold(after=14)
        worker = desk.worker(exec_id)
        desk.endpoint.wait_held()
        worker.kill()
        desk.endpoint.let_go()
        assert desk.endpoint.paid == 14
        desk.work(exec_id)
        assert desk.result(exec_id) == "done"
        assert desk.endpoint.paid == 18
        assert desk.ended == [("look_up", key) for key in keys]

    def test_killed_inside_one_of_several_tools_only_that_one_runs_again(self, desk: Desk) -> None:
        """Its siblings that had ended don't, and the model isn't asked again."""
        desk.endpoint.script("charges", side_by_side(*(use("charge", amount=n) for n in (1, 2, 3))), say("done"))
        exec_id = desk.create("ask", "charges")
        worker = desk.worker(exec_id, environment={HANGS: "charge:3"})
        recorded = ("completed", "reused")
        desk.until(
            lambda: (
                sum(call.status in recorded for call in desk.tool_calls(exec_id)) == 2
                and any(ran.argument == 3 for ran in desk.ran)
            ),
            "two of three tools are recorded and the third hangs",
        )
        worker.kill()
        assert desk.endpoint.paid == 1
        desk.work(exec_id)
        assert desk.result(exec_id) == "done"
        assert desk.endpoint.paid == 2
        assert sorted(desk.ended) == [("charge", 1), ("charge", 2), ("charge", 3)]

    def test_a_finished_execution_costs_nothing_more(self, desk: Desk) -> None:
        """A worker that is started for it finds nothing to do."""
        desk.endpoint.script("question", use("look_up", key="a"), say("fine"))
        exec_id, _ = desk.run("ask", "question")
        desk.work(exec_id)
        assert desk.endpoint.paid == 2
        assert desk.ended == [("look_up", "a")]


class FaithfulnessContract(AdapterSetup):
    """The model is shown after a resume exactly what it was shown before."""

    def test_values_that_json_changes_look_the_same_to_the_model_after_a_resume(self, desk: Desk) -> None:
        """Tuples, sets, bytes, models … as tool results; the resuming process has another hash seed, so other sets."""
        desk.endpoint.script("traps", side_by_side(*(use("trap", kind=kind) for kind in TRAPS)), say("done"))
        exec_id = desk.create("ask", "traps")
        desk.endpoint.hold(after=1)
        worker = desk.worker(exec_id)
        (live,) = desk.endpoint.wait_held()
        worker.kill()
        desk.endpoint.let_go()
        desk.work(exec_id, cold=True)
        resumed = desk.endpoint.requests()[-1]
        assert resumed.paid
        assert resumed.seen == live.seen
        assert sorted(desk.ended) == sorted(("trap", kind) for kind in TRAPS)

    def test_awkward_text_of_the_model_comes_back_as_it_was(self, desk: Desk) -> None:
        """Unicode, control characters, and text that looks like JSON or HTML."""
        text = 'naïve — 日本語 🎈 \u202e "{}" <b>&amp;</b> \x07\x1b[31m\ttab\nline'
        desk.endpoint.script("awkward", use("look_up", key=text), say(text))
        exec_id, result = desk.run("ask", "awkward")
        assert result == text
        assert desk.ended == [("look_up", text)]
        again = desk.client.executions.replay(exec_id, from_=desk.tool_calls(exec_id)[0].call_id)
        assert again.wait() == text
        requests = desk.endpoint.requests()
        assert requests[2].seen == requests[1].seen
