"""Failed attempts, timeouts, and what a resume and a retry do with them."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from core.bench import Bench, until
from kitaru_nb import (
    KitaruSerializationError,
    KitaruTimeoutError,
    KitaruUsageError,
    KitaruUserCodeError,
    Paused,
    checkpoint,
    flow,
)
from kitaru_nb.core.local import threads
from kitaru_nb.core.retry import Retry, as_retry

NOW = Retry(attempts=2, delay=0)


class FlakyError(Exception):
    """An error with an argument of its own."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message, code)
        self.code = code


@pytest.mark.parametrize(
    ("policy", "error", "failures", "bounds"),
    [
        (Retry(), ValueError(), 1, None),
        (Retry(attempts=1), ValueError(), 1, (0.05, 0.1)),
        (Retry(attempts=1), ValueError(), 2, None),
        (Retry(attempts=9, delay=1, backoff=2, jitter=0), ValueError(), 1, (1, 1)),
        (Retry(attempts=9, delay=1, backoff=2, jitter=0), ValueError(), 4, (8, 8)),
        (Retry(attempts=9, delay=1, backoff=2, jitter=1, max_delay=5), ValueError(), 4, (0, 5)),
        (Retry(attempts=9, delay=1, backoff=10, jitter=0, max_delay=5), ValueError(), 4, (5, 5)),
        (Retry(attempts=9, on=(OSError,)), ConnectionError(), 1, (0.05, 0.1)),
        (Retry(attempts=9, on=(OSError,)), ValueError(), 1, None),
        (Retry(attempts=9, on=(OSError,), never=(ConnectionError,)), ConnectionError(), 1, None),
        (Retry(attempts=9), KitaruTimeoutError("too long"), 1, (0.05, 0.1)),
        (Retry(attempts=9), KitaruUsageError("a misuse is the same the next time"), 1, None),
    ],
)
def test_the_policy_decides_by_type_and_number(
    policy: Retry, error: Exception, failures: int, bounds: tuple[float, float] | None
) -> None:
    delays = [policy.delay_after(error, failures) for _ in range(200)]
    if bounds is None:
        assert set(delays) == {None}
        return
    low, high = bounds
    assert all(d is not None and low <= d <= high for d in delays)
    if high > low:
        assert len(set(delays)) > 100  # drawn at random


@pytest.mark.parametrize("value", [-1, True, "2", 1.5])
def test_a_number_of_retries_that_can_not_be_is_refused(value: Any) -> None:
    with pytest.raises(KitaruUsageError, match="retries="):
        as_retry(value)


def test_each_attempt_is_recorded_with_its_error(bench: Bench) -> None:
    tries: list[int] = []

    @checkpoint(retries=NOW)
    def flaky() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise FlakyError(f"try {len(tries)}", 500 + len(tries))
        return "at last"

    @flow
    def trying() -> str:
        return flaky()

    handle = bench.run(trying)
    assert handle.wait() == "at last"
    (call,) = bench.get(handle).checkpoints
    assert [a.status for a in call.attempts] == ["failed", "failed", "completed"]
    assert [a.failure.exception_type.rpartition(".")[2] for a in call.attempts if a.failure] == ["FlakyError"] * 2
    assert "try 1" in (call.attempts[0].failure.message if call.attempts[0].failure else "")
    assert call.status == "completed"


def test_a_failure_that_is_not_to_be_retried_is_final(bench: Bench) -> None:
    tries: list[int] = []

    @checkpoint(retries=Retry(attempts=5, delay=0, on=(OSError,)))
    def picky() -> None:
        tries.append(1)
        raise ValueError("no")

    @flow
    def trying() -> None:
        picky()

    with pytest.raises(KitaruUserCodeError, match="ValueError: no") as caught:
        bench.run(trying).wait()
    assert isinstance(caught.value.__cause__, ValueError)
    assert tries == [1]


def test_attempts_go_on_counting_after_an_interruption(bench: Bench) -> None:
    tries: list[int] = []

    @checkpoint(retries=Retry(attempts=3, delay=0))
    def flaky() -> str:
        tries.append(1)
        if len(tries) == 2:
            raise Paused("cut off in the second attempt")
        raise ValueError(f"try {len(tries)}")

    @flow
    def trying() -> str:
        return flaky()

    exec_id = bench.create(trying)
    bench.advance(exec_id, trying)
    bench.advance(exec_id, trying)
    assert len(tries) == 5  # the first, the one cut off, and three more
    (call,) = bench.get(exec_id).checkpoints
    assert [a.attempt_id.rpartition("/")[2] for a in call.attempts] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("is_async", [False, True])
def test_an_attempt_that_takes_too_long_is_given_up_and_tried_again(bench: Bench, is_async: bool) -> None:
    tries: list[int] = []
    never = threading.Event()

    # More than one, because the machine can be so busy that a quick attempt takes too long as well.
    retries = Retry(attempts=20, delay=0)

    @checkpoint(timeout=0.05, retries=retries)
    def slow() -> str:
        tries.append(1)
        while len(tries) == 1:
            never.wait(0.01)
        return "quick"

    @checkpoint(name="slow", timeout=0.05, retries=retries)
    async def slow_async() -> str:
        tries.append(1)
        if len(tries) == 1:
            await asyncio.Event().wait()
        return "quick"

    @flow
    def trying() -> str:
        return slow()

    @flow
    async def trying_async() -> str:
        return await slow_async()

    handle = bench.run(trying_async if is_async else trying)
    assert handle.wait() == "quick"
    (call,) = bench.get(handle).checkpoints
    failure = call.attempts[0].failure
    assert failure is not None
    assert failure.exception_type == "kitaru_nb.errors.KitaruTimeoutError"
    assert "'slow' took longer than its timeout of 0.05 s" in failure.message


def test_a_timeout_of_the_users_own_is_not_taken_for_ours(bench: Bench) -> None:
    @checkpoint(timeout=10)
    async def inner() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    @flow
    async def trying() -> str:
        try:
            await inner()
        except TimeoutError as error:
            return type(error).__name__
        return "no error"

    assert bench.run(trying).wait() == "TimeoutError"


def test_calls_inside_a_checkpoint_with_a_timeout_have_their_places(bench: Bench) -> None:
    @checkpoint
    def leaf(n: int) -> int:
        return n

    @checkpoint(timeout=10)
    def tree() -> int:
        return leaf(1) + leaf(2)

    @flow
    def planting() -> int:
        return tree()

    handle = bench.run(planting)
    assert handle.wait() == 3
    places = [e.body.get("place") for e in bench.events(handle) if e.kind == "checkpoint.completed"]
    assert places == [0, 1, 0]


def test_the_thread_of_an_attempt_that_took_too_long_does_no_more_work(bench: Bench) -> None:
    went_on = threading.Event()
    after: list[str] = []

    @checkpoint
    def leaf(n: int) -> int:
        if n == 1:
            went_on.wait(60)
        after.append(f"leaf {n}")
        return n

    @checkpoint(timeout=0.05)
    def tree() -> None:
        leaf(1)
        leaf(2)

    @flow
    def planting() -> str:
        try:
            tree()
        except KitaruTimeoutError:
            went_on.set()
        return "given up"

    assert bench.run(planting).wait() == "given up"
    zombies = [t for t in threading.enumerate() if t.name == "tree-timeout"]
    for zombie in zombies:
        zombie.join(60)
    assert "leaf 2" not in after


def test_a_failure_that_the_flow_handled_is_raised_again_on_resume_without_running(bench: Bench) -> None:
    ran: list[str] = []
    cut = [True]

    @checkpoint(retries=Retry(attempts=1, delay=0))
    def broken() -> str:
        ran.append("broken")
        raise FlakyError("down", 503)

    @flow
    def careful() -> str:
        try:
            return broken()
        except FlakyError as error:
            if cut.pop() if cut else False:
                raise Paused("cut off") from error
            return f"handled {error.code}"

    exec_id = bench.create(careful)
    bench.advance(exec_id, careful)
    assert bench.finish(exec_id, careful) == "handled 503"
    assert ran == ["broken"] * 2


def test_a_retry_runs_again_what_failed_and_keeps_what_completed(bench: Bench) -> None:
    ran: list[str] = []

    @checkpoint
    def first() -> str:
        ran.append("first")
        return "one"

    @checkpoint(retries=Retry(attempts=1, delay=0))
    def second() -> str:
        ran.append("second")
        if len(ran) < 4:
            raise ValueError("not yet")
        return "two"

    @flow
    def both() -> list[str]:
        return [first(), second()]

    handle = bench.run(both)
    with pytest.raises(KitaruUserCodeError, match=f"kitaru executions retry {handle.exec_id}"):
        handle.wait()
    bench.executions.retry(handle.exec_id)
    assert handle.wait() == ["one", "two"]
    assert ran == ["first", "second", "second", "second"]
    call = bench.get(handle).checkpoints[1]
    assert [a.status for a in call.attempts] == ["failed", "failed", "completed"]


def test_a_retried_parent_runs_its_failed_child_again_and_keeps_the_finished_one(bench: Bench) -> None:
    ran: list[str] = []

    @checkpoint
    def good() -> str:
        ran.append("good")
        return "good"

    @checkpoint
    def flaky() -> str:
        ran.append("flaky")
        if ran.count("flaky") == 1:
            raise ValueError("once")
        return "flaky"

    @checkpoint
    def middle() -> str:
        ran.append("middle")
        return flaky()

    @checkpoint(retries=NOW)
    def agent() -> list[str]:
        return [good(), middle()]

    @flow
    def working() -> list[str]:
        return agent()

    assert bench.run(working).wait() == ["good", "flaky"]
    assert ran == ["good", "middle", "flaky", "middle", "flaky"]


def test_a_further_attempt_may_take_another_way(bench: Bench) -> None:
    tries: list[int] = []

    @checkpoint
    def model(prompt: str) -> str:
        return f"answer to {prompt}"

    @checkpoint(retries=NOW)
    def agent() -> str:
        tries.append(1)
        answer = model(f"prompt {len(tries)}")
        if len(tries) == 1:
            raise ValueError("can't be parsed")
        return answer

    @flow
    def working() -> str:
        return agent()

    assert bench.run(working).wait() == "answer to prompt 2"


def test_a_flow_with_retries_goes_on_by_itself(bench: Bench) -> None:
    ran: list[str] = []

    @checkpoint
    def step() -> str:
        ran.append("step")
        return "step"

    @flow(retries=Retry(attempts=2, delay=0))
    def stumbling() -> str:
        step()
        ran.append("body")
        if ran.count("body") < 3:
            raise ConnectionError("stumbled")
        return "through"

    handle = bench.run(stumbling)
    assert handle.wait() == "through"
    assert ran == ["step", "body", "body", "body"]
    assert bench.kinds(handle).count("execution.failed") == 2
    assert bench.get(handle).failure is None


@pytest.mark.parametrize("ending", ["interrupted", "cancelled"])
def test_a_flow_that_waits_for_its_retry_runs_and_can_be_paused_or_cancelled(bench: Bench, ending: str) -> None:
    tries: list[int] = []

    @flow(retries=Retry(attempts=1, delay=60))
    def stumbling() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("stumbled")
        return "through"

    handle = bench.run(stumbling)
    until(lambda: bench.kinds(handle)[-2:] == ["execution.failed", "execution.claimed"])
    assert handle.status == "running"
    if ending == "cancelled":
        bench.executions.cancel(handle.exec_id)
    else:
        until(lambda: (run := threads[handle.exec_id].run) and run.lease.epoch == 2)
        threads[handle.exec_id].interrupt()
    until(lambda: handle.status == ending)
    assert tries == [1]
    if ending == "interrupted":
        bench.executions.resume(handle.exec_id)
        assert handle.wait() == "through"


def test_retries_given_to_run_hold_for_a_worker_that_finds_only_the_flow(bench: Bench) -> None:
    tries: list[int] = []

    @flow
    def stumbling() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("stumbled")
        return "through"

    exec_id = bench.create(stumbling.with_options(retries=Retry(attempts=2, delay=0)))
    assert bench.advance(exec_id, stumbling.with_options(retries=Retry(delay=0))).value == "through"


def test_a_result_that_can_not_be_persisted_is_a_clear_error_and_leaves_the_journal_whole(bench: Bench) -> None:
    ran: list[int] = []

    @checkpoint(retries=NOW)
    def open_lock() -> Any:
        ran.append(1)
        return {"lock": threading.Lock()}

    @checkpoint
    def fine() -> str:
        return "fine"

    @flow
    def careful() -> str:
        with pytest.raises(KitaruSerializationError, match=r"open_lock can't be persisted: .*lock"):
            open_lock()
        return fine()

    handle = bench.run(careful)
    assert handle.wait() == "fine"
    assert ran == [1]  # it would be the same the next time
    assert bench.statuses(handle) == {"open_lock": "failed", "fine": "completed"}


def test_a_flow_result_that_can_not_be_persisted_fails_the_execution(bench: Bench) -> None:
    @flow
    def returning() -> Any:
        return (n for n in range(3))

    with pytest.raises(KitaruUserCodeError, match="generator"):
        bench.run(returning).wait()


def test_an_exception_that_does_not_pickle_is_told_in_words_on_resume(bench: Bench) -> None:
    cut = [True]
    seen: list[Exception] = []

    class Local(Exception):
        """Can't be found by another process."""

    @checkpoint
    def broken() -> None:
        raise Local("secret sauce")

    @flow
    def careful() -> str:
        try:
            broken()
        except Exception as error:
            seen.append(error)
        if cut:
            cut.clear()
            raise Paused("cut off")
        return "done"

    exec_id = bench.create(careful)
    bench.advance(exec_id, careful)
    assert bench.finish(exec_id, careful) == "done"
    assert isinstance(seen[1], KitaruUserCodeError)
    assert "Local: secret sauce" in str(seen[1])


def test_a_sync_retry_waits_for_its_delay(bench: Bench) -> None:
    instants: list[float] = []

    @checkpoint(retries=Retry(attempts=2, delay=0.05, backoff=2, jitter=0))
    def flaky() -> None:
        instants.append(time.monotonic())
        if len(instants) < 3:
            raise ValueError("again")

    @flow
    def trying() -> None:
        flaky()

    bench.run(trying).wait()
    first, second, third = instants
    assert second - first >= 0.05
    assert third - second >= 0.1
