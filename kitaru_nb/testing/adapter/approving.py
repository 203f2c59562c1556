"""Contract: a person decides whether a tool runs, with no process alive while they think."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from kitaru_nb.errors import KitaruConflictError, KitaruNotFoundError
from kitaru_nb.model import ExecutionStatus
from kitaru_nb.testing.adapter.desk import AdapterSetup, Desk
from kitaru_nb.testing.adapter.script import say, use
from kitaru_nb.worker import EXIT_WAITING


class ApprovalContract(AdapterSetup):
    """Approvals are waits.

    Attributes:
        yes, no: answers of the adapter's wait that approve and that deny with the words ``too much``.
    """

    yes: Any = True
    no: Any = {"approve": False, "message": "too much"}  # noqa: RUF012 (nobody changes it)

    def waiting(self, desk: Desk, *, amount: int = 5) -> str:
        """An execution whose worker has asked for approval and is gone."""
        desk.endpoint.script("order", use("pay", amount=amount), say("all done"))
        exec_id = desk.create("approved", "order")
        desk.work(exec_id, code=EXIT_WAITING)
        assert desk.get(exec_id).status is ExecutionStatus.WAITING
        assert (desk.ended, desk.endpoint.paid) == ([], 1)
        return exec_id

    def test_an_approved_tool_runs_in_a_fresh_process(self, desk: Desk) -> None:
        """Answered through the command line; the model isn't asked again, and a second answer is refused."""
        exec_id = self.waiting(desk, amount=12345)
        (wait,) = desk.client.executions.pending_waits(exec_id)
        shown = f"{wait.question} {json.dumps(dict(wait.metadata))}"
        assert "pay" in shown
        assert "12345" in shown
        command = [sys.executable, "-m", "kitaru_nb", "executions", "input", exec_id, "--value", json.dumps(self.yes)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        desk.until_status(exec_id, "completed")
        assert desk.result(exec_id) == "all done"
        assert desk.ended == [("pay", 12345)]
        assert desk.endpoint.paid == 2
        assert "paid 12345" in json.dumps(desk.endpoint.requests()[-1].seen)
        with pytest.raises((KitaruConflictError, KitaruNotFoundError)):
            desk.client.executions.input(exec_id, value=self.no, wait=wait.name)

    def test_a_denied_tool_never_runs_and_the_model_is_told_why(self, desk: Desk) -> None:
        """With the words of the person who decided."""
        exec_id = self.waiting(desk)
        desk.client.executions.input(exec_id, value=self.no)
        desk.until_status(exec_id, "completed")
        assert desk.ended == []
        assert desk.endpoint.paid == 2
        assert "too much" in json.dumps(desk.endpoint.requests()[-1].seen)

    def test_workers_that_go_on_at_the_same_time_pay_once(self, desk: Desk) -> None:
        """Answering starts a worker; two more are started beside it."""
        exec_id = self.waiting(desk)
        desk.client.executions.input(exec_id, value=self.yes)
        workers = [desk.worker(exec_id), desk.worker(exec_id)]
        for worker in workers:
            worker.end()
        desk.until_status(exec_id, "completed")
        desk.settled([exec_id])
        assert desk.ended == [("pay", 5)]
        assert desk.endpoint.paid == 2

    def test_an_approved_payment_survives_a_crash_before_the_next_model_call(self, desk: Desk) -> None:
        """It isn't made twice, nor is the person asked twice."""
        exec_id = self.waiting(desk)
        desk.endpoint.hold()
        desk.client.executions.input(exec_id, value=self.yes)
        (held,) = desk.endpoint.wait_held()
        self.kill_worker(desk, exec_id)
        desk.endpoint.let_go()
        desk.work(exec_id)
        assert desk.result(exec_id) == "all done"
        assert desk.ended == [("pay", 5)]
        assert desk.endpoint.requests()[-1].seen == held.seen
        assert desk.client.executions.pending_waits(exec_id) == []

    def kill_worker(self, desk: Desk, exec_id: str) -> None:
        """SIGKILL for the worker that an answer started; it leads a process group of its own."""
        lease = desk.get(exec_id).lease
        assert lease is not None
        os.killpg(lease.owner.pid, signal.SIGKILL)
        desk.settled([exec_id])
