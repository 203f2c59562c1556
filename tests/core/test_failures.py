"""Failures as they are recorded: whatever the exception is like, and without keeping alive what it holds."""

from __future__ import annotations

import copyreg
import gc
import pickle
import sys
import threading
import time
import weakref
from typing import Any

import pytest

from core.bench import Bench, let_go
from kitaru_nb import KitaruUsageError, KitaruUserCodeError, Retry, checkpoint, flow
from kitaru_nb.core.failures import MAX_MESSAGE, MAX_TRACEBACK, failure_body, pickled
from kitaru_nb.core.local import threads


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_exception_whose_str_raises_is_a_failure_as_any(bench: Bench) -> None:
    @checkpoint(retries=1)
    def step() -> None:
        raise Unspeakable

    @flow
    def failing() -> None:
        step()

    handle = bench.run(failing)
    with pytest.raises(KitaruUserCodeError, match="Unspeakable"):
        handle.wait()
    call = bench.get(handle).checkpoints[0]
    assert (call.status, len(call.attempts)) == ("failed", 2)
    assert call.failure is not None
    assert call.failure.message == "<its str() raises RuntimeError>"


def test_of_a_huge_exception_beginning_and_end_are_kept() -> None:
    error = ValueError("begin" + "x" * 5_000_000 + "end")
    body = failure_body(error)
    assert body["message"].startswith("begin")
    assert body["message"].endswith("end")
    assert "[… 4,990,008 characters …]" in body["message"]
    assert len(body["message"]) < MAX_MESSAGE + 100
    assert len(body["traceback"]) < MAX_TRACEBACK + 100
    assert pickled(error) is None
    assert pickled(ValueError("small")) is not None


def test_a_failed_flow_keeps_nothing_alive_that_its_frames_held(bench: Bench) -> None:
    class Data:
        pass

    held: list[weakref.ref[Any]] = []

    @flow
    def failing() -> None:
        data = Data()
        held.append(weakref.ref(data))
        raise ValueError(data)

    handle = bench.run(failing)
    let_go(handle)
    with pytest.raises(KitaruUserCodeError) as caught:
        handle.wait()
    assert isinstance(caught.value.__cause__, ValueError)
    exec_id = handle.exec_id
    del handle, caught
    gc.collect()
    assert threads[exec_id].flow is not None  # a retry finds its flow
    assert held[0]() is None


def test_a_handle_tells_the_failure_of_a_later_turn(bench: Bench) -> None:
    reasons = ["first", "second"]

    @flow
    def failing() -> None:
        raise ValueError(reasons.pop(0))

    handle = bench.run(failing)
    let_go(handle)
    bench.client.executions.retry(handle.exec_id)
    with pytest.raises(KitaruUserCodeError, match="second") as caught:
        handle.wait()
    assert str(caught.value.__cause__) == "second"


def test_delays_stay_below_their_bound_after_any_number_of_failures() -> None:
    retry = Retry(attempts=5_000, delay=0.5, max_delay=7, jitter=0)
    assert retry.delay_after(OSError(), 4_000) == 7


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": "3"},
        {"attempts": 2.5},
        {"attempts": -1},
        {"delay": "1"},
        {"delay": float("nan")},
        {"max_delay": -1},
        {"on": [ValueError]},
        {"never": ("ValueError",)},
    ],
    ids=str,
)
def test_a_policy_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(KitaruUsageError, match="can't be: expected") as caught:
        Retry(**options)
    assert "Retry(attempts=3" in (caught.value.fix or "")


@pytest.mark.parametrize(
    "options", [{"timeout": "30"}, {"timeout": True}, {"timeout": float("nan")}, {"name": ""}], ids=str
)
def test_an_option_of_a_checkpoint_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(KitaruUsageError, match="can't be: expected") as caught:
        checkpoint(**options)(len)
    assert "@checkpoint(" in (caught.value.fix or "")


def test_what_a_submitted_call_submits_is_waited_for_too(bench: Bench) -> None:
    ended = threading.Event()

    @checkpoint
    def leaf(n: int) -> int:
        return n

    @checkpoint
    def branch() -> int:
        ended.wait(0.2)  # the flow's body has ended by then
        return sum(leaf.map([1, 2, 3]).results())

    @flow
    def forgetful() -> str:
        branch.submit()
        return "done"

    handle = bench.run(forgetful)
    assert handle.wait() == "done"
    assert set(bench.statuses(handle).values()) == {"completed"}
    assert len(bench.statuses(handle)) == 4


def test_an_object_whose_call_is_asynchronous_is_an_asynchronous_checkpoint(bench: Bench) -> None:
    class Doubled:
        async def __call__(self, n: int) -> int:
            return n * 2

    doubled = checkpoint(Doubled(), name="doubled")

    @flow
    async def working() -> int:
        return await doubled(4)

    assert bench.run(working).wait() == 8


def test_what_a_library_does_to_pickles_of_exceptions_loses_nothing_of_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As tblib does, which comes with Dask: it makes them again without their ``__init__``."""
    monkeypatch.setitem(
        copyreg.dispatch_table, SystemExit, lambda error: (SystemExit.__new__, (SystemExit, *error.args))
    )
    assert pickle.loads(pickle.dumps(SystemExit(3))).code is None
    assert pickle.loads(pickled(SystemExit(3)) or b"").code == 3


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_sys_exit_in_a_checkpoint_is_its_failure_and_the_flow_sees_it(bench: Bench, is_async: bool) -> None:
    """Again when the flow is resumed; it isn't tried again, and what the flow does about it counts."""
    ran = []

    @checkpoint(retries=2)
    def leave() -> None:
        ran.append("leave")
        sys.exit(3)

    @checkpoint(name="leave", retries=2)
    async def leave_async() -> None:
        ran.append("leave")
        sys.exit(3)

    @checkpoint
    def note(code: object) -> object:
        ran.append("note")
        if len(ran) == 2:
            raise KeyboardInterrupt
        return code

    @flow
    def leaving() -> object:
        try:
            leave()
        except SystemExit as error:
            return note(error.code)

    @flow(name="leaving")
    async def leaving_async() -> object:
        try:
            await leave_async()
        except SystemExit as error:
            return note(error.code)

    chosen = leaving_async if is_async else leaving
    exec_id = bench.create(chosen)
    assert bench.advance(exec_id, chosen).status == "interrupted"
    (call,) = bench.get(exec_id).checkpoints
    assert (call.name, call.status, len(call.attempts)) == ("leave", "failed", 1)
    assert call.attempts[0].failure.exception_type == "builtins.SystemExit"
    assert bench.advance(exec_id, chosen).value == 3
    assert ran == ["leave", "note", "note"]


@pytest.mark.parametrize("how", ["at a bytecode", "inside C"])
def test_a_call_whose_thread_a_timeout_ends_has_not_failed_by_itself(bench: Bench, how: str) -> None:
    """It runs again with the next attempt at the checkpoint around it, and only that one counts."""
    ran: list[threading.Thread] = []
    tried_again = threading.Event()

    @checkpoint
    def inner() -> int:
        ran.append(threading.current_thread())
        number = len(ran)
        if number == 1:
            if how == "inside C":
                tried_again.wait()
            while how == "at a bytecode":
                time.sleep(0.001)
        else:
            tried_again.set()
            ran[0].join(60)
        return number

    @checkpoint(timeout=0.3, retries=Retry(attempts=9, delay=0))
    def outer() -> int:
        return inner()

    handle = bench.run(flow(lambda: outer()))
    assert handle.wait() > 1
    failed = {event.body["name"] for event in bench.events(handle) if event.kind == "checkpoint.failed"}
    assert failed == {"outer"}
