"""Contract: what is recorded of a run, replays, runs side by side, faults of the endpoint, streams."""

from __future__ import annotations

import asyncio
import importlib
import json

import pytest

from kitaru_nb.core.run import Run
from kitaru_nb.errors import KitaruExecutionError
from kitaru_nb.model import ExecutionStatus
from kitaru_nb.testing.adapter.capabilities import needs
from kitaru_nb.testing.adapter.desk import AdapterSetup, Desk
from kitaru_nb.testing.adapter.script import Fault, say, side_by_side, use
from kitaru_nb.testing.adapter.tools import ORDER, Noted


class RecordingContract(AdapterSetup):
    """Each model call and each tool call is a checkpoint."""

    def test_a_run_outside_a_flow_is_just_a_run(self, desk: Desk) -> None:
        """The same program works without an execution around it; nothing is recorded."""

        desk.endpoint.script("question", use("look_up", key="a"), say("fine"))
        assert asyncio.run(importlib.import_module(desk.program).run("question")) == "fine"
        assert desk.ended == [("look_up", "a")]
        assert desk.client.executions.list() == []

    @needs("records_model_calls")
    def test_calls_are_recorded_with_their_values_and_tokens(self, desk: Desk) -> None:
        """Model calls keep prompt, response and tokens; tool calls their result."""
        desk.endpoint.script("question", use("look_up", key="a"), use("look_up", key="b"), say("fine"))
        exec_id, result = desk.run("ask", "question")
        assert result == "fine"
        models, tools = desk.model_calls(exec_id), desk.tool_calls(exec_id)
        assert (len(models), len(tools), desk.endpoint.paid) == (3, 2, 3)
        for call in models:
            assert {"prompt", "response"} <= {artifact.kind for artifact in call.artifacts}
            assert (call.metadata["input_tokens"], call.metadata["output_tokens"]) == (40, 7)
            assert call.metadata["model"]
        assert all("is known" in repr(call.artifacts[0].preview) for call in tools)

    @needs("records_model_calls")
    def test_every_model_call_reads_the_tool_results_that_it_was_shown(self, desk: Desk) -> None:
        """The lineage says so."""
        desk.endpoint.script("question", use("look_up", key="a"), use("look_up", key="b"), say("fine"))
        exec_id, _ = desk.run("ask", "question")
        models, tools = desk.model_calls(exec_id), desk.tool_calls(exec_id)
        assert tools[0].call_id in models[1].parent_call_ids
        assert {tools[0].call_id, tools[1].call_id} <= set(models[2].parent_call_ids)

    @needs("records_model_calls")
    def test_a_tool_begins_once_the_answer_that_asked_for_it_is_in_the_journal(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever reads the journal then finds it, so a run that is killed in the tool doesn't ask again."""
        assert answers_known_to_tools(desk, monkeypatch, "ask") == [1, 2]


class ReplayContract(AdapterSetup):
    """A replay runs the chosen call and what reads it; the rest is reused."""

    def test_a_replay_from_a_tool_runs_the_model_call_that_reads_it(self, desk: Desk) -> None:
        """Earlier model and tool calls are neither paid nor executed again; an equal request goes out."""
        keys = ["a", "b", "c"]
        desk.endpoint.script("question", *(use("look_up", key=key) for key in keys), say("fine"))
        exec_id, _ = desk.run("ask", "question")
        before = desk.endpoint.paid
        again = desk.client.executions.replay(exec_id, from_=desk.tool_calls(exec_id)[1].call_id)
        assert again.wait() == "fine"
        assert desk.endpoint.paid - before == 2
        requests = desk.endpoint.requests()
        assert requests[before].seen == requests[2].seen
        executed = [argument for _, argument in desk.ended]
        assert executed[:4] == ["a", "b", "c", "b"]
        assert executed[4:] in ([], ["c"])

    @needs("records_model_calls")
    def test_a_replay_from_the_last_model_call_pays_for_that_one_alone(self, desk: Desk) -> None:
        """It is asked exactly what it was asked before."""
        desk.endpoint.script("question", use("look_up", key="a"), say("fine"))
        exec_id, _ = desk.run("ask", "question")
        again = desk.client.executions.replay(exec_id, from_=desk.model_calls(exec_id)[-1].call_id)
        assert again.wait() == "fine"
        requests = desk.endpoint.requests()
        assert len(requests) == 3
        assert requests[2].seen == requests[1].seen
        assert desk.ended == [("look_up", "a")]

    def test_an_overridden_tool_result_is_what_the_model_is_shown(self, desk: Desk) -> None:
        """The tool itself doesn't run."""
        desk.endpoint.script("question", use("look_up", key="a"), say("fine"))
        exec_id, _ = desk.run("ask", "question")
        tool = desk.tool_calls(exec_id)[0].call_id
        again = desk.client.executions.replay(exec_id, overrides={f"checkpoint.{tool}": "something else"})
        assert again.wait() == "fine"
        assert desk.ended == [("look_up", "a")]
        requests = desk.endpoint.requests()
        assert len(requests) == 3
        assert "something else" in json.dumps(requests[2].seen)
        assert "a is known" not in json.dumps(requests[2].seen)

    def test_other_arguments_of_a_tool_survive_a_crash_of_the_replay(self, desk: Desk) -> None:
        """Killed while the model reads the result: the tool has run once with them, and doesn't run again."""
        desk.endpoint.script("question", use("look_up", key="a"), say("fine"))
        exec_id, _ = desk.run("ask", "question")
        tool = desk.tool_calls(exec_id)[0].call_id
        again = desk.replay(exec_id, overrides={f"arguments.{tool}": {"key": "b"}})
        desk.endpoint.hold()
        worker = desk.worker(again)
        (held,) = desk.endpoint.wait_held()
        worker.kill()
        desk.endpoint.let_go()
        desk.work(again)
        assert desk.result(again) == "fine"
        assert desk.ended == [("look_up", "a"), ("look_up", "b")]
        last = desk.endpoint.requests()[-1]
        assert "b is known" in json.dumps(last.seen)
        assert last.seen == held.seen


class ConcurrencyContract(AdapterSetup):
    """Calls side by side keep their own arguments and results, live and replayed."""

    @needs("records_model_calls")
    def test_parallel_calls_of_one_tool_keep_their_arguments_and_results(self, desk: Desk) -> None:
        """The first that is called ends last."""
        desk.endpoint.script("charges", side_by_side(*(use("charge", amount=n) for n in (1, 2, 3))), say("done"))
        exec_id, _ = desk.run("ask", "charges")
        assert sorted(desk.ended) == [("charge", 1), ("charge", 2), ("charge", 3)]
        shown = json.dumps(desk.endpoint.requests()[1].seen)
        assert shown.index("charged 1") < shown.index("charged 2") < shown.index("charged 3")
        again = desk.client.executions.replay(exec_id, from_=desk.model_calls(exec_id)[-1].call_id)
        assert again.wait() == "done"
        assert desk.endpoint.requests()[2].seen == desk.endpoint.requests()[1].seen
        assert len(desk.ended) == 3

    @needs("records_model_calls")
    def test_runs_side_by_side_that_start_in_another_order_keep_their_own_answers(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each of two gathered runs finds its own calls again, whichever is first."""
        for name in ("first", "second"):
            charges = side_by_side(*(use("charge", amount=n) for n in (1, 2)))
            desk.endpoint.script(name, use("look_up", key=name), charges, say(f"{name} done"))
        exec_id, result = desk.run("together", ["first", "second"])
        assert result == ["first done", "second done"]
        assert desk.endpoint.paid == 6
        last = next(
            call for call in desk.model_calls(exec_id) if "second done" in repr([a.preview for a in call.artifacts])
        )
        monkeypatch.setenv(ORDER, "reversed")
        again = desk.client.executions.replay(exec_id, from_=last.call_id)
        assert again.wait() == ["first done", "second done"]
        assert desk.endpoint.paid == 7
        assert len(desk.ended) == 6

    def test_equal_runs_side_by_side_are_all_paid_once(self, desk: Desk) -> None:
        """Two runs that ask the same are two runs."""
        desk.endpoint.script("same", use("look_up", key="a"), say("done"))
        exec_id, result = desk.run("together", ["same", "same"])
        assert result == ["done", "done"]
        assert (desk.endpoint.paid, len(desk.ended)) == (4, 2)
        self.check_model_calls(desk, exec_id, 4)


class FaultContract(AdapterSetup):
    """What goes wrong at the endpoint."""

    @pytest.mark.parametrize("fault", ["429", "500", "disconnect"])
    def test_a_passing_fault_is_got_over_and_one_answer_is_paid(self, desk: Desk, fault: Fault) -> None:
        """By whoever retries, the SDK or the adapter; nothing before it is repeated."""
        desk.endpoint.script("question", use("look_up", key="a"), say("fine").after(fault))
        exec_id, result = desk.run("ask", "question")
        assert result == "fine"
        assert (desk.endpoint.paid, len(desk.endpoint.requests())) == (2, 3)
        assert desk.ended == [("look_up", "a")]
        self.check_model_calls(desk, exec_id, 2)

    @needs("reports_malformed_answers")
    def test_a_malformed_answer_fails_clearly_and_a_retry_goes_on_from_there(self, desk: Desk) -> None:
        """The failure says what is wrong; what was finished isn't repeated."""
        desk.endpoint.script("question", use("look_up", key="a"), say("fine").after("malformed"))
        handle = desk.flow("ask").run("question")
        with pytest.raises(KitaruExecutionError):
            handle.wait()
        failure = desk.get(handle.exec_id).failure
        assert failure is not None
        assert any(word in failure.message.lower() for word in ("json", "expecting", "malformed", "parse", "decode"))
        desk.client.executions.retry(handle.exec_id)
        desk.until_status(handle.exec_id, "completed")
        assert desk.result(handle.exec_id) == "fine"
        assert len(desk.endpoint.requests()) == 3
        assert desk.ended == [("look_up", "a")]


def answers_known_to_tools(desk: Desk, monkeypatch: pytest.MonkeyPatch, flow: str) -> list[int]:
    """How many model calls the journal has completed when each of two tool calls of a flow begins. What a run only
    holds stays held meanwhile."""
    known: list[int] = []
    enter = Noted.__enter__

    def look(noted: Noted) -> None:
        (execution,) = desk.client.executions.list()
        known.append(sum(call.status == "completed" for call in desk.model_calls(execution.exec_id)))
        enter(noted)

    monkeypatch.setattr(Noted, "__enter__", look)
    monkeypatch.setattr(Run, "tick", lambda *_: None)
    desk.endpoint.script("question", use("look_up", key="a"), use("look_up", key="b"), say("fine"))
    desk.run(flow, "question")
    return known


class StreamContract(AdapterSetup):
    """Streamed model calls are recorded whole."""

    @needs("streams")
    def test_a_tool_begins_once_the_stream_that_asked_for_it_is_in_the_journal(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Although its events are handed on while they come."""
        assert answers_known_to_tools(desk, monkeypatch, "streamed") == [1, 2]

    @needs("streams")
    def test_a_streamed_run_is_recorded_like_any_other(self, desk: Desk) -> None:
        """With tokens, and found again on replay."""
        desk.endpoint.script("question", use("look_up", key="a"), say("a fine answer in many pieces"))
        exec_id, result = desk.run("streamed", "question")
        assert result == "a fine answer in many pieces"
        assert all(request.body["stream"] for request in desk.endpoint.requests())
        self.check_model_calls(desk, exec_id, 2)
        again = desk.client.executions.replay(exec_id, from_=desk.model_calls(exec_id)[-1].call_id)
        assert again.wait() == result
        assert desk.endpoint.paid == 3
        assert desk.ended == [("look_up", "a")]

    @needs("streams")
    def test_a_stream_that_breaks_off_is_no_answer(self, desk: Desk) -> None:
        """Whether the SDK tries again or the run fails: a retry brings it to its end, and what came before counts."""
        answer = say("a fine answer in many pieces").after("cut")
        desk.endpoint.script("question", use("look_up", key="a"), answer)
        handle = desk.flow("streamed").run("question")
        try:
            result = handle.wait()
        except KitaruExecutionError:
            assert desk.get(handle.exec_id).status is ExecutionStatus.FAILED
            desk.client.executions.retry(handle.exec_id)
            desk.until_status(handle.exec_id, "completed")
            result = desk.result(handle.exec_id)
        assert result == "a fine answer in many pieces"
        assert desk.endpoint.paid == 2
        assert desk.ended == [("look_up", "a")]

    @needs("streams")
    def test_a_streamed_run_that_is_killed_goes_on_where_it_was(self, desk: Desk) -> None:
        """The finished stream isn't paid again."""
        desk.endpoint.script("question", use("look_up", key="a"), say("fine"))
        exec_id = desk.create("streamed", "question")
        desk.endpoint.hold(after=1)
        worker = desk.worker(exec_id)
        (held,) = desk.endpoint.wait_held()
        worker.kill()
        desk.endpoint.let_go()
        desk.work(exec_id)
        assert desk.result(exec_id) == "fine"
        assert desk.endpoint.paid == 2
        assert desk.endpoint.requests()[-1].seen == held.seen
        assert desk.ended == [("look_up", "a")]
